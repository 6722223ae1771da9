//! The tree of mounts: filesystems made detached, attached one after another
//! below the new root, and the old root left behind.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use onggi_sys::mount::{self, Attributes, Change, Parameter};
use onggi_sys::path::Root;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::{RootSource, Step, failed};
use crate::cgroup;
use crate::channel::{Channel, ROOT};
use crate::error::Stage;
use crate::mounts::{MountPlan, Source};
use crate::plan::Plan;

/// Makes the new filesystems while the parent prepares the root: one entry a
/// mount of the plan, `None` for what is cloned rather than made.
pub(super) fn make_filesystems(plan: &Plan) -> Step<Vec<Option<OwnedFd>>> {
    let mut made = Vec::with_capacity(plan.mounts.len());
    for mount in &plan.mounts {
        made.push(match &mount.source {
            Source::Filesystem { kind, parameters } => {
                let made = make(kind, parameters, mount)?;
                if kind == "tmpfs" && mount.destination == Path::new("/dev") && !mount.copy_up {
                    furnish(plan, made.as_fd()).map_err(failed(Stage::MountPoint, "/dev"))?;
                }
                Some(made)
            }
            Source::Bind { .. } | Source::Cgroup => None,
        });
    }
    Ok(made)
}

/// What will be needed in a new `/dev`: as long as it is nowhere, names in it need no look-up that stays inside.
fn furnish(plan: &Plan, dev: BorrowedFd<'_>) -> io::Result<()> {
    let below = |mount: &MountPlan| match (&mount.source, mount.destination.parent()) {
        (Source::Filesystem { .. }, Some(parent)) if parent == Path::new("/dev") => {
            mount.destination.file_name().map(ToOwned::to_owned)
        }
        _ => None,
    };
    for name in plan.mounts.iter().filter_map(below) {
        match rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    super::devices::furnish(plan, dev)
}

/// What an empty directory in memory gets only once all that lies in it is there.
fn late_attributes(plan: &MountPlan) -> Attributes {
    match &plan.source {
        Source::Filesystem { kind, .. } if kind == "tmpfs" && plan.set.contains(Attributes::READ_ONLY) => {
            Attributes::READ_ONLY
        }
        _ => Attributes::NONE,
    }
}

fn make(kind: &str, parameters: &[(String, Option<String>)], plan: &MountPlan) -> Step<OwnedFd> {
    let parameters: Vec<Parameter<'_>> =
        parameters.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    match mount::make(kind, &parameters, plan.set.without(late_attributes(plan))) {
        Ok(mount) => Ok(mount),
        // A user namespace may mount these only for namespaces that it owns; with
        // the host's network or IPC the host's instance is the right one anyway.
        Err(error) if error.raw_os_error() == Some(1) && matches!(kind, "sysfs" | "mqueue") => {
            let source = if kind == "sysfs" { c"/sys" } else { c"/dev/mqueue" };
            let tree = mount::clone_tree(CWD, source, true).map_err(failed(Stage::MakeFilesystem, kind))?;
            let change = Change { set: plan.set, recursive: true, ..Change::default() };
            change.apply(tree.as_fd(), c"").map_err(failed(Stage::MountOptions, kind))?;
            Ok(tree)
        }
        Err(error) => {
            let object = format!("{kind} for {}", plan.destination.display());
            Err(failed(Stage::MakeFilesystem, object)(error))
        }
    }
}

/// The detached mount that becomes the root.
pub(super) fn receive(channel: &Channel, source: RootSource) -> Step<OwnedFd> {
    match source {
        RootSource::Cloned(fd) => Ok(fd),
        RootSource::Sent => {
            let message = channel.expect(ROOT).map_err(failed(Stage::Handshake, ""))?;
            message
                .fd
                .ok_or_else(|| failed(Stage::Handshake, "")(io::Error::from(io::ErrorKind::InvalidData)))
        }
        RootSource::Path(path) => {
            let object = path.display().to_string();
            let name = CString::new(path.as_os_str().as_bytes())
                .map_err(|error| failed(Stage::OpenSource, &object)(io::Error::from(error)))?;
            mount::clone_tree(CWD, &name, true).map_err(failed(Stage::OpenSource, object))
        }
    }
}

/// Attaches the root over `place`, else `/`, and everything else below it; returns what [`close_up`] is for.
///
/// `groups`: see [`mount_inside`](cgroup::mount_inside).
pub(super) fn attach(
    plan: &mut Plan,
    root: &OwnedFd,
    place: Option<&Path>,
    made: Vec<Option<OwnedFd>>,
    groups: Option<&str>,
) -> Step<Vec<OwnedFd>> {
    let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    // Its own place may be out of reach with the container's ids.
    let onto = match place.map(open) {
        Some(Ok(place)) => place,
        _ => open(Path::new("/")).map_err(failed(Stage::Attach, "/"))?,
    };
    mount::attach(root.as_fd(), onto.as_fd()).map_err(failed(Stage::Attach, "/"))?;
    drop(onto);
    let inside = Root::new(root.as_fd());
    let mut late = Vec::new();
    for (plan, made) in plan.mounts.iter_mut().zip(made) {
        let object = || plan.destination.display().to_string();
        let (tree, directory) = match (&mut plan.source, made) {
            (Source::Filesystem { .. }, Some(mount)) => (mount, true),
            (Source::Bind { path, recursive, tree, directory }, _) => match tree.take() {
                Some(tree) => (tree, *directory),
                None => clone_source(path, *recursive)?,
            },
            (Source::Cgroup | Source::Filesystem { .. }, _) => {
                cgroup::mount_inside(&inside, &plan.destination, plan.set, groups)
                    .map_err(failed(Stage::MakeFilesystem, format!("cgroup for {}", object())))?;
                continue;
            }
        };
        if plan.copy_up {
            copy_up(&inside, &plan.destination, tree.as_fd()).map_err(failed(Stage::CopyUp, object()))?;
        }
        if inherits_mode(plan)
            && let Ok(there) = inside.open(&plan.destination, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        {
            let stat = rustix::fs::fstat(&there).map_err(failed(Stage::MountPoint, object()))?;
            let mode = Mode::from_raw_mode(stat.st_mode);
            rustix::fs::chmodat(&tree, c".", mode, rustix::fs::AtFlags::empty())
                .map_err(failed(Stage::MountOptions, object()))?;
        }
        let onto = destination(&inside, plan, directory).map_err(failed(Stage::MountPoint, object()))?;
        let bind = matches!(plan.source, Source::Bind { .. });
        change_attributes(plan, tree.as_fd(), bind).map_err(failed(Stage::MountOptions, object()))?;
        mount::attach(tree.as_fd(), onto.as_fd()).map_err(failed(Stage::Attach, object()))?;
        if !late_attributes(plan).is_empty() {
            late.push(tree);
        }
    }
    Ok(late)
}

/// An empty directory in memory is as open as the one that it covers, where nothing else is said (as with runc).
fn inherits_mode(plan: &MountPlan) -> bool {
    matches!(&plan.source, Source::Filesystem { kind, parameters }
        if kind == "tmpfs" && !plan.copy_up && !parameters.iter().any(|(key, _)| key == "mode"))
}

/// Makes those read-only that had to be filled before.
pub(super) fn close_up(late: Vec<OwnedFd>) -> Step<()> {
    for tree in late {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        change.apply(tree.as_fd(), c"").map_err(failed(Stage::ReadOnly, "a tmpfs"))?;
    }
    Ok(())
}

/// The source of a bind mount that the parent could not clone.
fn clone_source(path: &Path, recursive: bool) -> Step<(OwnedFd, bool)> {
    let object = || path.display().to_string();
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|error| failed(Stage::OpenSource, object())(io::Error::from(error)))?;
    let tree = mount::clone_tree(CWD, &name, recursive).map_err(failed(Stage::OpenSource, object()))?;
    let (kind, _) = onggi_sys::path::kind(tree.as_fd()).map_err(failed(Stage::OpenSource, object()))?;
    Ok((tree, kind == rustix::fs::FileType::Directory))
}

/// The mount point, made if missing. Kernel filesystems go exactly where they
/// are said to: a link there would be the image's wish, not the caller's.
fn destination(root: &Root<'_>, plan: &MountPlan, directory: bool) -> io::Result<OwnedFd> {
    let path = plan.destination.as_path();
    let fixed = matches!(&plan.source, Source::Filesystem { kind, .. } if kind != "tmpfs" || path == Path::new("/dev"));
    if fixed {
        match root.locate_plain(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    if directory { root.make_dirs(path) } else { root.make_file(path) }
}

fn change_attributes(plan: &MountPlan, tree: BorrowedFd<'_>, bind: bool) -> io::Result<()> {
    let own = Change { set: plan.set, clear: plan.clear, ..Change::default() };
    // A new filesystem got its attributes when it was made.
    if bind && !own.is_empty() {
        own.apply(tree, c"")?;
    }
    let below = Change { set: plan.set_below, clear: plan.clear_below, recursive: true, ..Change::default() };
    if !below.is_empty() {
        below.apply(tree, c"")?;
    }
    // Mounts of another user namespace arrive as slaves; nothing travels out.
    if let Some((propagation, recursive)) = plan.propagation {
        Change { propagation: Some(propagation), recursive, ..Change::default() }.apply(tree, c"")?;
    } else if bind {
        Change { propagation: Some(mount::Propagation::Private), recursive: true, ..Change::default() }
            .apply(tree, c"")?;
    }
    Ok(())
}

/// Copies what the image has at the destination into the new tmpfs: plain files,
/// directories and links, with modes and owners.
fn copy_up(root: &Root<'_>, path: &Path, into: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let from = match root.open(path, flags, Mode::empty()) {
        Ok(from) => from,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let stat = rustix::fs::fstat(&from)?;
    rustix::fs::chmodat(into, c".", Mode::from_raw_mode(stat.st_mode), rustix::fs::AtFlags::empty())?;
    copy_directory(from.as_fd(), into, 0)
}

/// Deeper trees than this don't belong on a tmpfs.
const MAX_COPY_DEPTH: usize = 64;

fn copy_directory(from: BorrowedFd<'_>, into: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    use rustix::fs::{
        AtFlags, FileType, Mode, OFlags, chownat, fstat, mkdirat, openat, readlinkat, symlinkat,
    };
    if depth > MAX_COPY_DEPTH {
        return Err(io::Error::from_raw_os_error(Errno::NAMETOOLONG.raw_os_error()));
    }
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(from, name, look, Mode::empty())?;
        let stat = fstat(&found)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(into, name, mode)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let (below, target) =
                    (openat(from, name, flags, Mode::empty())?, openat(into, name, flags, Mode::empty())?);
                copy_directory(below.as_fd(), target.as_fd(), depth + 1)?;
            }
            FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), into, name)?,
            FileType::RegularFile => {
                let source =
                    openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = openat(into, name, create, mode)?;
                io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target))?;
            }
            _ => continue,
        }
        let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        chownat(into, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Makes the new root the root of this process and lets go of the old one.
///
/// `no_pivot` is for a host that runs from its ramdisk, which the kernel can't pivot away from: the
/// new root covers the old one, and stays a mount on top of it.
pub(super) fn enter(root: &OwnedFd, plan: &Plan, no_pivot: bool) -> Step<()> {
    let step = || failed::<Errno>(Stage::PivotRoot, "");
    rustix::process::fchdir(root).map_err(step())?;
    if no_pivot {
        // Paths still begin at the old root. What shows there of the kernel would allow the container
        // new instances without its masks.
        for path in ["/proc", "/sys"] {
            hide(path).map_err(failed(Stage::PivotRoot, path))?;
        }
        rustix::process::chroot(".").map_err(step())?;
        rustix::process::chdir("/").map_err(step())?;
        return propagate(plan);
    }
    // Stacked: the old root lands on top of the new one, where the same `.`
    // names it for the unmount.
    rustix::process::pivot_root(".", ".").map_err(step())?;
    unmount(".", UnmountFlags::DETACH).map_err(step())?;
    rustix::process::chdir("/").map_err(step())?;
    propagate(plan)
}

/// Takes a mount away with all below, or covers it where another user namespace locks it.
fn hide(path: &str) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::PERM) => {
            let onto = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            mount::attach(empty_directory()?.as_fd(), onto.as_fd())
        }
        Err(error) => Err(error.into()),
    }
}

fn propagate(plan: &Plan) -> Step<()> {
    if let Some((propagation, recursive)) = plan.root_propagation {
        let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
        change.apply(CWD, c"/").map_err(failed(Stage::Propagation, "/"))?;
    }
    Ok(())
}

/// An empty read-only directory to cover others with.
pub(super) fn empty_directory() -> io::Result<OwnedFd> {
    let attributes =
        Attributes::READ_ONLY.with(Attributes::NO_SUID).with(Attributes::NO_DEV).with(Attributes::NO_EXEC);
    mount::make("tmpfs", &[("size", Some("4k")), ("nr_inodes", Some("2"))], attributes)
}
