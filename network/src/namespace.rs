//! Network namespaces as descriptors, and work inside of one.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use onggi_sys::clone::{Namespaces, enter, unshare};
use rustix::process::Pid;

use crate::error::{Error, Result};

/// The highest ID that the kernel takes for a range of groups.
const MAX_GROUP: u32 = 0x7fff_ffff;

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

    /// A new one, in which nothing but loopback is, and that is up. It belongs to the caller, and
    /// programs without any authority over it may do what a container's root may: ping, and listen on
    /// ports below 1024.
    ///
    /// # Errors
    /// [`Error::System`] without the right to make one.
    pub fn make() -> Result<Self> {
        in_thread(|| {
            unshare(Namespaces::NET).map_err(Error::system("make a network namespace"))?;
            onggi_sys::link::loopback_up().map_err(Error::system("bring up a loopback interface"))?;
            let groups = format!("0 {}", highest_group());
            for (name, value) in [("ip_unprivileged_port_start", "0"), ("ping_group_range", &groups)] {
                let path = Path::new("/proc/sys/net/ipv4").join(name);
                match std::fs::write(&path, value) {
                    // A kernel without it has no such limit.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    other => other.map_err(Error::io("write", &path))?,
                }
            }
            Self::open(Path::new("/proc/thread-self/ns/net"))
        })
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
        in_thread(|| {
            enter(self.0.as_fd(), Namespaces::NET)
                .map_err(Error::system("enter the container's network namespace"))?;
            work()
        })
    }
}

/// The highest group that the caller's user namespace knows.
fn highest_group() -> u32 {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    let last = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u32>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(first.saturating_add(count.saturating_sub(1)))
    };
    map.lines().filter_map(last).max().unwrap_or_default().min(MAX_GROUP)
}

/// Does something in a thread, which is gone when this returns.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
            let _ = tell.send(rustix::thread::gettid());
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
