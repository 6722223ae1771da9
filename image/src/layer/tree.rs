//! A tree under a directory descriptor, changed by name and never left.
//!
//! Every directory is opened from the root or from one of its own directories
//! with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`, and every change is
//! made to the last component of a name in such a directory, without following
//! it. So the kernel sees to it that nothing outside is touched, whatever the
//! names are. Symbolic links on the way to a name are read here, one after
//! another, as if the tree were the root (like `chroot`), which yields a
//! *canonical* name without links; that name is then opened under the rules
//! above.
//!
//! Archives list a directory's entries together, so the directories on the path
//! of the last one are kept open:
//!
//! ```text
//! current  usr/share/doc         open  3:"usr" 9:"usr/share" 13:"usr/share/doc"
//! next     usr/share/man/man1    keeps "usr/share", opens "man/man1" from it
//! ```

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use super::limits::MAX_LINKS;
use super::path::{below, join, split};
use crate::EntryProblem;

/// Directories kept open. Layers are unpacked side by side and 1024 descriptors
/// are all that a process may have by default.
const MAX_OPEN: usize = 64;

/// Inside the tree, through no link, on one file system.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// How a directory was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It is open; see [`Tree::current`].
    Open,
    /// It, or something above it, does not exist.
    Missing,
    /// A symbolic link is in the way.
    Link,
    /// Something that is neither directory nor link is in the way.
    NotDirectory,
}

/// The tree. Paths are canonical: clean, without `..`, without links.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// The path of the last directory, and the directories open on the way.
    current: Vec<u8>,
    open: Vec<(usize, OwnedFd)>,
}

/// The failure of a system call and what it was for.
pub(super) fn io(op: &'static str) -> impl FnOnce(Errno) -> EntryProblem {
    move |error| EntryProblem::Io { op, source: error.into() }
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, current: Vec::new(), open: Vec::new() }
    }

    /// The directory opened last.
    pub(super) fn current(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root, |(_, fd)| fd.as_fd())
    }

    /// Opens a directory and makes it the current one.
    pub(super) fn enter(&mut self, directory: &[u8]) -> Result<Lookup, EntryProblem> {
        let depth = self.open.last().map_or(0, |(length, _)| *length);
        if depth == directory.len() && self.current[..depth] == *directory {
            return Ok(Lookup::Open);
        }
        while let Some((length, _)) = self.open.last() {
            if below(directory, &self.current[..*length]).is_some() {
                break;
            }
            self.open.pop();
        }
        let kept = self.open.last().map_or(0, |(length, _)| *length);
        self.current.truncate(kept);
        let rest = below(directory, &self.current).unwrap_or_default();
        if rest.is_empty() {
            return Ok(Lookup::Open);
        }
        match open_directory(self.current(), rest) {
            Ok(fd) => {
                if self.open.len() == MAX_OPEN {
                    self.open.pop();
                }
                self.current.clear();
                self.current.extend_from_slice(directory);
                self.open.push((directory.len(), fd));
                Ok(Lookup::Open)
            }
            Err(Errno::NOENT) => Ok(Lookup::Missing),
            Err(Errno::LOOP) => Ok(Lookup::Link),
            Err(Errno::NOTDIR) => Ok(Lookup::NotDirectory),
            Err(error) => Err(io("open its directory")(error)),
        }
    }

    /// Opens a directory without making it the current one.
    pub(super) fn open(&self, directory: &[u8]) -> rustix::io::Result<OwnedFd> {
        open_directory(self.root, if directory.is_empty() { b"." } else { directory })
    }

    /// The canonical form of a directory's path which may pass through links
    /// and climb. Names that don't exist are taken as directories to be made.
    pub(super) fn canonical(&mut self, path: &[u8]) -> Result<Vec<u8>, EntryProblem> {
        let mut links = 0;
        let mut out: Vec<u8> = Vec::new();
        let components = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec).collect()
        };
        let mut rest: VecDeque<Vec<u8>> = components(path).into();
        while let Some(component) = rest.pop_front() {
            if component == b".." {
                // At the root it stays at the root.
                out.truncate(split(&out).0.len());
                continue;
            }
            if self.enter(&out)? == Lookup::Open {
                match rustix::fs::readlinkat(self.current(), &component[..], Vec::new()) {
                    Ok(target) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(EntryProblem::LinkLoop(MAX_LINKS));
                        }
                        let target = target.as_bytes();
                        if target.first() == Some(&b'/') {
                            out.clear();
                        }
                        for part in components(target).into_iter().rev() {
                            rest.push_front(part);
                        }
                        continue;
                    }
                    // Not a link, or nothing there.
                    Err(Errno::INVAL | Errno::NOENT) => {}
                    Err(error) => return Err(io("read a link above it")(error)),
                }
            }
            out = join(&out, &component);
        }
        Ok(out)
    }

    /// Closes what is open in a directory that will be gone or replaced.
    fn leave(&mut self, directory: &[u8]) {
        while let Some((length, _)) = self.open.last() {
            if below(&self.current[..*length], directory).is_none() {
                break;
            }
            self.open.pop();
        }
        self.current.truncate(self.open.last().map_or(0, |(length, _)| *length));
    }

    /// Removes what has this path, with everything in it. Tells whether it was
    /// a directory. Its parent is the current directory before and after.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<bool, EntryProblem> {
        let (parent, base) = split(path);
        match rustix::fs::unlinkat(self.current(), base, AtFlags::empty()) {
            Ok(()) => return Ok(false),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(io("remove what it replaces")(error)),
        }
        self.leave(path);
        self.enter(parent)?;
        remove_directory(self.current(), base).map_err(io("remove the directory it replaces"))?;
        Ok(true)
    }
}

fn open_directory(at: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(at, path, flags, Mode::empty(), INSIDE) {
            // The kernel could not rule out a race; it asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Removes a directory and what is in it. Depth is bounded by
/// [`super::limits::MAX_DEPTH`], since only an archive's entries are in it.
fn remove_directory(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(at, name, flags, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::uninit(); 8192];
    // Names are gathered first: removing while reading may skip some.
    let mut names = Vec::new();
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    for name in names {
        match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_directory(directory.as_fd(), name.as_bytes())?,
            result => result?,
        }
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}
