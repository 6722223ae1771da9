//! Trees behind held descriptors: a context, a mounted stage, the layer that is being made.
//!
//! Paths are resolved in two steps. [`Tree::real_path`] follows symbolic links by hand, as if the
//! tree were `/`, and gives a path without any link; components that do not exist stay as they are.
//! [`Tree::open`] then opens that path and refuses every link (`RESOLVE_NO_SYMLINKS`), so that
//! whoever swaps one in meanwhile gets an error and no file of the host.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// How many symbolic links one path may lead through; the kernel allows 40.
const MAX_LINKS: usize = 255;
/// How often a look-up that raced with a rename is done again; a race won that often is an attack.
const RACES: usize = 64;

/// A directory, and all that is below it.
#[derive(Debug)]
pub(crate) struct Tree {
    fd: OwnedFd,
}

impl Tree {
    /// The tree of an open directory or of a mount.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The tree at a path of the host.
    pub(crate) fn open_host(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(Error::io("open the directory", path))?;
        Ok(Self { fd })
    }

    /// Its root.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The path without links that `path` leads to, relative to the root (empty for the root
    /// itself). Without `follow_last`, a link as the last component is left alone.
    pub(crate) fn real_path(&self, path: &Path, follow_last: bool) -> Result<PathBuf> {
        let mut todo: VecDeque<OsString> = names(path).collect();
        let mut real = PathBuf::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                real.pop();
                continue;
            }
            real.push(&name);
            if todo.is_empty() && !follow_last {
                break;
            }
            let is_link = self
                .lstat(&real)?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
            if !is_link {
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::io("follow", path)(Errno::LOOP));
            }
            let target = rustix::fs::readlinkat(&self.fd, &real, Vec::new())
                .map_err(Error::io("read the link", &real))?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            real.pop();
            if target.is_absolute() {
                real = PathBuf::new();
            }
            for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                todo.push_front(name);
            }
        }
        Ok(real)
    }

    /// What is at a real path; `None` if nothing is.
    pub(crate) fn lstat(&self, real: &Path) -> Result<Option<Stat>> {
        let found = if real.as_os_str().is_empty() {
            rustix::fs::statat(&self.fd, "", AtFlags::EMPTY_PATH)
        } else {
            rustix::fs::statat(&self.fd, real, AtFlags::SYMLINK_NOFOLLOW)
        };
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(Error::io("look at", real)(error)),
        }
    }

    /// Opens a real path; a link anywhere in it is an error.
    pub(crate) fn open(&self, real: &Path, flags: OFlags) -> Result<OwnedFd> {
        open_below(self.fd.as_fd(), real, flags, Mode::empty()).map_err(Error::io("open", real))
    }

    /// Opens the directory at a real path for reading.
    pub(crate) fn open_dir(&self, real: &Path) -> Result<OwnedFd> {
        self.open(real, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Reads a regular file of the tree, wherever links inside of it lead; `None` if it is missing.
    pub(crate) fn read_small(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        use std::io::Read;
        let real = self.real_path(path, true)?;
        // A FIFO in this place must not make us wait for a writer.
        let file = match open_below(self.fd.as_fd(), &real, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
        {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(Error::io("look at", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Invalid {
                what: "file",
                text: path.display().to_string(),
                problem: "it is no regular file".into(),
            });
        }
        let mut bytes = Vec::new();
        let mut file = std::fs::File::from(file).take(limit + 1);
        file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        if bytes.len() as u64 > limit {
            return Err(Error::Limit { what: "the size of a file in bytes", limit });
        }
        Ok(Some(bytes))
    }
}

/// The components of a path that mean something.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

/// Opens a path below a directory; links and ways out of it are errors.
pub(crate) fn open_below(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // A path for an O_PATH descriptor of a link is fine: what NO_SYMLINKS refuses is following one.
    for _ in 0..RACES {
        match openat2(dir, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The names in an open directory, in byte order.
pub(crate) fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether it is a directory.
pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_inside_and_missing_parts_stay() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("/a", dir.path().join("abs")).unwrap();
        symlink("../../../a/b", dir.path().join("up")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let tree = Tree::open_host(dir.path()).unwrap();
        let real = |path: &str| tree.real_path(Path::new(path), true).unwrap();
        assert_eq!(real("/abs/b/new/x"), Path::new("a/b/new/x"));
        assert_eq!(real("up/../../../etc"), Path::new("etc"));
        assert_eq!(real("/"), Path::new(""));
        assert_eq!(tree.real_path(Path::new("x/../abs"), false).unwrap(), Path::new("abs"));
        assert!(tree.real_path(Path::new("loop"), true).is_err());
        assert!(tree.open(Path::new("abs/b"), OFlags::PATH).is_err());
        assert!(tree.open(Path::new("a/../../x"), OFlags::PATH).is_err());
    }
}
