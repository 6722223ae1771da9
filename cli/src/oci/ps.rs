//! `ps`

use clap::{Args, ValueEnum};
use onggi_runtime::oci::Runtime;

use super::{Outcome, say};

/// List the processes of a container
#[derive(Debug, Args)]
pub struct Ps {
    /// Form of the list
    #[arg(short, long, default_value = "table")]
    format: Format,
    /// Id of the container
    id: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Ps {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        let list = runtime.processes(&self.id)?;
        match self.format {
            Format::Json => say(serde_json::to_string(&list).unwrap_or_default()),
            Format::Table => {
                say("PID        CMD");
                for pid in list {
                    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    let text = String::from_utf8_lossy(&words).replace('\0', " ");
                    say(format_args!("{pid:<10} {}", text.escape_debug()));
                }
            }
        }
        Ok(0)
    }
}
