//! `onggi rename`: gives a container another name.

use crate::failure::Failure;
use crate::session::Session;

/// Rename a container
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A container by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Its new name
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        Ok(session.engine()?.rename_container(&self.container, &self.name)?)
    }
}
