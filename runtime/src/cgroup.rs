//! Control groups: who counts and limits what a container uses.
//!
//! ```text
//!  unified   /sys/fs/cgroup                    one tree, version 2
//!  legacy    /sys/fs/cgroup/<controller>       a tree each, version 1
//!  hybrid    legacy + /sys/fs/cgroup/unified   limits in version 1; version 2
//!                                              to freeze, kill and list
//! ```
//!
//! A [`Cgroup`] is one path below each tree that it needs. Nothing outside of its
//! own directories is written, except the list of controllers that parents of a
//! version 2 directory hand down.

mod delegation;
mod devices;
mod directory;
mod hierarchy;
mod inside;
mod limits;
pub(crate) mod systemd;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use onggi_sys::bpf::DeviceProgram;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

pub use delegation::delegated_parent;
pub use hierarchy::Hierarchies;
pub(crate) use inside::mount_inside;
pub use systemd::Systemd;

use crate::error::{Error, Result};
use crate::rootless;
use delegation::hand_down;
use directory::write;
use limits::{Limit, limits};

/// The directory that containers' groups lie in if their caller names no other.
pub const COMMON_PARENT: &str = "onggi";

/// The kernel's word for the process that writes it.
pub(crate) const JOIN: &[u8] = b"0";

/// The control groups of one container.
#[derive(Debug)]
pub struct Cgroup {
    /// The path below each tree, without a leading slash.
    path: PathBuf,
    /// The directory in version 2, if there is one.
    unified: Option<(PathBuf, OwnedFd)>,
    /// Directories in version 1.
    legacy: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the directories for `path` (for example `onggi/ID`; a leading slash
    /// doesn't matter) and sets the limits. Version 1 directories are made only
    /// for controllers that a limit needs, and for the freezer where version 2 is missing. `None`: there are no limits and this
    /// caller can't make control groups here (rootless without delegation).
    ///
    /// Rules for devices are left out for anybody but root of the first user
    /// namespace, who alone can set them: others can make no device node, and what
    /// they bind is what they may use anyway.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a limit whose controller this host doesn't have
    /// or the caller may not set, by name; [`Error::Invalid`] if processes are in
    /// such a group already; [`Error::Io`].
    pub fn create(path: &Path, resources: Option<&LinuxResources>) -> Result<Option<Self>> {
        let wanted = Wanted::read(resources)?;
        let path: PathBuf = crate::mounts::clean(path).strip_prefix("/").unwrap_or(path).to_owned();
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("linux.cgroupsPath", "names the root of the control groups"));
        }
        let mut cgroup = Self { path, unified: None, legacy: Vec::new() };
        match cgroup.fill(&wanted, true) {
            Ok(()) => Ok(Some(cgroup)),
            Err(error) => {
                let _ = cgroup.remove();
                if wanted.is_empty() && denied(&error) { Ok(None) } else { Err(error) }
            }
        }
    }

    /// As [`create`](Self::create), and a directory for every version 1 controller: whoever names a path looks there for
    /// what the container uses.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(crate) fn create_everywhere(path: &Path, resources: Option<&LinuxResources>) -> Result<Option<Self>> {
        let Some(mut cgroup) = Self::create(path, resources)? else { return Ok(None) };
        let hierarchies = Hierarchies::detect()?;
        for (controllers, root) in hierarchies.all_legacy() {
            // The kernel names trees that are not mounted here too.
            if !root.join("cgroup.procs").exists() {
                continue;
            }
            let first = controllers.split(',').next().unwrap_or_default();
            match cgroup.legacy_directory(&hierarchies, first, true) {
                Ok(_) => {}
                // Not all of them need be the caller's.
                Err(error) if denied(&error) => {}
                Err(error) => {
                    let _ = cgroup.remove();
                    return Err(error);
                }
            }
        }
        Ok(Some(cgroup))
    }

    /// As [`create`](Self::create) for a container whose caller names no path: below
    /// [`COMMON_PARENT`], or for an ordinary user below what was delegated to it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_default(id: &str, resources: Option<&LinuxResources>) -> Result<Option<Self>> {
        let first = Self::create(&Path::new(COMMON_PARENT).join(id), resources);
        let refused = match &first {
            Ok(made) => made.is_none(),
            Err(error) => denied(error),
        };
        match if refused { delegated_parent() } else { None } {
            Some(parent) => Self::create(&parent.join(id), resources),
            None => first,
        }
    }

    /// The control groups at a path that somebody else made for this container, who limits them too: those of them that
    /// exist, and those that limits need besides.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(crate) fn adopt(path: &Path, resources: Option<&LinuxResources>) -> Result<Self> {
        let mut cgroup = Self::open(path)?;
        cgroup.fill(&Wanted::read(resources)?, false)?;
        Ok(cgroup)
    }

    /// The control groups of a container that was made earlier, by the path that
    /// [`create`](Self::create) was given: those of its directories that exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let hierarchies = Hierarchies::detect()?;
        let path: PathBuf = crate::mounts::clean(path).strip_prefix("/").unwrap_or(path).to_owned();
        let mut cgroup = Self { path, unified: None, legacy: Vec::new() };
        if cgroup.path.as_os_str().is_empty() {
            return Ok(cgroup);
        }
        if let Some(root) = hierarchies.unified() {
            let directory = root.join(&cgroup.path);
            if let Ok(fd) = directory::open(&directory) {
                cgroup.unified = Some((directory, fd));
            }
        }
        for (_, root) in hierarchies.all_legacy() {
            let directory = root.join(&cgroup.path);
            if directory.is_dir() {
                cgroup.legacy.push(directory);
            }
        }
        Ok(cgroup)
    }

    /// Moves a process into the group `below` (a path) of this one, in the trees of
    /// these controllers, or in all.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such group, [`Error::Invalid`] for a controller
    /// that this container has no group of.
    pub(crate) fn join_below(&self, pid: Pid, controllers: Option<&str>, below: &Path) -> Result<()> {
        if below.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
            return Err(Error::invalid(
                "--cgroup",
                format!("bad sub cgroup path: {} is not below the container's", below.display()),
            ));
        }
        let below = below.strip_prefix("/").unwrap_or(below);
        let hierarchies = Hierarchies::detect()?;
        let mut directories: Vec<PathBuf> = Vec::new();
        match controllers {
            None => directories.extend(self.directories().map(Path::to_owned)),
            Some(names) => {
                for name in names.split(',') {
                    let own = hierarchies.legacy(name).map(|root| root.join(&self.path));
                    match own.filter(|own| self.legacy.contains(own)) {
                        Some(own) => directories.push(own),
                        None => {
                            return Err(Error::invalid(
                                "--cgroup",
                                format!("the container has no version 1 group of the controller {name:?}"),
                            ));
                        }
                    }
                }
            }
        }
        for directory in directories {
            let list = directory.join(below).join("cgroup.procs");
            write(&list, pid.as_raw_nonzero().to_string().as_bytes())
                .map_err(Error::io("join the control group", list.display().to_string()))?;
        }
        Ok(())
    }

    /// The processes in it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn processes(&self) -> Result<Vec<i32>> {
        match self.directories().next() {
            None => Ok(Vec::new()),
            Some(directory) => directory::all_processes(directory)
                .map_err(Error::io("read the processes of", directory.display().to_string())),
        }
    }

    /// Stops all its processes where they are, or lets them go on. They stand when
    /// this returns.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without a freezer on this host; [`Error::Io`] if a
    /// process can't be stopped, and all go on then.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        if let Some((directory, _)) = &self.unified {
            return directory::freeze(directory, frozen);
        }
        match self.legacy.iter().find(|directory| directory.join("freezer.state").exists()) {
            Some(directory) => directory::freeze_legacy(directory, frozen),
            None => Err(Error::unsupported("pausing", "the container has no control group with a freezer")),
        }
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> bool {
        self.directories().any(is_frozen)
    }

    /// Kills all its processes.
    pub fn kill_all(&self) {
        for directory in self.directories() {
            directory::kill_all(directory);
        }
        // In version 1 a frozen process ends when it goes on.
        if self.legacy.iter().any(|directory| directory.join("freezer.state").exists()) && self.is_frozen() {
            let _ = self.freeze(false);
        }
    }

    /// Sets further limits.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn update(&mut self, resources: &LinuxResources) -> Result<()> {
        self.fill(&Wanted::read(Some(resources))?, false)
    }

    /// One of its statistics or limit files, from whichever tree has it.
    pub fn read(&self, file: &str) -> Option<String> {
        self.directories().find_map(|directory| std::fs::read_to_string(directory.join(file)).ok())
    }

    /// Makes the directories that are missing and sets the limits. Those that `new`
    /// containers get must be empty, because their end removes what is in them.
    fn fill(&mut self, wanted: &Wanted, new: bool) -> Result<()> {
        let Wanted { hierarchies, limits, devices } = wanted;
        if let Some(root) = hierarchies.unified()
            && self.unified.is_none()
        {
            let directory = root.join(&self.path);
            if hierarchies.is_unified() {
                hand_down(root, &self.path, limits)?;
            }
            let fd = make_own(&directory, new)?;
            self.unified = Some((directory, fd));
        } else if let Some(root) = hierarchies.unified().filter(|_| hierarchies.is_unified()) {
            hand_down(root, &self.path, limits)?;
        }
        if let (Some((directory, fd)), true) =
            (&self.unified, hierarchies.is_unified() && !devices.is_empty())
        {
            let attached = DeviceProgram::load(&devices::program(devices))
                .and_then(|program| program.attach(fd.as_fd()));
            attached.map_err(Error::io("limit the devices of", directory.display().to_string()))?;
        }
        if new && hierarchies.unified().is_none() {
            // Nothing else here can stop the processes of a container.
            self.legacy_directory(hierarchies, "freezer", new)?;
        }
        if !devices.is_empty() && !hierarchies.is_unified() {
            let directory = self.legacy_directory(hierarchies, "devices", new)?.ok_or_else(|| {
                Error::unsupported("linux.resources.devices", "this host has no devices controller")
            })?;
            for (file, line) in devices::lines(devices) {
                write(&directory.join(file), line.as_bytes())
                    .map_err(Error::io("set", format!("{file} to {line:?}")))?;
            }
        }
        // Limits that depend on each other (memory on swap, a burst on its quota) are refused in
        // one order and taken in the other.
        let mut again = Vec::new();
        if let (Some(root), true) =
            (hierarchies.legacy("cpu"), limits.iter().any(|limit| limit.file == REAL_TIME))
        {
            grant_real_time(root, &self.path);
        }
        for limit in limits {
            match directory::set(&self.directory_for(hierarchies, limit, new)?, limit) {
                Err(Error::Io { source, .. })
                    if matches!(Errno::from_io_error(&source), Some(Errno::INVAL | Errno::BUSY)) =>
                {
                    again.push(limit);
                }
                other => other?,
            }
        }
        for limit in again {
            directory::set(&self.directory_for(hierarchies, limit, new)?, limit)?;
        }
        Ok(())
    }

    /// The directory that a limit is set in.
    fn directory_for(&mut self, hierarchies: &Hierarchies, limit: &Limit, new: bool) -> Result<PathBuf> {
        if let Some(directory) = self.legacy_directory(hierarchies, limit.controller, new)? {
            return Ok(directory);
        }
        match &self.unified {
            Some((directory, _)) if hierarchies.is_unified() || limit.controller.is_empty() => {
                Ok(directory.clone())
            }
            _ => Err(Error::unsupported(
                format!("the limit {}", limit.file),
                format!("this host has no {} controller", limit.controller),
            )),
        }
    }

    /// The version 1 directory for a controller, made if missing; `None` if the
    /// controller isn't version 1 here.
    fn legacy_directory(
        &mut self,
        hierarchies: &Hierarchies,
        controller: &str,
        new: bool,
    ) -> Result<Option<PathBuf>> {
        let Some(root) = hierarchies.legacy(controller) else { return Ok(None) };
        let directory = root.join(&self.path);
        if !self.legacy.contains(&directory) {
            make_own(&directory, new)?;
            self.legacy.push(directory.clone());
            if controller == "cpuset" {
                inherit_cpuset(root, &self.path)?;
            }
        }
        Ok(Some(directory))
    }

    /// Whether a process can be born in it, with nothing left to join later.
    pub fn joins_at_clone(&self) -> bool {
        self.legacy.is_empty() && self.unified.is_some()
    }

    /// The version 2 directory for `CLONE_INTO_CGROUP`.
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|(_, fd)| fd.as_fd())
    }

    /// Moves a process into the version 1 directories.
    pub(crate) fn join(&self, pid: Pid) -> Result<()> {
        for directory in &self.legacy {
            write(&directory.join("cgroup.procs"), pid.as_raw_nonzero().to_string().as_bytes())
                .map_err(Error::io("join the control group", directory.display().to_string()))?;
        }
        Ok(())
    }

    /// The version 1 directories' files by which a process with one thread joins them itself, writing
    /// [`JOIN`]: it was born in version 2. The kernel makes whoever moves *another* process wait until
    /// every CPU has seen it, some milliseconds.
    pub(crate) fn doors(&self) -> Result<Vec<OwnedFd>> {
        let open = |directory: &PathBuf| {
            let path = directory.join("tasks");
            rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(Error::io("join the control group", directory.display().to_string()))
        };
        self.legacy.iter().map(open).collect()
    }

    /// The path below each tree.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All directories, version 2 first.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        let unified = self.unified.as_ref().map(|(directory, _)| directory.as_path());
        unified.into_iter().chain(self.legacy.iter().map(PathBuf::as_path))
    }

    /// Kills what is still in it and removes its directories.
    ///
    /// # Errors
    /// [`Error::Io`] if processes stay, such as ones that hang in the kernel.
    pub fn remove(&self) -> Result<()> {
        for directory in self.directories() {
            directory::remove(directory)?;
            // Our own common parent goes with the last that was in it. Any other is the caller's.
            if let Some(parent) = directory.parent().filter(|parent| parent.ends_with(COMMON_PARENT)) {
                let _ = rustix::fs::rmdir(parent);
            }
        }
        Ok(())
    }
}

