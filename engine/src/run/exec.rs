//! Exec: a further process in a container that runs.
//!
//! ```text
//!   <runroot>/containers/<id>          whose first process is this
//!   <root>/containers/<id>/process.json   what that process is like: the new one gets the same
//! ```
//!
//! The store is not opened: an ordinary user has authority over his containers only as long as he has
//! not entered a user namespace beside theirs.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxSeccomp, Process, UserBuilder};
use onggi_runtime::seccomp::Filter as CompiledFilter;
use onggi_runtime::{Defaults, Exec, Foreground, Stdio, WindowSize, default_spec};
use onggi_sys::clone::SingleThreaded;
use onggi_sys::idmap::{IdMap, Range};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::request::Streams;
use super::{security, user};
use crate::Engine;
use crate::containers::{Attached, DetachKeys, Status, new_id, streams};
use crate::error::{Error, Result};

const FILE: &str = "process.json";
/// The most that is read of it: arguments and environment are bounded by the kernel.
const MAX_FILE: u64 = 16 << 20;

/// The filter of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Filter {
    /// Docker's default profile.
    Docker,
    /// None.
    Unconfined,
    /// The caller's.
    Profile(Box<LinuxSeccomp>),
}

/// What a container's first process is like.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) filter: Filter,
    /// Whether the container has a control group of its own.
    pub(crate) own_group: bool,
}

impl Started {
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let bytes = serde_json::to_vec(self).expect("plain values always serialise");
        fs::write(&path, bytes).map_err(|source| Error::Write { path, source })
    }

    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
        read.and_then(|_| Ok(serde_json::from_slice(&bytes)?)).map_err(|source| Error::Read { path, source })
    }
}

/// What to run in which container.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// A name, an ID, or the beginning of an ID.
    pub container: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `NAME=value`, over the container's.
    pub env: Vec<String>,
    /// `user[:group]` in place of the container's.
    pub user: Option<String>,
    /// The working directory in place of the container's.
    pub workdir: Option<String>,
    /// Whether it has every capability and no filter.
    pub privileged: bool,
    /// Whether the caller waits for it; without, it has no streams.
    pub detach: bool,
    /// Whether the caller's standard input reaches it.
    pub interactive: bool,
    /// Whether it has a terminal; its size.
    pub terminal: Option<WindowSize>,
    /// What, typed at the terminal, leaves it to itself.
    pub detach_keys: DetachKeys,
}

impl Engine {
    /// Runs a process in a running container to its end, or until the caller leaves it; of one in the
    /// background only its start is waited for.
    pub fn exec(&self, request: &ExecRequest) -> Result<Attached> {
        let details = self.container(&request.container)?;
        if details.status == Status::Paused {
            return Err(Error::IsPaused { name: request.container.clone() });
        }
        let record = details.record;
        let target = details.pid.ok_or_else(|| Error::NotRunning { id: record.id.clone() })?;
        shield(target)?;
        let all = !request.detach;
        let stdio = match request.terminal {
            Some(size) => Stdio::Terminal(size),
            None => streams(Streams { input: request.interactive && all, output: all, error: all })?,
        };
        let mut process = self.join(&record.id, target, request, stdio)?;
        let exec_id = new_id()?;
        let note = |actions: &[&str], more: &[(&str, &str)]| {
            self.note_container(&record, actions, &[&[("execID", &*exec_id)], more].concat());
        };
        let words = request.command.join(" ");
        note(&[&format!("exec_create: {words}"), &format!("exec_start: {words}")], &[]);
        if request.detach {
            return leave(&mut process).map(|()| Attached::Ended(0));
        }
        let foreground = Foreground {
            input: request.interactive,
            detach_keys: request.detach_keys.bytes().to_vec(),
            ..Foreground::default()
        };
        let Some(status) = process.attend(&foreground)? else {
            note(&["exec_detach"], &[]);
            return leave(&mut process).map(|()| Attached::Detached);
        };
        note(&["exec_die"], &[("exitCode", &status.code().to_string())]);
        Ok(Attached::Ended(u8::try_from(status.code()).unwrap_or(u8::MAX)))
    }
}

