//! A child process in new namespaces.
//!
//! [`Clone3::run`] is `clone3(2)` without shared memory: as `fork`, but the
//! namespaces, the cgroup and the pidfd come in the same call.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::process::Pid;

/// A set of namespace types, as the `CLONE_NEW…` bits of `clone(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// No namespace.
    pub const NONE: Self = Self(0);
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// Cgroup root.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// Host and domain name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// System V IPC and POSIX message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// User and group ids, capabilities.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// Process ids.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// Network.
    pub const NET: Self = Self(libc::CLONE_NEWNET as u64);
    /// Boot and monotonic clocks. `clone3` only; offsets need `unshare`.
    pub const TIME: Self = Self(0x80);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A child that this process made; not reaped when dropped.
#[derive(Debug)]
pub struct Child {
    /// Its process id in our pid namespace.
    pub pid: Pid,
    /// Its pidfd, close-on-exec: poll it for the exit, signal through it.
    pub pidfd: OwnedFd,
}

/// What `clone3` is asked for.
#[derive(Debug, Default)]
pub struct Clone3<'a> {
    /// The namespaces the child gets for its own.
    pub namespaces: Namespaces,
    /// A cgroup v2 directory that the child starts in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make the child a sibling: its parent is our parent (`CLONE_PARENT`).
    pub sibling: bool,
}

/// `struct clone_args` up to `cgroup` (`CLONE_ARGS_SIZE_VER2`).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The exit status of a child whose code panicked.
const PANICKED: i32 = 125;

impl Clone3<'_> {
    /// Makes the child, which runs `body` and exits with what that returns.
    ///
    /// The memory is copied (on write) as by `fork`. A second thread could hold
    /// a lock (the allocator's, say) that the child would then wait for without
    /// end, so the call is refused in a process with more than one thread.
    ///
    /// # Errors
    /// `EDEADLK` with several threads; else what `clone3(2)` says, `EPERM` for
    /// namespaces that the caller may not make and `ENOSPC` where a limit of
    /// `/proc/sys/user` is reached.
    pub fn run(&self, body: impl FnOnce(SingleThreaded) -> i32) -> io::Result<Child> {
        self.run_single(SingleThreaded::check()?, body)
    }

    /// As [`run`](Self::run), by somebody who knows already.
    ///
    /// # Errors
    /// What `clone3(2)` says.
    pub fn run_single(
        &self,
        single: SingleThreaded,
        body: impl FnOnce(SingleThreaded) -> i32,
    ) -> io::Result<Child> {
        let mut pidfd: RawFd = -1;
        let mut args = CloneArgs {
            flags: self.namespaces.0 | CLONE_PIDFD,
            pidfd: std::ptr::from_mut(&mut pidfd) as u64,
            exit_signal: if self.sibling { 0 } else { libc::SIGCHLD as u64 },
            ..CloneArgs::default()
        };
        if self.sibling {
            args.flags |= CLONE_PARENT;
        }
        if let Some(cgroup) = self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
        }
        // SAFETY: `args` and `pidfd` are valid for the call. There is neither
        // CLONE_VM nor a new stack, so the child returns here with a copy of all
        // memory; this process has one thread, so no lock is held by another.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        if pid == 0 {
            let status = catch_unwind(AssertUnwindSafe(|| body(single))).unwrap_or(PANICKED);
            // SAFETY: ends the child without running what belongs to the parent
            // (atexit handlers, destructors, buffered output).
            unsafe { libc::_exit(status) }
        }
        // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        Ok(Child { pid, pidfd })
    }
}

/// Says that this process has one thread, which therefore may fork: no other
/// thread can hold a lock that a copy of the memory would hold for ever.
///
/// Whoever has one must not start a thread before the fork.
#[derive(Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Looks whether it is so: the link count of the task directory.
    ///
    /// # Errors
    /// `EDEADLK` if there are more threads; what `statx(2)` says without `/proc`.
    pub fn check() -> io::Result<Self> {
        let task = rustix::fs::statx(CWD, c"/proc/self/task", AtFlags::empty(), StatxFlags::NLINK)?;
        if task.stx_nlink == 3 {
            Ok(Self(PhantomData))
        } else {
            Err(io::Error::from_raw_os_error(libc::EDEADLK))
        }
    }

    /// Plain `fork(2)`, which system call filters that forbid `clone3` allow: the
    /// child runs `body` and exits with what that returns. Returns its process id.
    ///
    /// # Errors
    /// `EAGAIN` at a process limit, `ENOMEM`.
    pub fn fork(self, body: impl FnOnce() -> i32) -> io::Result<Pid> {
        // SAFETY: this process has one thread, as `self` says.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        if pid == 0 {
            let status = catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED);
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(status) }
        }
        Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::EOVERFLOW))
    }
}

/// Leaves the namespaces of these types for new ones, as `unshare(2)`.
///
/// A new pid namespace is for the children; a new time namespace likewise.
///
/// # Errors
/// What `unshare(2)` says.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    let flags = i32::try_from(namespaces.0).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: takes no pointer, and no CLONE_FILES or CLONE_FS can be in a
    // `Namespaces`, so no descriptor changes its owner.
    if unsafe { libc::unshare(flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Enters these namespaces of the process behind a pidfd, all at once; a pid
/// namespace is for the children.
///
/// # Errors
/// What `setns(2)` says; `EINVAL` for one that the caller is in already.
pub fn enter_all(process: BorrowedFd<'_>, kinds: Namespaces) -> io::Result<()> {
    enter(process, kinds)
}

/// Enters the namespace behind `namespace` (an open `/proc/PID/ns/…` or a bind
/// mount of one), which must be of the given type.
///
/// # Errors
/// What `setns(2)` says; `EINVAL` where the type is another.
pub fn enter(namespace: BorrowedFd<'_>, kind: Namespaces) -> io::Result<()> {
    let kind = i32::try_from(kind.0).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: a live descriptor and a flag word.
    if unsafe { libc::setns(namespace.as_raw_fd(), kind) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The user namespace above the one behind `namespace`.
///
/// # Errors
/// `EPERM` where that is the first one, or lies outside of the caller's.
pub fn parent_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `NS_GET_PARENT` of `ioctl_nsfs(2)`: `_IO(0xb7, 0x2)`.
    const NS_GET_PARENT: libc::c_ulong = 0xb702;
    // SAFETY: a live descriptor and a request without an argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT as libc::Ioctl) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
