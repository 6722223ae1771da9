//! One id-mapped mount for all trees that lie in one filesystem.
//!
//! ```text
//!   <store>/ ◄── cloned once, its ids mapped
//!     layers/<id 1>/fs   layers/<id 2>/fs   ingest/<lease>/step/   ◄── found below the clone
//! ```
//!
//! Every detached mount costs the kernel a grace period when it ends, so a build with ten steps would
//! wait for more than a hundred of them. Nothing reaches the clone but its descriptor, which is closed
//! before any program runs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;

use super::cloned;
use crate::error::Result;

/// A mount that several trees are in.
pub(super) struct Shared {
    /// Where its root is in the caller's own tree.
    base: PathBuf,
    mount: OwnedFd,
}

impl Shared {
    /// One for as many of these directories as lie in the filesystem of the last; `None` if that is no gain.
    pub(super) fn of(directories: &[&OwnedFd], idmap: BorrowedFd<'_>) -> Result<Option<Self>> {
        let Some(wanted) = directories.last().and_then(|last| mount_of(last.as_fd()).ok()) else {
            return Ok(None);
        };
        let near = directories.iter().filter(|one| mount_of(one.as_fd()).is_ok_and(|id| id == wanted));
        let paths: Vec<PathBuf> = near.filter_map(|one| path_of(one.as_fd()).ok()).collect();
        if paths.len() < 2 {
            return Ok(None);
        }
        let Some(base) = common(&paths) else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(root) = openat(CWD, &base, flags, Mode::empty()) else { return Ok(None) };
        if mount_of(root.as_fd()) != Ok(wanted) {
            return Ok(None);
        }
        let mount = cloned(&root, &base, Some(idmap))?;
        Ok(Some(Self { base, mount }))
    }

    /// The same directory, below this mount. `None` if it isn't there: somebody moves it just now, or it
    /// lies elsewhere.
    pub(super) fn find(&self, directory: &OwnedFd) -> Option<OwnedFd> {
        let path = path_of(directory.as_fd()).ok()?;
        let below = path.strip_prefix(&self.base).ok()?;
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let found = openat2(&self.mount, below, flags, Mode::empty(), resolve).ok()?;
        let (ours, theirs) = (rustix::fs::fstat(directory).ok()?, rustix::fs::fstat(&found).ok()?);
        ((ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)).then_some(found)
    }

    /// The mount itself.
    pub(super) fn into_mount(self) -> OwnedFd {
        self.mount
    }
}

/// Which mount a directory is seen through.
fn mount_of(directory: BorrowedFd<'_>) -> Result<u64, Errno> {
    statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|found| found.stx_mnt_id)
}

/// Where a directory is now.
fn path_of(directory: BorrowedFd<'_>) -> Result<PathBuf, Errno> {
    use std::os::unix::ffi::OsStringExt;
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::with_capacity(256))?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes())))
}

/// The deepest directory above all of them.
fn common(paths: &[PathBuf]) -> Option<PathBuf> {
    let (first, others) = paths.split_first()?;
    first.ancestors().find(|above| others.iter().all(|path| path.starts_with(above))).map(Path::to_owned)
}
