//! The half of a copy that writes: an archive becomes files below a directory.
//!
//! ```text
//!   source        destination          lands as
//!   file          missing              DEST                its directory must exist
//!   file          file                 DEST, replaced
//!   file          directory            DEST/NAME
//!   directory     missing              DEST
//!   directory     file                 (an error)
//!   directory     directory            DEST/NAME
//!   directory/.   directory            DEST, merged
//! ```
//!
//! Every name is resolved below the root for each entry anew (`openat2`): a link that somebody puts there
//! while the copy runs leads to another place in the same root, never out of it.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use onggi_image::layer::{Entries, Entry, Kind, Shift, Sparse, Time};
use onggi_sys::path::Root;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::fault::{CopyFault, shown};

/// Who owns what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Whom the archive says.
    Kept,
    /// These.
    Fixed(u32, u32),
    /// Whoever writes. Then set-id bits and capabilities are not carried over: they were given to somebody else.
    Writer,
}

/// What is taken from the stream.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    /// One entry at the top and what is below it, which get the name that the table above says.
    Single {
        /// The name of the source.
        base: Vec<u8>,
        /// Whether the source ended in `/.`.
        contents_only: bool,
    },
    /// Any archive, unpacked into the directory that the destination must be.
    Many,
}

/// Where and how to write.
#[derive(Clone, Debug)]
pub(super) struct Writing {
    pub(super) path: Vec<u8>,
    pub(super) layout: Layout,
    pub(super) owner: Owner,
    /// Whose owners the files get, if not the container's.
    pub(super) shift: Option<Shift>,
}

impl Writing {
    /// Writes everything that comes.
    pub(super) fn extract(&self, root: &Root<'_>, input: impl Read) -> Result<(), CopyFault> {
        let damaged = |error: onggi_image::Error| CopyFault::Archive { problem: error.to_string() };
        let mut entries = Entries::new(input);
        let shift = self.shift.as_ref();
        let mut target = Target { root, owner: self.owner, shift, parent: None, directories: Vec::new() };
        let mut top: Option<Top> = None;
        while let Some(mut entry) = entries.next_entry().map_err(damaged)? {
            let name = std::mem::take(&mut entry.path);
            let placed = match &top {
                Some(top) => top,
                None => top.insert(self.top(root, &name, &entry)?),
            };
            let path = placed.path_of(&name)?;
            let is_top = path == placed.place;
            let link = match &entry.kind {
                Kind::HardLink(link) => Some(placed.path_of(link)?),
                _ => None,
            };
            let keep = is_top && placed.exists;
            target.entry(&path, &entry, link.as_deref(), keep, &mut entries)?;
        }
        if top.is_none() {
            return match self.layout {
                // An empty archive is an archive.
                Layout::Many => self.directory(root).map(drop),
                Layout::Single { .. } => Err(CopyFault::Lost),
            };
        }
        entries.drain().map_err(damaged)?;
        target.finish()
    }

    /// Says where the first entry goes.
    fn top(&self, root: &Root<'_>, name: &[u8], entry: &Entry) -> Result<Top, CopyFault> {
        let Layout::Single { base, contents_only } = &self.layout else {
            self.directory(root)?;
            return Ok(Top { name: Vec::new(), place: trimmed(&self.path), exists: true });
        };
        let name = trimmed(name);
        let (is_directory, path) = (entry.kind == Kind::Directory, shown(&self.path));
        let wants_directory = self.path.ends_with(b"/") || self.path.ends_with(b"/.");
        match self.look(root)? {
            Some(FileType::Directory) if is_directory && *contents_only => {
                Ok(Top { name, place: trimmed(&self.path), exists: true })
            }
            Some(FileType::Directory) => {
                let place = [&trimmed(&self.path)[..], b"/", base].concat();
                Ok(Top { name, place, exists: false })
            }
            Some(_) if is_directory => Err(CopyFault::DirectoryOverFile { path }),
            Some(_) if wants_directory => Err(CopyFault::NotDirectory { path }),
            None if wants_directory && !is_directory => Err(CopyFault::NoDirectory { path }),
            // A link at the end of the destination is followed, also to where nothing is yet.
            _ => Ok(Top { name, place: self.resolved(root)?, exists: false }),
        }
    }

