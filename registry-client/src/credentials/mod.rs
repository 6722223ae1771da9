//! Who we are, to which registry.
//!
//! ```text
//!   asked in this order                    kept as
//!   ──────────────────────────────────────────────────────────────────────────────
//!   Options::credentials                   given by the caller
//!   auth_file    (containers-auth.json)    auths{"host/ns/repo": …} longest path first
//!   docker_config (config.json)            credHelpers{host: X} ─► docker-credential-X
//!                                          credsStore: X        ─► docker-credential-X
//!                                          auths{host: {auth: base64(user:password)}}
//! ```
//!
//! Docker Hub's key is `https://index.docker.io/v1/` in every store, for history's sake.

mod docker_credential;
mod file;

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use file::AuthFile;

/// The name Docker Hub goes by in credential stores.
pub const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// A user name and a password or personal access token.
    Password {
        /// The user name; it holds no colon.
        username: String,
        /// The secret.
        password: String,
    },
    /// A refresh token of the registry's OAuth2 server, which stands in for a password.
    IdentityToken(String),
    /// A bearer token that goes to the registry as it is (`registrytoken` in Docker's file).
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username:?}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// Where credentials went, or where they were removed from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// In the keeping of a credential helper.
    Helper {
        /// The program, e.g. `docker-credential-pass`.
        program: String,
    },
    /// In a file, in plain text (base64 hides nothing), readable by its owner only. The user should
    /// be told.
    PlainText {
        /// The file.
        path: PathBuf,
    },
}

/// The stores of one user. All methods block: they read files and run helper programs.
#[derive(Clone, Debug, Default)]
pub struct CredentialStore {
    /// Docker's `config.json`, if any.
    pub docker_config: Option<PathBuf>,
    /// The file of containers-auth.json(5), if any: asked first, and written in place of Docker's.
    pub auth_file: Option<PathBuf>,
}

impl CredentialStore {
    /// The credentials for a repository (`docker.io`, `library/alpine`), or none. An empty
    /// repository asks for those of the whole registry.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        for path in [&self.auth_file, &self.docker_config].into_iter().flatten() {
            let Some(file) = AuthFile::read(path)? else { continue };
            for key in helper_keys(registry) {
                if let Some(helper) = file.helper_for(&key)? {
                    if let Some(found) = helper.get(&server_key(registry))? {
                        return Ok(Some(found));
                    }
                    break;
                }
            }
            for key in lookup_keys(registry, repository) {
                if let Some(found) = file.entry(&key)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Keeps credentials for a registry: with the helper that is configured for it, else in the
    /// file as plain text. The file's other fields stay, and it is replaced in one step.
    pub fn save(&self, registry: &str, credentials: &Credentials) -> Result<Stored> {
        let path = self.writable(registry)?;
        let key = server_key(registry);
        AuthFile::update(path, |file| {
            if let Some(helper) = configured(file, registry)? {
                helper.store(&key, credentials)?;
                file.remove(&key);
                file.mark(&key);
                return Ok(Stored::Helper { program: helper.program });
            }
            file.insert(&key, credentials)?;
            Ok(Stored::PlainText { path: path.to_owned() })
        })
    }

    /// Forgets the credentials for a registry wherever they are kept, and tells where that was;
    /// an empty list means that there were none.
    pub fn erase(&self, registry: &str) -> Result<Vec<Stored>> {
        let mut erased = Vec::new();
        for path in [&self.auth_file, &self.docker_config].into_iter().flatten() {
            if AuthFile::read(path)?.is_none() {
                continue;
            }
            AuthFile::update(path, |file| {
                if let Some(helper) = configured(file, registry)? {
                    let key = server_key(registry);
                    if helper.get(&key)?.is_some() {
                        helper.erase(&key)?;
                        erased.push(Stored::Helper { program: helper.program });
                    }
                }
                let mut plain = false;
                for key in lookup_keys(registry, "") {
                    plain |= file.remove(&key);
                }
                if plain {
                    erased.push(Stored::PlainText { path: path.clone() });
                }
                Ok(())
            })?;
        }
        Ok(erased)
    }

    fn writable(&self, registry: &str) -> Result<&PathBuf> {
        self.auth_file.as_ref().or(self.docker_config.as_ref()).ok_or_else(|| Error::Invalid {
            what: "login to",
            value: registry.to_owned(),
            problem: "there is no file to keep credentials in".to_owned(),
        })
    }
}

fn configured(file: &AuthFile, registry: &str) -> Result<Option<docker_credential::Helper>> {
    for key in helper_keys(registry) {
        if let Some(helper) = file.helper_for(&key)? {
            return Ok(Some(helper));
        }
    }
    Ok(None)
}

fn is_docker_hub(registry: &str) -> bool {
    matches!(registry, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// The key under which a registry's credentials are written.
fn server_key(registry: &str) -> String {
    if is_docker_hub(registry) { DOCKER_HUB_KEY.to_owned() } else { registry.to_owned() }
}

fn helper_keys(registry: &str) -> Vec<String> {
    if is_docker_hub(registry) {
        [DOCKER_HUB_KEY, "index.docker.io", "docker.io"].map(str::to_owned).to_vec()
    } else {
        vec![registry.to_owned()]
    }
}

/// The keys under which a repository's credentials may stand, the most particular first.
fn lookup_keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{registry}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    if is_docker_hub(registry) {
        keys.extend(
            [DOCKER_HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io"].map(str::to_owned),
        );
    } else {
        keys.push(registry.to_owned());
    }
    keys
}

#[cfg(test)]
mod tests;
