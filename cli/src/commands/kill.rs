//! `onggi kill`: sends a signal to containers.

use super::each;
use crate::failure::Failure;
use crate::session::Session;

/// Kill running containers
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Signal to send to the container
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Containers by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        each::container(session, &self.containers, |engine, container| {
            engine.kill_container(container, &self.signal).map(|()| None)
        })
    }
}
