//! Where things are. The caller takes it from the environment and the command line.

use std::net::IpAddr;
use std::path::PathBuf;

/// Everything that an engine has to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store.
    pub root: PathBuf,
    /// What a reboot may lose: locks, claims, IDs in use.
    pub runroot: PathBuf,
    /// The address of this host that ports are published on if none is named.
    pub publish_address: IpAddr,
    /// Which format layers get that are made from now on.
    pub storage: onggi_image::store::Storage,
    /// Credentials, certificates, proxies, limits.
    pub registry: onggi_registry_client::Options,
}
