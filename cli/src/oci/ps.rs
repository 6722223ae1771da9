//! `ps`

use clap::{Args, ValueEnum};
use onggi_runtime::Error;
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
    /// Options of the host's ps, which makes the table
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_values = ["-ef"])]
    options: Vec<String>,
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
                let text = ps(&self.options)?;
                let mut lines = text.lines();
                let heading = lines.next().unwrap_or_default();
                let Some(column) = heading.split_whitespace().position(|word| word == "PID") else {
                    return Err(Error::Invalid {
                        what: "ps".into(),
                        why: "these options give a table without the column PID".into(),
                    });
                };
                say(heading);
                let pid = |line: &str| line.split_whitespace().nth(column)?.parse::<i32>().ok();
                for line in lines.filter(|line| pid(line).is_some_and(|pid| list.contains(&pid))) {
                    say(line);
                }
            }
        }
        Ok(0)
    }
}

/// What the host's `ps` prints.
fn ps(options: &[String]) -> Result<String, Error> {
    let failed = |source| Error::Io { operation: "run", object: "ps".into(), source };
    let output = std::process::Command::new("ps").args(options).output().map_err(failed)?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Invalid { what: format!("ps {}", options.join(" ")), why });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
