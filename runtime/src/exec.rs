//! A further process in a running container.
//!
//! ```text
//!  caller ──clone──► helper: cgroups of the container joined by the caller,
//!                    then setns(pidfd, all) ──clone, as the caller's child──►
//!                    the process: pid namespace and all else of the container
//! ```
//!
//! A process can't change its own pid namespace, so the helper makes a second
//! one, whose parent is the caller, and ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{self, Linux};
use onggi_sys::clone::{Child, Clone3, Namespaces, SingleThreaded};
use onggi_sys::idmap::IdMap;
use onggi_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use crate::cgroup::{self, Cgroup};
use crate::channel::{CHILD, Channel, MAPPED, NOTIFY, PTY, REPORT, Report};
use crate::container::{Attachments, Stdio, converse};
use crate::error::{Error, Result};
use crate::init::{self, Streams};
use crate::plan::ProcessPlan;
use crate::process::Process;
use crate::seccomp::Filter;
use crate::shield;

/// A process to be, in a container that runs.
#[derive(Debug)]
pub struct Exec {
    target: Pid,
    process: runtime::Process,
    stdio: Stdio,
    filter: Option<Filter>,
    preserved: u32,
    join_cgroups: bool,
    below: Option<(Cgroup, Vec<GroupBelow>)>,
    all_cpus: bool,
    plain_lines: bool,
    linux: Option<Linux>,
}

/// A group below the container's, as `exec --cgroup` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupBelow {
    /// The version 1 controllers that are meant, with commas; `None` for all trees.
    pub controllers: Option<String>,
    /// The path below the container's group.
    pub path: PathBuf,
}

impl Exec {
    /// A process in the container whose first process is `target` (in the caller's
    /// pid namespace). It joins all namespaces and control groups of that one;
    /// everything else is as `process` says.
    pub fn new(target: Pid, process: runtime::Process) -> Self {
        Self {
            target,
            process,
            stdio: Stdio::Inherit,
            filter: None,
            preserved: 0,
            join_cgroups: true,
            below: None,
            all_cpus: false,
            plain_lines: false,
            linux: None,
        }
    }

