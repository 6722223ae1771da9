//! `onggi container`: the group of commands about containers.

use super::{commit, cp, create, diff, exec, export, inspect, logs, port, ps, rm, run, stats, top};
use crate::failure::Failure;
use crate::session::Session;
use std::process::ExitCode;

/// Commands about containers.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make an image of what a container changed
    Commit(commit::Options),
    /// Copy files or directories between a container and the host
    Cp(cp::Options),
    /// Create a new container
    Create(Box<create::Options>),
    /// Show what a container changed of its files
    Diff(diff::Options),
    /// Run a command in a running container
    Exec(exec::Options),
    /// Write all files of a container to a tar archive
    Export(export::Options),
    /// Show everything about containers
    Inspect(inspect::Container),
    /// Show what a container's program wrote
    Logs(logs::Options),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Options),
    /// List port mappings or a specific mapping for the container
    Port(port::Options),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(rm::Options),
    /// Run a command in a new container
    Run(Box<run::Options>),
    /// Show what running containers use
    Stats(stats::Options),
    /// Show the processes of a container
    Top(top::Options),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        match self {
            Self::Exec(options) => return options.run(session),
            Self::Run(options) => return options.run(session),
            Self::Commit(options) => options.run(session),
            Self::Cp(options) => options.run(session),
            Self::Create(options) => options.run(session),
            Self::Diff(options) => options.run(session),
            Self::Export(options) => options.run(session),
            Self::Inspect(options) => options.run(session),
            Self::Logs(options) => options.run(session),
            Self::Ls(options) => options.run(session),
            Self::Port(options) => options.run(session),
            Self::Rm(options) => options.run(session),
            Self::Stats(options) => options.run(session),
            Self::Top(options) => options.run(session),
        }
        .map(|()| ExitCode::SUCCESS)
    }
}
