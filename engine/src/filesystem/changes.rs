//! What a container changed, read from its own layer alone.
//!
//! ```text
//!   upper/            lower (the image, merged)
//!   etc/              etc/                          C /etc      something in it changed
//!   etc/motd          etc/motd, other content       C /etc/motd
//!   new/x             -                             A /new, A /new/x
//!   tmp   (0/0)       tmp/                          D /tmp      a whiteout
//! ```
//!
//! Only what lies in the upper directory is looked at, so the size of the image doesn't matter. As Docker does, a
//! directory counts as changed by its mode and owner, or by what changed in it; a file also by its
//! time and size, and here also by its attributes. What overlayfs copied up and nobody changed is no change.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use onggi_image::layer::{MAX_DEPTH, OverlayXattr};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::run::stubs;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is another than in the image.
    Changed,
    /// The image doesn't have it.
    Added,
    /// Only the image has it.
    Deleted,
}

impl ChangeKind {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            Self::Changed => 'C',
            Self::Added => 'A',
            Self::Deleted => 'D',
        }
    }
}

/// A path that is not as in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Absolute, in the container.
    pub path: Vec<u8>,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What a look at an upper directory gives.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Sorted by path.
    pub(super) list: Vec<Change>,
    /// What lies in the upper directory and is no change; without a leading slash.
    pub(super) unchanged: BTreeSet<Vec<u8>>,
}

/// Compares the upper directory of an overlay with what lies below it.
pub(super) fn compare(upper: BorrowedFd<'_>, lower: BorrowedFd<'_>, xattr: OverlayXattr) -> Result<Changes> {
    let mut walk = Walk { xattr, path: Vec::new(), found: Changes::default() };
    let (upper, lower) = (walk.open(upper, b".")?, walk.open(lower, b".")?);
    walk.directory(&upper, Some(&lower), false, 0)?;
    walk.found.list.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.found)
}

struct Walk {
    xattr: OverlayXattr,
    /// Without a leading slash.
    path: Vec<u8>,
    found: Changes,
}

impl Walk {
    /// `hidden`: this directory or one above it hides what the image has there.
    fn directory(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        hidden: bool,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.failed("look at")(Errno::NAMETOOLONG));
        }
        let names = self.names(upper)?;
        if hidden && let Some(lower) = lower {
            for name in self.names(lower)? {
                if !names.contains(&name) {
                    self.enter(&name, |walk| {
                        walk.push(ChangeKind::Deleted);
                        Ok(())
                    })?;
                }
            }
        }
        for name in names {
            self.enter(&name, |walk| walk.entry(upper, lower, &name, hidden, depth))?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        name: &[u8],
        hidden: bool,
        depth: usize,
    ) -> Result<()> {
        let Some(stat) = self.look(upper, name)? else { return Ok(()) };
        let below = match lower {
            Some(lower) => self.look(lower, name)?,
            None => None,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            if below.is_some() {
                self.push(ChangeKind::Deleted);
            }
            return Ok(());
        }
        let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let before = self.found.list.len();
        let changed = match &below {
            None => Some(ChangeKind::Added),
            Some(below) => {
                let differs = differs(&stat, below)
                    || (!is_directory(&stat) && self.attributes_differ(upper, lower, name)?);
                differs.then_some(ChangeKind::Changed)
            }
        };
        if is_directory(&stat) {
            let here = self.open(upper.as_fd(), name)?;
            let hidden = hidden
                || self.xattr.is_opaque(here.as_fd()).map_err(self.failed("read the attributes of"))?;
            let below = match (lower, below.as_ref().is_some_and(is_directory)) {
                (Some(lower), true) => Some(self.open(lower.as_fd(), name)?),
                _ => None,
            };
            self.directory(&here, below.as_ref(), hidden, depth + 1)?;
        }
        let inside = self.found.list.len() > before;
        let stub =
            changed == Some(ChangeKind::Added) && !inside && self.is_mount_point(&stat, upper, name)?;
        match changed {
            Some(kind) if !stub => self.push(kind),
            None if inside => self.push(ChangeKind::Changed),
            // In a directory that hides, what is the same as below is still all that there is.
            _ if !hidden => {
                self.found.unchanged.insert(self.path.clone());
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether this is an empty file or directory that a start made to mount onto.
    fn is_mount_point(&self, stat: &Stat, parent: &OwnedFd, name: &[u8]) -> Result<bool> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(stubs::has(&self.path) && stat.st_size == 0),
            FileType::Directory if self.path == b"etc" => {
                // Only there for the files in it.
                let inside = self.names(&self.open(parent.as_fd(), name)?)?;
                let is_stub = |name: &Vec<u8>| self.found.unchanged.contains(&[b"etc/", &name[..]].concat());
                Ok(!inside.is_empty() && inside.iter().all(is_stub))
            }
            FileType::Directory if stubs::has(&self.path) => {
                Ok(self.names(&self.open(parent.as_fd(), name)?)?.is_empty())
            }
            _ => Ok(false),
        }
    }

    fn push(&mut self, kind: ChangeKind) {
        let path = [b"/", &self.path[..]].concat();
        self.found.list.push(Change { path, kind });
    }

    fn enter<T>(&mut self, name: &[u8], inside: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let length = self.path.len();
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let result = inside(self);
        self.path.truncate(length);
        result
    }

    fn failed<E: Into<std::io::Error>>(&self, op: &'static str) -> impl FnOnce(E) -> Error + use<E> {
        use std::os::unix::ffi::OsStrExt;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&[b"/", &self.path[..]].concat()));
        move |error| Error::ContainerFile { op, path, source: error.into() }
    }

    fn open(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(self.failed("open"))
    }

    /// `None` where there is no such name (any more).
    fn look(&self, parent: &OwnedFd, name: &[u8]) -> Result<Option<Stat>> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("look at")(errno)),
        }
    }

    fn names(&self, directory: &OwnedFd) -> Result<BTreeSet<Vec<u8>>> {
        rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0)).map_err(self.failed("list"))?;
        let mut names = BTreeSet::new();
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(self.failed("list"))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.insert(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Whether the attributes that an image keeps are others.
    fn attributes_differ(&self, upper: &OwnedFd, lower: Option<&OwnedFd>, name: &[u8]) -> Result<bool> {
        let Some(lower) = lower else { return Ok(false) };
        Ok(self.attributes(upper, name)? != self.attributes(lower, name)?)
    }

    fn attributes(&self, parent: &OwnedFd, name: &[u8]) -> Result<BTreeSet<(Vec<u8>, Vec<u8>)>> {
        /// As much as a list or a value can have (xattr(7)).
        const MAX: usize = 64 << 10;
        let failed = || self.failed("read the attributes of");
        // The kernel goes straight to the open directory; the name isn't followed.
        let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
        let mut names = vec![0; MAX];
        let length = match rustix::fs::llistxattr(&path[..], &mut names) {
            Err(Errno::OPNOTSUPP) => 0,
            other => other.map_err(failed())?,
        };
        let mut found = BTreeSet::new();
        for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let kept =
                name.starts_with(b"user.") || name == b"security.capability" || name.starts_with(b"system.");
            if kept && !OverlayXattr::owns(name) {
                let mut value = vec![0; MAX];
                let length = rustix::fs::lgetxattr(&path[..], name, &mut value).map_err(failed())?;
                value.truncate(length);
                found.insert((name.to_vec(), value));
            }
        }
        Ok(found)
    }
}

