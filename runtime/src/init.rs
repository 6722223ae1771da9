//! What the container's first process does before it becomes the program.
//!
//! The steps are in the order of this file, top to bottom; each either succeeds
//! or ends the process with a [`Report`].

mod devices;
mod home;
mod identity;
mod labels;
mod masks;
mod program;
mod reaper;
mod rootfs;
mod terminal;

use std::ffi::CString;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use onggi_sys::clone::{Namespaces, SingleThreaded, enter, enter_all, unshare};
use onggi_sys::mount::{Change, Propagation};
use onggi_sys::path::Root;
use onggi_sys::signal::{self, SignalSet};
use rustix::fs::CWD;
use rustix::process::DumpableBehavior;

use crate::affinity::use_all_cpus;
use crate::cgroup::JOIN;
use crate::channel::{CREATED, Channel, GO, HOOKS, MAPPED, Report};
use crate::container::WindowSize;
use crate::error::{Error, Stage};
use crate::hooks::{HookStage, Hooks, Status};
use crate::mounts::Source;
use crate::plan::{Plan, ProcessPlan};

/// Result of a step.
pub(crate) type Step<T> = Result<T, Report>;

/// For `map_err`: this step failed on this object.
pub(crate) fn failed<E: Into<io::Error>>(
    stage: Stage,
    object: impl Into<String>,
) -> impl FnOnce(E) -> Report {
    move |error| Report::Setup {
        stage,
        object: object.into(),
        errno: Into::<io::Error>::into(error).raw_os_error().unwrap_or(5),
    }
}

/// Where the program's standard descriptors come from.
#[derive(Debug)]
pub(crate) enum Streams {
    /// The caller's.
    Inherit,
    /// These three.
    Given([OwnedFd; 3]),
    /// A terminal made in the container.
    Terminal(WindowSize),
}

/// Where the root filesystem comes from.
#[derive(Debug)]
pub(crate) enum RootSource {
    /// The parent sends a detached mount.
    Sent,
    /// The parent cloned it before the child was made.
    Cloned(OwnedFd),
    /// The child clones it, with the authority over its own copy of the mounts.
    Path(PathBuf),
}

/// All that the child knows.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    pub(crate) plan: &'a mut Plan,
    pub(crate) root: RootSource,
    pub(crate) streams: Streams,
    pub(crate) with_reaper: bool,
    pub(crate) die_with_parent: bool,
    /// Control groups to join, by what [`JOIN`] is written to.
    pub(crate) groups: Vec<OwnedFd>,
    /// New namespaces that the clone did not make.
    pub(crate) late: Namespaces,
    /// Descriptors from 3 up that the program inherits.
    pub(crate) preserved: u32,
    /// A listening socket: somebody connects when the program is to start.
    pub(crate) gate: Option<OwnedFd>,
    /// The name of a new session keyring; without, the caller's is inherited.
    pub(crate) keyring: Option<CString>,
    /// Hooks that run in the container, and the state that they read.
    pub(crate) hooks: Option<Hooks>,
    /// Where the root is a mount until it is the root, so that hooks of the caller find it.
    pub(crate) root_place: Option<PathBuf>,
    /// Leave the old root below, for hosts whose root can't be pivoted away from.
    pub(crate) no_pivot: bool,
}

/// Runs in the child; its value is the exit status of the child where the program
/// could not be started, or of the program where there is a reaper.
pub(crate) fn run(init: Init<'_>, channel: Channel, single: SingleThreaded) -> i32 {
    // Not closed here: the process ends, and a reaper has closed it already.
    let mut channel = ManuallyDrop::new(channel);
    match steps(init, &mut channel, single) {
        Ok(status) => status,
        Err(report) => {
            channel.report(&report);
            1
        }
    }
}