/// Moves `pid` into the groups that `target` is in, where they are not its own.
pub(crate) fn join_like(pid: Pid, target: Pid) -> Result<()> {
    let read = |who: &str| {
        let path = format!("/proc/{who}/cgroup");
        std::fs::read_to_string(&path).map_err(Error::io("read", path))
    };
    let (own, wanted) = (read("self")?, read(&target.as_raw_nonzero().to_string())?);
    if own == wanted {
        return Ok(());
    }
    let hierarchies = Hierarchies::detect()?;
    for line in wanted.lines().filter(|line| !own.lines().any(|own| own == *line)) {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let root = if controllers.is_empty() {
            hierarchies.unified()
        } else {
            hierarchies.all_legacy().find(|(name, _)| *name == controllers).map(|(_, root)| root)
        };
        let Some(root) = root else { continue };
        let directory =
            root.join(crate::mounts::clean(Path::new(path)).strip_prefix("/").unwrap_or(Path::new("")));
        write(&directory.join("cgroup.procs"), pid.as_raw_nonzero().to_string().as_bytes())
            .map_err(Error::io("join the control group", directory.display().to_string()))?;
    }
    Ok(())
}

/// Whether the caller has no authority over that part of the tree.
pub(crate) fn denied(error: &Error) -> bool {
    matches!(error.kind(), onggi_oci::ErrorKind::Denied)
        || matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(Errno::ROFS.raw_os_error()))
}

