//! `onggi unpause`: lets the processes of containers go on.

use super::each;
use crate::failure::Failure;
use crate::session::Session;

/// Unpause all processes within containers
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Containers by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        each::container(session, &self.containers, |engine, container| {
            engine.unpause_container(container).map(|()| None)
        })
    }
}
