//! Installing a system call filter (seccomp(2)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One classic BPF instruction, `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jt: u8,
    /// Instructions to skip if not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Flags of a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Log all actions but allow (`SECCOMP_FILTER_FLAG_LOG`).
    pub log: bool,
    /// Leave speculative store bypass on (`…_SPEC_ALLOW`).
    pub spec_allow: bool,
    /// Synchronise all threads (`…_TSYNC`).
    pub tsync: bool,
    /// A task that waits for a notification reply can be killed
    /// (`…_WAIT_KILLABLE_RECV`).
    pub wait_killable: bool,
    /// Return a descriptor that user notifications come through
    /// (`…_NEW_LISTENER`).
    pub listener: bool,
}

/// Installs the filter on the calling thread, for good.
///
/// # Errors
/// `EACCES` without `no_new_privs` and without `CAP_SYS_ADMIN`; `EINVAL` for a
/// program that the kernel's checker refuses or flags that it doesn't know.
pub fn install(program: &[Instruction], flags: Flags) -> io::Result<Option<OwnedFd>> {
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const Instruction,
    }
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(invalid());
    }
    let len = u16::try_from(program.len()).map_err(|_| invalid())?;
    let prog = Program { len, filter: program.as_ptr() };
    let mut bits: libc::c_ulong = 0;
    for (wanted, bit) in [
        (flags.tsync, 1),
        (flags.log, 2),
        (flags.spec_allow, 4),
        (flags.listener, 8),
        (flags.wait_killable, 32),
    ] {
        if wanted {
            bits |= bit;
        }
    }
    // With both, the kernel wants to be told that an error isn't a thread id.
    if flags.tsync && flags.listener {
        bits |= 16;
    }
    // SAFETY: `prog` points to `len` instructions that live through the call; the
    // kernel copies and checks them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, bits, &raw const prog) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if !flags.listener {
        // With TSYNC a positive result is the thread that couldn't follow.
        return if result == 0 { Ok(None) } else { Err(io::Error::from_raw_os_error(libc::EBUSY)) };
    }
    let fd = i32::try_from(result).map_err(|_| invalid())?;
    // SAFETY: with NEW_LISTENER a result that isn't negative is a new descriptor.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
