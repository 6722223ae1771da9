//! Where the bridges of an ordinary user are: a network namespace that one process holds.
//!
//! ```text
//!   <runroot>/networks/holder.lock     held while the holder is looked for, made or ended
//!   <runroot>/networks/holder.json     which process it is
//!   <runroot>/networks/usermode/uplink the program that gives it its way out (see `usermode`)
//!
//!   holder ── user namespace ──┬── network namespace: bridges, table, uplink
//!                              └── each container's user namespace ── its network namespace
//! ```
//!
//! Whoever plugs a container in needs authority over both namespaces, so all containers of these networks
//! descend from the holder's user namespace: commands enter that in place of one of their own. The holder
//! does nothing and has nothing open; it is ended with the last container.

use std::ffi::{CStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onggi_sys::clone::{Namespaces, SingleThreaded, unshare};
use onggi_sys::process::{CStrings, close_range, exec_fd, inherited};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::companion::detach;
use crate::error::{Error, Result};
use crate::namespace::NetworkNamespace;
use crate::usermode::start_time;

/// The name of the holder's way out among the programs of `usermode`.
pub const UPLINK: &str = "uplink";

/// What it is called.
const TITLE: &CStr = c"onggi: networks";
const RECORD: &str = "holder.json";
const LOCK: &str = "holder.lock";

/// The process that holds a user's networks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Holder {
    pid: i32,
    /// In ticks after boot: the number alone may be another's by now.
    started: u64,
}

/// As long as it lives nobody else makes or ends a holder.
#[derive(Debug)]
pub struct Lock {
    dir: PathBuf,
    _file: File,
}

/// Waits for the lock.
///
/// # Errors
/// [`Error::Io`].
pub fn lock(runroot: &Path) -> Result<Lock> {
    let dir = runroot.join("networks");
    fs::create_dir_all(&dir).map_err(Error::io("make", &dir))?;
    let path = dir.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io("open", &path))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|errno| Error::io("lock", &path)(errno.into()))?;
    Ok(Lock { dir, _file: file })
}

/// The holder, if it lives.
pub fn find(runroot: &Path) -> Option<Holder> {
    let bytes = fs::read(runroot.join("networks").join(RECORD)).ok()?;
    let holder: Holder = serde_json::from_slice(&bytes).ok()?;
    (start_time(holder.pid) == Some(holder.started)).then_some(holder)
}

/// How long ago the holder was made, whether it lives or not; `None` if there is none.
pub fn age(runroot: &Path) -> Option<Duration> {
    let made = fs::metadata(runroot.join("networks").join(RECORD)).and_then(|meta| meta.modified()).ok()?;
    Some(made.elapsed().unwrap_or_default())
}

/// Whether there was a holder that nobody ended: it was killed.
pub fn was_killed(runroot: &Path) -> bool {
    find(runroot).is_none() && runroot.join("networks").join(RECORD).exists()
}

impl Holder {
    /// Its process.
    pub fn pid(self) -> Option<Pid> {
        Pid::from_raw(self.pid)
    }

    /// The namespace with the bridges.
    ///
    /// # Errors
    /// [`Error::Io`] if the holder has ended.
    pub fn namespace(self) -> Result<NetworkNamespace> {
        NetworkNamespace::open(Path::new(&format!("/proc/{}/ns/net", self.pid)))
    }

    /// Whether the caller is in the holder's user namespace.
    pub fn is_ours(self) -> bool {
        let of = |process: &str| {
            fs::metadata(format!("/proc/{process}/ns/user")).map(|found| (found.dev(), found.ino())).ok()
        };
        let own = of("self");
        own.is_some() && own == of(&self.pid.to_string())
    }
}