/// What a specification wants of this host's control groups.
#[derive(Debug)]
struct Wanted {
    hierarchies: Hierarchies,
    limits: Vec<Limit>,
    devices: Vec<devices::Rule>,
}

impl Wanted {
    fn read(resources: Option<&LinuxResources>) -> Result<Self> {
        let hierarchies = Hierarchies::detect()?;
        let Some(resources) = resources else {
            return Ok(Self { hierarchies, limits: Vec::new(), devices: Vec::new() });
        };
        let limits = limits(resources, hierarchies.is_unified())?;
        let mut devices = devices::rules(resources.devices().as_deref().unwrap_or_default())?;
        let root = || Ok(rustix::process::geteuid().is_root() && rootless::nested_maps()?.is_none());
        if !devices.is_empty() && !root()? {
            devices.clear();
        }
        Ok(Self { hierarchies, limits, devices })
    }

    fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.devices.is_empty()
    }
}

/// A directory for a container alone: others' processes would end with it.
fn make_own(directory: &Path, new: bool) -> Result<OwnedFd> {
    let (fd, made) = directory::make(directory)?;
    if new && !made {
        let taken = directory::all_processes(directory)
            .map_err(Error::io("read the processes of", directory.display().to_string()))?;
        if !taken.is_empty() {
            return Err(Error::invalid(
                "linux.cgroupsPath",
                format!(
                    "container's cgroup is not empty: {} has processes already, and a container needs a group of its own",
                    directory.display()
                ),
            ));
        }
        if is_frozen(directory) {
            return Err(Error::invalid(
                "linux.cgroupsPath",
                format!(
                    "container's cgroup unexpectedly frozen: {} would stop it for ever",
                    directory.display()
                ),
            ));
        }
    }
    Ok(fd)
}

