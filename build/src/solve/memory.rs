//! A directory in memory that ends with its descriptor.

use std::os::fd::OwnedFd;

use onggi_sys::mount::{Attributes, make};

/// The most that one step keeps in memory; a larger one is done on the disk.
const MOST: u64 = 256 << 20;
/// The part of the memory that is free which one step may take: several may be under way.
const PART: u64 = 16;
/// Less than this is not worth trying.
const LEAST: u64 = 4 << 20;

/// A tmpfs that is mounted nowhere. `None` if there is none to be had, or little memory.
pub(super) fn directory() -> Option<OwnedFd> {
    let size = (available()? / PART).min(MOST);
    if size < LEAST {
        return None;
    }
    make("tmpfs", &[("mode", Some("0700")), ("size", Some(&size.to_string()))], Attributes::NONE).ok()
}

/// Bytes of memory that can be had without swapping (`MemAvailable`, proc_meminfo(5)).
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}
