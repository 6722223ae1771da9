//! Signals as a descriptor, masks and dispositions.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of signal numbers.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl std::fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalSet")
    }
}

impl SignalSet {
    /// The set of these signals; numbers that are none are left out.
    pub fn of(signals: &[i32]) -> Self {
        let mut set = Self::empty();
        for signal in signals {
            // SAFETY: the set was initialised; a bad number is only refused.
            unsafe { libc::sigaddset(&raw mut set.0, *signal) };
        }
        set
    }

    /// No signal.
    pub fn empty() -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the whole set.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// Every signal.
    pub fn full() -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigfillset` initialises the whole set.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }
}

/// Blocks these signals in the calling thread, besides those that are blocked
/// already; returns the mask as it was.
///
/// # Errors
/// None that a valid set can cause.
pub fn block(signals: &SignalSet) -> io::Result<SignalSet> {
    change_mask(libc::SIG_BLOCK, signals)
}

/// Makes `signals` the whole mask of the calling thread.
///
/// # Errors
/// None that a valid set can cause.
pub fn set_mask(signals: &SignalSet) -> io::Result<()> {
    change_mask(libc::SIG_SETMASK, signals).map(|_| ())
}

fn change_mask(how: libc::c_int, signals: &SignalSet) -> io::Result<SignalSet> {
    let mut old = SignalSet::empty();
    // SAFETY: both sets are initialised and live through the call.
    let error = unsafe { libc::pthread_sigmask(how, &raw const signals.0, &raw mut old.0) };
    if error == 0 { Ok(old) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// A descriptor from which these (blocked) signals are read; close-on-exec and
/// not blocking.
///
/// # Errors
/// What `signalfd(2)` says.
pub fn descriptor(signals: &SignalSet) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const signals.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal from a [`descriptor`]; `None` when none waits.
///
/// # Errors
/// What `read(2)` says.
pub fn next(descriptor: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has the given size; all bit patterns are valid for it.
    let (read, info) = unsafe {
        let read = libc::read(descriptor.as_raw_fd(), info.as_mut_ptr().cast(), size);
        (read, info.assume_init())
    };
    if read < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    }
    if usize::try_from(read) != Ok(size) {
        return Ok(None);
    }
    Ok(i32::try_from(info.ssi_signo).ok())
}

/// Waits for one of these (blocked) signals and takes it.
///
/// # Errors
/// What `sigwaitinfo(2)` says; an interruption is waited over.
pub fn wait(signals: &SignalSet) -> io::Result<i32> {
    loop {
        // SAFETY: the set is initialised; no siginfo is asked for.
        let signal = unsafe { libc::sigwaitinfo(&raw const signals.0, std::ptr::null_mut()) };
        if signal > 0 {
            return Ok(signal);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Gives the signals that a program can inherit as ignored their default
/// disposition back: `SIGPIPE`, which Rust's runtime ignores. Handlers reset
/// themselves at exec.
pub fn reset_dispositions() {
    // SAFETY: SIG_DFL is no handler, so no code can run in a wrong context.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Sends a signal to a process by its number; needed where there is no pidfd.
///
/// # Errors
/// What `kill(2)` says.
pub fn send(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: two numbers.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to the process behind a pidfd. Signal 0 only checks.
///
/// # Errors
/// `ESRCH` when it has ended, `EPERM`.
pub fn send_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a live descriptor, a number, no siginfo, no flags.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
