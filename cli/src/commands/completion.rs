//! `onggi completion`: a completion script for a shell.

use clap_complete::Shell;

use crate::arguments;
use crate::failure::Failure;
use crate::session::Session;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The shell: bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Options {
    pub fn run(self, _session: &Session) -> Result<(), Failure> {
        let mut command = arguments::command_line();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "onggi", &mut script);
        std::io::Write::write_all(&mut std::io::stdout(), &script).map_err(Failure::Output)
    }
}
