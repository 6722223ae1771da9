//! Files on their way to the disk.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Asks the kernel to begin writing this range of a file to the disk, without waiting. A hint: no
/// answer means anything, and durable is only what was flushed.
pub fn begin_writeback(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: a call on a descriptor that lives through it, without memory.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}