impl Lock {
    /// Makes a holder with a network namespace of the caller's user namespace. The caller must have one
    /// thread.
    ///
    /// # Errors
    /// [`Error::System`], [`Error::Io`].
    pub fn make(&self) -> Result<Holder> {
        const OP: &str = "start the process that holds the networks";
        let failed = Error::system::<io::Error>;
        let null =
            File::options().read(true).write(true).open("/dev/null").map_err(failed("open /dev/null"))?;
        let (wait, ready) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::system(OP))?;
        let single = SingleThreaded::check().map_err(failed(OP))?;
        let child = single.fork(|| {
            // The grandchild is nobody's: nobody has to reap it.
            let Ok(single) = SingleThreaded::check() else { return 1 };
            let forked = single.fork(|| {
                let made = unshare(Namespaces::NET).and_then(|()| onggi_sys::link::loopback_up());
                if made.is_err() || detach(&[ready.as_fd()], null.as_fd(), TITLE).is_err() {
                    return 1;
                }
                // Executed anew it has none of the memory that its caller needed. If that can't be, it stays as it is.
                let _ = execute(ready.as_fd());
                hold_still(ready.as_fd())
            });
            i32::from(forked.is_err())
        });
        let child = child.map_err(failed(OP))?;
        let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
        drop(ready);
        let mut bytes = [0; 4];
        let count = rustix::io::read(&wait, &mut bytes).map_err(Error::system(OP))?;
        let pid = i32::from_ne_bytes(bytes);
        let started = if count == bytes.len() { start_time(pid) } else { None };
        let started = started.ok_or_else(|| failed(OP)(ErrorKind::UnexpectedEof.into()))?;
        let holder = Holder { pid, started };
        let (path, beside) = (self.dir.join(RECORD), self.dir.join(format!(".{RECORD}")));
        let text = serde_json::to_vec(&holder).expect("two numbers always serialise");
        let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path));
        if written.is_err() {
            kill(holder);
        }
        written.map_err(Error::io("write", path)).map(|()| holder)
    }

    /// Ends the holder, and forgets one that was killed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn end(&self) -> Result<()> {
        if let Some(runroot) = self.dir.parent() {
            crate::usermode::release(runroot, UPLINK)?;
            if let Some(holder) = find(runroot) {
                kill(holder);
            }
        }
        let path = self.dir.join(RECORD);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
            _ => Ok(()),
        }
    }
}

/// This program anew, as the holder; returns only with an error.
fn execute(ready: BorrowedFd<'_>) -> io::Result<()> {
    let own = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let bad = |_| io::Error::from(ErrorKind::InvalidInput);
    let number = ready.as_raw_fd().to_string();
    let words = CStrings::new([TITLE.to_bytes().to_vec(), number.into_bytes()]).map_err(bad)?;
    let nothing = CStrings::new(Vec::<Vec<u8>>::new()).map_err(bad)?;
    rustix::io::fcntl_setfd(ready, FdFlags::empty())?;
    Err(exec_fd(own.as_fd(), &words, &nothing))
}

/// Is the holder, until it is killed, if the command line says so; the exit status if whoever wanted it has gone.
///
/// To be called by the program before anything else: what was handed down is open under the number that the command
/// line names.
pub fn hold(words: &[OsString]) -> Option<u8> {
    let [first, number] = words else { return None };
    if first.as_bytes() != TITLE.to_bytes() {
        return None;
    }
    if let Some(ready) = number.to_str().and_then(|number| inherited(number.parse().ok()?).ok()) {
        hold_still(ready.as_fd());
    }
    Some(1)
}

/// Says which process this is, and holds what it has until it is killed. Returns if nobody hears of it.
fn hold_still(ready: BorrowedFd<'_>) -> i32 {
    // Others of the same user namespace look at its namespaces.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    let own = rustix::process::getpid().as_raw_nonzero().get().to_ne_bytes();
    if rustix::io::write(ready, &own).is_err() {
        return 1;
    }
    let _ = onggi_sys::memory::forget_unused_pages();
    // The last thing that it has open.
    let _ = close_range(0, u32::MAX);
    loop {
        let _ = rustix::event::poll(&mut [], None);
    }
}

fn kill(holder: Holder) {
    let Some(pid) = holder.pid() else { return };
    // The descriptor first: between a look and a signal the number could change hands.
    let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    if start_time(holder.pid) == Some(holder.started) {
        let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
    }
}
