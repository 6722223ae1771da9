//! `onggi run`: runs a command in a new container.

mod health;
pub mod network;
mod refused;
mod resources;
mod security;
pub mod values;
mod wishes;

use std::io::IsTerminal;
use std::process::ExitCode;

use onggi_engine::run::WindowSize;

use crate::failure::Failure;
use crate::output::progress::{Sink, Transfers};
use crate::session::Session;

pub use wishes::Wishes;

/// Run a command in a new container
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// Proxy received signals to the process
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        default_value = "true", default_missing_value = "true")]
    sig_proxy: bool,
    #[command(flatten)]
    wishes: Wishes,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        let quiet = self.wishes.is_quiet();
        let request = self.wishes.into_request(false, session.default_network().as_deref())?;
        if request.terminal.is_some() && request.interactive && !std::io::stdin().is_terminal() {
            return Err(Failure::Input("the input device is not a TTY".into()));
        }
        let engine = session.engine()?;
        let status = engine
            .run(&request, self.sig_proxy, &|| Box::new(Transfers::new(Sink::Stderr, quiet)))
            .map_err(Failure::Run)?;
        Ok(ExitCode::from(status))
    }
}

/// The size of the caller's terminal; the kernel's default where there is none.
pub fn window_size() -> WindowSize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map(|size| WindowSize { rows: size.ws_row, columns: size.ws_col })
        .unwrap_or_default()
}
