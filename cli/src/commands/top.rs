//! `onggi top`: the processes of a container, as the host's ps shows them.

use std::process::{Command, Output, Stdio};

use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

/// Show the processes of a container
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A container by name or ID, and options of ps (-ef if there are none)
    #[arg(value_name = "CONTAINER [ps OPTIONS]", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let mut words = self.words.into_iter();
        let name = words.next().unwrap_or_default();
        let mut options: Vec<String> = words.collect();
        if options.is_empty() {
            options.push("-ef".into());
        }
        let engine = session.engine()?;
        let container = engine.container(&name)?;
        let processes = engine.top(&container)?;
        // Options of one's own would make ps show the caller's processes only; old ones of ps don't know -q.
        let numbers: Vec<String> = processes.iter().map(ToString::to_string).collect();
        let chosen = [&options[..], &[format!("-q{}", numbers.join(","))]].concat();
        let mut output = ps(&chosen)?;
        if !output.status.success() {
            output = ps(&options)?;
        }
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::Input(format!("ps {}: {}", options.join(" "), said.trim())));
        }
        let text = select(&String::from_utf8_lossy(&output.stdout), &processes)?;
        session.print(&table::align(&text))
    }
}

fn ps(options: &[String]) -> Result<Output, Failure> {
    let output = Command::new("ps").args(options).stdin(Stdio::null()).output();
    output.map_err(Failure::local("run ps, which is in the package procps"))
}

/// The lines of these processes, their columns separated by tabs; what stands in the last column may have blanks.
fn select(text: &str, processes: &[i32]) -> Result<String, Failure> {
    let mut lines = text.lines();
    let heading: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let Some(column) = heading.iter().position(|name| *name == "PID") else {
        return Err(Failure::Input(
            "ps shows no column PID: its options have to ask for it (-o pid,…)".into(),
        ));
    };
    let mut out = heading.join("\t") + "\n";
    for line in lines {
        let mut words = line.split_whitespace();
        let mut fields: Vec<String> = words.by_ref().take(heading.len() - 1).map(Into::into).collect();
        fields.push(words.collect::<Vec<_>>().join(" "));
        let pid = fields.get(column).and_then(|pid| pid.trim().parse().ok());
        if pid.is_some_and(|pid: i32| processes.contains(&pid)) {
            out += &fields.join("\t");
            out.push('\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn only_the_containers_lines_are_shown() {
        let text =
            "UID  PID PPID CMD\nroot   1    0 /sbin/init splash\nweb   42    1 nginx: master  process\n";
        let shown = select(text, &[42]).expect("lines");
        assert_eq!(shown, "UID\tPID\tPPID\tCMD\nweb\t42\t1\tnginx: master process\n");
        assert!(select("CMD\nx\n", &[1]).is_err());
    }
}
