//! `onggi builder`: the group of commands about builds.

use super::build;
use crate::failure::Failure;
use crate::session::Session;

/// Commands about builds.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Build an image from a build file
    Build(Box<build::Options>),
    /// Remove build cache
    Prune(build::PruneOptions),
    /// Show what the steps of an earlier build said
    Logs(build::LogsOptions),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Build(options) => options.run(session),
            Self::Prune(options) => options.run(session),
            Self::Logs(options) => options.run(session),
        }
    }
}