fn steps(init: Init<'_>, channel: &mut Channel, single: SingleThreaded) -> Step<i32> {
    let Init {
        plan,
        root,
        streams,
        with_reaper,
        die_with_parent,
        groups,
        late,
        preserved,
        gate,
        keyring,
        hooks,
        root_place,
        no_pivot,
    } = init;
    if gate.is_some() {
        // Until the start this is what others see as the container's process.
        onggi_sys::process::set_title(c"onggi-init").map_err(failed(Stage::Handshake, ""))?;
    }
    // First of all: whatever follows counts.
    for group in groups {
        rustix::io::write(&group, JOIN).map_err(failed(Stage::ControlGroup, ""))?;
    }
    if plan.process.all_cpus {
        use_all_cpus().map_err(failed(Stage::Scheduling, "CPU affinity"))?;
    }
    // Directories and nodes get the modes that are asked for.
    rustix::process::umask(rustix::fs::Mode::empty());
    let mapped = channel.expect(MAPPED).map_err(failed(Stage::Handshake, ""))?;
    let host_pid = <[u8; 4]>::try_from(mapped.body.as_slice()).map_or(0, i32::from_ne_bytes);
    if let Some(name) = keyring {
        // The caller's keys are not for the container. Made before the ids change: the
        // quota of keys is the caller's then, and root's is large. A kernel without keys has
        // none to hide.
        match onggi_sys::process::new_session_keyring(&name) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::NOSYS.raw_os_error()) => {
                return Err(failed(Stage::Keyring, lossy(&name))(error));
            }
            _ => {}
        }
    }
    identity::container_root(plan)?;
    // From here on nobody in the container may look into this process or at its
    // executable through /proc.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed(Stage::Identity, ""))?;
    let joins_groups = plan.join.iter().any(|(kind, ..)| *kind == Namespaces::CGROUP);
    let born_in_namespace = plan.new.without(late).contains(Namespaces::CGROUP) || joins_groups;
    let shows_groups = plan.mounts.iter().any(|mount| matches!(mount.source, Source::Cgroup));
    let groups = if shows_groups && !born_in_namespace {
        let text = std::fs::read_to_string("/proc/self/cgroup");
        Some(text.map_err(failed(Stage::ControlGroup, "of the container"))?)
    } else {
        None
    };
    let joined_before =
        |kind: Namespaces| kind == Namespaces::PID || plan.joins_first() && kind != Namespaces::MOUNT;
    for (kind, namespace, path) in plan.join.iter().filter(|(kind, ..)| !joined_before(*kind)) {
        enter(namespace.as_fd(), *kind).map_err(failed(Stage::JoinNamespace, path))?;
    }
    if !late.is_empty() {
        unshare(late).map_err(failed(Stage::NewNamespace, "for the container"))?;
    }
    separate_mounts(plan)?;
    let made = rootfs::make_filesystems(plan)?;
    let root = rootfs::receive(channel, root)?;
    let late = rootfs::attach(plan, &root, root_place.as_deref(), made, groups.as_deref())?;
    let null = devices::populate(plan, &root)?;
    set_names(plan)?;
    if let Some(hooks) = &hooks {
        // The caller's hooks run on the caller's side, then those that run here.
        channel.send(HOOKS, &[], None).map_err(failed(Stage::Handshake, ""))?;
        channel.expect(GO).map_err(failed(Stage::Handshake, ""))?;
        // Their working directory is the container's root, which isn't the process's yet.
        rustix::process::fchdir(&root).map_err(failed(Stage::Hook, ""))?;
        hooks.run(HookStage::CreateContainer, host_pid, Status::Creating).map_err(hook_report)?;
    }
    rootfs::enter(&root, plan, no_pivot)?;
    drop(root);

    let root = rustix::fs::open(
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(failed(Stage::PivotRoot, "/"))?;
    let inside = Root::new(root.as_fd());
    sysctls(plan, &inside)?;
    if plan.new.contains(Namespaces::NET) {
        onggi_sys::link::loopback_up().map_err(failed(Stage::Loopback, "lo"))?;
    }
    let terminal = match &streams {
        Streams::Terminal(size) => Some(terminal::open(&inside, &plan.process, *size, channel)?),
        Streams::Inherit | Streams::Given(_) => None,
    };
    rootfs::close_up(late)?;
    masks::apply(plan, &inside, &null)?;
    drop(null);
    let cwd_done = prepare_cwd(&inside, &plan.process)?;
    if plan.read_only_root {
        let change = Change { set: onggi_sys::mount::Attributes::READ_ONLY, ..Change::default() };
        change.apply(CWD, c"/").map_err(failed(Stage::ReadOnly, "/"))?;
    }
    home::complete(&mut plan.process, &inside);
    terminal::connect(streams, terminal.as_ref())?;
    let controlling = terminal.is_some();
    drop(terminal);
    drop(root);
    if let Some(gate) = gate {
        program::must_exist(&plan.process)?;
        channel.send(CREATED, &[], None).map_err(failed(Stage::Handshake, ""))?;
        match wait_for_start(&gate)? {
            Ok(connection) => *channel = connection,
            Err(signal) => return Ok(128 + signal),
        }
    }
    program::close_descriptors(preserved)?;
    let last = identity::become_user(&plan.process, plan.has_user_namespace())?;
    if !cwd_done {
        enter_cwd(&plan.process)?;
    }
    check_cwd(&plan.process)?;
    if die_with_parent {
        // After the ids changed: that clears the setting.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(failed(Stage::Identity, ""))?;
        // A parent that was killed before that sends no signal any more.
        if channel.is_abandoned().map_err(failed(Stage::Handshake, ""))? {
            return Err(failed(Stage::Handshake, "")(rustix::io::Errno::PIPE));
        }
    }
    let process = &plan.process;
    // The container's own files, so under all that binds its program.
    let start_hooks = || match &hooks {
        Some(hooks) => {
            let environment = process.environment.strings();
            hooks
                .run_with(HookStage::StartContainer, host_pid, Status::Created, environment)
                .map_err(hook_report)
        }
        None => Ok(()),
    };
    if with_reaper {
        identity::seal(process, &last, channel)?;
        start_hooks()?;
        reaper::run(single, channel, || match program::prepare(controlling) {
            Ok(()) => Report::Exec(program::execute(process)),
            Err(report) => report,
        })
    } else {
        program::prepare(controlling)?;
        identity::seal(process, &last, channel)?;
        start_hooks()?;
        Err(Report::Exec(program::execute(process)))
    }
}

