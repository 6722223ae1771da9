//! `list`

use clap::{Args, ValueEnum};
use onggi_runtime::oci::Runtime;

use super::{Outcome, say};

/// List containers
#[derive(Debug, Args)]
pub struct List {
    /// Form of the list
    #[arg(short, long, default_value = "table")]
    format: Format,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl List {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        let list = runtime.list()?;
        if self.quiet {
            for one in &list {
                say(&one.state.id);
            }
            return Ok(0);
        }
        match self.format {
            Format::Json => say(serde_json::to_string(&list).unwrap_or_default()),
            Format::Table => {
                let width = list.iter().map(|one| one.state.id.len()).max().unwrap_or(0).max(12);
                say(format_args!("{:width$} {:<10} {:<10} {:<32} BUNDLE", "ID", "PID", "STATUS", "CREATED"));
                for one in list {
                    let state = one.state;
                    let (id, status) = (state.id, state.status.to_string());
                    let bundle = state.bundle.display();
                    say(format_args!(
                        "{id:width$} {:<10} {status:<10} {:<32} {bundle}",
                        state.pid, one.created
                    ));
                }
            }
        }
        Ok(0)
    }
}
