//! A further process in a container, as `exec` asks for it.

use std::path::PathBuf;

use oci_spec::runtime::{Capability, Process, User};

use super::Runtime;
use super::lifecycle::{send_console, send_listener, send_pidfd, window_size, write_pid_file};
use crate::container::Stdio;
use crate::error::{Error, Result};
use crate::exec::{Exec, GroupBelow};
use crate::hooks::Status;
use crate::process::{ExitStatus, Foreground};
use crate::seccomp::Filter;
use crate::shield::shield;

/// Options of `exec`. What is not said is as in the container's own process.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// The whole process; the fields below, up to the terminal, are then ignored.
    pub process: Option<Process>,
    /// Command and arguments.
    pub args: Vec<String>,
    /// Further environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// User and group id.
    pub user: Option<(u32, u32)>,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// Further capabilities.
    pub capabilities: Vec<Capability>,
    /// Whether it may not gain privileges; `None` as the container.
    pub no_new_privileges: Option<bool>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Allowed in a paused container (it then waits for `resume`).
    pub ignore_paused: bool,
    /// A socket that gets the terminal's other side.
    pub console_socket: Option<PathBuf>,
    /// A file that gets the process id.
    pub pid_file: Option<PathBuf>,
    /// A socket that gets a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Descriptors from 3 up that the process inherits.
    pub preserve_fds: u32,
    /// SELinux label.
    pub selinux_label: Option<String>,
    /// AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// Return when it runs.
    pub detach: bool,
    /// Groups below the container's, which it joins.
    pub groups: Vec<GroupBelow>,
}

impl Runtime {
    /// Keeps this program out of the container's reach, which may execute it anew: to be called before
    /// anything is read that can be read once only.
    ///
    /// # Errors
    /// As [`shield`](crate::shield()).
    pub fn shield_from(&self, id: &str) -> Result<()> {
        shield(&self.spec(id)?)
    }

    /// Starts a process in a running container. `None` if detached.
    ///
    /// # Errors
    /// [`Error::State`] if the container isn't running; as
    /// [`Exec::spawn`](crate::Exec::spawn).
    pub fn exec(&self, id: &str, options: &ExecOptions) -> Result<Option<ExitStatus>> {
        let record = self.record(id)?;
        let status = self.status(&record)?;
        let runs = matches!(status, Status::Running | Status::Created)
            || status == Status::Paused && options.ignore_paused;
        if !runs {
            let state = status.to_string();
            return Err(Error::State { operation: "exec in", id: id.to_owned(), state });
        }
        let spec = self.spec(id)?;
        shield(&spec)?;
        let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let filter = filter.map(Filter::compile).transpose()?;
        let process = match &options.process {
            Some(process) => process.clone(),
            None => assemble(spec.process().clone().unwrap_or_default(), options),
        };
        let terminal = process.terminal() == Some(true);
        if terminal && options.detach && options.console_socket.is_none() {
            return Err(Error::invalid("--console-socket", "a detached terminal needs one"));
        }
        let stdio =
            if terminal { Stdio::Terminal(window_size(process.console_size())) } else { Stdio::Inherit };
        let target = rustix::process::Pid::from_raw(record.pid)
            .ok_or_else(|| Error::NotFound { what: format!("container {id}") })?;
        let mut exec = Exec::new(target, process)
            .stdio(stdio)
            .filter(filter)
            .preserve_descriptors(options.preserve_fds)
            .all_cpus(true)
            .linux(spec.linux().clone())
            .plain_lines(options.console_socket.is_none());
        if !options.groups.is_empty() {
            let none = || Error::unsupported("--cgroup", "the container has no control group");
            exec = exec.groups_below(record.cgroup()?.ok_or_else(none)?, options.groups.clone());
        }
        let mut process = exec.spawn()?;
        if let Some(listener) = process.take_notifications() {
            let pid = process.pid().as_raw_nonzero().get();
            if let Err(error) = send_listener(&record, &spec, &listener, pid, status) {
                // Nobody would ever answer its calls.
                let _ = process.signal(9);
                let _ = process.wait();
                return Err(error);
            }
        }
        if let Some(socket) = &options.console_socket
            && let Some(terminal) = process.take_terminal()
        {
            send_console(socket, &terminal)?;
        }
        if let Some(socket) = &options.pidfd_socket {
            send_pidfd(socket, &process)?;
        }
        write_pid_file(options.pid_file.as_deref(), process.pid().as_raw_nonzero().get())?;
        if options.detach {
            return Ok(None);
        }
        process.wait_foreground(&Foreground::default()).map(Some)
    }
}

/// The container's own process with what `exec` changes of it.
fn assemble(mut process: Process, options: &ExecOptions) -> Process {
    process.set_args(Some(options.args.clone())).set_terminal(Some(options.terminal));
    if !options.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(options.env.iter().cloned());
        process.set_env(Some(env));
    }
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    if let Some((uid, gid)) = options.user {
        let mut user = User::default();
        user.set_uid(uid).set_gid(gid);
        process.set_user(user);
    }
    if !options.additional_gids.is_empty() {
        process.user_mut().set_additional_gids(Some(options.additional_gids.clone()));
    }
    if let Some(no_new_privileges) = options.no_new_privileges {
        process.set_no_new_privileges(Some(no_new_privileges));
    }
    if options.selinux_label.is_some() {
        process.set_selinux_label(options.selinux_label.clone());
    }
    if options.apparmor_profile.is_some() {
        process.set_apparmor_profile(options.apparmor_profile.clone());
    }
    if !options.capabilities.is_empty() {
        let mut sets = process.capabilities().clone().unwrap_or_default();
        let more = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.extend(options.capabilities.iter().copied());
            Some(set)
        };
        let (bounding, effective, permitted) =
            (more(sets.bounding()), more(sets.effective()), more(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        // The kernel has ambient capabilities only where they are inheritable too, which is the bundle's choice.
        if sets.inheritable().as_ref().is_some_and(|set| !set.is_empty()) {
            let ambient = more(sets.ambient());
            sets.set_ambient(ambient);
        }
        process.set_capabilities(Some(sets));
    }
    process
}
