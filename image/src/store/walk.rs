//! Walking a tree of any shape: paths longer than the system takes, and more levels than there are
//! descriptors, are no obstacle. Symbolic links are never followed.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use onggi_oci::{Algorithm, Digest, Hasher};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A new descriptor is opened when the path from the last one is longer; half of `PATH_MAX`.
const REBASE: usize = 2048;

/// Something found in the tree.
pub(super) struct Node<'a> {
    base: &'a OwnedFd,
    /// From `base`; empty for the start itself.
    path: &'a Path,
    /// Its last component; empty for the start itself.
    pub(super) name: &'a OsStr,
    /// How deep below the start.
    pub(super) depth: usize,
    /// What it is; see stat(2).
    pub(super) stat: Stat,
}

impl Node<'_> {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// A path that leads to it in this process.
    fn reachable(&self) -> PathBuf {
        Path::new(&format!("/proc/self/fd/{}", self.base.as_raw_fd())).join(self.path)
    }
}

struct Waiting {
    base: Rc<OwnedFd>,
    path: PathBuf,
    depth: usize,
}

/// Visits `start` and everything below, parents first, names in byte order. `visit` says whether to
/// go on below a directory. What disappears meanwhile is passed over.
pub(super) fn walk(start: &Path, visit: &mut dyn FnMut(&Node<'_>) -> Result<bool>) -> Result<()> {
    let failed = |path: &Path, e: Errno| Error::io("read the tree", start.join(path), e);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let base = match rustix::fs::openat(CWD, start, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other.map_err(|e| failed(Path::new(""), e))?,
    };
    let mut stack = vec![Waiting { base: Rc::new(base), path: PathBuf::new(), depth: 0 }];
    while let Some(Waiting { mut base, mut path, depth }) = stack.pop() {
        let stat = match rustix::fs::statat(&*base, &path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(|e| failed(&path, e))?,
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        let node = Node { base: &base, path: &path, name: &name, depth, stat };
        let is_dir = node.kind() == FileType::Directory;
        if !visit(&node)? || !is_dir {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
        let dir = match rustix::fs::openat(&*base, below, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.map_err(|e| failed(&path, e))?,
        };
        let mut names: Vec<CString> = Vec::new();
        for entry in Dir::read_from(&dir).map_err(|e| failed(&path, e))? {
            let entry = entry.map_err(|e| failed(&path, e))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        if path.as_os_str().len() > REBASE {
            (base, path) = (Rc::new(dir), PathBuf::new());
        }
        for name in names.iter().rev() {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            stack.push(Waiting { base: base.clone(), path, depth: depth + 1 });
        }
    }
    Ok(())
}

/// A digest of everything that a tree is: names, types, modes, owners, times, links, extended
/// attributes, contents. Two trees with the same digest are the same.
pub(super) fn tree_digest(start: &Path) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    walk(start, &mut |node| {
        add_node(&mut hasher, node).map_err(|e| Error::io("read the tree", start.join(node.path), e))?;
        Ok(true)
    })?;
    Ok(hasher.finish())
}

fn add_node(hasher: &mut Hasher, node: &Node<'_>) -> std::io::Result<()> {
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let stat = &node.stat;
    let (links, size) = match node.kind() {
        // Both depend on the filesystem.
        FileType::Directory => (1, 0),
        _ => (stat.st_nlink, stat.st_size),
    };
    // The time of a whiteout means nothing: a directory has that of its making.
    let is_whiteout = node.kind() == FileType::CharacterDevice && stat.st_rdev == 0;
    let (seconds, nanoseconds) =
        if is_whiteout { (0, 0) } else { (i128::from(stat.st_mtime), i128::from(stat.st_mtime_nsec)) };
    let facts = format!(
        "{} {:o} {} {} {} {} {seconds}.{nanoseconds} {links} {size}",
        node.depth,
        stat.st_mode,
        stat.st_uid,
        stat.st_gid,
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    field(node.name.as_bytes());
    field(facts.as_bytes());
    let path = node.reachable();
    for (name, value) in attributes(&path)? {
        field(&name);
        field(&value);
    }
    match node.kind() {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(node.base.as_fd(), node.path, Vec::new())?;
            field(target.to_bytes());
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file =
                File::from(rustix::fs::openat(node.base.as_fd(), node.path, flags, Mode::empty())?);
            let mut buffer = vec![0; 256 << 10];
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                hasher.update(&buffer[..count]);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Names and values, sorted.
fn attributes(path: &Path) -> std::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // Linux bounds the list and each value at 64 KiB (xattr(7)).
    let mut names = vec![0; 64 << 10];
    let count = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut attributes = Vec::new();
    for name in names[..count].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        attributes.push((name.to_owned(), value));
    }
    attributes.sort_unstable();
    Ok(attributes)
}
