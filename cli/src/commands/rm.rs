//! `onggi rm`: removes containers.

use crate::failure::Failure;
use crate::session::Session;

/// Remove containers
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Kill and remove a running container; a missing one is no error
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes of the container too
    #[arg(short, long)]
    volumes: bool,
    /// Containers by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let mut failed = None;
        for container in &self.containers {
            // Each with an engine that has not opened its store, see there.
            match session.engine()?.remove_container(container, self.force, self.volumes) {
                Ok(()) => session.print(&format!("{container}\n"))?,
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
