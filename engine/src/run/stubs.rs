//! What every container has mounted lies on mount points that most images lack. They are in one directory
//! below the layers of all containers, so that no start has to make them in its upper directory, and no end
//! to remove them.
//!
//! ```text
//!   <root>/cache/stubs/  dev/ proc/ sys/ etc/hostname etc/hosts etc/resolv.conf    all empty
//! ```
//!
//! An image that has something else there hides them, as any layer would.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const DIRECTORIES: [&str; 3] = ["dev", "proc", "sys"];
const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// The directory, made if this store has none yet.
pub(crate) fn directory(store: &Path) -> Result<PathBuf> {
    let path = store.join("cache/stubs");
    if !path.exists() {
        make(&path).map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    Ok(path)
}

/// Whether this path, without a leading slash, is one of them. A start makes it in the upper directory
/// where a layer hides it.
pub(crate) fn has(path: &[u8]) -> bool {
    DIRECTORIES.iter().chain(&FILES).any(|point| point.as_bytes() == path)
}

/// Others may do the same: it appears whole, by one rename.
fn make(path: &Path) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    // One of the same number may have been killed here.
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    for name in ["", "etc"].into_iter().chain(DIRECTORIES) {
        let directory = beside.join(name);
        DirBuilder::new().mode(0o755).create(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    }
    for name in FILES {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(beside.join(name))?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    match fs::rename(&beside, path) {
        Err(_) if path.exists() => fs::remove_dir_all(&beside),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once() {
        let store = tempfile::tempdir().unwrap();
        fs::create_dir(store.path().join("cache")).unwrap();
        let path = directory(store.path()).unwrap();
        assert!(path.join("etc/hosts").is_file() && path.join("proc").is_dir());
        assert_eq!(directory(store.path()).unwrap(), path);
        fs::create_dir(path.with_extension(format!("{}.tmp", std::process::id()))).unwrap();
        make(&path).unwrap();
        assert_eq!(fs::read_dir(store.path().join("cache")).unwrap().count(), 1);
    }
}
