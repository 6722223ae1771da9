//! `exec`

use std::path::PathBuf;

use clap::Args;
use onggi_runtime::oci::{ExecOptions, Runtime, parse_process};
use onggi_runtime::{Error, GroupBelow};

use super::{Outcome, parse_user};

/// Start a process in a running container
#[derive(Debug, Args)]
pub struct Exec {
    /// Socket that gets the other side of the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    cwd: Option<PathBuf>,
    /// Environment variable
    #[arg(short, long)]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// User id and group id
    #[arg(short, long, value_parser = parse_user)]
    user: Option<(u32, u32)>,
    /// Further group ids
    #[arg(short = 'g', long)]
    additional_gids: Vec<u32>,
    /// JSON file with the whole process
    #[arg(short, long)]
    process: Option<PathBuf>,
    /// Return when the program runs
    #[arg(short, long)]
    detach: bool,
    /// File that gets the process id
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Socket that gets a pidfd of the process
    #[arg(long)]
    pidfd_socket: Option<PathBuf>,
    /// SELinux label
    #[arg(long)]
    process_label: Option<String>,
    /// AppArmor profile
    #[arg(long)]
    apparmor: Option<String>,
    /// It can't gain privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Further capability
    #[arg(short, long)]
    cap: Vec<String>,
    /// Pass this many descriptors from 3 up
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Existing control group below the container's, [CONTROLLER,…:]PATH
    #[arg(long, value_parser = parse_group)]
    cgroup: Vec<GroupBelow>,
    /// Also in a paused container
    #[arg(long)]
    ignore_paused: bool,
    /// Id of the container
    id: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Exec {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        if self.process.is_some() {
            runtime.shield_from(&self.id)?;
        }
        let process = match &self.process {
            None => None,
            Some(path) => {
                let object = path.display().to_string();
                let text = std::fs::read(path).map_err(|source| Error::Io {
                    operation: "read",
                    object: object.clone(),
                    source,
                })?;
                let invalid = |error: serde_json::Error| Error::Invalid {
                    what: object.clone(),
                    why: error.to_string(),
                };
                Some(parse_process(&text, &mut |words| runtime.warn(words)).map_err(invalid)?)
            }
        };
        if process.is_none() && self.args.is_empty() {
            return Err(Error::Invalid { what: "exec".into(), why: "needs a command".into() });
        }
        let mut capabilities = Vec::new();
        for name in &self.cap {
            let invalid =
                |_| Error::Invalid { what: "--cap".into(), why: format!("{name:?} is no capability") };
            capabilities
                .push(serde_json::from_value(serde_json::Value::from(name.as_str())).map_err(invalid)?);
        }
        let options = ExecOptions {
            process,
            args: self.args.clone(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user,
            additional_gids: self.additional_gids.clone(),
            capabilities,
            no_new_privileges: self.no_new_privs.then_some(true),
            terminal: self.tty,
            ignore_paused: self.ignore_paused,
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            pidfd_socket: self.pidfd_socket.clone(),
            preserve_fds: self.preserve_fds,
            detach: self.detach,
            groups: self.cgroup.clone(),
            selinux_label: self.process_label.clone(),
            apparmor_profile: self.apparmor.clone(),
        };
        let status = runtime.exec(&self.id, &options)?;
        Ok(status.map_or(0, |status| u8::try_from(status.code()).unwrap_or(u8::MAX)))
    }
}

/// A group as `PATH` or `CONTROLLER,…:PATH`.
fn parse_group(text: &str) -> Result<GroupBelow, String> {
    let (controllers, path) = match text.split_once(':') {
        Some((controllers, path)) => (Some(controllers.to_owned()), path),
        None => (None, text),
    };
    if path.is_empty() || controllers.as_ref().is_some_and(String::is_empty) {
        return Err(format!("{text:?} is not [CONTROLLER,…:]PATH"));
    }
    Ok(GroupBelow { controllers, path: path.into() })
}