/// Leaves a process to itself. If it has a terminal, somebody has to hold the other side, else it would
/// be hung up, and to read what it writes, else it would wait for ever.
fn leave(process: &mut onggi_runtime::Process) -> Result<()> {
    let failed = |source| Error::Process { op: "leave the process in the background", source };
    let Some(terminal) = process.take_terminal() else { return Ok(()) };
    let single = SingleThreaded::check().map_err(failed)?;
    let holder = || -> std::io::Result<()> {
        rustix::process::setsid()?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for target in 0..=2 {
            onggi_sys::process::set_standard(null.as_fd(), target)?;
        }
        let mut bytes = [0; 4096];
        // EIO: nobody has the terminal any more.
        while rustix::io::read(&terminal, &mut bytes)? > 0 {}
        Ok(())
    };
    single.fork(|| i32::from(holder().is_err())).map(drop).map_err(failed)
}

impl Engine {
    /// Starts a process beside `target`, the first one of a container.
    pub(crate) fn join(
        &self,
        id: &str,
        target: Pid,
        request: &ExecRequest,
        stdio: Stdio,
    ) -> Result<onggi_runtime::Process> {
        let started = Started::read(&self.container_dir(id))?;
        let mut process = started.process;
        adapt(&mut process, request, target)?;
        let filter = match &started.filter {
            _ if request.privileged => None,
            Filter::Unconfined => None,
            Filter::Docker => Some(CompiledFilter::docker(security::bounding(&process))),
            Filter::Profile(profile) => Some(CompiledFilter::compile(profile)?),
        };
        let exec = Exec::new(target, process).stdio(stdio).filter(filter).join_cgroups(started.own_group);
        Ok(exec.spawn()?)
    }
}

/// The container's first process with what the caller changes of it.
fn adapt(process: &mut Process, request: &ExecRequest, target: Pid) -> Result<()> {
    process.set_args(Some(request.command.clone()));
    process.set_terminal(Some(request.terminal.is_some()));
    // Whoever is killed first is the container's own process.
    process.set_oom_score_adj(None);
    let mut env = process.env().clone().unwrap_or_default();
    if request.terminal.is_some() && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    if let Some(wanted) = &request.user {
        let path = format!("/proc/{}/root", target.as_raw_nonzero());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|errno| Error::Read { path: path.into(), source: errno.into() })?;
        let found = user::resolve(root.as_fd(), wanted, &[])?;
        env.retain(|variable| !variable.starts_with("HOME="));
        env.push(format!("HOME={}", found.home));
        let user =
            UserBuilder::default().uid(found.uid).gid(found.gid).additional_gids(found.additional_gids);
        process.set_user(user.build().map_err(Error::specification)?);
    }
    for variable in &request.env {
        let name = variable.split('=').next().unwrap_or_default();
        env.retain(|other| other.split('=').next() != Some(name));
        env.push(variable.clone());
    }
    process.set_env(Some(env));
    if let Some(dir) = &request.workdir {
        if !dir.starts_with('/') {
            return Err(Error::WorkingDir { dir: dir.clone() });
        }
        process.set_cwd(dir.into());
    }
    if request.privileged {
        process.set_capabilities(Some(security::sets(security::every())));
        process.set_no_new_privileges(Some(false));
    }
    Ok(())
}

/// Keeps our own file out of the reach of a container that has the IDs of its owner.
fn shield(target: Pid) -> Result<()> {
    let read = |name: &str| {
        let path = format!("/proc/{}/{name}", target.as_raw_nonzero());
        let text = fs::read_to_string(&path);
        text.map(|text| IdMap::from_kernel(&text)).map_err(|source| Error::Read { path: path.into(), source })
    };
    let (uids, gids) = (read("uid_map")?, read("gid_map")?);
    let all = [Range { inside: 0, outside: 0, count: u32::MAX }];
    let maps = (uids.ranges() != all).then_some((uids, gids));
    Ok(onggi_runtime::shield(&default_spec(&Defaults { maps, ..Defaults::default() }))?)
}
