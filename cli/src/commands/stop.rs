//! `onggi stop`: asks containers to end, and kills those that don't.

use onggi_engine::containers::StopRequest;

use super::each;
use crate::failure::Failure;
use crate::session::Session;

/// Stop running containers
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    how: How,
    /// Containers by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// How containers are asked to end; `stop` and `restart` share it.
#[derive(Debug, clap::Args)]
pub struct How {
    /// Signal to send to the container
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds to wait before killing the container; -1 for ever
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
}

impl How {
    pub fn into_request(self) -> StopRequest {
        StopRequest { timeout: self.timeout, signal: self.signal }
    }
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let request = self.how.into_request();
        each::container(session, &self.containers, |engine, container| {
            engine.stop_container(container, &request).map(|()| None)
        })
    }
}
