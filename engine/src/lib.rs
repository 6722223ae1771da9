//! What onggi can do, for the command line today and an API tomorrow: each use-case is one call that
//! brings the other crates together. Nothing here prints, exits or reads the environment.
//!
//! ```text
//!   Engine ─┬─ pull ──► registry-client ──► image (ingest, publish, ref)
//!           ├─ push ──► image (blobs) ──► registry-client
//!           ├─ run ───► image (snapshot) ──► runtime
//!           ├─ images ► image
//!           └─ login ─► registry-client
//! ```
#![forbid(unsafe_code)]

mod archives;
mod authority;
pub mod build;
mod error;
pub mod events;
pub mod filesystem;
mod images;
mod login;
pub mod logs;
mod manifests;
pub mod network;
pub mod progress;
mod pull;
mod push;

pub mod containers;
pub mod run;
mod settings;
pub mod usage;
mod volumes;

use std::cell::OnceCell;

use onggi_image::layer::{Devices, Limits, UnpackOptions};
use onggi_image::store::Store;
use onggi_registry_client::Client;

pub use authority::{Authority, is_rootless};
pub use error::{Error, Result};
pub use images::ImageDetails;
pub use login::{Login, Logout};
pub use manifests::ListedPlatform;
pub use onggi_image as image;
pub use onggi_oci as oci;
pub use onggi_registry_client as registry;
pub use pull::{PullRequest, Pulled};
pub use push::{PushRequest, Pushed};

pub use settings::Settings;
pub use volumes::{PrunedVolumes, Volume, VolumeRequest};

/// One user's view of one store.
///
/// Making one costs nothing: the store is opened when it is first needed, and with it an ordinary
/// user enters a user namespace, which only a process with a single thread can do.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    opened: OnceCell<Opened>,
}

#[derive(Debug)]
struct Opened {
    store: Store,
    authority: Authority,
}

impl Engine {
    /// An engine with these settings.
    pub fn new(mut settings: Settings) -> Self {
        // What is started here outlives the working directory.
        for path in [&mut settings.root, &mut settings.runroot] {
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute;
            }
        }
        Self { settings, opened: OnceCell::new() }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How this process stands towards files of layers.
    pub fn authority(&self) -> Result<&Authority> {
        Ok(&self.opened()?.authority)
    }

    /// The store.
    pub fn store(&self) -> Result<&Store> {
        Ok(&self.opened()?.store)
    }

    fn opened(&self) -> Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let is_root = rustix::process::geteuid().is_root();
        let shared = if is_root { None } else { self.shared_namespace() };
        let authority = Authority::acquire(shared)?;
        let options = UnpackOptions {
            ownership: authority.ownership,
            devices: if authority.first_namespace { Devices::Make } else { Devices::Skip },
            overlay_xattr: authority.overlay_xattr,
            limits: Limits::default(),
            shift: None,
        };
        let store =
            Store::open_with(&self.settings.root, &self.settings.runroot, options, self.settings.storage)?;
        Ok(self.opened.get_or_init(|| Opened { store, authority }))
    }

    fn client(&self) -> Result<Client> {
        Ok(Client::new(self.settings.registry.clone())?)
    }
}

/// A runtime for the network: one thread, the caller's, which only waits for sockets and timers.
fn network_runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| Error::Process { op: "start waiting for the network", source })
}