/// What Docker compares.
fn differs(a: &Stat, b: &Stat) -> bool {
    let of_any = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
    let of_files = |s: &Stat| (s.st_mtime, s.st_mtime_nsec, s.st_size);
    let directory = FileType::from_raw_mode(a.st_mode) == FileType::Directory;
    of_any(a) != of_any(b) || (!directory && of_files(a) != of_files(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    fn lines(upper: &Path, lower: &Path) -> (Vec<String>, Vec<String>) {
        let found = compare(open(upper).as_fd(), open(lower).as_fd(), OverlayXattr::User).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = found.list.iter().map(|c| format!("{} {}", c.kind.letter(), text(&c.path))).collect();
        (lines, found.unchanged.iter().map(|path| text(path)).collect())
    }

    #[test]
    fn only_what_changed_is_told_and_mount_points_are_not() {
        let home = tempfile::tempdir().unwrap();
        let (upper, lower) = (home.path().join("upper"), home.path().join("lower"));
        for dir in [
            "upper/etc",
            "upper/new/deep",
            "upper/copied",
            "upper/proc",
            "upper/dev",
            "lower/etc",
            "lower/copied",
        ] {
            fs::create_dir_all(home.path().join(dir)).unwrap();
        }
        for (file, text) in [
            ("upper/etc/motd", "changed"),
            ("lower/etc/motd", "old"),
            ("upper/etc/hosts", ""),
            ("upper/new/deep/x", "x"),
            ("lower/copied/same", "same"),
        ] {
            fs::write(home.path().join(file), text).unwrap();
        }
        let (changed, unchanged) = lines(&upper, &lower);
        assert_eq!(changed, ["C /etc", "C /etc/motd", "A /new", "A /new/deep", "A /new/deep/x"]);
        assert_eq!(unchanged, ["copied", "dev", "etc/hosts", "proc"]);
        fs::set_permissions(upper.join("copied"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(upper.join("proc/x"), "").unwrap();
        let (changed, _) = lines(&upper, &lower);
        assert!(
            changed.contains(&"C /copied".into()) && changed.contains(&"A /proc/x".into()),
            "{changed:?}"
        );
    }

    #[test]
    fn a_directory_that_was_made_anew_is_compared_with_the_one_it_hides() {
        let home = tempfile::tempdir().unwrap();
        let (upper, lower) = (home.path().join("upper"), home.path().join("lower"));
        for dir in ["upper/d/sub", "lower/d/sub"] {
            fs::create_dir_all(home.path().join(dir)).unwrap();
        }
        fs::write(lower.join("d/gone"), "").unwrap();
        fs::write(upper.join("d/new"), "").unwrap();
        if rustix::fs::setxattr(upper.join("d"), "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .is_err()
        {
            // A filesystem without attributes has no opaque directories.
            return;
        }
        let (changed, unchanged) = lines(&upper, &lower);
        assert_eq!(changed, ["C /d", "D /d/gone", "A /d/new"]);
        assert_eq!(unchanged, [""; 0]);
    }
}
