//! create, start, run, kill, delete, and what acts on all processes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxNamespaceType, LinuxResources, MountBuilder, Spec};
use onggi_oci::ErrorKind;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::Runtime;
use super::record::{Record, UnitOf, hooks, start_time};
use super::specification::load_spec;
use crate::cgroup::systemd::{Scope, Unit};
use crate::cgroup::{Cgroup, Systemd, denied};
use crate::channel::{Channel, GO, NOTIFY, REPORT, Report};
use crate::container::{Container, Rootfs, Stdio, WindowSize};
use crate::error::{Error, Result};
use crate::hooks::{HookStage, Status};
use crate::process::{ExitStatus, Foreground, Process};
use crate::shield::shield;

/// Options of `create` and `run`.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// A socket that gets the terminal's other side, if the process has one.
    pub console_socket: Option<PathBuf>,
    /// A file that gets the process id.
    pub pid_file: Option<PathBuf>,
    /// A socket that gets a pidfd of the first process.
    pub pidfd_socket: Option<PathBuf>,
    /// Descriptors from 3 up that the process inherits.
    pub preserve_fds: u32,
    /// Share the caller's session keyring.
    pub no_new_keyring: bool,
    /// Cover the host's root instead of pivoting away from it.
    pub no_pivot: bool,
    /// The service manager's socket (`NOTIFY_SOCKET`), which the program gets too.
    pub notify_socket: Option<PathBuf>,
}

/// How long `delete --force` waits for a killed process.
const END_PATIENCE: Duration = Duration::from_secs(10);

impl Runtime {
    /// Makes a container; its program waits for [`start`](Self::start).
    ///
    /// # Errors
    /// [`Error::State`] if the id is taken; as [`Container::spawn`].
    pub fn create(&self, id: &str, options: &CreateOptions) -> Result<()> {
        let spec = self.load(options)?;
        shield(&spec)?;
        self.create_loaded(id, options, spec, false).map(|_| ())
    }

    fn load(&self, options: &CreateOptions) -> Result<Spec> {
        load_spec(&options.bundle.join("config.json"), &mut |words| self.warn(words))
    }

