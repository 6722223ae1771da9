//! `onggi tag`: gives an image another name.

use crate::failure::Failure;
use crate::session::Session;

/// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
#[derive(Debug, clap::Args)]
pub struct Options {
    /// An image by name or ID
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// The new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        Ok(session.engine()?.tag(&self.source, &self.target)?)
    }
}