    fn directory(&self, root: &Root<'_>) -> Result<(), CopyFault> {
        match self.look(root)? {
            Some(FileType::Directory) => Ok(()),
            Some(_) => Err(CopyFault::NotDirectory { path: shown(&self.path) }),
            None => Err(CopyFault::NoDirectory { path: shown(&self.path) }),
        }
    }

    /// The type of what is there, links followed.
    fn look(&self, root: &Root<'_>) -> Result<Option<FileType>, CopyFault> {
        match root.locate(as_path(&trimmed(&self.path))) {
            Ok(found) => {
                let stat = rustix::fs::fstat(&found).map_err(CopyFault::system("look at", &self.path))?;
                Ok(Some(FileType::from_raw_mode(stat.st_mode)))
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => Ok(None),
                Some(Errno::NOTDIR) => Err(CopyFault::NotDirectory { path: shown(&self.path) }),
                _ => Err(CopyFault::system("look at", &self.path)(error)),
            },
        }
    }

    /// The path with a link at its end replaced by what it says, and so on. Its directory exists.
    fn resolved(&self, root: &Root<'_>) -> Result<Vec<u8>, CopyFault> {
        const MAX_LINKS: usize = 40;
        let mut path = trimmed(&self.path);
        for _ in 0..MAX_LINKS {
            let (parent, name) = split(&path);
            let at = match root.open(as_path(parent), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                Ok(at) => at,
                Err(error) => {
                    return Err(match Errno::from_io_error(&error) {
                        Some(Errno::NOENT | Errno::NOTDIR) => {
                            CopyFault::NoDirectory { path: shown([b"/", parent].concat()) }
                        }
                        _ => CopyFault::system("open", [b"/", parent].concat())(error),
                    });
                }
            };
            match rustix::fs::readlinkat(&at, name, Vec::new()) {
                Ok(target) if target.as_bytes().starts_with(b"/") => path = trimmed(target.as_bytes()),
                Ok(target) => path = [parent, b"/", target.as_bytes()].concat(),
                Err(_) => return Ok(path),
            }
        }
        Err(CopyFault::system("resolve", &self.path)(Errno::LOOP))
    }
}

/// Where the first entry goes, and with it all that is below it.
struct Top {
    /// What it is called in the archive.
    name: Vec<u8>,
    place: Vec<u8>,
    /// Whether it is a directory that was there before: it stays as it is.
    exists: bool,
}

impl Top {
    fn path_of(&self, name: &[u8]) -> Result<Vec<u8>, CopyFault> {
        let clean = trimmed(name);
        if clean.split(|&byte| byte == b'/').any(|part| part == b"..") {
            return Err(CopyFault::Escape { name: shown(name) });
        }
        if self.name.is_empty() || self.name == b"." {
            let rest = clean.strip_prefix(b".").filter(|rest| rest.is_empty() || rest[0] == b'/');
            let rest = rest.unwrap_or(&clean);
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            return Ok(if rest.is_empty() {
                self.place.clone()
            } else {
                [&self.place, &b"/"[..], rest].concat()
            });
        }
        match clean.strip_prefix(&self.name[..]) {
            Some(b"") => Ok(self.place.clone()),
            Some(rest) if rest[0] == b'/' => Ok([&self.place[..], rest].concat()),
            _ => Err(CopyFault::Escape { name: shown(name) }),
        }
    }
}

/// What is being written.
struct Target<'a> {
    root: &'a Root<'a>,
    shift: Option<&'a Shift>,
    owner: Owner,
    /// The directory of the last entry.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories, which get their times at the end: each entry made in them changes these.
    directories: Vec<(OwnedFd, Vec<u8>, Mode, Time)>,
}

/// Directories whose times are set at the end; more than that get them at once, and may have later ones.
const MAX_DIRECTORIES: usize = 256;