/// Signals that end a container which waits for its start. The kernel keeps them from the first process of a pid
/// namespace that doesn't look for them.
const ENDING: &[i32] = &[1, 2, 3, 15];

/// Waits until somebody connects; the connection takes the reports from then on. Or the signal that ended the wait.
fn wait_for_start(gate: &OwnedFd) -> Step<Result<Channel, i32>> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::net::{SocketFlags, accept_with};
    let set = SignalSet::of(ENDING);
    let step = || failed::<io::Error>(Stage::Handshake, "");
    // The program's mask is set later.
    signal::block(&set).map_err(step())?;
    let signals = signal::descriptor(&set).map_err(step())?;
    loop {
        let mut fds = [PollFd::new(gate, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(failed(Stage::Handshake, ""))?,
        };
        if let Some(number) = signal::next(signals.as_fd()).map_err(step())? {
            return Ok(Err(number));
        }
        if !fds[0].revents().is_empty() {
            break;
        }
    }
    let connection = loop {
        match accept_with(gate, SocketFlags::CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(failed(Stage::Handshake, ""))?,
        }
    };
    let channel = Channel::from_fd(connection);
    channel.expect(GO).map_err(failed(Stage::Handshake, ""))?;
    Ok(Ok(channel))
}

fn hook_report(error: Error) -> Report {
    match error {
        Error::Hook { stage, index, path, why } => Report::Hook { stage: stage.to_owned(), index, path, why },
        other => failed(Stage::Hook, other.to_string())(io::Error::from(io::ErrorKind::Other)),
    }
}

/// In a helper: enters a running container.
pub(crate) fn join(process: BorrowedFd<'_>, namespaces: Namespaces, user: bool) -> Step<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed(Stage::Identity, ""))?;
    if !namespaces.is_empty() {
        enter_all(process, namespaces).map_err(failed(Stage::JoinNamespace, "of the container"))?;
    }
    if user {
        identity::joined_root();
    }
    Ok(())
}

/// In a process that joined a container: becomes the program.
pub(crate) fn run_process(
    process: &mut ProcessPlan,
    channel: &Channel,
    streams: Streams,
    size: Option<WindowSize>,
    preserved: u32,
    user: bool,
) -> Report {
    match joined_steps(process, channel, streams, size, preserved, user) {
        Ok(()) => Report::Exec(program::execute(process)),
        Err(report) => report,
    }
}

