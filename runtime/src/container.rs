//! Making a container: the parent's side.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use onggi_sys::clone::{Child, Clone3, Namespaces, enter};
use onggi_sys::mount::Change;
use onggi_sys::path::Root;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Pid;

use crate::cgroup::Cgroup;
use crate::channel::{CREATED, Channel, GO, HOOKS, MAPPED, NOTIFY, PTY, REPORT, ROOT, Report};
use crate::error::{Error, Result};
use crate::hooks::{HookStage, Hooks, Status};
use crate::init::{self, Init, RootSource, Streams};
use crate::joined::Entrance;
use crate::mounts::{MountPlan, Source};
use crate::netdevices;
use crate::plan::Plan;
use crate::process::{ExitStatus, Process};
use crate::seccomp::Filter;
use crate::{rootless, shield};

/// Where the root filesystem comes from.
pub enum Rootfs {
    /// A directory, as `root.path` of a bundle.
    Path(PathBuf),
    /// Called by the parent once the container's user namespace exists (given as
    /// a descriptor of it, `None` where the container shares the caller's).
    /// Returns a detached mount (from `fsmount` or `open_tree`), whose ids the
    /// callback has mapped where that is needed, and descriptors that are let go
    /// of once the container has it. The container sets itself up at the same
    /// time; what the callback takes is mostly hidden behind that.
    Mount(MountCallback),
}

/// Makes the root filesystem for a user namespace.
pub type MountCallback = Box<dyn FnOnce(Option<BorrowedFd<'_>>) -> io::Result<(OwnedFd, Vec<OwnedFd>)>>;

impl fmt::Debug for Rootfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Mount(_) => f.write_str("Mount"),
        }
    }
}

/// Rows and columns of a terminal; zeros leave the kernel's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WindowSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// The program's standard input, output and error.
#[derive(Debug, Default)]
pub enum Stdio {
    /// The caller's own.
    #[default]
    Inherit,
    /// These three, in the order input, output, error.
    Given([OwnedFd; 3]),
    /// A new terminal of this size; its other side is in the [`Process`].
    Terminal(WindowSize),
}

/// Which system call filter the program gets.
#[derive(Clone, Debug, Default)]
pub enum SeccompSource {
    /// `linux.seccomp` of the specification; none if that is absent.
    #[default]
    Spec,
    /// Docker's default profile for the specification's bounding capabilities.
    Docker,
    /// A filter compiled before.
    Filter(Filter),
    /// None.
    Unconfined,
}

/// What a [`Container::on_created`] callback sees.
#[derive(Debug)]
pub struct Created<'a> {
    /// The first process, in the caller's pid namespace.
    pub pid: Pid,
    /// Its pidfd.
    pub pidfd: BorrowedFd<'a>,
    /// The container's user namespace if it is not the caller's.
    pub user_namespace: Option<BorrowedFd<'a>>,
}

