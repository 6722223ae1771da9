//! `onggi run`: runs a command in a new container.

mod gpus;
mod health;
pub mod network;
mod refused;
mod resources;
mod security;
pub mod values;
mod wishes;

use std::io::IsTerminal;
use std::process::ExitCode;

use onggi_engine::containers::{AttachRequest, DetachKeys, Ran};
use onggi_engine::run::{Streams, WindowSize};

use crate::failure::Failure;
use crate::output::progress::{Sink, Transfers};
use crate::session::Session;

pub use wishes::Wishes;

/// Create and run a new container from an image
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// The key sequence for detaching from the container
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", hide_default_value = true)]
    detach_keys: DetachKeys,
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
        if self.detach && self.wishes.names_streams() {
            return Err(Failure::Input(
                "conflicting options: cannot specify both --attach and --detach".into(),
            ));
        }
        let request = self.wishes.into_request(self.detach, session)?;
        if !self.detach
            && request.terminal.is_some()
            && request.interactive
            && !std::io::stdin().is_terminal()
        {
            return Err(Failure::Input("the input device is not a TTY".into()));
        }
        let attach = AttachRequest {
            streams: Streams { input: request.streams.input && request.interactive, ..request.streams },
            forward_signals: self.sig_proxy,
            detach_keys: self.detach_keys,
        };
        let engine = session.engine()?;
        // An ordinary user's command begins anew as a copy of itself, root of a namespace by then.
        if !onggi_engine::is_rootless() || !rustix::process::geteuid().is_root() {
            network::tell(session, &engine, &request);
        }
        let ran = engine
            .run(&request, (!self.detach).then_some(&attach), &|| {
                Box::new(Transfers::new(Sink::Stderr, quiet))
            })
            .map_err(Failure::Run)?;
        match ran {
            Ran::Ended(status) => Ok(ExitCode::from(status)),
            Ran::GoesOn(id) => session.print(&format!("{id}\n")).map(|()| ExitCode::SUCCESS),
            Ran::Left => Ok(ExitCode::SUCCESS),
        }
    }
}

/// The size of the caller's terminal; the kernel's default where there is none.
pub fn window_size() -> WindowSize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map(|size| WindowSize { rows: size.ws_row, columns: size.ws_col })
        .unwrap_or_default()
}
