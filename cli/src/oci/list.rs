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
                say(&one.id);
            }
            return Ok(0);
        }
        match self.format {
            Format::Json => say(serde_json::to_string(&list).unwrap_or_default()),
            Format::Table => {
                let width = list.iter().map(|one| one.id.len()).max().unwrap_or(0).max(12);
                let bundles = list.iter().map(|one| one.bundle.display().to_string().len());
                let room = bundles.max().unwrap_or(0).max(11);
                say(format_args!(
                    "{:width$} {:<11} {:<11} {:room$} {:<30} OWNER",
                    "ID", "PID", "STATUS", "BUNDLE", "CREATED"
                ));
                for one in list {
                    let (id, pid, status) = (one.id, one.pid, one.status.to_string());
                    let (bundle, owner) = (one.bundle.display().to_string(), owner(one.owner));
                    let created = one.created;
                    say(format_args!(
                        "{id:width$} {pid:<11} {status:<11} {bundle:room$} {created:<30} {owner}"
                    ));
                }
            }
        }
        Ok(0)
    }
}

/// A user's name, or `#` and the number of one that has none.
fn owner(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}
