//! `onggi wait`: waits for containers to end and prints their exit statuses.

use super::each;
use crate::failure::Failure;
use crate::session::Session;

/// Block until containers stop, then print their exit codes
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Containers by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        each::container(session, &self.containers, |engine, container| {
            engine.wait_container(container).map(|code| Some(code.to_string()))
        })
    }
}
