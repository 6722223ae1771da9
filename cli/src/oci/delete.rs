//! `delete`

use clap::Args;
use onggi_runtime::oci::Runtime;

use super::Outcome;

/// Remove a container that has stopped
#[derive(Debug, Args)]
pub struct Delete {
    /// Kill it first if it runs
    #[arg(short, long)]
    force: bool,
    /// Id of the container
    id: String,
}

impl Delete {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        runtime.delete(&self.id, self.force)?;
        Ok(0)
    }
}