fn is_frozen(directory: &Path) -> bool {
    let read = |file| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    read("cgroup.freeze").trim() == "1" || matches!(read("freezer.state").trim(), "FROZEN" | "FREEZING")
}

/// The file of version 1 with the real-time scheduling that a group may use.
const REAL_TIME: &str = "cpu.rt_runtime_us";

/// A version 1 group has real-time scheduling only as far as those above it have: they get what the first one has. What
/// can't be had is told when the group's own limit is set.
fn grant_real_time(root: &Path, path: &Path) {
    let Ok(all) = std::fs::read_to_string(root.join(REAL_TIME)) else { return };
    let mut directory = root.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        directory.push(part);
        let file = directory.join(REAL_TIME);
        let _ = directory::make(&directory);
        if std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == "0") {
            let _ = write(&file, all.trim().as_bytes());
        }
    }
}

/// A version 1 cpuset takes no process before it has CPUs and memory nodes.
fn inherit_cpuset(root: &Path, path: &Path) -> Result<()> {
    let mut from = root.to_owned();
    for part in path.components() {
        let to = from.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
            if read(to.join(file)).trim().is_empty() {
                let value = read(from.join(file));
                write(&to.join(file), value.trim().as_bytes())
                    .map_err(Error::io("prepare", to.join(file).display().to_string()))?;
            }
        }
        from = to;
    }
    Ok(())
}
