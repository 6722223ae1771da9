//! Host IDs for containers that root starts: each container has ranges of its own, so that its root
//! is nobody on the host and nobody in another container.
//!
//! ```text
//!   host IDs   0x7000_0000                                          0x7ffe_0000
//!              │ slot 0 │ slot 1 │ slot 2 │  …                 slot 4093 │
//!              └ 65,536 IDs each; a container holds as many neighbours as its image needs
//!   <runroot>/ids/<slot>    locked (flock) as long as the container lives
//! ```
//!
//! The ranges lie above those of systemd's containers and of users' subordinate IDs, and below 2³¹,
//! where some programs lose the sign. A lock ends with its process, so there is nothing to sweep.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use onggi_sys::idmap::{IdMap, Range};
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{Error, Result};

const FIRST_ID: u32 = 0x7000_0000;
const SLOT: u32 = 0x1_0000;
const SLOTS: u32 = 4094;

/// A range of host IDs that no other container uses while this value lives.
#[derive(Debug)]
pub(crate) struct IdRange {
    first: u32,
    count: u32,
    /// Closing them gives the slots back.
    locks: Vec<File>,
}

impl IdRange {
    /// Takes a free range for IDs 0 to `highest`, at least 65,536 of them. `seed` says where to begin
    /// to look, so that containers which start at the same time don't ask for the same slot.
    pub(crate) fn take(runroot: &Path, highest: u32, seed: u32) -> Result<Self> {
        let wanted = highest / SLOT + 1;
        if wanted > SLOTS {
            return Err(Error::IdsTooHigh { highest, limit: SLOTS * SLOT - 1 });
        }
        let dir = runroot.join("ids");
        let failed = |source: std::io::Error| Error::IdRange { dir: dir.clone(), source };
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let places = SLOTS - wanted + 1;
        for step in 0..places {
            let slot = (seed % places + step) % places;
            if let Some(locks) = lock(&dir, slot, wanted).map_err(failed)? {
                return Ok(Self { first: FIRST_ID + slot * SLOT, count: wanted * SLOT, locks });
            }
        }
        Err(Error::IdsExhausted { slots: SLOTS })
    }

    /// The host's numbers of a container's user and group; those it has none for are its root's.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let of = |id: u32| self.first + if id < self.count { id } else { 0 };
        (of(uid), of(gid))
    }

    /// The locks alone: open as long as nobody else may have the range.
    pub(crate) fn into_locks(self) -> Vec<OwnedFd> {
        self.locks.into_iter().map(OwnedFd::from).collect()
    }

    /// The map of this range: 0 inside is its first ID.
    pub(crate) fn map(&self) -> IdMap {
        IdMap::new(vec![Range { inside: 0, outside: self.first, count: self.count }])
            .expect("slots lie below 2³¹ and are not empty")
    }
}

/// Locks `wanted` slots from `slot` on; `None` if somebody has one of them.
fn lock(dir: &Path, slot: u32, wanted: u32) -> std::io::Result<Option<Vec<File>>> {
    let mut locks = Vec::new();
    for slot in slot..slot + wanted {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(dir.join(slot.to_string()), flags, Mode::from_raw_mode(0o600))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => locks.push(File::from(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Some(locks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_containers_never_share_an_id() {
        let runroot = tempfile::tempdir().unwrap();
        let one = IdRange::take(runroot.path(), 100, 7).unwrap();
        let two = IdRange::take(runroot.path(), 70_000, 6).unwrap();
        let three = IdRange::take(runroot.path(), 65_535, 7).unwrap();
        let span = |range: &IdRange| u64::from(range.first)..u64::from(range.first) + u64::from(range.count);
        for (a, b) in [(&one, &two), (&one, &three), (&two, &three)] {
            assert!(span(a).end <= span(b).start || span(b).end <= span(a).start);
        }
        assert_eq!((one.count, two.count, three.count), (65_536, 131_072, 65_536));
        let first = one.first;
        drop(one);
        assert_eq!(IdRange::take(runroot.path(), 0, 7).unwrap().first, first);
    }

    #[test]
    fn more_ids_than_there_are_is_an_error() {
        let runroot = tempfile::tempdir().unwrap();
        assert!(IdRange::take(runroot.path(), u32::MAX - 1, 0).is_err());
    }
}
