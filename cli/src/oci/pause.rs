//! `pause` and `resume`

use clap::Args;
use onggi_runtime::oci::Runtime;

use super::Outcome;

/// Freeze all processes of a container
#[derive(Debug, Args)]
pub struct Pause {
    /// Id of the container
    id: String,
}

/// Let a paused container go on
#[derive(Debug, Args)]
pub struct Resume {
    /// Id of the container
    id: String,
}

impl Pause {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        runtime.pause(&self.id, true)?;
        Ok(0)
    }
}

impl Resume {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        runtime.pause(&self.id, false)?;
        Ok(0)
    }
}
