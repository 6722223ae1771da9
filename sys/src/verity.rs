//! fs-verity: a file that can't change any more, each piece of which the kernel compares with a hash when it is read.
//!
//! ```text
//!   enable   file ─► hashes of its pieces (SHA-256, 4 KiB) ─► hashes of those ─► … ─► the file's digest
//!   read     a piece that doesn't fit its hash is EIO
//! ```

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u32 = 1;
/// What is hashed as a whole; every kernel with fs-verity takes 4 KiB where that is the size of a page.
const BLOCK: u32 = 4096;
/// `FS_IOC_ENABLE_VERITY`, `_IOW('f', 133, struct fsverity_enable_arg)`.
const ENABLE: libc::Ioctl = 0x4080_6685;
/// `FS_IOC_MEASURE_VERITY`, `_IOWR('f', 134, struct fsverity_digest)`.
const MEASURE: libc::Ioctl = 0xC004_6686;

/// `struct fsverity_enable_arg` of `linux/fsverity.h`.
#[repr(C)]
#[derive(Default)]
struct EnableArgument {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    more: [u64; 11],
}

/// `struct fsverity_digest` with room for SHA-256.
#[repr(C)]
struct Digest {
    algorithm: u16,
    size: u16,
    bytes: [u8; 32],
}

/// Seals a file that nobody has open for writing. `false` where kernel or filesystem don't know fs-verity.
///
/// # Errors
/// `ETXTBSY` while somebody has it open for writing; what reading and writing answer.
pub fn enable(file: BorrowedFd<'_>) -> io::Result<bool> {
    let argument =
        EnableArgument { version: 1, hash_algorithm: SHA256, block_size: BLOCK, ..EnableArgument::default() };
    // SAFETY: `argument` is a whole `struct fsverity_enable_arg` that lives through the call; it names no salt and no
    // signature, so the kernel reads nothing else.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), ENABLE, &raw const argument) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EEXIST) => Ok(true),
        // EINVAL: a filesystem with other blocks (before Linux 6.3).
        Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS) => Ok(false),
        _ => Err(error),
    }
}

/// The SHA-256 digest of a sealed file; nothing if it isn't sealed, or not with SHA-256.
///
/// # Errors
/// Those of the kernel.
pub fn measure(file: BorrowedFd<'_>) -> io::Result<Option<[u8; 32]>> {
    let mut digest = Digest { algorithm: 0, size: 32, bytes: [0; 32] };
    // SAFETY: `digest` is a `struct fsverity_digest` with the 32 bytes behind it that its size promises.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), MEASURE, &raw mut digest) };
    if result == 0 {
        return Ok((u32::from(digest.algorithm) == SHA256 && digest.size == 32).then_some(digest.bytes));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::ENOTTY | libc::EOPNOTSUPP | libc::EOVERFLOW | libc::ENOSYS) => Ok(None),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_argument_is_the_kernels() {
        assert_eq!(size_of::<EnableArgument>(), 128);
        assert_eq!(std::mem::offset_of!(Digest, bytes), 4);
    }

    #[test]
    fn a_file_that_is_not_sealed_has_no_digest() {
        let file = File::open("/proc/self/exe").expect("our own file");
        assert_eq!(measure(file.as_fd()).expect("an answer"), None);
    }
}
