//! `run`

use clap::Args;
use onggi_runtime::oci::Runtime;

use super::Outcome;
use super::create::Common;

/// Make and start a container
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    common: Common,
    /// Return when the program runs
    #[arg(short, long)]
    detach: bool,
    /// Keep the container after its end
    #[arg(long)]
    keep: bool,
    /// Id of the container
    id: String,
}

impl Run {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        let status = runtime.run(&self.id, &self.common.options(), self.detach, self.keep)?;
        Ok(status.map_or(0, |status| u8::try_from(status.code()).unwrap_or(u8::MAX)))
    }
}