type CreatedCallback = Box<dyn FnOnce(&Created<'_>) -> io::Result<()>>;

/// A container to be: a specification and what goes with it.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use onggi_runtime::{Container, Defaults, Foreground, Rootfs, default_spec};
///
/// let mut spec = default_spec(&Defaults::default());
/// if let Some(process) = spec.process_mut() {
///     process.set_args(Some(vec!["/bin/true".into()]));
/// }
/// let process = Container::new("demo", spec).rootfs(Rootfs::Path("/srv/root".into())).spawn()?;
/// let status = process.wait_foreground(&Foreground::default())?;
/// std::process::exit(status.code());
/// # }
/// ```
pub struct Container {
    id: String,
    spec: Spec,
    bundle: PathBuf,
    rootfs: Option<Rootfs>,
    stdio: Stdio,
    seccomp: SeccompSource,
    with_init: bool,
    die_with_parent: bool,
    preserved: u32,
    cgroup: Option<Cgroup>,
    on_created: Option<CreatedCallback>,
    gate: Option<OwnedFd>,
    new_keyring: bool,
    mounts: Vec<(PathBuf, OwnedFd)>,
    no_pivot: bool,
    all_cpus: bool,
    plain_lines: bool,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Container {
    /// A container with this name (for messages and cgroups) and specification.
    pub fn new(id: impl Into<String>, spec: Spec) -> Self {
        Self {
            id: id.into(),
            spec,
            bundle: PathBuf::from("/"),
            rootfs: None,
            stdio: Stdio::Inherit,
            seccomp: SeccompSource::Spec,
            with_init: false,
            die_with_parent: true,
            preserved: 0,
            cgroup: None,
            on_created: None,
            gate: None,
            new_keyring: true,
            mounts: Vec::new(),
            no_pivot: false,
            all_cpus: false,
            plain_lines: false,
        }
    }

    /// The bundle's directory, which relative paths of the specification
    /// (`root.path`, bind sources) are below. `/` if not said.
    #[must_use]
    pub fn bundle(mut self, directory: impl Into<PathBuf>) -> Self {
        self.bundle = directory.into();
        self
    }

    /// The root filesystem; `root.path` of the specification if not said.
    #[must_use]
    pub fn rootfs(mut self, rootfs: Rootfs) -> Self {
        self.rootfs = Some(rootfs);
        self
    }

    /// The standard descriptors. `process.terminal` must agree:
    /// [`Stdio::Terminal`] sets it by itself.
    #[must_use]
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.stdio = stdio;
        self
    }

    /// The system call filter.
    #[must_use]
    pub fn seccomp(mut self, source: SeccompSource) -> Self {
        self.seccomp = source;
        self
    }

    /// Process 1 is a small init of our own, which forwards signals to the
    /// program and collects orphans (`--init`).
    #[must_use]
    pub fn with_init(mut self, with_init: bool) -> Self {
        self.with_init = with_init;
        self
    }

    /// Whether the container is killed when the calling process ends (the
    /// default, for a container in the foreground).
    #[must_use]
    pub fn die_with_parent(mut self, die: bool) -> Self {
        self.die_with_parent = die;
        self
    }

    /// How many descriptors from 3 up the program inherits.
    #[must_use]
    pub fn preserve_descriptors(mut self, count: u32) -> Self {
        self.preserved = count;
        self
    }

    /// The control groups that the container runs in, made before. Without, it
    /// stays in the caller's.
    #[must_use]
    pub fn cgroup(mut self, cgroup: Cgroup) -> Self {
        self.cgroup = Some(cgroup);
        self
    }

    /// Whether the container gets a session keyring of its own (the default) rather
    /// than the caller's.
    #[must_use]
    pub fn new_keyring(mut self, new: bool) -> Self {
        self.new_keyring = new;
        self
    }

    /// A detached mount that the container gets at `target` besides those of the specification: where the caller made
    /// it himself, with its ids mapped already.
    #[must_use]
    pub fn mount(mut self, target: impl Into<PathBuf>, mount: OwnedFd) -> Self {
        self.mounts.push((target.into(), mount));
        self
    }

    /// Cover the caller's root instead of pivoting away from it (`--no-pivot`): the only way on a host
    /// whose root is its ramdisk.
    #[must_use]
    pub fn no_pivot(mut self, no_pivot: bool) -> Self {
        self.no_pivot = no_pivot;
        self
    }

    /// Lets the program use all CPUs of its control group, also where the caller is confined to some of them. Without,
    /// it inherits that.
    #[must_use]
    pub fn all_cpus(mut self, all: bool) -> Self {
        self.all_cpus = all;
        self
    }

    /// Has the program's terminal pass on line ends as they are written, without a carriage return: for a caller who
    /// copies them to a terminal or file of his own.
    #[must_use]
    pub fn plain_lines(mut self, plain: bool) -> Self {
        self.plain_lines = plain;
        self
    }

    /// The program starts only when somebody connects to this listening socket
    /// (`SOCK_SEQPACKET`) and sends `G`; until then the container is "created".
    /// Reports of a start that failed go over that connection.
    #[must_use]
    pub(crate) fn gate(mut self, gate: OwnedFd) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Called by the parent once all namespaces exist and before the program
    /// starts: the time to give the network namespace its interfaces.
    #[must_use]
    pub fn on_created(mut self, callback: impl FnOnce(&Created<'_>) -> io::Result<()> + 'static) -> Self {
        self.on_created = Some(Box::new(callback));
        self
    }

    /// Checks the specification, as [`spawn`](Self::spawn) does before anything is done: sources of bind mounts and
    /// namespaces to join are opened, nothing is made.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Unsupported`].
    pub fn check(mut self) -> Result<()> {
        let filter = self.filter()?;
        Plan::read(&self.spec, &self.bundle, filter).map(drop)
    }

    /// Makes the container and starts the program; returns when the program is
    /// running.
    ///
    /// The calling process must have one thread.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Unsupported`] before anything was done;
    /// [`Error::Setup`] and [`Error::Exec`] from inside, after which nothing is
    /// left over; [`Error::Exposed`] if [`shield`](crate::shield()) had to be
    /// called first.
    pub fn spawn(mut self) -> Result<Process> {
        let filter = self.filter()?;
        let terminal = matches!(self.stdio, Stdio::Terminal(_));
        if let Some(process) = self.spec.process_mut() {
            if terminal {
                process.set_terminal(Some(true));
            } else if process.terminal() == Some(true) {
                return Err(Error::invalid("process.terminal", "is set, but no terminal was given"));
            }
        }
        let mut plan = Plan::read(&self.spec, &self.bundle, filter)?;
        (plan.process.all_cpus, plan.process.plain_lines) = (self.all_cpus, self.plain_lines);
        for (target, mount) in self.mounts.drain(..) {
            plan.mount(MountPlan::detached(&target, mount)?);
        }
        shield::check(plan.maps.as_ref())?;
        let rootfs = self.rootfs.take().or_else(|| self.root_of_spec());
        let rootfs = rootfs.ok_or_else(|| Error::invalid("root.path", "is missing"))?;
        let root_place = match &rootfs {
            Rootfs::Path(path) if self.spec.hooks().is_some() && !self.no_pivot => Some(path.clone()),
            _ => None,
        };
        let (root, callback) = match rootfs {
            Rootfs::Path(path) => (open_root(path)?, None),
            Rootfs::Mount(callback) => (RootSource::Sent, Some(callback)),
        };
        let hooks = Hooks::of(&self.id, &self.bundle, &self.spec);
        let streams = match std::mem::take(&mut self.stdio) {
            Stdio::Inherit => Streams::Inherit,
            Stdio::Given(fds) => Streams::Given(fds),
            Stdio::Terminal(size) => Streams::Terminal(size),
        };
        let (ours, theirs) = Channel::pair().map_err(Error::io("make", "a socket pair"))?;
        let mut start = plan.new;
        let mut late = Namespaces::NONE;
        // Joined after the clone, cgroups would lie outside the namespace's root.
        if self.cgroup.as_ref().is_some_and(|cgroup| !cgroup.joins_at_clone()) {
            late = late.with(Namespaces::CGROUP);
        }
        // These take the kernel longest. If nobody waits for them the child makes them, at the time at
        // which the parent mounts the root.
        if self.on_created.is_none() {
            late = late.with(Namespaces::IPC);
            if plan.net_devices.is_empty() {
                late = late.with(Namespaces::NET);
            }
        }
        late = late.within(plan.new);
        start = start.without(late);
        let groups = self.cgroup.as_ref().map(Cgroup::doors).transpose()?.unwrap_or_default();
        let cgroup_dir = self.cgroup.as_ref().and_then(Cgroup::clone_into);
        let entrance = match plan.joins_first() {
            true => Some(Entrance::of(&plan, start, cgroup_dir)?),
            false => None,
        };
        let entered = match entrance {
            Some(_) => Entered(Vec::new()),
            None => enter_before_clone(&plan)?,
        };
        let init = Init {
            plan: &mut plan,
            root,
            streams,
            with_reaper: self.with_init,
            die_with_parent: self.die_with_parent,
            groups,
            late,
            preserved: self.preserved,
            gate: self.gate.take(),
            keyring: if self.new_keyring {
                std::ffi::CString::new(format!("_ses.{}", self.id)).ok()
            } else {
                None
            },
            hooks: hooks.clone(),
            root_place,
            no_pivot: self.no_pivot,
        };
        let (child, failed) = if let Some(entrance) = entrance {
            entrance.clone(&ours, theirs, |channel, single| init::run(init, channel, single))?
        } else {
            let namespaces = start.without(Namespaces::TIME);
            let clone = Clone3 { namespaces, cgroup: cgroup_dir, sibling: false };
            let ours_fd = ours.as_fd().as_raw_fd().unsigned_abs();
            let group_fd = cgroup_dir.map(|fd| fd.as_raw_fd().unsigned_abs());
            let child = clone.run(move |single| {
                // The parent's end: its copy here would hide the parent's death. And the host's groups: a
                // container that waits for its start has nothing of the host's.
                for fd in [Some(ours_fd), group_fd].into_iter().flatten() {
                    let _ = onggi_sys::process::close_range(fd, fd);
                }
                init::run(init, theirs, single)
            });
            let object = || format!("the namespaces of container {}", self.id);
            (child.map_err(Error::io("make", object()))?, None)
        };
        drop(entered);
        let mut guard = Guard { child: Some(child), cgroup: self.cgroup.take() };
        let outcome = match failed {
            Some(error) => Err(error),
            None => set_up(&plan, &mut guard, &ours, callback, self.on_created.take()),
        };
        // The error that the child reports explains the parent's broken pipe.
        let pid = guard.child.as_ref().map_or(0, |child| child.pid.as_raw_nonzero().get());
        let attachments =
            match outcome.and_then(|()| converse(&ours, hooks.as_ref().map(|hooks| (hooks, pid)))) {
                Ok(attachments) => attachments,
                Err(error) => return Err(guard.explain(&ours, error)),
            };
        let Some(child) = guard.child.take() else {
            return Err(Error::NotFound { what: "the container's first process".into() });
        };
        Ok(Process::new(child, attachments.pty, attachments.notify, guard.cgroup.take())
            .plain_lines(self.plain_lines))
    }

    fn filter(&mut self) -> Result<Option<Filter>> {
        match std::mem::take(&mut self.seccomp) {
            SeccompSource::Unconfined => Ok(None),
            SeccompSource::Filter(filter) => Ok(Some(filter)),
            SeccompSource::Spec => {
                let profile = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
                profile.map(Filter::compile).transpose()
            }
            SeccompSource::Docker => {
                let process = self.spec.process().as_ref();
                let sets = process.and_then(|process| process.capabilities().as_ref());
                let list = sets.and_then(|sets| sets.bounding().as_ref());
                let bounding = list.into_iter().flatten().fold(onggi_sys::caps::Set::EMPTY, |set, one| {
                    set.with(crate::plan::capability_name(*one)).unwrap_or(set)
                });
                Ok(Some(Filter::docker(bounding)))
            }
        }
    }

    fn root_of_spec(&self) -> Option<Rootfs> {
        let path = self.spec.root().as_ref()?.path();
        Some(Rootfs::Path(if path.is_absolute() { path.clone() } else { self.bundle.join(path) }))
    }
}

/// Kills and reaps a child that no [`Process`] took over.
struct Guard {
    child: Option<Child>,
    cgroup: Option<Cgroup>,
}

impl Guard {
    /// The child's own report if there is one, else how it ended if it did, else
    /// the parent's error.
    fn explain(&mut self, channel: &Channel, error: Error) -> Error {
        let broken = matches!(&error, Error::Io { source, .. } if matches!(source.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset));
        if !broken {
            return error;
        }
        while let Ok(Some(message)) = channel.receive() {
            if message.kind == REPORT
                && let Ok(report) = serde_json::from_slice::<Report>(&message.body)
            {
                return report.into_error();
            }
        }
        match self.child.take().map(|child| Process::new(child, None, None, self.cgroup.take()).wait()) {
            Some(Ok(status)) => Error::Ended { status },
            _ => error,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else { return };
        let process = Process::new(child, None, None, self.cgroup.take());
        let _ = process.signal(9);
        let _: Result<ExitStatus> = process.wait();
    }
}

/// A path to become the root: cloned now if the caller may, else by the child.
fn open_root(path: PathBuf) -> Result<RootSource> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::invalid("root.path", "has a NUL byte"))?;
    match onggi_sys::mount::clone_tree(CWD, &name, true) {
        Ok(fd) => Ok(RootSource::Cloned(fd)),
        Err(error) if error.raw_os_error() == Some(1) => Ok(RootSource::Path(path)),
        Err(error) => Err(Error::io("open root filesystem", path.display().to_string())(error)),
    }
}

/// Namespaces that hold for children only: the parent enters, clones, returns.
struct Entered(Vec<(Namespaces, OwnedFd)>);

impl Drop for Entered {
    fn drop(&mut self) {
        for (kind, own) in &self.0 {
            // The way back to one's own namespace is always open.
            let _ = enter(own.as_fd(), *kind);
        }
    }
}

fn enter_before_clone(plan: &Plan) -> Result<Entered> {
    let mut entered = Entered(Vec::new());
    let own = |path: &str| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", path))
    };
    for (kind, namespace, path) in &plan.join {
        if *kind == Namespaces::PID {
            let back = own("/proc/self/ns/pid")?;
            enter(namespace.as_fd(), *kind).map_err(Error::io("join the pid namespace", path))?;
            entered.0.push((*kind, back));
        }
    }
    if plan.new.contains(Namespaces::TIME) {
        let back = own("/proc/self/ns/time")?;
        onggi_sys::clone::unshare(Namespaces::TIME).map_err(Error::io("make", "a time namespace"))?;
        entered.0.push((Namespaces::TIME, back));
        if !plan.time_offsets.is_empty() {
            let file = rustix::fs::open(
                "/proc/self/timens_offsets",
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(Error::io("open", "/proc/self/timens_offsets"))?;
            rustix::io::write(&file, plan.time_offsets.as_bytes())
                .map_err(Error::io("set the clock offsets", plan.time_offsets.trim()))?;
        }
    }
    Ok(entered)
}

/// The parent's steps between the clone and the program.
fn set_up(
    plan: &Plan,
    guard: &mut Guard,
    channel: &Channel,
    callback: Option<MountCallback>,
    on_created: Option<CreatedCallback>,
) -> Result<()> {
    let Some(child) = &guard.child else { return Ok(()) };
    let needs_proc = plan.maps.is_some() || plan.process.oom_score_adj.is_some();
    let proc = if needs_proc { Some(proc_of(child.pid)?) } else { None };
    if let (Some((uids, gids)), Some(proc)) = (&plan.maps, &proc) {
        rootless::write_maps(proc.as_fd(), child.pid, uids, gids)?;
    }
    if let (Some(score), Some(proc)) = (plan.process.oom_score_adj, &proc) {
        write_below(proc.as_fd(), "oom_score_adj", score.to_string().as_bytes())
            .map_err(Error::io("set the OOM score to", score.to_string()))?;
    }
    raise_limits(plan, child.pid)?;
    give_net_devices(plan, child.pid)?;
    let made = match (&plan.maps, &proc) {
        (Some(_), Some(proc)) => Some(
            rustix::fs::openat(proc, "ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(Error::io("open", "the container's user namespace"))?,
        ),
        _ => None,
    };
    let user_namespace = made.as_ref().or(plan.joined_user_namespace());
    shift_mounts(plan, user_namespace)?;
    let broken = |what| Error::io("talk to", what);
    let pid = child.pid.as_raw_nonzero().get().to_ne_bytes();
    channel.send(MAPPED, &pid, None).map_err(broken("the container's first process"))?;
    if let Some(callback) = on_created {
        let created = Created {
            pid: child.pid,
            pidfd: child.pidfd.as_fd(),
            user_namespace: user_namespace.map(AsFd::as_fd),
        };
        callback(&created).map_err(Error::io("prepare", "the container's namespaces"))?;
    }
    if let Some(callback) = callback {
        let (mount, held) = callback(user_namespace.map(AsFd::as_fd))
            .map_err(Error::io("mount", "the container's root filesystem"))?;
        channel.send(ROOT, &[], Some(mount.as_fd())).map_err(broken("the container's first process"))?;
        drop(held);
    }
    Ok(())
}

/// `/proc/PID` of the child: really of a proc filesystem.
fn proc_of(pid: Pid) -> Result<OwnedFd> {
    let path = format!("/proc/{}", pid.as_raw_nonzero());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::io("open", &path))?;
    let kind = rustix::fs::fstatfs(&dir).map_err(Error::io("look at", &path))?.f_type;
    if kind == rustix::fs::PROC_SUPER_MAGIC {
        Ok(dir)
    } else {
        Err(Error::unsupported("a host without a proc filesystem on /proc", "mount one"))
    }
}

/// Writes one file directly below a held directory of /proc.
pub(crate) fn write_below(dir: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    let file = Root::single(dir).open(Path::new(name), OFlags::WRONLY, Mode::empty())?;
    let written = rustix::io::write(&file, value)?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn give_net_devices(plan: &Plan, pid: Pid) -> Result<()> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let joined = plan.join.iter().find_map(|(kind, fd, _)| (*kind == Namespaces::NET).then_some(fd));
    if let Some(namespace) = joined {
        return netdevices::give(&plan.net_devices, namespace.as_fd());
    }
    let namespace =
        rustix::fs::openat(proc_of(pid)?, "ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", "the container's network namespace"))?;
    netdevices::give(&plan.net_devices, namespace.as_fd())
}

