//! Where things are. The caller takes it from the environment and the command line.

use std::path::PathBuf;

/// Everything that an engine has to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store.
    pub root: PathBuf,
    /// What a reboot may lose: locks, claims, IDs in use.
    pub runroot: PathBuf,
    /// Credentials, certificates, proxies, limits.
    pub registry: onggi_registry_client::Options,
}
