//! Loop devices: a file as a block device (loop(4)).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// How often another free device is asked for when somebody else was faster.
const TRIES: usize = 64;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;

/// A read-only block device with the content of a file. The kernel takes it apart when nobody has it
/// open or mounted any more.
#[derive(Debug)]
pub struct LoopDevice {
    /// Keeps the device until it is mounted.
    _device: OwnedFd,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a file.
    ///
    /// # Errors
    /// No `/dev/loop-control`, no right to it, a kernel before 5.8 (`ENOTTY`).
    pub fn attach(file: BorrowedFd<'_>) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let mut tries = 0;
        loop {
            // SAFETY: no argument, no memory.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = File::open(&path)?;
            let config = Config {
                fd: u32::try_from(file.as_raw_fd()).unwrap_or(u32::MAX),
                block_size: 0,
                info: Info {
                    device: 0,
                    inode: 0,
                    rdevice: 0,
                    offset: 0,
                    size_limit: 0,
                    number: 0,
                    encrypt_type: 0,
                    encrypt_key_size: 0,
                    flags: READ_ONLY | AUTOCLEAR,
                    file_name: [0; 64],
                    crypt_name: [0; 64],
                    encrypt_key: [0; 32],
                    init: [0; 2],
                },
                reserved: [0; 8],
            };
            // SAFETY: `config` is a whole `struct loop_config` that lives through the call.
            let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
            if result == 0 {
                return Ok(Self { _device: device.into(), path });
            }
            let error = io::Error::last_os_error();
            tries += 1;
            if error.raw_os_error() != Some(libc::EBUSY) || tries == TRIES {
                return Err(error);
            }
        }
    }

    /// Its name, to be mounted.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}