impl Target<'_> {
    fn entry<R: Read>(
        &mut self,
        path: &[u8],
        entry: &Entry,
        link: Option<&[u8]>,
        keep: bool,
        data: &mut Entries<R>,
    ) -> Result<(), CopyFault> {
        let (parent, name) = split(path);
        if name.is_empty() {
            // The root of the container, which stays as it is.
            return Ok(());
        }
        self.enter(parent)?;
        let Some((_, at)) = &self.parent else { return Err(CopyFault::Lost) };
        let at = at.try_clone().map_err(CopyFault::system("open", parent))?;
        let failed = |op: &'static str| CopyFault::system::<Errno>(op, path);
        let mut mode = Mode::from_raw_mode(entry.mode & 0o7777);
        if self.owner == Owner::Writer {
            mode -= Mode::SUID | Mode::SGID;
        }
        let existing = match rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed("look at")(errno)),
        };
        if entry.kind == Kind::Directory {
            return self.directory(&at, path, entry, mode, existing, keep);
        }
        if existing == Some(FileType::Directory) {
            return Err(CopyFault::FileOverDirectory { path: shown(path) });
        }
        let is_file = matches!(entry.kind, Kind::File { .. });
        let in_place = match existing {
            None => false,
            Some(existing) => match rustix::fs::unlinkat(&at, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => false,
                // Something is mounted there (/etc/hosts): its content is what can be replaced.
                Err(Errno::BUSY) if is_file && existing == FileType::RegularFile => true,
                Err(errno) => return Err(failed("replace")(errno)),
            },
        };
        match &entry.kind {
            Kind::Directory => {}
            Kind::File { size, sparse } => {
                let create = if in_place { OFlags::TRUNC } else { OFlags::CREATE | OFlags::EXCL };
                let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | create;
                let file =
                    rustix::fs::openat(&at, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed("make"))?;
                content(&file, *size, sparse.as_ref(), data, path)?;
                self.own(file.as_fd(), b"", entry).map_err(failed("set the owner of"))?;
                rustix::fs::fchmod(&file, mode).map_err(failed("set the permissions of"))?;
                self.attributes(&file, entry).map_err(failed("set attributes of"))?;
                return rustix::fs::futimens(&file, &times(entry.mtime)).map_err(failed("set the time of"));
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(&target[..], &at, name).map_err(failed("make the link"))?;
            }
            Kind::HardLink(_) => {
                let from = link.unwrap_or_default();
                let (directory, base) = split(from);
                let from = self
                    .root
                    .open(as_path(directory), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                    .map_err(CopyFault::system("open", directory))?;
                return rustix::fs::linkat(&from, base, &at, name, AtFlags::empty()).map_err(failed("link"));
            }
            Kind::Fifo => {
                rustix::fs::mknodat(&at, name, FileType::Fifo, mode, 0).map_err(failed("make the pipe"))?;
            }
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                let kind = match entry.kind {
                    Kind::CharDevice(..) => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let device = rustix::fs::makedev(*major, *minor);
                rustix::fs::mknodat(&at, name, kind, mode, device).map_err(failed("make the device"))?;
            }
        }
        self.own(at.as_fd(), name, entry).map_err(failed("set the owner of"))?;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            rustix::fs::chmodat(&at, name, mode, AtFlags::empty())
                .map_err(failed("set the permissions of"))?;
        }
        rustix::fs::utimensat(&at, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the time of"))
    }

    fn directory(
        &mut self,
        at: &OwnedFd,
        path: &[u8],
        entry: &Entry,
        mode: Mode,
        existing: Option<FileType>,
        keep: bool,
    ) -> Result<(), CopyFault> {
        let (_, name) = split(path);
        let failed = |op: &'static str| CopyFault::system::<Errno>(op, path);
        match existing {
            None => rustix::fs::mkdirat(at, name, Mode::RWXU).map_err(failed("make"))?,
            Some(FileType::Directory) => {}
            Some(_) if keep => return Ok(()),
            Some(_) => return Err(CopyFault::DirectoryOverFile { path: shown(path) }),
        }
        if keep {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(at, name, flags, Mode::empty()).map_err(failed("open"))?;
        self.own(made.as_fd(), b"", entry).map_err(failed("set the owner of"))?;
        self.attributes(&made, entry).map_err(failed("set attributes of"))?;
        // Until everything in it is made, its owner must be able to.
        rustix::fs::fchmod(&made, mode | Mode::RWXU).map_err(failed("set the permissions of"))?;
        if self.directories.len() == MAX_DIRECTORIES {
            let (first, path, mode, time) = self.directories.remove(0);
            settle(&first, &path, mode, time)?;
        }
        self.directories.push((made, path.to_vec(), mode, entry.mtime));
        Ok(())
    }

    /// Makes `parent` the directory at hand; what is missing of it is made.
    fn enter(&mut self, parent: &[u8]) -> Result<(), CopyFault> {
        if self.parent.as_ref().is_none_or(|(path, _)| path != parent) {
            let directory =
                self.root.make_dirs(as_path(parent)).map_err(CopyFault::system("open", parent))?;
            self.parent = Some((parent.to_vec(), directory));
        }
        Ok(())
    }

    /// Sets the owner of the name in a directory, or of the open file if there is no name.
    fn own(&self, at: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        let (uid, gid) = match self.owner {
            Owner::Writer => return Ok(()),
            Owner::Fixed(uid, gid) => (uid, gid),
            Owner::Kept => {
                let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Errno::INVAL);
                (id(entry.uid)?, id(entry.gid)?)
            }
        };
        let (uid, gid) = match self.shift {
            Some(shift) => shift.outside(uid, gid).ok_or(Errno::INVAL)?,
            None => (uid, gid),
        };
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        if name.is_empty() {
            return rustix::fs::fchown(at, uid, gid);
        }
        rustix::fs::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Sets attributes, but for those that need more authority than there is.
    fn attributes(&self, file: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
        for (name, value) in &entry.xattrs {
            let carried = name.starts_with(b"user.") || self.owner != Owner::Writer;
            if !carried || onggi_image::layer::OverlayXattr::owns(name) {
                continue;
            }
            match rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), CopyFault> {
        // From the end, so that what is in a directory comes before it.
        self.directories
            .iter()
            .rev()
            .try_for_each(|(made, path, mode, time)| settle(made, path, *mode, *time))
    }
}

fn settle(made: &OwnedFd, path: &[u8], mode: Mode, time: Time) -> Result<(), CopyFault> {
    rustix::fs::fchmod(made, mode).map_err(CopyFault::system("set the permissions of", path))?;
    rustix::fs::futimens(made, &times(time)).map_err(CopyFault::system("set the time of", path))
}

fn content<R: Read>(
    file: &OwnedFd,
    size: u64,
    sparse: Option<&Sparse>,
    data: &mut Entries<R>,
    path: &[u8],
) -> Result<(), CopyFault> {
    let pieces = sparse.map_or_else(|| vec![(0, size)], |sparse| sparse.pieces().to_vec());
    for (mut offset, mut left) in pieces {
        while left > 0 {
            let bytes =
                data.content(left).map_err(|error| CopyFault::Archive { problem: error.to_string() })?;
            if bytes.is_empty() {
                return Err(CopyFault::Archive { problem: "it ends within a file".into() });
            }
            let count = rustix::io::pwrite(file, bytes, offset).map_err(CopyFault::system("write", path))?;
            // The rest of a short write would be lost: the stream has moved on.
            if count < bytes.len() {
                let mut rest = &bytes[count..];
                let mut at = offset + count as u64;
                while !rest.is_empty() {
                    let more =
                        rustix::io::pwrite(file, rest, at).map_err(CopyFault::system("write", path))?;
                    if more == 0 {
                        return Err(CopyFault::system("write", path)(Errno::NOSPC));
                    }
                    rest = &rest[more..];
                    at += more as u64;
                }
            }
            let length = bytes.len() as u64;
            offset += length;
            left -= length;
        }
    }
    if sparse.is_some() {
        rustix::fs::ftruncate(file, size).map_err(CopyFault::system("set the size of", path))?;
    }
    Ok(())
}

fn times(time: Time) -> Timestamps {
    let moment = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: moment, last_modification: moment }
}

/// Without `.`, double slashes and slashes at the end; absolute stays absolute by not mattering: all is below the root.
fn trimmed(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

/// The directory and the last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}
