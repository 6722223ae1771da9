//! Locks between processes: `flock` on files and directories, given back by the kernel when their
//! owner dies.
//!
//! | lock | on | held |
//! |---|---|---|
//! | hold | `ingest/`, shared | microseconds: while something is protected, or a ref is written |
//! | sweep | `ingest/`, exclusive | milliseconds: while the garbage is found and renamed away |
//! | refs | `refs/`, exclusive | milliseconds: while a ref and `index.json` are replaced |
//! | permit | `<runroot>/locks/<digest>`, exclusive | while that one blob is fetched or derived |
//! | lease | `ingest/<random>/lease`, exclusive | as long as its owner works: proof of life |
//!
//! Order: permit, then hold or sweep, then refs. A lease is never waited for.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Store, durable};
use crate::error::{Error, Result};

/// While this lives nothing is removed from the store by garbage collection. Meant for moments:
/// look something up, write down that it is in use, drop.
#[derive(Debug)]
pub struct Hold {
    _lock: File,
}

/// The right to remove garbage.
#[derive(Debug)]
pub(super) struct Sweep {
    _lock: File,
}

/// The right to change refs.
#[derive(Debug)]
pub(super) struct RefsLock {
    _lock: File,
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::io("open for locking", path, e))
}

fn lock_exclusive(path: &Path) -> Result<File> {
    let file = open(path)?;
    file.lock().map_err(|e| Error::io("lock", path, e))?;
    Ok(file)
}

impl Store {
    /// Keeps garbage collection away for a moment. Never take a second one, or call what prunes,
    /// while you hold it.
    pub fn hold(&self) -> Result<Hold> {
        let path = self.ingest_dir();
        let file = open(&path)?;
        file.lock_shared().map_err(|e| Error::io("lock", &path, e))?;
        Ok(Hold { _lock: file })
    }

    pub(super) fn lock_sweep(&self) -> Result<Sweep> {
        Ok(Sweep { _lock: lock_exclusive(&self.ingest_dir())? })
    }

    pub(super) fn lock_refs(&self) -> Result<RefsLock> {
        Ok(RefsLock { _lock: lock_exclusive(&self.refs_dir())? })
    }
}

/// A named lock: a file that exists while somebody holds it. The last owner unlinks it, so that
/// the directory stays empty.
#[derive(Debug)]
pub(super) struct NamedLock {
    path: PathBuf,
    _file: File,
}

impl NamedLock {
    /// Takes the lock, waiting for its owner.
    pub(super) fn take(dir: &Path, name: &str) -> Result<Self> {
        loop {
            if let Some(lock) = Self::attempt(dir, name, true)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock if nobody has it.
    pub(super) fn try_take(dir: &Path, name: &str) -> Result<Option<Self>> {
        Self::attempt(dir, name, false)
    }

    /// `None`: held by another (not waiting), or unlinked by its last owner meanwhile (waiting).
    fn attempt(dir: &Path, name: &str, wait: bool) -> Result<Option<Self>> {
        let path = dir.join(name);
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                durable::make_dir_all(dir)?;
                open()
            }
            other => other,
        };
        let file = file.map_err(|e| Error::io("open the lock", &path, e))?;
        if wait {
            file.lock().map_err(|e| Error::io("lock", &path, e))?;
        } else {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
            }
        }
        let ours = file.metadata().map_err(|e| Error::io("look at the lock", &path, e))?;
        match std::fs::symlink_metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {
                Ok(Some(Self { path, _file: file }))
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("look at the lock", &path, e)),
            _ if wait => Ok(None),
            _ => Self::attempt(dir, name, false),
        }
    }
}

impl Drop for NamedLock {
    fn drop(&mut self) {
        // Unlinked while still locked: whoever opened it before sees that the name is gone.
        let _ = std::fs::remove_file(&self.path);
    }
}
