//! `onggi logout`: forgets the credentials of a registry.

use std::io::Write;

use crate::failure::Failure;
use crate::session::Session;

/// Log out of a registry
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Host and port of the registry; Docker Hub if none is named
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let logout = session.engine()?.logout(self.server.as_deref())?;
        let line = match logout.was_logged_in {
            true => format!("Removing login credentials for {}", logout.registry),
            false => format!("Not logged in to {}", logout.registry),
        };
        writeln!(std::io::stdout(), "{line}").map_err(Failure::Output)
    }
}