/// A hard limit above the caller's own needs the caller's authority; the child
/// has none outside.
fn raise_limits(plan: &Plan, pid: Pid) -> Result<()> {
    for (name, resource, soft, hard) in &plan.process.rlimits {
        let own = rustix::process::getrlimit(*resource);
        if own.maximum.is_some_and(|own| *hard > own) {
            let limit = |value: u64| (value != u64::MAX).then_some(value);
            let wanted = rustix::process::Rlimit { current: limit(*soft), maximum: limit(*hard) };
            rustix::process::prlimit(Some(pid), *resource, wanted).map_err(Error::io(
                "raise the limit",
                format!("{name} to {soft}:{hard} (above the caller's own it needs CAP_SYS_RESOURCE)"),
            ))?;
        }
    }
    Ok(())
}

/// Id-maps the bind mounts that want it. The descriptor is shared with the child,
/// which sees the change.
fn shift_mounts(plan: &Plan, user_namespace: Option<&OwnedFd>) -> Result<()> {
    for mount in &plan.mounts {
        let (Some(shift), Source::Bind { path, tree, .. }) = (&mount.idmap, &mount.source) else { continue };
        let object = || path.display().to_string();
        let Some(tree) = tree else {
            return Err(Error::unsupported(
                format!("an id-mapped mount of {}", object()),
                "it needs authority over the host's filesystem",
            ));
        };
        let own;
        let namespace = match (&shift.maps, user_namespace) {
            (Some((uids, gids)), _) => {
                own = rootless::user_namespace(uids, gids)?;
                own.as_fd()
            }
            (None, Some(container)) => container.as_fd(),
            // The container's ids are the host's: nothing to shift.
            (None, None) => continue,
        };
        let change = Change { idmap: Some(namespace), recursive: shift.recursive, ..Change::default() };
        match change.apply(tree.as_fd(), c"") {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(22) => {
                return Err(Error::unsupported(
                    format!("an id-mapped mount of {}", object()),
                    "its filesystem can't map ids; share the host's ids with --userns=host, or copy the files",
                ));
            }
            Err(error) => return Err(Error::io("map the ids of", object())(error)),
        }
    }
    Ok(())
}

