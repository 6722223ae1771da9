//! `WWW-Authenticate` (RFC 9110, 11.6.1): which proof the host wants.

use http_auth::ChallengeParser;
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use crate::error::{Error, Result};
use crate::hosts::is_loopback;

/// A proof that we can give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token of a token server.
    Bearer {
        /// The token server's URL.
        realm: Url,
        /// The name it knows the registry by.
        service: Option<String>,
        /// The scopes that the registry says the request needs.
        scope: Vec<String>,
    },
}

impl Challenge {
    /// What holds for every request to the host; the scope was that of the refused one.
    pub(crate) fn without_scope(&self) -> Self {
        match self {
            Self::Basic => Self::Basic,
            Self::Bearer { realm, service, .. } => {
                Self::Bearer { realm: realm.clone(), service: service.clone(), scope: Vec::new() }
            }
        }
    }

    /// The challenge among a 401's that we can meet, Bearer before Basic. `origin` is the URL that
    /// was refused. None if the host names no challenge, or only others.
    pub fn choose(headers: &HeaderMap, origin: &Url, have_credentials: bool) -> Result<Option<Self>> {
        let mut basic = false;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            for challenge in ChallengeParser::new(text).map_while(std::result::Result::ok) {
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = true;
                }
                if !challenge.scheme.eq_ignore_ascii_case("bearer") {
                    continue;
                }
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
                };
                let Some(realm) = parameter("realm") else { continue };
                return Ok(Some(Self::Bearer {
                    realm: permitted_realm(&realm, origin)?,
                    service: parameter("service"),
                    scope: parameter("scope")
                        .map(|scope| scope.split_whitespace().map(str::to_owned).collect())
                        .unwrap_or_default(),
                }));
            }
        }
        Ok((basic && have_credentials).then_some(Self::Basic))
    }
}

/// The realm as a URL, if credentials may go there.
fn permitted_realm(realm: &str, origin: &Url) -> Result<Url> {
    let host = origin.host_str().unwrap_or_default();
    let problem = |problem: String| Error::Protocol {
        host: host.to_owned(),
        operation: "log in to",
        object: host.to_owned(),
        problem,
    };
    let url =
        origin.join(realm).map_err(|error| problem(format!("its realm {realm:?} is not a URL: {error}")))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if origin.scheme() == "http" || is_loopback(&url) => Ok(url),
        _ => Err(problem(format!("its realm {realm:?} is not HTTPS, so no credentials go there"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(values: &[&str], origin: &str) -> Result<Option<Challenge>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::choose(&headers, &Url::parse(origin).unwrap(), true)
    }

    #[allow(clippy::unnecessary_wraps)]
    fn bearer(realm: &str, service: Option<&str>, scope: &[&str]) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: Url::parse(realm).unwrap(),
            service: service.map(str::to_owned),
            scope: scope.iter().map(|&scope| scope.to_owned()).collect(),
        })
    }

    #[test]
    fn challenges_of_real_registries() {
        let origin = "https://registry.example/v2/";
        let cases: [(&[&str], Option<Challenge>); 9] = [
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
                ],
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    &["repository:library/alpine:pull"],
                ),
            ),
            (&[r#"Basic realm="Registry Realm""#], Some(Challenge::Basic)),
            (&[r"BASIC realm=x"], Some(Challenge::Basic)),
            // Both, in one header or in two: Bearer is preferred.
            (
                &[r#"Basic realm="x", Bearer realm="https://a.example/t""#],
                bearer("https://a.example/t", None, &[]),
            ),
            (
                &[r#"Basic realm="x""#, r#"bearer realm="https://a.example/t""#],
                bearer("https://a.example/t", None, &[]),
            ),
            // A comma and an escaped quote inside a value.
            (
                &[
                    r#"Bearer realm="https://a.example/t",service="a \"b\"",scope="repository:x:pull,push registry:catalog:*""#,
                ],
                bearer(
                    "https://a.example/t",
                    Some("a \"b\""),
                    &["repository:x:pull,push", "registry:catalog:*"],
                ),
            ),
            // Relative to the registry.
            (&[r#"Bearer realm="/token""#], bearer("https://registry.example/token", None, &[])),
            (&["Negotiate"], None),
            (&[r#"Bearer service="no realm""#], None),
        ];
        for (values, expected) in cases {
            assert_eq!(choose(values, origin).unwrap(), expected, "{values:?}");
        }
    }

    #[test]
    fn credentials_do_not_go_to_a_plain_realm_of_a_secure_registry() {
        let plain = r#"Bearer realm="http://auth.example/token""#;
        assert!(choose(&[plain], "https://registry.example/v2/").is_err());
        assert!(choose(&[plain], "http://registry.example/v2/").is_ok());
        assert!(choose(&[r#"Bearer realm="http://127.0.0.1:5/t""#], "https://registry.example/v2/").is_ok());
        assert!(
            choose(&[r#"Bearer realm="ftp://auth.example/token""#], "https://registry.example/v2/").is_err()
        );
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for text in
            ["", ",,,", "Bearer", "Bearer realm", "Bearer realm=\"unterminated", "\"", "=", "Bearer =x"]
        {
            assert_eq!(choose(&[text], "https://registry.example/").unwrap_or(None), None, "{text:?}");
        }
    }
}
