//! `onggi exec`: runs a command in a running container.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use onggi_engine::containers::DetachKeys;
use onggi_engine::run::ExecRequest;

use crate::failure::Failure;
use crate::session::Session;

/// Run a command in a running container
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run the command in the background
    #[arg(short, long)]
    detach: bool,
    /// The key sequence for detaching from the command
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", hide_default_value = true)]
    detach_keys: DetachKeys,
    /// Set an environment variable; NAME alone takes it from the caller
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command: all capabilities, no filter
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// User (and group) to run as, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// A container by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        if self.tty && self.interactive && !self.detach && !std::io::stdin().is_terminal() {
            return Err(Failure::Input("the input device is not a TTY".into()));
        }
        let request = ExecRequest {
            container: self.container,
            command: self.command,
            env: super::environment::collect(&self.env_file, self.env)?,
            user: self.user,
            workdir: self.workdir,
            privileged: self.privileged,
            detach: self.detach,
            interactive: self.interactive,
            terminal: self.tty.then(super::run::window_size),
            detach_keys: self.detach_keys,
        };
        let attached = session.engine()?.exec(&request).map_err(Failure::Exec)?;
        Ok(super::attach::status(session, attached))
    }
}
