//! Addresses of repositories: `https://host/repo.git#ref:dir`, `git@host:repo`, `git://…`, `ssh://…`,
//! with `?ref= branch= tag= subdir= checksum= keep-git-dir= submodules=` instead of the fragment.

use crate::dockerfile::lint::boolean;
use crate::dockerfile::quote::quoted;
use crate::graph::Git;

/// An address of a repository, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// What is fetched.
    pub git: Git,
    /// Whether `.git` stays, if it says.
    pub keep_git_dir: Option<bool>,
}

/// Whether this is an address of a repository, be it right or wrong.
pub(super) fn is_reference(text: &str) -> bool {
    reference(text).is_some()
}

/// Reads an address; `None` if the text is none, but a path or the URL of a file.
pub fn reference(text: &str) -> Option<Result<Reference, String>> {
    if text.starts_with("./") || text.starts_with("../") {
        return None;
    }
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    let scheme = address.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let (remote, query) = match scheme.as_deref() {
        Some("http" | "https" | "ssh" | "git") => {
            let (remote, query) = address.split_once('?').unwrap_or((address, ""));
            let path = remote.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
            let web = matches!(scheme.as_deref(), Some("http" | "https"));
            if web && decoded(path.unwrap_or_default()).strip_suffix(".git").is_none() {
                return None;
            }
            (remote, query)
        }
        Some(_) => return None,
        None if is_scp(address) => (address, ""),
        None => return None,
    };
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let some = |text: &str| (!text.is_empty()).then(|| decoded(text));
    let mut found = Reference {
        git: Git {
            remote: remote.to_owned(),
            reference: some(reference),
            subdir: some(subdir),
            ..Git::default()
        },
        keep_git_dir: None,
    };
    Some(found.query(query).map(|()| found))
}

impl Reference {
    fn query(&mut self, query: &str) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        let mut seen: Vec<String> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decoded(key), decoded(value));
            if seen.contains(&key) {
                return Err(format!("query {} has multiple values", quoted(&key)));
            }
            let switch = matches!(key.as_str(), "submodules" | "keep-git-dir");
            if value.is_empty() && !switch {
                return Err(format!("query {} has no value", quoted(&key)));
            }
            let truth = || match value.as_str() {
                "" => Ok(true),
                value => boolean(value).ok_or_else(|| format!("invalid {key} value: {}", quoted(value))),
            };
            match key.as_str() {
                "ref" => set(&mut self.git.reference, &value, "ref")?,
                "tag" => tag = Some(prefixed("refs/tags/", &value)),
                "branch" => branch = Some(prefixed("refs/heads/", &value)),
                "subdir" => set(&mut self.git.subdir, &value, "subdir")?,
                "checksum" | "commit" => self.git.checksum = Some(value.clone()),
                "keep-git-dir" => self.keep_git_dir = Some(truth()?),
                "submodules" => self.git.skip_submodules = !truth()?,
                _ => return Err(format!("unexpected query {}", quoted(&key))),
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_owned());
        }
        if let Some(name) = tag.or(branch) {
            set(&mut self.git.reference, &name, "ref")?;
        }
        if self.git.reference.is_none() {
            self.git.reference.clone_from(&self.git.checksum);
        }
        Ok(())
    }
}

fn set(slot: &mut Option<String>, value: &str, what: &str) -> Result<(), String> {
    match slot {
        Some(known) if known != value => {
            Err(format!("{what} conflicts: {} vs {}", quoted(known), quoted(value)))
        }
        _ => {
            *slot = Some(value.to_owned());
            Ok(())
        }
    }
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// `user@host:path`, as scp(1) has it.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let plain = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    plain(user) && plain(host) && !path.is_empty()
}

/// A text with `%41` as `A`.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = (byte == b'%')
            .then(|| after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(hex.unwrap_or(byte));
        rest = if hex.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let read = |text| reference(text).unwrap().unwrap();
        let git = read("https://github.com/a/b.git#v1:sub").git;
        assert_eq!(git.remote, "https://github.com/a/b.git");
        assert_eq!((git.reference.as_deref(), git.subdir.as_deref()), (Some("v1"), Some("sub")));
        assert_eq!(read("git@github.com:a/b.git").git.remote, "git@github.com:a/b.git");
        let query = read("https://x/b.git?tag=v1&checksum=abc&keep-git-dir&submodules=false");
        assert_eq!(query.git.reference.as_deref(), Some("refs/tags/v1"));
        assert!(query.git.skip_submodules && query.keep_git_dir == Some(true));
        for path in ["./a.git", "a.git", "https://x/b.tar", "ftp://x/b.git", "a b@c:d"] {
            assert!(reference(path).is_none(), "{path}");
        }
        assert_eq!(reference("https://x/b.git?x=1").unwrap().unwrap_err(), "unexpected query \"x\"");
        assert!(reference("https://x/b.git?tag=a&branch=b").unwrap().is_err());
        assert!(reference("https://x/b.git?ref=a#b").unwrap().is_err());
    }
}
