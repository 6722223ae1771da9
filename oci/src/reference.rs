//! Image references as people type them, normalised exactly as Docker does.
//!
//! ```text
//!   alpine                    → docker.io/library/alpine
//!   me/app:1.2                → docker.io/me/app:1.2
//!   localhost:5000/app        → localhost:5000/app
//!   [::1]:5000/app@sha256:…   → [::1]:5000/app@sha256:…
//!
//!   reference  = [ registry "/" ] path [ ":" tag ] [ "@" digest ]
//!   registry   = host [ ":" port ]     the first component, if it is "localhost", holds "." or
//!                                      ":", or has an upper-case letter
//!   path       = component *( "/" component ), at most 255 characters
//!   component  = 1*[a-z0-9] *( ( "." | "_" | "__" | 1*"-" ) 1*[a-z0-9] )
//!   tag        = [A-Za-z0-9_] *127[A-Za-z0-9_.-]
//! ```
//! (distribution-spec "Pulling manifests", and Docker's familiar names.)

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::{Error, Result, shown};

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names that have none.
pub const DEFAULT_TAG: &str = "latest";

/// What Docker Hub was called in old references.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Where Docker Hub keeps names of one component.
const OFFICIAL: &str = "library/";
/// The longest repository path that registries take (Docker's limit).
const MAX_PATH: usize = 255;
/// The longest tag (distribution-spec).
const MAX_TAG: usize = 128;

/// The name of an image: registry, repository, and a tag, a digest, both or neither.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: Box<str>,
    repository: Box<str>,
    tag: Option<Box<str>>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and optional port, such as `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry, such as `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository: `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as Docker's listings show it: `alpine`, `me/app`, `quay.io/me/app`. Where Docker's would be read as
    /// another registry's (`docker.io/quay.io/app`), it is the whole name.
    pub fn familiar_name(&self) -> String {
        if &*self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') && !is_id(rest) => rest.to_owned(),
            None if split_registry(&self.repository).1.len() < self.repository.len() => self.name(),
            _ => self.repository.to_string(),
        }
    }

    /// The whole reference with its familiar name.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.push_suffix(&mut text);
        text
    }

    /// The same with `latest` if there is neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.into());
        }
        self
    }

    /// The same repository with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(bad(tag, "invalid tag"));
        }
        Ok(Self { tag: Some(tag.into()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The repository alone, without tag and digest.
    #[must_use]
    pub fn without_tag(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(bad(text, "an empty name"));
        }
        if is_id(text) {
            return Err(bad(text, "64 hexadecimal digits are an ID, not a repository name"));
        }
        let (registry, rest) = split_registry(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(text, digest)?)),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let path = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad(text, &format!("repository name ({}) must be lowercase", shown(&path))));
        }
        if !is_registry(registry) {
            return Err(bad(text, "an invalid registry host"));
        }
        if !path.split('/').all(is_component) {
            return Err(bad(text, "an invalid repository name"));
        }
        if path.len() > MAX_PATH {
            return Err(bad(text, "repository name must not be more than 255 characters"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad(text, "an invalid tag"));
        }
        Ok(Self { registry: registry.into(), repository: path.into(), tag: tag.map(Into::into), digest })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn bad(text: &str, problem: &str) -> Error {
    Error::Reference { text: shown(text), problem: problem.to_owned() }
}

/// Docker's rule for whether the first component is a host.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn parse_digest(text: &str, digest: &str) -> Result<Digest> {
    digest.parse().map_err(|error| match error {
        Error::Digest { problem, .. } => bad(text, problem),
        other => other,
    })
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, "")) => return is_ipv6(v6),
            Some((v6, port)) => match port.strip_prefix(':') {
                Some(port) => return is_ipv6(v6) && is_port(port),
                None => return false,
            },
            None => return false,
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_ipv6(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes.split(|&b| alphanumeric(b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    text.len() <= MAX_TAG
        && !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (given, full, familiar) in [
            ("alpine", "docker.io/library/alpine", "alpine"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
            ("index.docker.io/me/app", "docker.io/me/app", "me/app"),
            ("library/alpine", "docker.io/library/alpine", "alpine"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("me/app", "docker.io/me/app", "me/app"),
            ("localhost", "docker.io/library/localhost", "localhost"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("test.com:tag", "docker.io/library/test.com:tag", "test.com:tag"),
            ("Asdf.com/foo/bar", "Asdf.com/foo/bar", "Asdf.com/foo/bar"),
            ("HOST/foo", "HOST/foo", "HOST/foo"),
            ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
            ("a__b/c---d.e", "docker.io/a__b/c---d.e", "a__b/c---d.e"),
            // Docker shows `quay.io/app`, which is another image.
            ("docker.io/quay.io/app", "docker.io/quay.io/app", "docker.io/quay.io/app"),
            ("docker.io/localhost/app:1", "docker.io/localhost/app:1", "docker.io/localhost/app:1"),
        ] {
            let reference: Reference = given.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{given}");
            assert_eq!(reference.familiar(), familiar, "{given}");
        }
        let like_an_id = format!("library/{}", "0a".repeat(32));
        assert_eq!(like_an_id.parse::<Reference>().unwrap().familiar(), like_an_id);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a/".repeat(128) + "a";
        let long_tag = format!("a:{}", "t".repeat(129));
        for bad in [
            "",
            "Uppercase",
            "docker/Docker",
            "a//b",
            "a/",
            "/a",
            ":tag",
            "@sha256:00",
            "a:",
            "a:-x",
            "a:.x",
            "foo-/bar",
            "do..cker/x",
            "a___b",
            "bad_host.com:80/a",
            "-a.com/b",
            "[::1/a",
            "[xyz]/a",
            "a b",
            "https://example.com/a",
            "example.com/.dots/x",
            "a@sha256:12",
            "a@md5:d41d8cd98f00b204e9800998ecf8427e",
            "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a",
            "h:p/a",
            "h:/a",
            "a\n",
            "é",
            &long,
            &long_tag,
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_of_255_characters_is_the_longest() {
        let path = format!("{}a", "a/".repeat(127));
        assert_eq!(path.len(), 255);
        assert!(format!("example.com/{path}").parse::<Reference>().is_ok());
        assert!(format!("example.com/{path}a").parse::<Reference>().is_err());
    }

    #[test]
    fn a_default_tag_is_given_only_where_nothing_else_is() {
        let digest = Digest::sha256(b"");
        let tagged = |text: &str| text.parse::<Reference>().unwrap().with_default_tag();
        assert_eq!(tagged("a").tag(), Some("latest"));
        assert_eq!(tagged("a:b").tag(), Some("b"));
        assert_eq!(tagged(&format!("a@{digest}")).tag(), None);
        assert_eq!(tagged(&format!("a:b@{digest}")).digest(), Some(&digest));
    }

    proptest! {
        #[test]
        fn the_full_form_and_the_familiar_form_parse_back(
            registry in "([a-z0-9]{1,5}\\.[a-z0-9]{1,5}(:[0-9]{1,4})?/)?",
            path in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}){0,3}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
            digest: Option<bool>,
        ) {
            // Without a registry, a first component with a dot would be one.
            let path = if registry.is_empty() { path.replace('.', "_x_") } else { path };
            let digest = digest.map_or(String::new(), |b| format!("@{}", Digest::sha256(&[u8::from(b)])));
            let reference: Reference = format!("{registry}{path}{tag}{digest}").parse().unwrap();
            prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
            prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<Reference>();
        }
    }
}
