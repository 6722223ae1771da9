//! Files that survive a crash: written beside, flushed, renamed, the directory flushed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock::Hold;
use crate::error::{Error, Result};

/// Only the owner reads a store: images may hold what others must not see.
const DIR_MODE: u32 = 0o700;

/// Makes one directory; it may exist already.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(DIR_MODE).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other.map_err(|e| Error::io("create the directory", path, e)),
    }
}

/// Makes a directory and those above it.
pub(super) fn make_dir_all(path: &Path) -> Result<()> {
    DirBuilder::new()
        .mode(DIR_MODE)
        .recursive(true)
        .create(path)
        .map_err(|e| Error::io("create the directory", path, e))
}

/// Makes a directory and those above it up to (not including) `base`, each durably.
pub(super) fn make_dirs_below(base: &Path, path: &Path) -> Result<()> {
    if path == base || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dirs_below(base, parent)?;
        make_dir(path)?;
        sync_dir(parent)?;
    }
    Ok(())
}

/// A name that no other process or thread uses: 64 random bits and a counter.
pub(super) fn unique_name() -> Result<String> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::Stream { op: "get random bytes", source: e.into() })?;
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{:016x}-{count}", u64::from_le_bytes(random)))
}

/// Creates a file that must not exist yet, for writing and reading back.
pub(super) fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| Error::io("create the file", path, e))
}

/// Puts `bytes` at `target`, durably and at once for every reader; `scratch` is a directory of the
/// same filesystem in which the new file is written. The hold says that the writer lives, so that
/// a sweeper may take every temporary file that it finds for a dead one's.
pub(super) fn replace(_hold: &Hold, scratch: &Path, target: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = write_beside(scratch, bytes, true)?;
    rename(&temporary, target)?;
    target.parent().map_or(Ok(()), sync_dir)
}

/// As [`replace`], for what may be lost: no flush.
pub(super) fn replace_volatile(_hold: &Hold, scratch: &Path, target: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = write_beside(scratch, bytes, false)?;
    rename(&temporary, target)
}

fn write_beside(scratch: &Path, bytes: &[u8], flush: bool) -> Result<PathBuf> {
    let temporary = scratch.join(format!("{TEMPORARY}{}", unique_name()?));
    let mut file = create_new(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| if flush { file.sync_all() } else { Ok(()) });
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io("write the file", &temporary, e)
    })?;
    Ok(temporary)
}

/// How a small file's temporary name starts.
pub(super) const TEMPORARY: &str = "tmp-";

/// Renames, replacing a file at `to`.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename a finished file to", to, e))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("flush the directory", path, e))
}

/// Removes a tree if it is there; whoever else removes it at the same time does no harm.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => remove_file(path),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Removes a file if it is there.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Reads a whole small file, `None` if there is none.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::corrupt(path.display(), format!("it is larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}
