//! Where a supervisor can be reached, and by whom: only its own user.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use rustix::process::geteuid;

use super::wire::Wire;
use crate::error::{Error, Result};

/// More than wait at the same moment.
const BACKLOG: i32 = 16;

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Listens for a container.
    pub(crate) fn open(runroot: &Path, id: &str) -> Result<Self> {
        let failed = |source| Error::Write { path: directory(runroot).join(id), source };
        Self::try_open(runroot, id).map_err(failed)
    }

    fn try_open(runroot: &Path, id: &str) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(directory(runroot)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let dir = opened(runroot)?;
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        // What a supervisor that was killed left.
        let _ = fs::remove_file(directory(runroot).join(id));
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = bind(&socket, &address(&dir, id)?);
        rustix::process::umask(mask);
        bound?;
        listen(&socket, BACKLOG)?;
        Ok(Self(socket))
    }

    /// The next who connects and may; `None` if nobody waits.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match accept_with(&self.0, SocketFlags::CLOEXEC) {
            Ok(connection) => {
                let peer = socket_peercred(&connection)?;
                Ok((peer.uid == geteuid()).then_some(connection))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Connects to a container's supervisor; `None` if there is none.
pub(crate) fn reach(runroot: &Path, id: &str) -> io::Result<Option<Wire>> {
    use rustix::io::Errno;
    let dir = match opened(runroot) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    match connect(&socket, &address(&dir, id)?) {
        Ok(()) => Ok(Some(Wire::new(socket))),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Nobody can connect any more.
pub(crate) fn close(runroot: &Path, id: &str) {
    let _ = fs::remove_file(directory(runroot).join(id));
}

fn directory(runroot: &Path) -> PathBuf {
    runroot.join("attach")
}

fn opened(runroot: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory(runroot), flags, Mode::empty())?)
}

/// By the directory's descriptor: a socket's path has room for 108 bytes only.
fn address(dir: &OwnedFd, id: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{id}", dir.as_raw_fd()))?)
}
