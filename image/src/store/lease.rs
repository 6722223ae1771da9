//! Leases: who is at work in the store, and on what.
//!
//! ```text
//!   ingest/<random>/lease     {"pid":71,"start":123456,"purpose":"pull docker.io/library/alpine"}
//!                             sha256:…            one line for each digest in use
//!   ingest/<random>/<name>    what its owner is making
//!   ingest/dead-<random>/     what was removed and is being deleted
//! ```
//!
//! The owner keeps the file `lease` locked (`flock`). That lock, not the process id in the file,
//! is the proof of life: it cannot be mistaken when ids are used again or belong to another pid
//! namespace, and the kernel gives it back at death. Process id and start time are for people.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onggi_oci::Digest;
use serde::Serialize;

use super::{Store, durable};
use crate::error::{Error, Result};

const RECORD: &str = "lease";
/// What was removed from its place and waits to be deleted.
pub(super) const DEAD: &str = "dead-";
/// The most that is read of a lease: 500 layers of some images take 50 kB.
const MAX_LEASE: u64 = 64 << 20;

/// A claim on the store, for as long as the value and its clones live: a place for unfinished
/// things, and digests that garbage collection leaves alone.
#[derive(Clone, Debug)]
pub struct Lease {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    dir: PathBuf,
    record: File,
}

#[derive(Serialize)]
struct Owner<'a> {
    pid: u32,
    start: u64,
    purpose: &'a str,
}

impl Store {
    /// Takes a lease, after sweeping what dead owners left. `purpose` is for people: "pull alpine".
    pub fn lease(&self, purpose: &str) -> Result<Lease> {
        self.sweep()?;
        let ingest = self.ingest_dir();
        let dir = ingest.join(durable::unique_name()?);
        let path = dir.join(RECORD);
        let record = {
            // A sweeper sees the directory either not at all or with its lock taken.
            let _hold = self.hold()?;
            durable::make_dir(&dir)?;
            let record = OpenOptions::new()
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(|e| Error::io("create the lease", &path, e))?;
            record.lock().map_err(|e| Error::io("lock", &path, e))?;
            record
        };
        let inner = Inner { store: self.clone(), dir, record };
        let lease = Lease { inner: Arc::new(inner) };
        let owner = Owner { pid: std::process::id(), start: start_time(), purpose };
        let mut line = serde_json::to_vec(&owner).map_err(|e| Error::io("write the lease", &path, e))?;
        line.push(b'\n');
        lease.append(&line)?;
        Ok(lease)
    }

    /// Removes what owners that died left below `ingest/`. Every command that takes a lease does it.
    pub fn sweep(&self) -> Result<()> {
        let ingest = self.ingest_dir();
        if self.ingest_entries()?.is_empty() {
            return Ok(());
        }
        let mut dead = Vec::new();
        {
            let _sweep = self.lock_sweep()?;
            for name in self.ingest_entries()? {
                let path = ingest.join(&name);
                if name.starts_with(DEAD) || name.starts_with(durable::TEMPORARY) {
                    dead.push(path);
                } else if !is_alive(&path)? {
                    dead.extend(self.bury(&path)?);
                }
            }
            if !dead.is_empty() {
                self.unmount_lost()?;
            }
        }
        dead.iter().try_for_each(|path| durable::remove_tree(path))
    }

    fn ingest_entries(&self) -> Result<Vec<String>> {
        let ingest = self.ingest_dir();
        let io = |e| Error::io("read the directory", &ingest, e);
        let entries = fs::read_dir(&ingest).map_err(io)?;
        entries.map(|e| Ok(e.map_err(io)?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Takes something out of its place at once; it can be deleted later by anybody. `None`: it was
    /// gone already.
    pub(super) fn bury(&self, path: &Path) -> Result<Option<PathBuf>> {
        let grave = self.ingest_dir().join(format!("{DEAD}{}", durable::unique_name()?));
        match fs::rename(path, &grave) {
            Ok(()) => Ok(Some(grave)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("move away", path, e)),
        }
    }

    /// Takes something out of its place at once, and deletes it.
    pub(super) fn discard(&self, path: &Path) -> Result<()> {
        self.bury(path)?.map_or(Ok(()), |grave| durable::remove_tree(&grave))
    }

    /// The digests that living leases protect, as text. The caller holds the sweep lock.
    pub(super) fn leased(&self) -> Result<Vec<Digest>> {
        let ingest = self.ingest_dir();
        let mut digests = Vec::new();
        for name in self.ingest_entries()? {
            if name.starts_with(DEAD) || name.starts_with(durable::TEMPORARY) {
                continue;
            }
            let record = ingest.join(name).join(RECORD);
            let Some(bytes) = durable::read_small(&record, MAX_LEASE)? else { continue };
            digests.extend(String::from_utf8_lossy(&bytes).lines().skip(1).filter_map(|l| l.parse().ok()));
        }
        Ok(digests)
    }
}

/// Whether an owner holds the lock of this ingest directory.
fn is_alive(dir: &Path) -> Result<bool> {
    let path = dir.join(RECORD);
    let record = match File::open(&path) {
        Ok(record) => record,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(e) => return Err(Error::io("open the lease", &path, e)),
    };
    match record.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(Error::io("look at the lease", &path, e)),
    }
}

/// When this process started, in clock ticks since boot (proc_pid_stat(5), field 22); 0 if unknown.
fn start_time() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

impl Lease {
    /// The store that this is a lease on.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Keeps garbage collection away from these digests (of blobs, or diff IDs of layers), whether
    /// they are in the store already or not. What is found in the store *after* this call stays.
    pub fn protect<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        let mut lines = String::new();
        for digest in digests {
            lines.push_str(&digest.to_string());
            lines.push('\n');
        }
        let _hold = self.inner.store.hold()?;
        self.append(lines.as_bytes())
    }

    /// One write of whole lines, so that clones do not mix theirs.
    fn append(&self, lines: &[u8]) -> Result<()> {
        let mut record = &self.inner.record;
        record.write_all(lines).map_err(|e| Error::io("write the lease", self.inner.dir.join(RECORD), e))
    }

    /// A new directory for something unfinished; it goes with the lease.
    pub fn directory(&self, kind: &str) -> Result<PathBuf> {
        let path = self.scratch(kind)?;
        durable::make_dir(&path)?;
        Ok(path)
    }

    /// A fresh name in the lease's directory.
    pub(super) fn scratch(&self, kind: &str) -> Result<PathBuf> {
        Ok(self.inner.dir.join(format!("{kind}-{}", durable::unique_name()?)))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next command.
        let _ = self.store.discard(&self.dir);
    }
}
