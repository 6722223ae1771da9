//! `onggi rmi`: removes images.

use onggi_engine::image::store::Removed;

use crate::failure::Failure;
use crate::session::Session;

/// Remove images
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Remove an image with several names, or of a stopped container; a missing one is no error
    #[arg(short, long)]
    force: bool,
    /// Keep untagged parents (onggi keeps none, so this changes nothing)
    #[arg(long)]
    no_prune: bool,
    /// Images by name or ID
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let mut failed = None;
        for image in &self.images {
            match engine.remove_image(image, self.force) {
                Ok(removed) => session.print(&lines(&removed))?,
                Err(error) if self.force && error.kind() == onggi_engine::oci::ErrorKind::NotFound => {
                    session.warn(&error.to_string());
                }
                // The others are removed all the same.
                Err(error) => {
                    if let Some(earlier) = failed.replace(error) {
                        Failure::Engine(earlier).report();
                    }
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// What was removed, as `docker rmi` tells it.
pub fn lines(removed: &[Removed]) -> String {
    let line = |one: &Removed| match one {
        Removed::Untagged(name) => format!("Untagged: {}\n", name.familiar()),
        Removed::Deleted(digest) => format!("Deleted: {digest}\n"),
        other => format!("{other:?}\n"),
    };
    removed.iter().map(line).collect()
}
