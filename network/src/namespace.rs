//! Network namespaces as descriptors, and work inside of one.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use onggi_sys::clone::{Namespaces, enter};
use rustix::process::Pid;

use crate::error::{Error, Result};

/// A network namespace; it exists at least as long as this value.
#[derive(Debug)]
pub struct NetworkNamespace(OwnedFd);

impl NetworkNamespace {
    /// The one behind a file: `/proc/PID/ns/net`, or where one is pinned.
    ///
    /// # Errors
    /// [`Error::Io`]. Whether it is a network namespace turns out when it is entered.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open the network namespace", path))?;
        Ok(Self(file.into()))
    }

    /// That of a process.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such process, or one that may not be looked at.
    pub fn of(process: Pid) -> Result<Self> {
        Self::open(Path::new(&format!("/proc/{}/ns/net", process.as_raw_nonzero())))
    }

    /// Does something inside: what it opens (sockets, files of `/proc/sys/net`) is of this namespace.
    ///
    /// A namespace belongs to a thread, so this is one of its own, which has ended when this returns.
    /// The caller stays where it is; an ordinary user could not come back.
    ///
    /// # Errors
    /// [`Error::System`] without the right to enter it, else that of `work`.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                let _ = tell.send(rustix::thread::gettid());
                enter(self.0.as_fd(), Namespaces::NET)
                    .map_err(Error::system("enter the container's network namespace"))?;
                work()
            });
            let thread = thread.map_err(Error::system("start a thread"))?;
            // A panic in there is a panic here.
            let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            if let Ok(thread) = told.recv() {
                wait_for_end(thread);
            }
            done
        })
    }
}

/// The kernel still counts a thread for a moment after it was joined; a caller that goes on to clone
/// must be alone.
fn wait_for_end(thread: Pid) {
    const TRIES: usize = 2000;
    let path = format!("/proc/self/task/{}", thread.as_raw_nonzero());
    for _ in 0..TRIES {
        if !Path::new(&path).exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_micros(20));
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