fn joined_steps(
    process: &mut ProcessPlan,
    channel: &Channel,
    streams: Streams,
    size: Option<WindowSize>,
    preserved: u32,
    user: bool,
) -> Step<()> {
    if let Some(cpus) = &process.affinity.after {
        rustix::thread::sched_setaffinity(None, cpus).map_err(failed(Stage::Scheduling, "CPU affinity"))?;
    }
    if process.all_cpus && !process.affinity.is_chosen() {
        use_all_cpus().map_err(failed(Stage::Scheduling, "CPU affinity"))?;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let root =
        rustix::fs::open("/", flags, rustix::fs::Mode::empty()).map_err(failed(Stage::PivotRoot, "/"))?;
    let inside = Root::new(root.as_fd());
    let terminal = match size {
        Some(size) => Some(
            terminal::make(&inside, process, size, channel)
                .map_err(failed(Stage::Terminal, "/dev/pts/ptmx"))?,
        ),
        None => None,
    };
    let cwd_done = prepare_cwd(&inside, process)?;
    home::complete(process, &inside);
    terminal::connect(streams, terminal.as_ref())?;
    drop(root);
    program::close_descriptors(preserved)?;
    let last = identity::become_user(process, user)?;
    if !cwd_done {
        enter_cwd(process)?;
    }
    check_cwd(process)?;
    program::prepare(size.is_some())?;
    identity::seal(process, &last, channel)
}

/// Nothing that is mounted here may travel to the host. Copies of mounts that a
/// new user namespace owns only receive; others must be told.
fn separate_mounts(plan: &Plan) -> Step<()> {
    let copied = plan.has_user_namespace() && plan.new.contains(Namespaces::MOUNT);
    let propagation = match (plan.root_propagation, copied) {
        (None, true) => return Ok(()),
        (Some((Propagation::Private | Propagation::Unbindable, _)), _) | (None, false) => {
            Propagation::Private
        }
        (Some(_), _) => Propagation::Slave,
    };
    let change = Change { propagation: Some(propagation), recursive: true, ..Change::default() };
    change.apply(CWD, c"/").map_err(failed(Stage::Propagation, "/"))
}

fn set_names(plan: &Plan) -> Step<()> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(failed(Stage::HostName, name))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(failed(Stage::HostName, name))?;
    }
    Ok(())
}

/// Writes sysctls into the proc filesystem that was just mounted, never through a
/// link or onto anything mounted over it.
fn sysctls(plan: &Plan, root: &Root<'_>) -> Step<()> {
    if plan.sysctls.is_empty() {
        return Ok(());
    }
    let at = || failed::<io::Error>(Stage::Sysctl, "/proc");
    let proc = root.locate_plain(Path::new("/proc")).map_err(at())?;
    let kind = rustix::fs::fstatfs(&proc).map_err(|error| at()(error.into()))?.f_type;
    if kind != rustix::fs::PROC_SUPER_MAGIC {
        return Err(at()(io::Error::from_raw_os_error(rustix::io::Errno::INVAL.raw_os_error())));
    }
    let proc = Root::single(proc.as_fd());
    for (path, value) in &plan.sysctls {
        let object = || format!("{} to {value:?}", path.display());
        let flags = rustix::fs::OFlags::WRONLY;
        let file =
            proc.open(path, flags, rustix::fs::Mode::empty()).map_err(failed(Stage::Sysctl, object()))?;
        rustix::io::write(&file, value.as_bytes()).map_err(failed(Stage::Sysctl, object()))?;
    }
    Ok(())
}

/// The working directory, made if it is missing, entered without following magic
/// links. `false`: root may not go there, the user may.
fn prepare_cwd(root: &Root<'_>, process: &ProcessPlan) -> Step<bool> {
    use std::os::unix::ffi::OsStrExt;
    let cwd = Path::new(std::ffi::OsStr::from_bytes(process.cwd.as_bytes()));
    let object = || cwd.display().to_string();
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let dir = match root.open(cwd, flags, rustix::fs::Mode::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => root.make_dirs(cwd),
        other => other,
    };
    match dir.and_then(|dir| Ok(rustix::process::fchdir(dir)?)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(failed(Stage::WorkingDirectory, object())(error)),
    }
}

fn enter_cwd(process: &ProcessPlan) -> Step<()> {
    rustix::process::chdir(process.cwd.as_c_str())
        .map_err(failed(Stage::WorkingDirectory, lossy(&process.cwd)))
}

/// Whatever the path led through: a working directory outside the root is the
/// host's, and `getcwd` says so.
fn check_cwd(process: &ProcessPlan) -> Step<()> {
    let inside = rustix::process::getcwd(Vec::new()).is_ok_and(|path| path.as_bytes().first() == Some(&b'/'));
    if inside {
        return Ok(());
    }
    let error = io::Error::from_raw_os_error(rustix::io::Errno::PERM.raw_os_error());
    Err(failed(Stage::WorkingDirectory, format!("{}: it is outside the container", lossy(&process.cwd)))(
        error,
    ))
}

pub(crate) fn lossy(text: &CString) -> String {
    text.to_string_lossy().into_owned()
}
