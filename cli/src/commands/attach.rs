//! `onggi attach`: attaches the caller's streams to a container that runs.

use std::process::ExitCode;

use onggi_engine::containers::{AttachRequest, Attached, DetachKeys};
use onggi_engine::run::Streams;

use crate::failure::Failure;
use crate::session::Session;

/// Attach local standard input, output, and error streams to a running container
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The key sequence for detaching from the container
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", hide_default_value = true)]
    detach_keys: DetachKeys,
    /// Do not attach standard input
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        default_value = "true", default_missing_value = "true")]
    sig_proxy: bool,
    /// A container by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        let request = AttachRequest {
            streams: Streams { input: !self.no_stdin, output: true, error: true },
            forward_signals: self.sig_proxy,
            detach_keys: self.detach_keys,
        };
        let attached = session.engine()?.attach(&self.container, &request)?;
        Ok(status(session, attached))
    }
}

/// The exit status after an attachment.
pub fn status(session: &Session, attached: Attached) -> ExitCode {
    match attached {
        Attached::Ended(code) => ExitCode::from(code),
        Attached::Detached => {
            session.note("read escape sequence");
            ExitCode::SUCCESS
        }
    }
}
