//! `onggi info`: what onggi found on this machine.

use onggi_engine::image::layer::{OverlayXattr, Ownership};
use onggi_engine::oci::Platform;
use serde_json::json;

use crate::failure::Failure;
use crate::output::template::Template;
use crate::session::Session;

/// Show what onggi found on this machine
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Format the output: `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let authority = engine.authority()?;
        let images = engine.images()?.images.len();
        let system = rustix::system::uname();
        let ids: u64 = authority.uids.ranges().iter().map(|range| u64::from(range.count)).sum();
        let ownership = match authority.ownership {
            Ownership::Keep => "kept",
            Ownership::Squash => "squashed to one ID (no subordinate IDs in /etc/subuid and /etc/subgid)",
        };
        let xattr = match authority.overlay_xattr {
            OverlayXattr::Trusted => "trusted.overlay",
            OverlayXattr::User => "user.overlay",
        };
        let new_layers = engine
            .store()
            .map_err(Failure::from)?
            .new_layers()
            .map_err(|e| Failure::from(onggi_engine::Error::from(e)))?;
        let format = new_layers.format.to_string();
        let settings = engine.settings();
        let value = json!({
            "ServerVersion": env!("CARGO_PKG_VERSION"),
            "Images": images,
            "Driver": "overlay",
            "DriverStatus": [
                ["Layer format", format],
                ["Layer format because", new_layers.because],
                ["Extended attributes", xattr],
            ],
            "Rootless": authority.rootless,
            "Ownership": ownership,
            "UserIDs": ids,
            "OnggiRootDir": settings.root,
            "OnggiRunRootDir": settings.runroot,
            "KernelVersion": system.release().to_string_lossy(),
            "OSType": "linux",
            "Architecture": Platform::host().architecture,
            "Name": system.nodename().to_string_lossy(),
            "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        });
        let text = match self.format.as_deref() {
            Some("json") => format!("{value}\n"),
            Some(format) => {
                Template::parse(format).and_then(|t| t.render(&value)).map_err(Failure::template)? + "\n"
            }
            None => format!(
                "onggi {}\n\
                 Images: {images}\n\
                 Store: {} ({xattr}.* attributes)\n\
                 New layers: {format} ({})\n\
                 Volatile files: {}\n\
                 Rootless: {}\n\
                 Owners of files in layers: {ownership}\n\
                 User IDs available: {ids}\n\
                 Kernel: {}\n\
                 Architecture: {}\n\
                 CPUs: {}\n",
                env!("CARGO_PKG_VERSION"),
                settings.root.display(),
                new_layers.because,
                settings.runroot.display(),
                authority.rootless,
                system.release().to_string_lossy(),
                Platform::host().architecture,
                value["NCPU"],
            ),
        };
        session.print(&text)
    }
}