/// What the child hands over before it becomes the program.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    pub(crate) pty: Option<OwnedFd>,
    pub(crate) notify: Option<OwnedFd>,
}

/// Listens until the program runs, waits for its start, or a report comes; runs
/// the caller's hooks when it is their time.
pub(crate) fn converse(channel: &Channel, hooks: Option<(&Hooks, i32)>) -> Result<Attachments> {
    let mut attachments = Attachments::default();
    let broken = || Error::io("talk to", "the container's first process");
    while let Some(message) = channel.receive().map_err(broken())? {
        match message.kind {
            PTY => attachments.pty = message.fd,
            NOTIFY => attachments.notify = message.fd,
            CREATED => return Ok(attachments),
            HOOKS => {
                if let Some((hooks, pid)) = hooks {
                    hooks.run(HookStage::Prestart, pid, Status::Creating)?;
                    hooks.run(HookStage::CreateRuntime, pid, Status::Creating)?;
                }
                channel.send(GO, &[], None).map_err(broken())?;
            }
            REPORT => {
                let report: Report = serde_json::from_slice(&message.body)
                    .map_err(|error| broken()(io::Error::from(error)))?;
                return Err(report.into_error());
            }
            _ => return Err(broken()(io::Error::from(io::ErrorKind::InvalidData))),
        }
    }
    Ok(attachments)
}
