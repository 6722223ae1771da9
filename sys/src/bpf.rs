//! BPF programs that decide about devices (bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! A program is attached to a directory of the version 2 tree of control groups and
//! is asked about each use of a device by a process in it. Programs of the
//! directories above are asked too, and each can refuse.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One BPF instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low half, source register in the high one.
    pub registers: u8,
    /// Instructions to skip, or an offset in memory.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

/// A loaded program.
#[derive(Debug)]
pub struct DeviceProgram(OwnedFd);

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// More programs than this are never attached to one directory (`BPF_CGROUP_MAX_PROGS`).
const MAX_ATTACHED: usize = 64;

/// The part of `union bpf_attr` that loads a program.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The part that attaches and detaches.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// The part that asks what is attached.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// The part that finds a program by its number.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the structures above are the beginnings of `union bpf_attr` for their commands, the size
    // is theirs, and what they point to lives through the call (see the callers); the kernel takes what
    // lies behind the size for zeros.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

impl DeviceProgram {
    /// Loads a program; the kernel's verifier looks whether it ends and reads only what it may.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` (or `CAP_SYS_ADMIN`) in the first user namespace,
    /// `EINVAL` or `EACCES` for a program that the verifier refuses.
    pub fn load(instructions: &[Instruction]) -> io::Result<Self> {
        let license = c"Apache-2.0";
        let mut attributes = Load {
            kind: TYPE_CGROUP_DEVICE,
            count: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            name: *b"onggi_devices\0\0\0",
            ..Load::default()
        };
        let fd = bpf(PROG_LOAD, &mut attributes)?;
        // SAFETY: a successful load returns a new descriptor, which nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Attaches it to a directory in place of the programs that are attached to it. At no moment is
    /// there less than the old or the new one.
    ///
    /// # Errors
    /// What `bpf(2)` says; `EPERM` where a directory above doesn't let its children have programs of
    /// their own.
    pub fn attach(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        use std::os::fd::AsFd;
        let before = attached(directory)?;
        let mut attributes = Attach {
            target: number(directory),
            program: number(self.0.as_fd()),
            kind: ATTACH_CGROUP_DEVICE,
            flags: ALLOW_MULTI,
            replaced: 0,
        };
        if let [one] = before.as_slice() {
            attributes.flags |= REPLACE;
            attributes.replaced = number(one.as_fd());
            match bpf(PROG_ATTACH, &mut attributes) {
                // A kernel before 5.6, or a program that was attached in another mode.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    attributes.flags = ALLOW_MULTI;
                    attributes.replaced = 0;
                }
                other => return other.map(|_| ()),
            }
        }
        bpf(PROG_ATTACH, &mut attributes)?;
        for old in &before {
            let mut attributes = Attach {
                target: number(directory),
                program: number(old.as_fd()),
                kind: ATTACH_CGROUP_DEVICE,
                ..Attach::default()
            };
            bpf(PROG_DETACH, &mut attributes)?;
        }
        Ok(())
    }
}

/// The programs that are attached to the directory itself.
///
/// # Errors
/// What `bpf(2)` says.
fn attached(directory: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MAX_ATTACHED];
    let mut attributes = Query {
        target: number(directory),
        kind: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(MAX_ATTACHED).unwrap_or_default(),
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut attributes)?;
    let count = usize::try_from(attributes.count).unwrap_or_default();
    let mut programs = Vec::new();
    for id in ids.into_iter().take(count) {
        match bpf(PROG_GET_FD_BY_ID, &mut ById { id, ..ById::default() }) {
            // SAFETY: a successful call returns a new descriptor, which nobody else owns.
            Ok(fd) => programs.push(unsafe { OwnedFd::from_raw_fd(fd) }),
            // It went away meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}
