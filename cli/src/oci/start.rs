//! `start`

use clap::Args;
use onggi_runtime::oci::Runtime;

use super::Outcome;

/// Start the program of a created container
#[derive(Debug, Args)]
pub struct Start {
    /// Id of the container
    id: String,
}

impl Start {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        runtime.start(&self.id)?;
        Ok(0)
    }
}
