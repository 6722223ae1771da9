//! Docker's credential helpers: programs named `docker-credential-<name>` that take a word and
//! answer in JSON.
//!
//! ```text
//!   docker-credential-X get   < "ghcr.io"     > {"ServerURL":…,"Username":"me","Secret":"…"}
//!   docker-credential-X store < {"ServerURL":…,"Username":…,"Secret":…}
//!   docker-credential-X erase < "ghcr.io"
//! ```
//!
//! The user name `<token>` says that the secret is an identity token.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::Credentials;
use crate::error::{Error, Result};

const TOKEN_USER: &str = "<token>";

/// What a helper says if it holds nothing for the server; part of the protocol.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A helper's answer holds one secret.
const MAX_ANSWER: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Helper {
    pub(super) program: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    username: String,
    secret: String,
}

impl Helper {
    /// The helper of that name; a name is a word, not a path.
    pub(super) fn named(name: &str) -> std::result::Result<Self, String> {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if plain {
            Ok(Self { program: format!("docker-credential-{name}") })
        } else {
            Err(format!("{name:?} is not the name of a credential helper"))
        }
    }

    pub(super) fn get(&self, server: &str) -> Result<Option<Credentials>> {
        let answer = match self.run("get", server, server.as_bytes())? {
            Ok(answer) => answer,
            Err(problem) if problem.contains(NOT_FOUND) => return Ok(None),
            Err(problem) => return Err(self.failed("get", server, problem)),
        };
        let entry: Entry = serde_json::from_slice(&answer)
            .map_err(|error| self.failed("get", server, format!("its answer is not valid: {error}")))?;
        Ok(match (entry.username.as_str(), entry.secret) {
            (_, secret) if secret.is_empty() => None,
            (TOKEN_USER, secret) => Some(Credentials::IdentityToken(secret)),
            (_, secret) => Some(Credentials::Password { username: entry.username, password: secret }),
        })
    }

    pub(super) fn store(&self, server: &str, credentials: &Credentials) -> Result<()> {
        let (username, secret) = match credentials {
            Credentials::Password { username, password } => (username.as_str(), password),
            Credentials::IdentityToken(token) | Credentials::RegistryToken(token) => (TOKEN_USER, token),
        };
        let entry =
            Entry { server_url: server.to_owned(), username: username.to_owned(), secret: secret.to_owned() };
        let text = serde_json::to_vec(&entry).unwrap_or_default();
        self.run("store", server, &text)?.map(drop).map_err(|problem| self.failed("store", server, problem))
    }

    pub(super) fn erase(&self, server: &str) -> Result<()> {
        self.run("erase", server, server.as_bytes())?
            .map(drop)
            .map_err(|problem| self.failed("erase", server, problem))
    }

    /// Runs the helper; the inner result is its output or, after a non-zero exit, what it said.
    fn run(
        &self,
        operation: &'static str,
        server: &str,
        input: &[u8],
    ) -> Result<std::result::Result<Vec<u8>, String>> {
        let failed = |error: std::io::Error| {
            let problem = match error.kind() {
                std::io::ErrorKind::NotFound => "the program is not installed".to_owned(),
                _ => error.to_string(),
            };
            self.failed(operation, server, problem)
        };
        let mut child = Command::new(&self.program)
            .arg(operation)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that fails early does not read; its exit status tells more than the pipe.
            let _ = stdin.write_all(input);
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER).read_to_end(&mut output).map_err(failed)?;
        }
        let status = child.wait().map_err(failed)?;
        if status.success() {
            return Ok(Ok(output));
        }
        let said = String::from_utf8_lossy(&output).trim().to_owned();
        Ok(Err(if said.is_empty() { format!("it ended with {status}") } else { said }))
    }

    fn failed(&self, operation: &'static str, server: &str, problem: String) -> Error {
        Error::CredentialHelper {
            program: self.program.clone(),
            operation,
            server: server.to_owned(),
            problem,
        }
    }
}
