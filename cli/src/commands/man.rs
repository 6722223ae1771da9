//! `onggi man`: writes the manual pages, for `make install`.

use std::path::PathBuf;

use crate::arguments;
use crate::failure::Failure;
use crate::session::Session;

/// Write the manual pages
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The directory to write them into; it must exist
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl Options {
    pub fn run(self, _session: &Session) -> Result<(), Failure> {
        clap_mangen::generate_to(arguments::command_line().disable_help_subcommand(true), &self.dir)
            .map_err(Failure::local(format!("write manual pages into {}", self.dir.display())))
    }
}
