//! `onggi create`: makes a container without starting it.

use crate::commands::run::Wishes;
use crate::failure::Failure;
use crate::output::progress::{Sink, Transfers};
use crate::session::Session;

/// Create a new container
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    #[command(flatten)]
    wishes: Wishes,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let quiet = self.wishes.is_quiet();
        let request = self.wishes.into_request(false, session)?;
        let engine = session.engine()?;
        super::run::network::tell(session, &engine, &request);
        let id = engine
            .create(&request, &|| Box::new(Transfers::new(Sink::Stderr, quiet)))
            .map_err(Failure::Engine)?;
        session.print(&format!("{id}\n"))
    }
}
