//! `onggi start`: starts containers that were made before.

use std::process::ExitCode;

use onggi_engine::containers::{AttachRequest, DetachKeys};
use onggi_engine::run::Streams;

use super::{attach, each};
use crate::failure::Failure;
use crate::session::Session;

/// Start stopped containers
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Refused: containers are not checkpointed
    #[arg(long, value_name = "NAME", help_heading = "Not supported")]
    checkpoint: Option<String>,
    /// Refused: containers are not checkpointed
    #[arg(long, value_name = "DIR", help_heading = "Not supported")]
    checkpoint_dir: Option<String>,
    /// The key sequence for detaching from the container
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", hide_default_value = true)]
    detach_keys: DetachKeys,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// Containers by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        let refused = [(&self.checkpoint, "--checkpoint"), (&self.checkpoint_dir, "--checkpoint-dir")];
        if let Some((_, flag)) = refused.iter().find(|(given, _)| given.is_some()) {
            return Err(Failure::Input(format!("{flag} is not supported: containers are not checkpointed")));
        }
        if !self.attach && !self.interactive {
            each::container(session, &self.containers, |engine, container| {
                engine.start(container, None).map(|_| None)
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let [container] = &self.containers[..] else {
            return Err(Failure::Input("you cannot start and attach multiple containers at once".into()));
        };
        let request = AttachRequest {
            streams: Streams { input: self.interactive, output: true, error: true },
            forward_signals: true,
            detach_keys: self.detach_keys,
        };
        let attached = session.engine()?.start(container, Some(&request))?;
        Ok(attached.map_or(ExitCode::SUCCESS, |attached| attach::status(session, attached)))
    }
}
