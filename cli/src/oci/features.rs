//! `features`

use clap::Args;

use super::{Outcome, say};

/// Print what this runtime can do as JSON
#[derive(Debug, Args)]
pub struct Features {}

impl Features {
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the other subcommands")]
    pub fn run(&self) -> Outcome {
        say(serde_json::to_string_pretty(&onggi_runtime::oci::features()).unwrap_or_default());
        Ok(0)
    }
}