    fn create_loaded(
        &self,
        id: &str,
        options: &CreateOptions,
        spec: Spec,
        attached: bool,
    ) -> Result<Process> {
        let directory = self.directory(id)?;
        let bundle = std::fs::canonicalize(&options.bundle)
            .map_err(Error::io("find bundle", options.bundle.display().to_string()))?;
        std::fs::create_dir_all(&self.root).map_err(Error::io("make", self.root.display().to_string()))?;
        match rustix::fs::mkdir(&directory, rustix::fs::Mode::from_raw_mode(0o711)) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                return Err(Error::State {
                    operation: "create",
                    id: id.to_owned(),
                    state: "there already".into(),
                });
            }
            Err(error) => return Err(Error::io("make", directory.display().to_string())(error)),
        }
        let made = self.make(id, options, spec, &bundle, &directory, attached);
        if made.is_err() {
            let _ = std::fs::remove_dir_all(&directory);
        }
        made
    }

    fn make(
        &self,
        id: &str,
        options: &CreateOptions,
        mut spec: Spec,
        bundle: &Path,
        directory: &Path,
        attached: bool,
    ) -> Result<Process> {
        if let Some(socket) = &options.notify_socket {
            notify_through(&mut spec, socket)?;
        }
        let text =
            serde_json::to_vec(&spec).map_err(|error| Error::invalid("config.json", error.to_string()))?;
        std::fs::write(directory.join("config.json"), text)
            .map_err(Error::io("write", directory.join("config.json").display().to_string()))?;
        let gate = listen_at(directory)?;
        let process = spec.process().as_ref();
        let stdio = match process.is_some_and(|process| process.terminal() == Some(true)) {
            true => {
                if !attached && options.console_socket.is_none() {
                    return Err(Error::invalid("--console-socket", "process.terminal needs one"));
                }
                Stdio::Terminal(window_size(process.and_then(oci_spec::runtime::Process::console_size)))
            }
            false if options.console_socket.is_some() => {
                return Err(Error::invalid("--console-socket", "process.terminal is not set"));
            }
            false => Stdio::Inherit,
        };
        let root = spec.root().as_ref().map(|root| bundle.join(root.path()));
        let root = root.ok_or_else(|| Error::invalid("root.path", "is missing"))?;
        // Behind all that can be refused before: whoever makes a group has to take it away.
        let Place { cgroup, scope } = self.cgroup_of(id, &spec)?;
        let unit = scope.as_ref().map(|(unit, _)| unit.clone());
        let cgroup_path = cgroup.as_ref().map(|cgroup| cgroup.path().to_owned());
        let mut container = Container::new(id, spec)
            .bundle(bundle)
            .rootfs(Rootfs::Path(root))
            .stdio(stdio)
            .die_with_parent(false)
            .preserve_descriptors(options.preserve_fds)
            .new_keyring(!options.no_new_keyring)
            .no_pivot(options.no_pivot)
            .all_cpus(true)
            .plain_lines(attached && options.console_socket.is_none())
            .gate(gate);
        if let Some(cgroup) = cgroup {
            container = container.cgroup(cgroup);
        }
        let mut process = container.spawn().inspect_err(|_| {
            let group = cgroup_path.as_deref().and_then(|path| Cgroup::open(path).ok());
            let _ = group.map(|group| group.remove());
        })?;
        // The container is in the scope by now.
        drop(scope);
        let pid = process.pid().as_raw_nonzero().get();
        let record = Record {
            id: id.to_owned(),
            pid,
            start_time: start_time(pid).unwrap_or(0),
            bundle: bundle.to_owned(),
            cgroup: cgroup_path,
            unit,
            created: jiff::Timestamp::now().to_string(),
            owner: rustix::process::getuid().as_raw(),
        };
        let finish = |process: &mut Process| -> Result<()> {
            self.write(&record)?;
            if let Some(socket) = &options.console_socket
                && let Some(terminal) = process.take_terminal()
            {
                send_console(socket, &terminal)?;
            }
            if let Some(socket) = &options.pidfd_socket {
                send_pidfd(socket, process)?;
            }
            write_pid_file(options.pid_file.as_deref(), pid)
        };
        if let Err(error) = finish(&mut process) {
            let _ = process.signal(9);
            let _ = process.wait();
            return Err(error);
        }
        Ok(process)
    }

    /// Starts the program of a created container.
    ///
    /// # Errors
    /// [`Error::State`] if it isn't "created"; [`Error::Exec`] and
    /// [`Error::Setup`] from inside.
    pub fn start(&self, id: &str) -> Result<()> {
        let record = self.record(id)?;
        let status = self.status(&record)?;
        let wrong = |state: String| Error::State { operation: "start", id: id.to_owned(), state };
        if status != Status::Created {
            return Err(wrong(status.to_string()));
        }
        let directory = self.directory(id)?;
        let spec = self.spec(id)?;
        let channel = match connect_to(&directory.join("start.sock")) {
            Ok(fd) => Channel::from_fd(fd),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(wrong(Status::Stopped.to_string()));
            }
            Err(error) => return Err(Error::io("reach container", id)(error)),
        };
        let step = || Error::io("start container", id);
        channel.send(GO, &[], None).map_err(step())?;
        while let Some(message) = channel.receive().map_err(step())? {
            match (message.kind, message.fd) {
                (REPORT, _) => {
                    let report: Report = serde_json::from_slice(&message.body)
                        .map_err(|error| step()(io::Error::from(error)))?;
                    return Err(report.into_error());
                }
                (NOTIFY, Some(listener)) => {
                    send_listener(&record, &spec, &listener, record.pid, Status::Creating)?;
                }
                _ => {}
            }
        }
        let socket = directory.join("start.sock");
        std::fs::remove_file(&socket).map_err(Error::io("remove", socket.display().to_string()))?;
        match hooks(&record, &spec) {
            Some(hooks) => hooks.run(HookStage::Poststart, record.pid, Status::Running),
            None => Ok(()),
        }
    }

    /// Makes and starts a container. Attached, waits for its end in the
    /// foreground and deletes it; detached, returns `None` when it runs.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`start`](Self::start).
    pub fn run(
        &self,
        id: &str,
        options: &CreateOptions,
        detach: bool,
        keep: bool,
    ) -> Result<Option<ExitStatus>> {
        let spec = self.load(options)?;
        shield(&spec)?;
        let mut process = self.create_loaded(id, options, spec, !detach)?;
        if keep {
            // It is `delete`'s to remove.
            process.take_cgroup();
        }
        let started = self.start(id);
        if let Err(error) = started {
            let _ = process.signal(9);
            let _ = process.wait();
            let _ = self.delete(id, true);
            return Err(error);
        }
        if detach {
            return Ok(None);
        }
        let status = process.wait_foreground(&Foreground::default())?;
        if !keep {
            self.delete(id, true)?;
        }
        Ok(Some(status))
    }

    /// Sends a signal to the first process, or (`all`) to every process.
    ///
    /// # Errors
    /// [`Error::State`] if it has stopped, unless `all`.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let record = self.record(id)?;
        if all && let Some(cgroup) = record.cgroup()? {
            if signal == 9 {
                cgroup.kill_all();
                return Ok(());
            }
            for pid in cgroup.processes()? {
                let _ = onggi_sys::signal::send(pid, signal);
            }
            return Ok(());
        }
        // Elsewhere the kernel ends all with the first one.
        if signal == 9
            && !self.has_own_processes(id)?
            && let Some(cgroup) = record.cgroup()?
            && !cgroup.processes()?.is_empty()
        {
            cgroup.kill_all();
            return Ok(());
        }
        let Some(pidfd) = record.pidfd() else {
            if all {
                return Ok(());
            }
            let state = Status::Stopped.to_string();
            return Err(Error::State { operation: "kill", id: id.to_owned(), state });
        };
        onggi_sys::signal::send_pidfd(pidfd.as_fd(), signal)
            .map_err(Error::io("signal", format!("container {id}")))
    }

    /// Whether a container has a pid namespace, whose other processes end with its first one.
    fn has_own_processes(&self, id: &str) -> Result<bool> {
        let spec = self.spec(id)?;
        let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        Ok(namespaces.into_iter().flatten().any(|one| {
            one.typ() == LinuxNamespaceType::Pid
                && one.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
        }))
    }

    /// Removes a container that has stopped or not started; `force` kills it
    /// first, and a container that isn't there is no error then.
    ///
    /// # Errors
    /// [`Error::State`] if it runs.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        let directory = self.directory(id)?;
        let record = match self.record(id) {
            Err(Error::NotFound { .. }) if force => {
                let _ = std::fs::remove_dir_all(&directory);
                return Ok(());
            }
            other => other?,
        };
        let status = self.status(&record)?;
        if status != Status::Stopped {
            if !force && status != Status::Created {
                let state = status.to_string();
                return Err(Error::State { operation: "delete", id: id.to_owned(), state });
            }
            if status == Status::Paused
                && let Some(cgroup) = record.cgroup()?
            {
                cgroup.kill_all();
                cgroup.freeze(false)?;
            }
            end(&record)?;
        }
        if let Some(cgroup) = record.cgroup()? {
            cgroup.kill_all();
            // systemd removes what it made; the rest is ours.
            if let Some(unit) = &record.unit {
                unit.systemd().stop(&unit.name)?;
            }
            cgroup.remove()?;
        }
        let hooks = self.spec(id).ok().and_then(|spec| hooks(&record, &spec));
        std::fs::remove_dir_all(&directory).map_err(Error::io("remove", directory.display().to_string()))?;
        match hooks {
            Some(hooks) => hooks.run(HookStage::Poststop, 0, Status::Stopped),
            None => Ok(()),
        }
    }

    /// Freezes a running container or lets it go on.
    ///
    /// # Errors
    /// [`Error::State`] if it isn't running (or paused).
    pub fn pause(&self, id: &str, frozen: bool) -> Result<()> {
        let record = self.record(id)?;
        let status = self.status(&record)?;
        let (operation, wanted) =
            if frozen { ("pause", Status::Running) } else { ("resume", Status::Paused) };
        if status != wanted {
            return Err(Error::State { operation, id: id.to_owned(), state: status.to_string() });
        }
        match record.cgroup()? {
            Some(cgroup) => cgroup.freeze(frozen),
            None => Err(Error::unsupported(operation, "the container has no control group")),
        }
    }

    /// The processes of a container, on the host; none if it has stopped.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`].
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        let record = self.record(id)?;
        if self.status(&record)? == Status::Stopped && record.cgroup.is_none() {
            return Ok(Vec::new());
        }
        match record.cgroup()? {
            Some(cgroup) => cgroup.processes(),
            None => Ok(vec![record.pid]),
        }
    }

    /// Changes the limits of a container.
    ///
    /// # Errors
    /// [`Error::State`] if it has stopped; as [`Cgroup::create`].
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        let record = self.record(id)?;
        if self.status(&record)? == Status::Stopped {
            let state = Status::Stopped.to_string();
            return Err(Error::State { operation: "update", id: id.to_owned(), state });
        }
        match record.cgroup()? {
            Some(mut cgroup) => {
                if let Some(unit) = &record.unit {
                    unit.systemd().update(&unit.name, resources)?;
                }
                cgroup.update(resources)?;
                // A controller that had no limit before gets its first members.
                for pid in cgroup.processes()? {
                    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                        cgroup.join(pid)?;
                    }
                }
                Ok(())
            }
            None => Err(Error::unsupported("update", "the container has no control group")),
        }
    }
}

