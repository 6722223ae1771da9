//! Path resolution that can't leave a directory.
//!
//! A [`Root`] is a held directory descriptor; every path given to it, absolute or
//! not, resolves inside, symbolic links included (`openat2(RESOLVE_IN_ROOT)`),
//! and magic links (`/proc/self/fd/…`) are never followed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// How often a path is resolved again when a rename raced with the look-up
/// (`EAGAIN` of `openat2(2)`); a race won that often is an attack.
const RACES: usize = 64;

/// The deepest path that [`Root::make_dirs`] makes.
const MAX_DEPTH: usize = 128;

/// How many links that point to nothing are followed to make what they point to; as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// A directory that paths can't leave.
#[derive(Debug)]
pub struct Root<'a> {
    dir: BorrowedFd<'a>,
    resolve: ResolveFlags,
}

impl<'a> Root<'a> {
    /// Paths below this directory; mounts below it are crossed.
    pub fn new(dir: BorrowedFd<'a>) -> Self {
        Self { dir, resolve: ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS }
    }

    /// As [`Root::new`], but on this one filesystem and without any symbolic
    /// link: for `/proc`, where a mount on top would turn a write elsewhere.
    pub fn single(dir: BorrowedFd<'a>) -> Self {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        Self { dir, resolve }
    }

    /// The directory itself.
    pub fn dir(&self) -> BorrowedFd<'a> {
        self.dir
    }

    /// Opens `path` with these flags (close-on-exec is added).
    ///
    /// # Errors
    /// `ENOENT`, `ELOOP` for magic links or (in a [`Root::single`]) any link,
    /// `EXDEV` for paths that would leave.
    pub fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let inside = if self.resolve.contains(ResolveFlags::BENEATH) {
            path.strip_prefix("/").unwrap_or(path)
        } else {
            path
        };
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        for _ in 0..RACES {
            match openat2(self.dir, inside, flags | OFlags::CLOEXEC, mode, self.resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// A descriptor that names `path` but can't read it (`O_PATH`).
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn locate(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// As [`Root::locate`], but a symbolic link anywhere in the path is `ELOOP`.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn locate_plain(&self, path: &Path) -> io::Result<OwnedFd> {
        Root { dir: self.dir, resolve: self.resolve | ResolveFlags::NO_SYMLINKS }.locate(path)
    }

    /// The directory `path`, made with all that is missing above it (mode 0755), also where a link points to what is
    /// missing.
    ///
    /// # Errors
    /// `ENOTDIR` where something else is in the way, `ENAMETOOLONG` beyond 128
    /// levels, `ELOOP` after 40 links to nothing.
    pub fn make_dirs(&self, path: &Path) -> io::Result<OwnedFd> {
        self.make_dirs_behind(path, MAX_LINKS)
    }

    fn make_dirs_behind(&self, path: &Path, links: usize) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut here = PathBuf::from("/");
        let mut at = self.locate(&here)?;
        for (depth, part) in path.components().enumerate() {
            match part {
                Component::Normal(name) => {
                    here.push(name);
                    at = match self.open(&here, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                                Ok(()) => {}
                                Err(Errno::EXIST) => {
                                    if let Some((target, links)) = missing_target(&at, &here, links)? {
                                        self.make_dirs_behind(&target, links)?;
                                    }
                                }
                                Err(error) => return Err(error.into()),
                            }
                            self.open(&here, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?
                        }
                        other => other?,
                    };
                }
                Component::ParentDir => {
                    // As the kernel does: behind a link that is the parent of its target.
                    here.push("..");
                    at = self.locate(&here)?;
                }
                Component::RootDir | Component::CurDir => {}
                Component::Prefix(_) => return Err(Errno::INVAL.into()),
            }
            if depth > MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
        }
        Ok(at)
    }

    /// The file `path`, made empty (mode 0644) with its directories if missing, also where a link points to what is
    /// missing. What exists is returned as it is, whatever its type.
    ///
    /// # Errors
    /// As [`Root::make_dirs`].
    pub fn make_file(&self, path: &Path) -> io::Result<OwnedFd> {
        self.make_file_behind(path, MAX_LINKS)
    }

    fn make_file_behind(&self, path: &Path, links: usize) -> io::Result<OwnedFd> {
        match self.locate(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::INVAL.into());
        };
        let dir = self.make_dirs_behind(parent, links)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir.as_fd(), name, flags, Mode::from_raw_mode(0o644)) {
            Ok(_) => {}
            Err(Errno::EXIST) => {
                if let Some((target, links)) = missing_target(&dir, path, links)? {
                    return self.make_file_behind(&target, links);
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.locate(path)
    }
}

/// Where the link that is the last part of `path`, in the directory `at`, points to, and how many more may be followed;
/// `None` if it is no link.
fn missing_target(at: &OwnedFd, path: &Path, links: usize) -> io::Result<Option<(PathBuf, usize)>> {
    use std::os::unix::ffi::OsStrExt;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let target = match rustix::fs::readlinkat(at, name, Vec::new()) {
        Ok(target) => target,
        Err(Errno::INVAL | Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
    // Joining replaces the whole path by an absolute target, which begins at the root again.
    Ok(Some((parent.join(target), links.checked_sub(1).ok_or(Errno::LOOP)?)))
}

/// The type of the file behind a descriptor, and its device number where it is a
/// device: one `fstat`.
///
/// # Errors
/// What `fstat(2)` says.
pub fn kind(file: BorrowedFd<'_>) -> io::Result<(FileType, u64)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((FileType::from_raw_mode(stat.st_mode), stat.st_rdev))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_links_point_to_is_made_inside_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("etc")).unwrap();
        symlink("/jump/baz/hosts", path("etc/hosts")).unwrap();
        symlink("../../../tmp/foo", path("jump")).unwrap();
        symlink("../run/up", path("etc/directory")).unwrap();
        let held = std::fs::File::open(dir.path()).unwrap();
        let root = Root::new(held.as_fd());
        root.make_file(Path::new("/etc/hosts")).unwrap();
        assert!(path("tmp/foo/baz/hosts").is_file());
        root.make_dirs(Path::new("/etc/directory/below")).unwrap();
        assert!(path("run/up/below").is_dir());
        symlink("b", path("a")).unwrap();
        symlink("a", path("b")).unwrap();
        for made in [root.make_file(Path::new("/a")), root.make_dirs(Path::new("/a/c"))] {
            assert_eq!(made.unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        }
    }
}
