//! What a registry's refusal means.
//!
//! ```text
//!   HTTP/1.1 404 Not Found
//!   {"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}
//! ```
//!
//! The envelope and its codes are `oci-client`'s.

use oci_client::errors::{OciEnvelope, OciErrorCode};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use crate::error::Error;
use crate::transport;

/// The largest refusal that is read; the rest says no more.
pub(crate) const MAX_REFUSAL: u64 = 64 << 10;

/// How much of a server's words is shown.
const MAX_SHOWN: usize = 400;

/// What a request was about, for messages and for the meaning of "not found".
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// A manifest, by the reference as the user knows it.
    Manifest(String),
    /// A blob: digest and repository.
    Blob(String, String),
    /// An upload into a repository.
    Upload(String),
    /// A repository as a whole.
    Repository(String),
    /// The registry itself.
    Registry(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blob(digest, repository) => write!(f, "blob {digest} of {repository}"),
            Self::Manifest(name) | Self::Upload(name) | Self::Repository(name) | Self::Registry(name) => {
                f.write_str(name)
            }
        }
    }
}

/// A refusal: the status, the head and the body of an answer.
pub(crate) struct Refusal<'a> {
    pub(crate) host: String,
    pub(crate) operation: &'static str,
    pub(crate) subject: &'a Subject,
    pub(crate) authenticated: bool,
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

impl Refusal<'_> {
    pub(crate) fn into_error(self) -> Error {
        let code = code(self.body);
        let message = message(self.body);
        let Self { host, operation, subject, authenticated, status, headers, .. } = self;
        let object = subject.to_string();
        if status == StatusCode::BAD_REQUEST && message.contains("HTTP request to an HTTPS server") {
            return Error::ServerSpeaksHttps { host };
        }
        match (code, status.as_u16()) {
            (Some(OciErrorCode::Toomanyrequests), _) | (_, 429) => {
                Error::RateLimited { host, retry_after: transport::retry_after(headers), message }
            }
            (Some(OciErrorCode::ManifestUnknown), _) => {
                Error::ManifestNotFound { reference: object, message }
            }
            (Some(OciErrorCode::NameUnknown), _) => Error::RepositoryNotFound { repository: object, message },
            (Some(OciErrorCode::Denied | OciErrorCode::Unauthorized), _) | (_, 401 | 403) => {
                Error::Denied { host, operation, object, message, authenticated }
            }
            // What is pushed need not be there; then it is the registry that doesn't take it.
            (_, 404 | 410) if operation != "push" => match subject {
                Subject::Manifest(_) => Error::ManifestNotFound { reference: object, message },
                Subject::Blob(digest, repository) => {
                    Error::BlobNotFound { digest: digest.clone(), repository: repository.clone() }
                }
                _ => Error::RepositoryNotFound { repository: object, message },
            },
            (_, status) => Error::Registry { host, operation, object, status, message },
        }
    }
}

fn envelope(body: &[u8]) -> Option<OciEnvelope> {
    serde_json::from_slice(body).ok()
}

fn code(body: &[u8]) -> Option<OciErrorCode> {
    envelope(body)?.errors.into_iter().next().map(|error| error.code)
}

/// The words of a refusal in one line: those of the envelope, else those of the JSON fields that
/// token servers use, else a short plain text. Control characters are taken out.
pub(crate) fn message(body: &[u8]) -> String {
    let text = match envelope(body) {
        Some(envelope) => envelope
            .errors
            .iter()
            .map(|error| match (&error.code, error.message.trim()) {
                (code, "") => word(code),
                (code, message) => format!("{}: {message}", word(code)),
            })
            .collect::<Vec<_>>()
            .join("; "),
        None => match serde_json::from_slice::<serde_json::Value>(body) {
            Ok(value) => ["details", "message", "error_description", "error"]
                .iter()
                .find_map(|field| value.get(field)?.as_str().map(str::to_owned))
                .unwrap_or_default(),
            // A page for browsers says nothing in one line.
            Err(_) if body.trim_ascii_start().starts_with(b"<") => String::new(),
            Err(_) => String::from_utf8_lossy(body).into_owned(),
        },
    };
    let text: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN + 1).collect();
    if text.chars().count() > MAX_SHOWN {
        text.chars().take(MAX_SHOWN).chain(['…']).collect()
    } else {
        text
    }
}

/// A code as Docker shows it: `MANIFEST_UNKNOWN` is "manifest unknown".
fn word(code: &OciErrorCode) -> String {
    match code {
        OciErrorCode::Toomanyrequests => "too many requests".to_owned(),
        OciErrorCode::Other(code) => code.to_lowercase().replace('_', " "),
        code => match serde_json::to_value(code) {
            Ok(serde_json::Value::String(code)) => code.to_lowercase().replace('_', " "),
            _ => "error".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_real_registries() {
        let cases: [(&str, &str); 8] = [
            (
                r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":[]}]}"#,
                "denied: requested access to the resource is denied",
            ),
            (r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#, "manifest unknown"),
            (r#"{"errors":[{"code":"ARTIFACT_LOCKED","message":"it is"}]}"#, "artifact locked: it is"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            ("unauthorized\n", "unauthorized"),
            ("<html><body>502</body></html>", ""),
            ("a\x1b[31mred\x07!", "a [31mred !"),
            ("", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(message(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(message("x".repeat(9999).as_bytes()).chars().count(), MAX_SHOWN + 1);
    }
}
