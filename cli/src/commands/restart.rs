//! `onggi restart`: ends containers and starts them again.

use super::each;
use super::stop::How;
use crate::failure::Failure;
use crate::session::Session;

/// Restart containers
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    how: How,
    /// Containers by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let request = self.how.into_request();
        each::container(session, &self.containers, |engine, container| {
            engine.restart_container(container, &request).map(|()| None)
        })
    }
}
