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

mod hierarchy;
mod inside;
mod limits;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

pub use hierarchy::Hierarchies;
pub(crate) use inside::mount_inside;

use crate::error::{Error, Result};
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
    /// for controllers that a limit needs. `None`: there are no limits and this
    /// caller can't make control groups here (rootless without delegation).
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a limit whose controller this host doesn't have
    /// or the caller may not set, by name; [`Error::Io`].
    pub fn create(path: &Path, resources: Option<&LinuxResources>) -> Result<Option<Self>> {
        let hierarchies = Hierarchies::detect()?;
        let limits = resources.map(|resources| limits(resources, hierarchies.is_unified())).transpose()?;
        let limits = limits.unwrap_or_default();
        let path: PathBuf = crate::mounts::clean(path).strip_prefix("/").unwrap_or(path).to_owned();
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("linux.cgroupsPath", "names the root of the control groups"));
        }
        let mut cgroup = Self { path, unified: None, legacy: Vec::new() };
        match cgroup.fill(&hierarchies, &limits) {
            Ok(()) => Ok(Some(cgroup)),
            Err(error) => {
                let _ = cgroup.remove();
                if limits.is_empty() && denied(&error) { Ok(None) } else { Err(error) }
            }
        }
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
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if let Ok(fd) = rustix::fs::open(&directory, flags, Mode::empty()) {
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

    /// The processes in it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn processes(&self) -> Result<Vec<i32>> {
        match self.directories().next() {
            None => Ok(Vec::new()),
            Some(directory) => processes(directory)
                .map_err(Error::io("read the processes of", directory.display().to_string())),
        }
    }

    /// Stops all its processes where they are, or lets them go on.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without a freezer on this host.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let legacy = || self.legacy.iter().find(|directory| directory.join("freezer.state").exists());
        let (file, value) = match (&self.unified, legacy()) {
            (Some((directory, _)), _) => (directory.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
            (None, Some(directory)) => {
                (directory.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
            }
            (None, None) => {
                return Err(Error::unsupported(
                    "pausing",
                    "the container has no control group with a freezer",
                ));
            }
        };
        write(&file, value.as_bytes()).map_err(Error::io("write", file.display().to_string()))
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> bool {
        self.directories().any(|directory| {
            let read = |file| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
            read("cgroup.freeze").trim() == "1"
                || matches!(read("freezer.state").trim(), "FROZEN" | "FREEZING")
        })
    }

    /// Kills all its processes.
    pub fn kill_all(&self) {
        for directory in self.directories() {
            kill_all(directory);
        }
    }

    /// Sets further limits.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn update(&mut self, resources: &LinuxResources) -> Result<()> {
        let hierarchies = Hierarchies::detect()?;
        let limits = limits(resources, hierarchies.is_unified())?;
        self.fill(&hierarchies, &limits)
    }

    /// One of its statistics or limit files, from whichever tree has it.
    pub fn read(&self, file: &str) -> Option<String> {
        self.directories().find_map(|directory| std::fs::read_to_string(directory.join(file)).ok())
    }

    fn fill(&mut self, hierarchies: &Hierarchies, limits: &[Limit]) -> Result<()> {
        if let Some(root) = hierarchies.unified() {
            if hierarchies.is_unified() {
                hand_down(root, &self.path, limits)?;
            }
            let directory = root.join(&self.path);
            let fd = make_directory(&directory)?;
            self.unified = Some((directory, fd));
        }
        for limit in limits {
            let directory = match hierarchies.legacy(limit.controller) {
                Some(root) => {
                    let directory = root.join(&self.path);
                    if !self.legacy.contains(&directory) {
                        make_directory(&directory)?;
                        self.legacy.push(directory.clone());
                        if limit.controller == "cpuset" {
                            inherit_cpuset(root, &self.path)?;
                        }
                    }
                    directory
                }
                None => match &self.unified {
                    Some((directory, _)) if hierarchies.is_unified() || limit.controller.is_empty() => {
                        directory.clone()
                    }
                    _ => {
                        return Err(Error::unsupported(
                            format!("the limit {}", limit.file),
                            format!("this host has no {} controller", limit.controller),
                        ));
                    }
                },
            };
            set(&directory, limit)?;
        }
        Ok(())
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
            remove_directory(directory)?;
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

fn denied(error: &Error) -> bool {
    matches!(error.kind(), onggi_oci::ErrorKind::Denied)
        || matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(Errno::ROFS.raw_os_error()))
}

fn make_directory(directory: &Path) -> Result<OwnedFd> {
    let step = || Error::io("make the control group", directory.display().to_string());
    let mode = Mode::from_raw_mode(0o755);
    for _ in 0..16 {
        match rustix::fs::mkdir(directory, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            // The parent is missing, or another container's end just removed it.
            Err(Errno::NOENT) => {
                std::fs::create_dir_all(directory.parent().unwrap_or(directory)).map_err(step())?;
                continue;
            }
            Err(error) => return Err(step()(error.into())),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|error| step()(error.into())),
        }
    }
    Err(step()(Errno::NOENT.into()))
}

/// Processes that were killed leave their group a moment later.
const PATIENCE: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

fn remove_directory(directory: &Path) -> Result<()> {
    for attempt in 0..PATIENCE {
        match rustix::fs::rmdir(directory) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => {}
            Err(error) => {
                return Err(Error::io("remove the control group", directory.display().to_string())(error));
            }
        }
        if attempt == 0 {
            kill_all(directory);
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::io("remove the control group", directory.display().to_string())(Errno::BUSY))
}

/// Version 2 has a file for it; in version 1 one process after another.
fn kill_all(directory: &Path) {
    if write(&directory.join("cgroup.kill"), b"1").is_ok() {
        return;
    }
    for pid in processes(directory).unwrap_or_default() {
        let _ = onggi_sys::signal::send(pid, 9);
    }
}

/// The processes in one directory.
pub(crate) fn processes(directory: &Path) -> io::Result<Vec<i32>> {
    let text = std::fs::read_to_string(directory.join("cgroup.procs"))?;
    // 0 is a process of another pid namespace.
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

fn write(path: &Path, value: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value)?;
    Ok(())
}

fn set(directory: &Path, limit: &Limit) -> Result<()> {
    match write(&directory.join(&limit.file), limit.value.as_bytes()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::unsupported(
            format!("the limit {}", limit.file),
            if limit.controller.is_empty() {
                "this kernel has no such control group file".to_owned()
            } else {
                format!("the {} controller is not available here", limit.controller)
            },
        )),
        Err(error) => Err(Error::io("set", format!("{} to {:?}", limit.file, limit.value))(error)),
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

/// Version 2: every directory above hands the needed controllers down.
fn hand_down(root: &Path, path: &Path, limits: &[Limit]) -> Result<()> {
    let mut wanted: Vec<&str> =
        limits.iter().map(|limit| limit.controller).filter(|c| !c.is_empty()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut directory = root.to_owned();
    let parts: Vec<_> = path.components().collect();
    for part in parts {
        let file = directory.join("cgroup.subtree_control");
        let have = std::fs::read_to_string(&file).unwrap_or_default();
        for controller in &wanted {
            if !have.split_ascii_whitespace().any(|one| one == *controller) {
                write(&file, format!("+{controller}").as_bytes()).map_err(|error| {
                    let why = format!("{} does not hand it down: {error}", directory.display());
                    Error::unsupported(format!("the {controller} controller"), why)
                })?;
            }
        }
        directory.push(part);
        if directory != root.join(path) {
            make_directory(&directory)?;
        }
    }
    Ok(())
}