    /// The standard descriptors; as [`Container::stdio`](crate::Container::stdio).
    #[must_use]
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.stdio = stdio;
        self
    }

    /// The system call filter: to be the same as the container's. None if not said.
    #[must_use]
    pub fn filter(mut self, filter: Option<Filter>) -> Self {
        self.filter = filter;
        self
    }

    /// Whether it joins the control groups of the container (the default). A container without groups
    /// of its own is in those of whoever started it, and an ordinary user may not enter them.
    #[must_use]
    pub fn join_cgroups(mut self, join: bool) -> Self {
        self.join_cgroups = join;
        self
    }

    /// Groups that exist below the container's, which it joins instead of that.
    #[must_use]
    pub(crate) fn groups_below(mut self, cgroup: Cgroup, below: Vec<GroupBelow>) -> Self {
        self.below = Some((cgroup, below));
        self
    }

    /// As [`Container::all_cpus`](crate::Container::all_cpus), where the process has no affinity of its own.
    #[must_use]
    pub fn all_cpus(mut self, all: bool) -> Self {
        self.all_cpus = all;
        self
    }

    /// The container's specification: what all its processes have in common (execution domain, memory policy).
    #[must_use]
    pub(crate) fn linux(mut self, linux: Option<Linux>) -> Self {
        self.linux = linux;
        self
    }

    /// As [`Container::plain_lines`](crate::Container::plain_lines).
    #[must_use]
    pub fn plain_lines(mut self, plain: bool) -> Self {
        self.plain_lines = plain;
        self
    }

    /// How many descriptors from 3 up the program inherits.
    #[must_use]
    pub fn preserve_descriptors(mut self, count: u32) -> Self {
        self.preserved = count;
        self
    }

    /// Starts it; returns when the program is running.
    ///
    /// The calling process must have one thread. It needs no more authority than
    /// the one that made the container: an ordinary user must *not* call
    /// [`rootless::enter`](crate::rootless::enter) before.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the container ended; else as
    /// [`Container::spawn`](crate::Container::spawn).
    pub fn spawn(mut self) -> Result<Process> {
        let gone = || Error::NotFound { what: format!("process {}", self.target.as_raw_nonzero()) };
        let pidfd = pidfd_open(self.target, PidfdFlags::empty()).map_err(|_| gone())?;
        let terminal = matches!(self.stdio, Stdio::Terminal(_));
        if !terminal && self.process.terminal() == Some(true) {
            return Err(Error::invalid("process.terminal", "is set, but no terminal was given"));
        }
        let mut plan = ProcessPlan::read(&self.process, self.filter.take())?;
        (plan.all_cpus, plan.plain_lines) = (self.all_cpus, self.plain_lines);
        if let Some(linux) = &self.linux {
            plan.belong_to(linux)?;
        }
        let (others, user) = differing(self.target)?;
        shield::check(if user { Some(maps_of(self.target)?) } else { None }.as_ref())?;
        let (streams, size) = match std::mem::take(&mut self.stdio) {
            Stdio::Inherit => (Streams::Inherit, None),
            Stdio::Given(fds) => (Streams::Given(fds), None),
            Stdio::Terminal(size) => (Streams::Terminal(size), Some(size)),
        };
        let (ours, theirs) = Channel::pair().map_err(Error::io("make", "a socket pair"))?;
        let ours_fd = ours.as_fd().as_raw_fd().unsigned_abs();
        let preserved = self.preserved;
        let plan_in = &mut plan;
        let pidfd_in = &pidfd;
        let helper = Clone3::default()
            .run(move |single| {
                let _ = onggi_sys::process::close_range(ours_fd, ours_fd);
                let joining = Joining { target: pidfd_in, namespaces: others, user };
                joining.helper(&theirs, single, |channel| {
                    init::run_process(plan_in, channel, streams, size, preserved, user)
                })
            })
            .map_err(Error::io("start", "a process to join the container"))?;
        if let Some(cpus) = &plan.affinity.before {
            rustix::thread::sched_setaffinity(Some(helper.pid), cpus)
                .map_err(Error::io("set", "process.execCPUAffinity.initial"))?;
        }
        // Groups first: what the container may use counts from here on.
        let joined = if self.join_cgroups { cgroup::join_like(helper.pid, self.target) } else { Ok(()) };
        let joined = joined.and_then(|()| {
            let Some((cgroup, below)) = &self.below else { return Ok(()) };
            let join =
                |one: &GroupBelow| cgroup.join_below(helper.pid, one.controllers.as_deref(), &one.path);
            below.iter().try_for_each(join)
        });
        let outcome = joined
            .and_then(|()| ours.send(MAPPED, &[], None).map_err(Error::io("talk to", "the joining process")));
        let outcome = outcome.and_then(|()| meet(&ours));
        if outcome.is_err() {
            // It may still wait for a word from here.
            let _ = onggi_sys::signal::send_pidfd(helper.pidfd.as_fd(), 9);
        }
        let _ = waitpid(Some(helper.pid), WaitOptions::empty());
        let (child, early, failed) = outcome?;
        match failed.map_or_else(|| converse(&ours, None), Err) {
            Ok(later) => {
                Ok(Process::new(child, later.pty.or(early.pty), later.notify.or(early.notify), None)
                    .plain_lines(plan.plain_lines))
            }
            Err(error) => {
                let process = Process::new(child, None, None, None);
                let _ = process.signal(9);
                let _ = process.wait();
                Err(error)
            }
        }
    }
}

struct Joining<'a> {
    target: &'a OwnedFd,
    namespaces: Namespaces,
    user: bool,
}

