//! A mount of a running container, for another one that shares its namespaces.
//!
//! Mounts can be cloned only inside of their mount namespace, so a child enters it, clones, and hands the
//! detached mount over. Nothing of the container is executed or followed: a link is an error.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use onggi_sys::clone::{Clone3, Namespaces, enter};
use onggi_sys::mount::clone_tree;
use onggi_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, WaitOptions, waitpid};

use crate::channel::{Channel, REPORT, Report, TREE};
use crate::error::{Error, Result, Stage};
use crate::init::{Step, failed};

/// Where System V and POSIX shared memory is seen.
const SHARED_MEMORY: &str = "/dev/shm";

/// The container's `/dev/shm`, for another container that shares its IPC namespace: a detached mount.
/// `mounts` is the mount namespace of its first process.
///
/// The calling process must have one thread, and authority over the container's user namespace.
///
/// # Errors
/// [`Error::Setup`], also where `/dev/shm` is no filesystem in memory.
pub fn shared_memory_of(mounts: BorrowedFd<'_>) -> Result<OwnedFd> {
    let (ours, theirs) = Channel::pair().map_err(Error::io("make", "a socket pair"))?;
    let ours_fd = ours.as_fd().as_raw_fd().unsigned_abs();
    let helper = Clone3::default().run(move |_| {
        let _ = onggi_sys::process::close_range(ours_fd, ours_fd);
        match clone_inside(mounts) {
            Ok(tree) => i32::from(theirs.send(TREE, &[], Some(tree.as_fd())).is_err()),
            Err(report) => {
                theirs.report(&report);
                1
            }
        }
    });
    let helper = helper.map_err(Error::io("start", "a process to enter the container"))?;
    let message = ours.receive();
    let _ = waitpid(Some(helper.pid), WaitOptions::empty());
    let broken = || Error::io("talk to", "a process in the container");
    match message.map_err(broken())? {
        Some(message) if message.kind == TREE => {
            message.fd.ok_or_else(|| broken()(std::io::Error::from(std::io::ErrorKind::InvalidData)))
        }
        Some(message) if message.kind == REPORT => {
            let report: Report = serde_json::from_slice(&message.body)
                .map_err(|error| broken()(std::io::Error::from(error)))?;
            Err(report.into_error())
        }
        _ => Err(broken()(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))),
    }
}

fn clone_inside(mounts: BorrowedFd<'_>) -> Step<OwnedFd> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed(Stage::Identity, ""))?;
    enter(mounts, Namespaces::MOUNT).map_err(failed(Stage::JoinNamespace, "of the container's mounts"))?;
    let step = || failed::<std::io::Error>(Stage::OpenSource, SHARED_MEMORY);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(|error| step()(error.into()))?;
    let found = Root::new(root.as_fd()).locate_plain(Path::new(SHARED_MEMORY)).map_err(step())?;
    let kind = rustix::fs::fstatfs(&found).map_err(|error| step()(error.into()))?.f_type;
    if kind != TMPFS_MAGIC {
        return Err(step()(Errno::NOTDIR.into()));
    }
    clone_tree(found.as_fd(), c"", false).map_err(step())
}

/// `TMPFS_MAGIC` of `statfs(2)`.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