/// Where a container finds the service manager's socket.
const NOTIFY_SOCKET: &str = "/run/notify/notify.sock";

/// Gives the program the socket by which it tells the service manager that it is ready
/// (sd_notify(3)). The manager knows it by its control group (`NotifyAccess=all`).
fn notify_through(spec: &mut Spec, socket: &Path) -> Result<()> {
    if !socket.is_absolute() {
        return Err(Error::unsupported(
            format!("NOTIFY_SOCKET={}", socket.display()),
            "only a path can be handed on to a container, no abstract address",
        ));
    }
    let mount = MountBuilder::default().destination(NOTIFY_SOCKET).typ("bind").source(socket);
    let mount = mount.options(vec!["bind".to_owned()]).build();
    let mount = mount.map_err(|error| Error::invalid("NOTIFY_SOCKET", error.to_string()))?;
    spec.set_mounts(Some(spec.mounts().iter().flatten().cloned().chain([mount]).collect()));
    if let Some(process) = spec.process_mut() {
        let others = process.env().iter().flatten().filter(|one| !one.starts_with("NOTIFY_SOCKET=")).cloned();
        let env = others.chain([format!("NOTIFY_SOCKET={NOTIFY_SOCKET}")]).collect();
        process.set_env(Some(env));
    }
    Ok(())
}

