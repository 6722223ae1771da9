//! Which containers run, and what crashed ones left.
//!
//! ```text
//!   <runroot>/containers/<id>     a file, locked (flock) by its caretaker: whoever runs the container;
//!                                 "<first process> <caretaker>" once there is a first process
//!   <root>/containers/<id>/       its files; see `record`
//! ```
//!
//! A lock ends with its process, however that ends, so a file without a lock tells of a crash. After a
//! reboot the whole directory is missing, and then all containers are looked at once.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use onggi_image::store::Store;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::Pid;

use super::groups;
use super::record::Record;
use crate::error::{Error, Result};
use crate::volumes;

/// Says that this process runs a container. Dropping it says that it does no more.
#[derive(Debug)]
pub(super) struct Alive {
    path: PathBuf,
    /// Locked as long as it is open.
    lock: File,
}

impl Alive {
    /// Marks the container as running, before any of its files exist.
    pub(super) fn mark(store: &Store, id: &str) -> Result<Self> {
        let dir = marks(store.runroot());
        let path = dir.join(id);
        let failed = |source| Error::Write { path: path.clone(), source };
        loop {
            let lock = match open(&path, OFlags::CREATE) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(&dir).map_err(failed)?;
                    open(&path, OFlags::CREATE)
                }
                other => other,
            };
            let lock = lock.map_err(failed)?;
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
            // A sweep that saw the file before it was locked has removed it.
            if rustix::fs::fstat(&lock).is_ok_and(|stat| stat.st_nlink > 0) {
                return Ok(Self { path, lock });
            }
        }
    }

    /// Tells others which process is the container's first.
    pub(super) fn tell(&self, first: Pid) -> Result<()> {
        let text = format!("{} {}\n", first.as_raw_nonzero(), rustix::process::getpid().as_raw_nonzero());
        let written = (&self.lock).write_all(text.as_bytes());
        written.map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether somebody runs the container.
pub fn is_running(store: &Store, id: &str) -> bool {
    is_marked(store.runroot(), id)
}

/// The same for whoever has no store open.
pub(super) fn is_marked(runroot: &Path, id: &str) -> bool {
    match open(&marks(runroot).join(id), OFlags::empty()) {
        Ok(file) => rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err(),
        Err(_) => false,
    }
}

/// The first process of a container that runs, in this process's pid namespace.
pub(super) fn first_process(runroot: &Path, id: &str) -> Option<Pid> {
    /// Two numbers.
    const MAX_MARK: u64 = 64;
    if !is_marked(runroot, id) {
        return None;
    }
    let mut text = String::new();
    open(&marks(runroot).join(id), OFlags::empty()).ok()?.take(MAX_MARK).read_to_string(&mut text).ok()?;
    let (first, caretaker) = text.trim_end_matches('\n').split_once(' ')?;
    // The number may be another process's by now; that one has another parent.
    let status = fs::read_to_string(format!("/proc/{first}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    (parent.trim() == caretaker).then(|| Pid::from_raw(first.parse().ok()?)).flatten()
}

/// Removes what containers with `--rm` left whose process was killed.
pub(super) fn sweep(store: &Store) -> Result<()> {
    let marks = marks(store.runroot());
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
    let record = Record::read(&dir)?;
    if let Some(cgroup) = record.as_ref().and_then(|record| record.cgroup.as_ref()) {
        groups::sweep(cgroup);
    }
    match record {
        Some(record) if !record.remove => Ok(()),
        _ => remove(store, &dir, true),
    }
}

/// Removes a container's files, and with `anonymous` the volumes that nobody else knows.
pub(super) fn remove(store: &Store, dir: &Path, anonymous: bool) -> Result<()> {
    let record = if anonymous { Record::read(dir)? } else { None };
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::Write { path: dir.into(), source: error });
        }
        _ => {}
    }
    record.map_or(Ok(()), |record| volumes::remove_anonymous(store, &record.mounts))
}

fn marks(runroot: &Path) -> PathBuf {
    runroot.join("containers")
}

fn open(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?.into())
}
