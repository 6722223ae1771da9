//! `state`

use clap::Args;
use onggi_runtime::oci::Runtime;

use super::{Outcome, say};

/// Print the state of a container as JSON
#[derive(Debug, Args)]
pub struct State {
    /// Id of the container
    id: String,
}

impl State {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        let state = runtime.state(&self.id)?;
        say(serde_json::to_string_pretty(&state).unwrap_or_default());
        Ok(0)
    }
}