impl Joining<'_> {
    /// Joins, makes the real process, hands it over, ends.
    fn helper(
        &self,
        channel: &Channel,
        single: SingleThreaded,
        body: impl FnOnce(&Channel) -> Report,
    ) -> i32 {
        if channel.expect(MAPPED).is_err() {
            return 1;
        }
        if let Err(report) = init::join(self.target.as_fd(), self.namespaces, self.user) {
            channel.report(&report);
            return 1;
        }
        let clone = Clone3 { sibling: true, ..Clone3::default() };
        let made = clone.run_single(single, |_| {
            let report = body(channel);
            channel.report(&report);
            1
        });
        match made {
            Ok(child) => {
                let pid = child.pid.as_raw_nonzero().get().to_ne_bytes();
                i32::from(channel.send(CHILD, &pid, Some(child.pidfd.as_fd())).is_err())
            }
            Err(_) => 1,
        }
    }
}

/// Waits for the helper to hand over the process, which runs already and may have spoken first.
pub(crate) fn meet(channel: &Channel) -> Result<(Child, Attachments, Option<Error>)> {
    let broken = || Error::io("talk to", "the joining process");
    let mut early = Attachments::default();
    let mut failed = None;
    loop {
        match channel.receive().map_err(broken())? {
            Some(message) if message.kind == CHILD => {
                let pid = <[u8; 4]>::try_from(message.body.as_slice()).ok().map(i32::from_ne_bytes);
                return match (pid.and_then(Pid::from_raw), message.fd) {
                    (Some(pid), Some(pidfd)) => Ok((Child { pid, pidfd }, early, failed)),
                    _ => Err(broken()(io::Error::from(io::ErrorKind::InvalidData))),
                };
            }
            Some(message) if message.kind == PTY => early.pty = message.fd,
            Some(message) if message.kind == NOTIFY => early.notify = message.fd,
            Some(message) if message.kind == REPORT => {
                let report: Report = serde_json::from_slice(&message.body)
                    .map_err(|error| broken()(io::Error::from(error)))?;
                failed = Some(report.into_error());
            }
            // The helper's own report, if it didn't come to make the process.
            _ => {
                return Err(failed.unwrap_or_else(|| broken()(io::Error::from(io::ErrorKind::UnexpectedEof))));
            }
        }
    }
}

/// The namespaces in which a process is not ours, and whether the user namespace
/// is among them.
fn differing(target: Pid) -> Result<(Namespaces, bool)> {
    const KINDS: [(&str, Namespaces); 8] = [
        ("user", Namespaces::USER),
        ("mnt", Namespaces::MOUNT),
        ("pid", Namespaces::PID),
        ("ipc", Namespaces::IPC),
        ("uts", Namespaces::UTS),
        ("net", Namespaces::NET),
        ("cgroup", Namespaces::CGROUP),
        ("time", Namespaces::TIME),
    ];
    let mut others = Namespaces::NONE;
    for (name, kind) in KINDS {
        let of = |who: &str| {
            let path = format!("/proc/{who}/ns/{name}");
            rustix::fs::stat(&path).map(|stat| stat.st_ino).map_err(Error::io("look at", path))
        };
        if of("self")? != of(&target.as_raw_nonzero().to_string())? {
            others = others.with(kind);
        }
    }
    Ok((others, others.contains(Namespaces::USER)))
}

/// The id maps of a process, as the caller sees them.
fn maps_of(target: Pid) -> Result<(IdMap, IdMap)> {
    let directory = format!("/proc/{}", target.as_raw_nonzero());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open(&directory, flags, Mode::empty()).map_err(Error::io("open", &directory))?;
    let read = |name: &str| -> Result<IdMap> {
        let file = Root::single(proc.as_fd())
            .open(Path::new(name), OFlags::RDONLY, Mode::empty())
            .map_err(Error::io("open", format!("{directory}/{name}")))?;
        let text = io::read_to_string(std::fs::File::from(file)).map_err(Error::io("read", name))?;
        Ok(IdMap::from_kernel(&text))
    };
    Ok((read("uid_map")?, read("gid_map")?))
}
