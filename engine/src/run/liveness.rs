//! Which containers run, and what crashed ones left.
//!
//! ```text
//!   <runroot>/containers/<id>     a file, locked (flock) by whoever runs the container
//!   <root>/containers/<id>/       its files; see `record`
//! ```
//!
//! A lock ends with its process, however that ends, so a file without a lock tells of a crash. After a
//! reboot the whole directory is missing, and then all containers are looked at once.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use onggi_image::store::Store;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::record::Record;
use crate::error::{Error, Result};

/// Says that this process runs a container. Dropping it says that it does no more.
#[derive(Debug)]
pub(super) struct Alive {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Alive {
    /// Marks the container as running, before any of its files exist.
    pub(super) fn mark(store: &Store, id: &str) -> Result<Self> {
        let dir = marks(store);
        let path = dir.join(id);
        let failed = |source| Error::Write { path: path.clone(), source };
        let lock = match open(&path, OFlags::CREATE) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&dir).map_err(failed)?;
                open(&path, OFlags::CREATE)
            }
            other => other,
        };
        let lock = lock.map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether somebody runs the container.
pub fn is_running(store: &Store, id: &str) -> bool {
    match open(&marks(store).join(id), OFlags::empty()) {
        Ok(file) => rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err(),
        Err(_) => false,
    }
}

/// Removes what containers with `--rm` left whose process was killed.
pub(super) fn sweep(store: &Store) -> Result<()> {
    let marks = marks(store);
    let entries = match fs::read_dir(&marks) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return sweep_all(store, &marks),
        Err(source) => return Err(Error::Read { path: marks, source }),
    };
    for entry in entries.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !is_running(store, &id) {
            remove_if_left(store, &id)?;
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// The first look after a reboot.
fn sweep_all(store: &Store, marks: &Path) -> Result<()> {
    let failed = |source| Error::Read { path: store.containers_dir(), source };
    for entry in fs::read_dir(store.containers_dir()).map_err(failed)?.flatten() {
        remove_if_left(store, &entry.file_name().to_string_lossy())?;
    }
    fs::create_dir_all(marks).map_err(|source| Error::Write { path: marks.into(), source })
}

/// Removes the container's files if it was to be removed, or never was complete.
fn remove_if_left(store: &Store, id: &str) -> Result<()> {
    let dir = store.containers_dir().join(id);
    match Record::read(&dir)? {
        Some(record) if !record.remove => Ok(()),
        _ => remove(&dir),
    }
}

/// Removes a container's files.
pub(super) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::Write { path: dir.into(), source: error })
        }
        _ => Ok(()),
    }
}

fn marks(store: &Store) -> PathBuf {
    store.runroot().join("containers")
}

fn open(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?.into())
}
