//! `kill`

use clap::Args;
use onggi_runtime::oci::Runtime;

use super::{Outcome, parse_signal};

/// Send a signal to a container
#[derive(Debug, Args)]
pub struct Kill {
    /// To all processes, not only the first
    #[arg(short, long)]
    all: bool,
    /// Id of the container
    id: String,
    /// Number or name of the signal
    #[arg(default_value = "TERM", value_parser = parse_signal)]
    signal: i32,
}

impl Kill {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        runtime.kill(&self.id, self.signal, self.all)?;
        Ok(0)
    }
}
