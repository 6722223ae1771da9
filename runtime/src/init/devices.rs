//! `/dev`: the standard nodes, those of the bundle, and the links.
//!
//! With the host's user namespace a node is made; inside another one the kernel
//! forbids that, and the host's node is bound instead, after a look that it is
//! the device which its name promises.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use onggi_sys::mount;
use onggi_sys::path::{Root, kind};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, makedev, mknodat, symlinkat};
use rustix::io::Errno;

use super::{Step, failed};
use crate::error::Stage;
use crate::mounts::Source;
use crate::plan::{DevicePlan, Plan};

/// The devices that every container has (runtime-spec, "Default Devices").
const STANDARD: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links that every container has (runtime-spec, "Dev symbolic links").
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// The files that the standard nodes will be bound to, in a new `/dev`.
pub(super) fn furnish(plan: &Plan, dev: BorrowedFd<'_>) -> io::Result<()> {
    if !plan.has_user_namespace() {
        return Ok(());
    }
    for (path, ..) in STANDARD {
        if plan.devices.iter().any(|device| device.path == Path::new(path)) {
            continue;
        }
        let name = path.trim_start_matches("/dev/");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o644))?;
    }
    Ok(())
}

/// Fills `/dev`; returns the null device, detached, to mask files with. A `/dev`
/// that is bound from the host stays as it is.
pub(super) fn populate(plan: &Plan, root: &OwnedFd) -> Step<OwnedFd> {
    let null = checked("/dev/null", FileType::CharacterDevice, makedev(1, 3))
        .map_err(failed(Stage::DeviceNode, "/dev/null"))?;
    let bound = plan
        .mounts
        .iter()
        .any(|mount| mount.destination == Path::new("/dev") && matches!(mount.source, Source::Bind { .. }));
    if bound {
        return Ok(null);
    }
    let inside = Root::new(root.as_fd());
    let bind = plan.has_user_namespace();
    for (path, major, minor) in STANDARD {
        if plan.devices.iter().any(|device| device.path == Path::new(path)) {
            continue;
        }
        let device = DevicePlan {
            path: path.into(),
            kind: FileType::CharacterDevice,
            device: makedev(major, minor),
            mode: 0o666,
            owner: (0, 0),
        };
        node(&inside, &device, bind).map_err(failed(Stage::DeviceNode, path))?;
    }
    for device in &plan.devices {
        node(&inside, device, bind).map_err(failed(Stage::DeviceNode, device.path.display().to_string()))?;
    }
    let dev = inside.make_dirs(Path::new("/dev")).map_err(failed(Stage::DeviceLink, "/dev"))?;
    for (target, path) in LINKS {
        let name = path.trim_start_matches("/dev/");
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(Stage::DeviceLink, path)(error)),
        }
    }
    Ok(null)
}

fn node(root: &Root<'_>, device: &DevicePlan, bind: bool) -> io::Result<()> {
    if bind && device.kind != FileType::Fifo {
        let source = checked(device.path.as_path(), device.kind, device.device)?;
        let onto = root.make_file(&device.path)?;
        return mount::attach(source.as_fd(), onto.as_fd());
    }
    let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let dir = root.make_dirs(parent)?;
    match mknodat(&dir, name, device.kind, Mode::from_raw_mode(device.mode), device.device) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            // The image's or a mount's own: only what was asked for will do.
            let there = root.locate_plain(&device.path)?;
            if kind(there.as_fd())? != (device.kind, device.device) {
                return Err(Errno::EXIST.into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    if device.owner != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.owner.0), Gid::from_raw(device.owner.1));
        chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// A clone of a node of the host, which must be this device.
fn checked(path: impl AsRef<Path>, expected: FileType, device: u64) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(path.as_ref().as_os_str().as_bytes())?;
    let tree = mount::clone_tree(CWD, &path, false)?;
    if kind(tree.as_fd())? == (expected, device) { Ok(tree) } else { Err(Errno::NODEV.into()) }
}
