//! `RUN --mount` as detached mounts, their IDs mapped to the container's.
//!
//! Each source is resolved once, inside of its tree, to a descriptor, and what that is gets mounted:
//! a link that somebody swaps in afterwards changes nothing (CVE-2024-23651, CVE-2024-9675).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use onggi_build::{ReadyKind, ReadyMount};
use onggi_image::layer::OverlayXattr;
use onggi_image::snapshot::Snapshot;
use onggi_sys::clone::SingleThreaded;
use onggi_sys::mount::{Attributes, Change, clone_tree, make};
use onggi_sys::path::Root;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::error::{Error, Result};

/// A process that passes on what is said to a socket; it ends with this value.
#[derive(Debug)]
pub(super) struct Agent(Pid);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// The mount of one wish. `users` has the container's IDs if they are not those on disk.
pub(super) fn tree(
    mount: &ReadyMount,
    users: Option<BorrowedFd<'_>>,
    xattr: OverlayXattr,
    scratch: &Path,
) -> Result<(OwnedFd, Option<Agent>)> {
    let failed = |source: std::io::Error| Error::StepMount { target: mount.target.clone(), source };
    match &mount.kind {
        ReadyKind::Directory { root, path, writable } => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
            let tree = below(root.as_fd(), path).map_err(failed)?;
            finish(&tree, users, !writable).map_err(failed)?;
            Ok((tree, None))
        }
        ReadyKind::Stack { layers, path, scratch } => {
            let mut snapshot = Snapshot::new(layers, xattr);
            if let Some(scratch) = scratch {
                snapshot = snapshot.writable(scratch).volatile();
                snapshot.prepare()?;
            }
            let root = snapshot.mount(users)?;
            let tree =
                if path.as_os_str().is_empty() { root } else { below(root.as_fd(), path).map_err(failed)? };
            finish(&tree, None, scratch.is_none()).map_err(failed)?;
            Ok((tree, None))
        }
        ReadyKind::File { content, mode, uid, gid } => {
            let memory = make("tmpfs", &[("mode", Some("0700"))], Attributes::NONE).map_err(failed)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&memory, "secret", flags, Mode::from_raw_mode(0o600))
                .map_err(|errno| failed(errno.into()))?;
            let mut file = File::from(file);
            file.write_all(content).map_err(failed)?;
            dress(file.as_fd(), *mode, *uid, *gid).map_err(failed)?;
            drop(file);
            let tree = below(memory.as_fd(), Path::new("secret")).map_err(failed)?;
            finish(&tree, users, false).map_err(failed)?;
            Ok((tree, None))
        }
        ReadyKind::Socket { path, mode, uid, gid } => {
            std::fs::create_dir(scratch).map_err(failed)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir =
                rustix::fs::open(scratch, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
            // Paths of sockets are short.
            let socket = format!("/proc/self/fd/{}/agent", dir.as_raw_fd());
            let listener = UnixListener::bind(&socket).map_err(failed)?;
            let own = (Uid::from_raw(*uid), Gid::from_raw(*gid));
            rustix::fs::chownat(&dir, "agent", Some(own.0), Some(own.1), AtFlags::SYMLINK_NOFOLLOW)
                .and_then(|()| {
                    rustix::fs::chmodat(&dir, "agent", Mode::from_raw_mode(*mode), AtFlags::empty())
                })
                .map_err(|errno| failed(errno.into()))?;
            let agent = forward(&listener, path).map_err(failed)?;
            let tree = below(dir.as_fd(), Path::new("agent")).map_err(failed)?;
            finish(&tree, users, false).map_err(failed)?;
            Ok((tree, Some(agent)))
        }
        ReadyKind::Tmpfs { .. } => Err(failed(std::io::ErrorKind::InvalidInput.into())),
    }
}

/// A detached mount of what a path means inside of a directory.
fn below(root: BorrowedFd<'_>, path: &Path) -> std::io::Result<OwnedFd> {
    let found = Root::new(root).locate(path)?;
    clone_tree(found.as_fd(), c"", false)
}

fn finish(tree: &OwnedFd, users: Option<BorrowedFd<'_>>, read_only: bool) -> std::io::Result<()> {
    let mut set = Attributes::NO_DEV.with(Attributes::NO_SUID);
    if read_only {
        set = set.with(Attributes::READ_ONLY);
    }
    Change { set, idmap: users, ..Change::default() }.apply(tree.as_fd(), c"")
}

fn dress(file: BorrowedFd<'_>, mode: u32, uid: u32, gid: u32) -> std::io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?;
    Ok(())
}

/// Passes connections on to another socket, in a process of its own.
fn forward(listener: &UnixListener, to: &Path) -> std::io::Result<Agent> {
    let parent = rustix::process::getpid();
    let pid = SingleThreaded::check()?.fork(|| {
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        if rustix::process::getppid() != Some(parent) {
            return 1;
        }
        for stream in listener.incoming() {
            let (Ok(inner), Ok(outer)) = (stream, UnixStream::connect(to)) else { continue };
            pass(&inner, &outer);
            pass(&outer, &inner);
        }
        0
    })?;
    Ok(Agent(pid))
}

/// Copies one way until the end, in a thread.
fn pass(from: &UnixStream, to: &UnixStream) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(count) = from.read(&mut buffer) {
            if count == 0 || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}