/// What a container may use. Root's container with the host's user ids could make any device node: where its bundle
/// doesn't say which it may use, it is those that every container has. The second value says whether that was asked for.
fn resources_of(spec: &Spec) -> (Option<LinuxResources>, bool) {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    let own_users =
        namespaces.is_some_and(|list| list.iter().any(|one| one.typ() == LinuxNamespaceType::User));
    let said =
        resources.and_then(|resources| resources.devices().as_ref()).is_some_and(|list| !list.is_empty());
    if own_users || said {
        return (resources.cloned(), true);
    }
    let mut defaults = LinuxDeviceCgroup::default();
    defaults.set_allow(false).set_typ(None).set_major(None).set_minor(None).set_access(None);
    let mut more = resources.cloned().unwrap_or_default();
    more.set_devices(Some(vec![defaults]));
    (Some(more), false)
}

/// Where a container goes.
struct Place {
    cgroup: Option<Cgroup>,
    /// The unit that systemd made for it, which lasts until the container is in it.
    scope: Option<(UnitOf, Scope)>,
}

impl Runtime {
    /// The control group of a container, and what keeps it until the container is in it.
    fn cgroup_of(&self, id: &str, spec: &Spec) -> Result<Place> {
        let linux = spec.linux().as_ref();
        let path = linux.and_then(|linux| linux.cgroups_path().as_ref());
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let plain = linux.and_then(|linux| linux.resources().as_ref());
        let (resources, said) = resources_of(spec);
        // What nobody asked for is no reason to fail where the tree can't be written to.
        let or_plain = |made: Result<Option<Cgroup>>, again: &dyn Fn() -> Result<Option<Cgroup>>| match made {
            Err(error) if !said && (denied(&error) || error.kind() == ErrorKind::Unsupported) => again(),
            made => made,
        };
        if let Some(systemd) = &self.systemd {
            let unit = Unit::of(path.map(|path| path.to_string_lossy()).as_deref(), id, systemd.of_user)?;
            let scope = systemd.start(&unit, id, plain)?;
            let path = scope.path()?;
            let adopt = |resources| Cgroup::adopt(&path, resources).map(Some);
            let cgroup = or_plain(adopt(resources.as_ref()), &|| adopt(plain))?;
            let Systemd { bus, of_user } = systemd.clone();
            let scope = Some((UnitOf { name: unit.name, bus, of_user }, scope));
            return Ok(Place { cgroup, scope });
        }
        let make = |resources: Option<&LinuxResources>| match path {
            Some(path) => Cgroup::create_everywhere(path, resources),
            None => Cgroup::create_default(id, resources),
        };
        Ok(Place { cgroup: or_plain(make(resources.as_ref()), &|| make(plain))?, scope: None })
    }
}

