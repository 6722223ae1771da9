//! Exec and what a process sets just before it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A NULL-terminated array of C strings, made before a clone so that the child
/// allocates nothing for it.
#[derive(Debug, Default)]
pub struct CStrings {
    strings: Vec<CString>,
}

impl CStrings {
    /// The array of these strings.
    ///
    /// # Errors
    /// The position of the first string with a NUL inside.
    pub fn new<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Result<Self, usize> {
        let one = |(position, string): (usize, S)| CString::new(string.as_ref()).map_err(|_| position);
        Ok(Self { strings: strings.into_iter().enumerate().map(one).collect::<Result<_, _>>()? })
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    /// Adds one behind the others.
    pub fn push(&mut self, string: CString) {
        self.strings.push(string);
    }

    fn pointers(&self) -> Vec<*const libc::c_char> {
        self.strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    }
}

/// Replaces this process by the program; returns only with an error.
pub fn exec(program: &CStr, arguments: &CStrings, environment: &CStrings) -> io::Error {
    let (argv, envp) = (arguments.pointers(), environment.pointers());
    // SAFETY: the strings and both NULL-terminated arrays live through the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces this process by the program behind a descriptor; returns only with an
/// error.
pub fn exec_fd(program: BorrowedFd<'_>, arguments: &CStrings, environment: &CStrings) -> io::Error {
    let (argv, envp) = (arguments.pointers(), environment.pointers());
    // SAFETY: as `exec`; the path is the empty string that AT_EMPTY_PATH wants.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Takes over a descriptor that this process was started with, and marks it close-on-exec.
///
/// For a program that was told the number by whoever executed it. Nothing else in the process may own
/// that number: it is to be called once, before anything is opened.
///
/// # Errors
/// `EBADF` if it is not open; `EINVAL` for the standard ones.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: changes a flag of a descriptor, or says that there is none.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the contract above nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// What `close_range(2)` says.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only a flag of descriptors changes; none is closed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `source` also the standard descriptor `target` (0, 1 or 2), inherited
/// across exec.
///
/// # Errors
/// `EBADF`; `EINVAL` for any other target.
pub fn set_standard(source: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    if !(0..=2).contains(&target) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if source.as_raw_fd() == target {
        // dup2 would leave close-on-exec as it is.
        // SAFETY: changes a flag of a live descriptor.
        let result = unsafe { libc::fcntl(target, libc::F_SETFD, 0) };
        return if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    }
    // SAFETY: 0, 1 and 2 are owned by nobody in particular; what they were is
    // closed in favour of `source`.
    if unsafe { libc::dup2(source.as_raw_fd(), target) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the execution domain and its flags (personality(2)).
///
/// # Errors
/// `EINVAL` for a domain that the kernel doesn't have.
pub fn set_personality(persona: u32) -> io::Result<()> {
    // SAFETY: a number.
    if unsafe { libc::personality(libc::c_ulong::from(persona)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets on which NUMA nodes memory of the calling thread lies: a mode of `set_mempolicy(2)` with its flags, and a bit for
/// each node.
///
/// # Errors
/// `EINVAL` for a mode that takes no such nodes, or nodes that are not there; `ENOSYS` without NUMA.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    let (mask, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        // The kernel looks at one bit less than it is told.
        nodes => (nodes.as_ptr(), nodes.len() * 64 + 1),
    };
    // SAFETY: the mask has as many bits as the kernel looks at.
    if unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the I/O scheduling class (1 real-time, 2 best effort, 3 idle) and the
/// priority (0 to 7) of the calling thread (ioprio_set(2)).
///
/// # Errors
/// `EPERM` for real time without `CAP_SYS_ADMIN` or `CAP_SYS_NICE`, `EINVAL`.
pub fn set_io_priority(class: u8, priority: u8) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    let value = i32::from(class) << 13 | i32::from(priority);
    // SAFETY: numbers only; 0 is the calling thread.
    if unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A scheduling policy with its parameters (sched(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHED_…` number.
    pub policy: u32,
    /// `SCHED_FLAG_…` bits.
    pub flags: u64,
    /// Nice value for the ordinary policies.
    pub nice: i32,
    /// Static priority for the real-time policies.
    pub priority: u32,
    /// Deadline policy: nanoseconds a period.
    pub runtime: u64,
    /// Deadline policy: relative deadline in nanoseconds.
    pub deadline: u64,
    /// Deadline policy: period in nanoseconds.
    pub period: u64,
}

/// Sets the scheduling policy of the calling thread.
///
/// # Errors
/// `EPERM`, `EINVAL`, `EBUSY` (deadline admission).
pub fn set_scheduling(scheduling: Scheduling) -> io::Result<()> {
    /// `struct sched_attr`, first version.
    #[repr(C)]
    struct Attr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let Scheduling { policy, flags, nice, priority, runtime, deadline, period } = scheduling;
    let size = u32::try_from(size_of::<Attr>()).unwrap_or_default();
    let attr = Attr { size, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: the struct lives through the call and says its own size.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Leaves the session keyring of the caller for a new, empty one
/// (`KEYCTL_JOIN_SESSION_KEYRING`).
///
/// # Errors
/// `ENOSYS` for kernels without keys, `EDQUOT`.
pub fn new_session_keyring(name: &CStr) -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: `name` ends in NUL and lives through the call.
    if unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Closes the descriptors from `first` to `last`, whoever owns them.
///
/// For a child that goes on without what its parent had open: it must not use or
/// drop a value that owns one of these descriptors.
///
/// # Errors
/// What `close_range(2)` says.
pub fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: to the kernel descriptors are numbers; a value that still owned one
    // would get EBADF, and callers have none left, as the contract above says.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Overwrites the command line that `/proc/PID/cmdline` shows, and the name of
/// the process, by `title`: for a process that others may look at but whose
/// arguments are not their business. Arguments and environment of this process
/// must not be read afterwards.
///
/// # Errors
/// `InvalidData` if the kernel doesn't say where they lie.
pub fn set_title(title: &CStr) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let (_, rest) = stat.rsplit_once(") ").ok_or_else(invalid)?;
    // arg_start and arg_end are fields 48 and 49; `rest` begins with field 3.
    let mut fields = rest.split_ascii_whitespace().skip(45).map(str::parse::<usize>);
    let (Some(Ok(start)), Some(Ok(end))) = (fields.next(), fields.next()) else { return Err(invalid()) };
    let room = end.checked_sub(start).filter(|room| start != 0 && *room > 0).ok_or_else(invalid)?;
    let bytes = title.to_bytes();
    let kept = bytes.len().min(room - 1);
    // SAFETY: the kernel put the argument strings of this process there at exec:
    // `room` writable bytes of its stack, to which Rust keeps pointers only for
    // `std::env::args`, which the contract rules out.
    unsafe {
        let area = std::ptr::with_exposed_provenance_mut::<u8>(start);
        std::ptr::write_bytes(area, 0, room);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), area, kept);
    }
    Ok(rustix::thread::set_name(title)?)
}
