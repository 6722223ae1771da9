//! Login and logout: credentials are tried, then kept where Docker keeps them.

use std::path::PathBuf;

use onggi_oci::DEFAULT_REGISTRY;
use onggi_registry_client::{CredentialStore, Credentials, Stored};

use crate::Engine;
use crate::error::Result;

/// What a login did.
#[derive(Clone, Debug)]
pub struct Login {
    /// The file that now holds the password readable by whoever reads the file.
    pub stored_in_plain_text: Option<PathBuf>,
}

/// What a logout did.
#[derive(Clone, Debug)]
pub struct Logout {
    /// The registry as it is called.
    pub registry: String,
    /// Whether there were credentials.
    pub was_logged_in: bool,
}

impl Engine {
    /// Tries credentials at a registry (Docker Hub if none is named) and keeps them.
    pub fn login(&self, server: Option<&str>, username: &str, password: &str) -> Result<Login> {
        let registry = registry_of(server);
        let credentials =
            Credentials::Password { username: username.to_owned(), password: password.to_owned() };
        let client = self.client()?;
        super::network_runtime()?.block_on(client.login(&registry, &credentials))?;
        Ok(Login {
            stored_in_plain_text: match self.credentials().save(&registry, &credentials)? {
                Stored::PlainText { path } => Some(path),
                _ => None,
            },
        })
    }

    /// Forgets the credentials for a registry.
    pub fn logout(&self, server: Option<&str>) -> Result<Logout> {
        let registry = registry_of(server);
        let erased = self.credentials().erase(&registry)?;
        Ok(Logout { registry, was_logged_in: !erased.is_empty() })
    }

    fn credentials(&self) -> CredentialStore {
        let options = &self.settings().registry;
        CredentialStore { docker_config: options.docker_config.clone(), auth_file: options.auth_file.clone() }
    }
}

/// People write `https://registry.example.com/v2/` where a host is meant.
fn registry_of(server: Option<&str>) -> String {
    let server = server.unwrap_or(DEFAULT_REGISTRY);
    let bare = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    match bare.split('/').next().unwrap_or(bare) {
        "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_however_it_is_written() {
        assert_eq!(registry_of(None), "docker.io");
        assert_eq!(registry_of(Some("https://index.docker.io/v1/")), "docker.io");
        assert_eq!(registry_of(Some("https://quay.io/v2/")), "quay.io");
        assert_eq!(registry_of(Some("localhost:5000")), "localhost:5000");
    }
}