fn end(record: &Record) -> Result<()> {
    let Some(pidfd) = record.pidfd() else { return Ok(()) };
    let object = || format!("container {}", record.id);
    onggi_sys::signal::send_pidfd(pidfd.as_fd(), 9).map_err(Error::io("kill", object()))?;
    let limit = Instant::now() + END_PATIENCE;
    while record.alive() {
        let pidfd = pidfd.as_fd();
        let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&pause));
        if Instant::now() > limit {
            return Err(Error::io("end", object())(io::Error::from(io::ErrorKind::TimedOut)));
        }
    }
    Ok(())
}

pub(super) fn window_size(size: Option<oci_spec::runtime::Box>) -> WindowSize {
    let number = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    size.map_or(WindowSize::default(), |size| WindowSize {
        rows: number(size.height()),
        columns: number(size.width()),
    })
}

pub(super) fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    // Whoever waits for the file must not see half of it.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let step = || Error::io("write", path.display().to_string());
    std::fs::write(&new, pid.to_string()).map_err(step())?;
    std::fs::rename(&new, path).map_err(step())
}

/// The path of a socket in a directory, short enough for `struct sockaddr_un`.
fn short(directory: &OwnedFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(directory))
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    Ok(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn listen_at(directory: &Path) -> Result<OwnedFd> {
    let step = || Error::io("listen in", directory.display().to_string());
    let make = || -> io::Result<OwnedFd> {
        let dir = open_directory(directory)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let bound = bind(&socket, &SocketAddrUnix::new(short(&dir, "start.sock"))?);
        rustix::process::umask(mask);
        bound?;
        listen(&socket, 1)?;
        Ok(socket)
    };
    make().map_err(step())
}

fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    connect_as(path, SocketType::SEQPACKET)
}

fn connect_as(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let directory =
        open_directory(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(short(&directory, name))?)?;
    Ok(socket)
}

/// Sends the terminal's other side to whoever listens (containerd's shim, conmon).
pub(super) fn send_console(socket: &Path, terminal: &OwnedFd) -> Result<()> {
    let send = || -> io::Result<()> {
        let connection = connect_as(socket, SocketType::STREAM)?;
        Channel::from_fd(connection).send(b'/', b"dev/ptmx", Some(terminal.as_fd()))
    };
    send().map_err(Error::io("send the terminal to", socket.display().to_string()))
}

/// Sends a pidfd to whoever listens, for a caller that wants to be sure whom it signals.
pub(super) fn send_pidfd(socket: &Path, process: &Process) -> Result<()> {
    let send = || -> io::Result<()> {
        Channel::from_fd(connect_as(socket, SocketType::STREAM)?).send(b'p', b"idfd", Some(process.pidfd()))
    };
    send().map_err(Error::io("send the pidfd to", socket.display().to_string()))
}

/// Sends the notification descriptor of a filter to the bundle's listener
/// (runtime-spec, "The Container Process State"): that of process `pid` of a container with this status.
pub(super) fn send_listener(
    record: &Record,
    spec: &Spec,
    listener: &OwnedFd,
    pid: i32,
    status: Status,
) -> Result<()> {
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let path = seccomp.and_then(|seccomp| seccomp.listener_path().clone());
    let Some(path) = path else {
        return Err(Error::invalid("linux.seccomp.listenerPath", "SCMP_ACT_NOTIFY needs one"));
    };
    let metadata = seccomp.and_then(|seccomp| seccomp.listener_metadata().clone()).unwrap_or_default();
    let state = serde_json::json!({
        "ociVersion": spec.version(), "fds": ["seccompFd"], "pid": pid, "metadata": metadata,
        "state": {"ociVersion": spec.version(), "id": record.id, "status": status, "pid": record.pid,
                  "bundle": record.bundle},
    });
    let text = state.to_string();
    let send = || -> io::Result<()> {
        let connection = connect_as(&path, SocketType::STREAM)?;
        let (first, rest) = text.as_bytes().split_first().ok_or(io::ErrorKind::InvalidData)?;
        Channel::from_fd(connection).send(*first, rest, Some(listener.as_fd()))
    };
    send().map_err(Error::io("send the notifications to", path.display().to_string()))
}
