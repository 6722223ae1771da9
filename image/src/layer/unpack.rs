//! Layer in: an archive becomes a directory tree in overlay form.
//!
//! ```text
//! archive                      tree
//! usr/                         usr/                 mode, owner, attributes, times: at the end
//! usr/bin/sh                   usr/bin/sh           usr/bin made 0755 root, if it had no entry
//! usr/.wh.lib                  usr/lib              character device 0/0
//! opt/.wh..wh..opq             opt/                 trusted.overlay.opaque=y
//! ```
//!
//! What holds:
//! - Nothing outside of the tree is read or changed ([`super::tree`]).
//! - Later entries replace earlier ones of the same name; a directory over a
//!   directory changes its metadata and keeps what is in it.
//! - A whiteout hides what *lower layers* have. An entry of the same layer stays,
//!   wherever it stands; if it is a directory, it becomes opaque.
//! - A hard link needs its target in the same layer and before it. A layer is
//!   unpacked once and shared by images with different lower layers, so a target
//!   in a lower layer cannot be linked (podman refuses these too).
//! - A directory gets its metadata when all entries are made, since a default
//!   ACL, a set-group-id bit or a missing write bit would act on its entries, and
//!   every entry made changes its time.
//! - Directories that the archive doesn't list are 0755, 0:0, of time 0.
//! - Nothing is flushed: the caller calls `syncfs` once.
//!
//! A regular file costs `openat`, `write`, `utimensat`, `close`; `fchown` and
//! `fchmod` only when what creation gives differs from what is wanted. What it
//! gives (umask, set-group-id, mount options) is found out once, by a probe.
//! So the umask must not change while a layer is unpacked.

mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use self::settle::{Directory, owner};
use super::entries::{Entries, Entry, Failure, Kind, refuse};
use super::limits::{Limits, MAX_DEFERRED};
use super::meta::Meta;
use super::path::{clean, clean_link, join, split};
use super::shift::Shift;
use super::sparse::Sparse;
use super::tree::{Lookup, Tree, io};
use super::whiteout::{self, Mark, OverlayXattr};
use crate::{EntryProblem, Error, Result};

/// What happens to the owners that an archive names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// They are set. One that the user namespace doesn't map is an error.
    Keep,
    /// Everything belongs to who unpacks; for a user namespace of one id.
    Squash,
}

/// What happens to character and block devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// They are made; where that is impossible, it is an error.
    Make,
    /// They are left out and counted, as podman and docker do inside a user
    /// namespace, where no device can be made. A container has its own `/dev`.
    Skip,
}

/// How to unpack a layer.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// What happens to owners.
    pub ownership: Ownership,
    /// What happens to devices.
    pub devices: Devices,
    /// Where the tree's opaque marks go.
    pub overlay_xattr: OverlayXattr,
    /// What the archive may ask for.
    pub limits: Limits,
    /// Whose owners the tree gets, if they are not the archive's.
    pub shift: Option<Shift>,
}

impl UnpackOptions {
    /// For root in the first user namespace.
    pub fn privileged() -> Self {
        Self {
            ownership: Ownership::Keep,
            devices: Devices::Make,
            overlay_xattr: OverlayXattr::Trusted,
            limits: Limits::default(),
            shift: None,
        }
    }

    /// For inside a user namespace.
    pub fn user_namespace(ownership: Ownership) -> Self {
        Self {
            ownership,
            devices: Devices::Skip,
            overlay_xattr: OverlayXattr::User,
            limits: Limits::default(),
            shift: None,
        }
    }
}

/// What was unpacked, and what could not be carried over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unpacked {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the files' content, holes included.
    pub bytes: u64,
    /// The highest user or group id that the archive names.
    pub max_id: u32,
    /// Entries whose owner was not 0:0 and was squashed.
    pub squashed: u64,
    /// Devices left out.
    pub devices_skipped: u64,
    /// Attributes that the file system or the user namespace doesn't allow.
    pub xattrs_skipped: u64,
    /// The first of these: entry and attribute, for a warning.
    pub first_xattr_skipped: Option<(String, String)>,
    /// Directories made without an entry. Their metadata is not the layer's:
    /// over a lower layer that has them, the lower one's would be right.
    pub implicit_directories: u64,
    /// Whether the archive has an entry for the root directory.
    pub root_entry: bool,
    /// Whether the root is opaque. overlayfs has no opaque root: a snapshot must
    /// leave out the layers below this one.
    pub opaque_root: bool,
    /// Bytes after the end of the archive, without padding being told apart.
    pub trailing: u64,
}

/// Unpacks an archive into a directory that is empty and that nobody else uses.
///
/// The stream is read to its end, so that its hash covers all of it. After an
/// error the directory holds a part of the tree; the caller removes it.
pub fn unpack(archive: impl Read, into: BorrowedFd<'_>, options: &UnpackOptions) -> Result<Unpacked> {
    let mut unpacker = Unpacker::new(into, options)?;
    let mut entries = Entries::new(archive);
    while let Some(mut entry) = entries.next_entry()? {
        unpacker.report.count(&entry, &options.limits)?;
        let path = std::mem::take(&mut entry.path);
        match unpacker.entry(&path, entry, &mut entries) {
            Ok(()) => {}
            Err(Failure::Entry(problem)) => return Err(refuse(&path, problem)),
            Err(Failure::Stream(error)) => return Err(error),
        }
    }
    unpacker.report.trailing = entries.drain()?;
    unpacker.finish()
}

/// What making a file gives, before anything is changed about it.
struct Created {
    uid: u32,
    gid: u32,
    /// The permission bits that the umask leaves.
    mask: Mode,
}

struct Unpacker<'a> {
    tree: Tree<'a>,
    options: &'a UnpackOptions,
    created: Created,
    /// Directories by canonical path; the root is the empty one.
    directories: BTreeMap<Vec<u8>, Directory>,
    /// Canonical paths of whiteouts, made at the end.
    whiteouts: BTreeSet<Vec<u8>>,
    /// Bytes held in these two.
    deferred: usize,
    /// The last directory that was reached through links: its path as named,
    /// and as canonical. Forgotten when a name is removed or a link is made.
    alias: Option<(Vec<u8>, Vec<u8>)>,
    report: Unpacked,
}

/// What a directory costs in memory beside its name, about.
const DIRECTORY_COST: usize = 200;

impl<'a> Unpacker<'a> {
    fn new(into: BorrowedFd<'a>, options: &'a UnpackOptions) -> Result<Self> {
        let root_mode = Mode::RWXU;
        let created = (|| {
            // Without a set-group-id bit, which new directories would inherit.
            rustix::fs::chmodat(into, ".", root_mode, AtFlags::empty())?;
            let name = ".onggi-probe";
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let probe = rustix::fs::openat(into, name, flags, Mode::from_raw_mode(0o777))?;
            let stat = rustix::fs::fstat(&probe)?;
            rustix::fs::unlinkat(into, name, AtFlags::empty())?;
            Ok(Created {
                uid: stat.st_uid,
                gid: stat.st_gid,
                mask: Mode::from_raw_mode(stat.st_mode & 0o777),
            })
        })()
        .map_err(|error: Errno| Error::Stream {
            op: "prepare the directory for a layer",
            source: error.into(),
        })?;
        let mut unpacker = Self {
            tree: Tree::new(into),
            options,
            created,
            directories: BTreeMap::new(),
            whiteouts: BTreeSet::new(),
            deferred: 0,
            alias: None,
            report: Unpacked::default(),
        };
        let root = Directory { meta: None, opaque: false, made: root_mode };
        unpacker.directories.insert(Vec::new(), root);
        Ok(unpacker)
    }

    /// Bounds what is held until the end.
    fn defer(&mut self, bytes: usize) -> Result<(), EntryProblem> {
        self.deferred += bytes;
        if self.deferred > MAX_DEFERRED {
            let what = "layer's names and attributes of directories in bytes";
            return Err(EntryProblem::Limit { what, limit: MAX_DEFERRED as u64 });
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, name: &[u8], entry: Entry, data: &mut Entries<R>) -> Result<(), Failure> {
        let clean = clean(name)?;
        if clean.path.split(|&b| b == b'/').next().is_some_and(whiteout::is_aufs) {
            return Ok(());
        }
        let (kind, mut meta) = self.report.admit(entry, self.options.ownership)?;
        if let Some(shift) = &self.options.shift {
            (meta.uid, meta.gid) = shift.outside(meta.uid, meta.gid).ok_or(EntryProblem::Number("owner"))?;
        }
        let path = self.locate(&clean.path, clean.climbs)?;
        let (_, base) = split(&path);
        match whiteout::read(base)? {
            Mark::None => {}
            Mark::Aufs => return Ok(()),
            Mark::Whiteout(hidden) => {
                let path = join(split(&path).0, hidden);
                self.defer(path.len() + DIRECTORY_COST)?;
                self.whiteouts.insert(path);
                return Ok(());
            }
            Mark::Opaque => {
                let (parent, _) = split(&path);
                self.report.opaque_root |= parent.is_empty();
                if let Some(directory) = self.directories.get_mut(parent) {
                    directory.opaque = true;
                }
                return Ok(());
            }
        }
        match kind {
            Kind::Directory => self.directory(path, meta)?,
            _ if path.is_empty() => return Err(EntryProblem::Root.into()),
            Kind::File { size, sparse } => return self.file(&path, &meta, size, sparse.as_ref(), data),
            Kind::Symlink(target) => self.symlink(&path, &meta, &target)?,
            Kind::HardLink(target) => self.hard_link(&path, &target)?,
            Kind::Fifo => self.node(&path, &meta, FileType::Fifo, 0, 0)?,
            Kind::CharDevice(0, 0) => return Err(EntryProblem::WhiteoutDevice.into()),
            Kind::CharDevice(major, minor) => {
                self.node(&path, &meta, FileType::CharacterDevice, major, minor)?;
            }
            Kind::BlockDevice(major, minor) => {
                self.node(&path, &meta, FileType::BlockDevice, major, minor)?;
            }
        }
        Ok(())
    }

    /// The canonical path of a name. Its directory exists and is the current
    /// one afterwards.
    fn locate(&mut self, name: &[u8], climbs: bool) -> Result<Vec<u8>, EntryProblem> {
        let (named, base) = split(name);
        if climbs {
            if base == b".." {
                return Err(EntryProblem::Name("ends in '..'"));
            }
        } else {
            match self.tree.enter(named)? {
                Lookup::Open => return Ok(name.to_vec()),
                Lookup::Missing => {
                    self.make_directories(named)?;
                    return Ok(name.to_vec());
                }
                Lookup::NotDirectory => return Err(not_directory(named)),
                Lookup::Link => {}
            }
        }
        let parent = match &self.alias {
            Some((from, to)) if from == named => to.clone(),
            _ => {
                let parent = self.tree.canonical(named)?;
                self.alias = Some((named.to_vec(), parent.clone()));
                parent
            }
        };
        self.enter_or_make(&parent)?;
        Ok(join(&parent, base))
    }

    /// Makes a canonical path the current directory.
    fn enter_or_make(&mut self, path: &[u8]) -> Result<(), EntryProblem> {
        match self.tree.enter(path)? {
            Lookup::Open => Ok(()),
            Lookup::Missing => self.make_directories(path),
            Lookup::NotDirectory | Lookup::Link => Err(not_directory(path)),
        }
    }

    /// Makes the missing directories of a canonical path and enters the last.
    fn make_directories(&mut self, path: &[u8]) -> Result<(), EntryProblem> {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let directory = &path[..end];
            if self.directories.contains_key(directory) {
                continue;
            }
            self.enter_or_make(split(directory).0)?;
            let made = Mode::from_raw_mode(0o755);
            match rustix::fs::mkdirat(self.tree.current(), split(directory).1, made) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(not_directory(directory)),
                Err(error) => return Err(io("make a directory above it")(error)),
            }
            self.defer(directory.len() + DIRECTORY_COST)?;
            self.directories.insert(directory.to_vec(), Directory { meta: None, opaque: false, made });
        }
        self.enter_or_make(path)
    }

    /// Makes something in the current directory; what had the name before is
    /// removed. Tells whether something was removed that was no directory.
    fn make<T>(
        &mut self,
        path: &[u8],
        op: &'static str,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<(T, bool), EntryProblem> {
        let base = split(path).1;
        match make(self.tree.current(), base) {
            Ok(made) => return Ok((made, false)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(io(op)(error)),
        }
        self.alias = None;
        let was_directory = self.tree.remove(path)?;
        if was_directory {
            self.forget(path);
        }
        Ok((make(self.tree.current(), base).map_err(io(op))?, !was_directory))
    }

    /// Forgets what was to be done in a directory that is gone.
    fn forget(&mut self, path: &[u8]) {
        // All names in it, and no others: '0' is the byte after '/'.
        let inside = [path, b"/"].concat()..[path, b"0"].concat();
        let gone: Vec<_> = self.directories.range(inside.clone()).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.directories.remove(&key);
        }
        self.directories.remove(path);
        let gone: Vec<_> = self.whiteouts.range(inside).cloned().collect();
        for key in gone {
            self.whiteouts.remove(&key);
        }
    }

    fn directory(&mut self, path: Vec<u8>, meta: Meta) -> Result<(), EntryProblem> {
        let attributes: usize = meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.defer(path.len() + attributes + DIRECTORY_COST)?;
        self.report.root_entry |= path.is_empty();
        if let Some(known) = self.directories.get_mut(&path) {
            known.meta = Some(meta);
            return Ok(());
        }
        // The owner's bits are needed to make entries in it.
        let made = (meta.mode & Mode::from_raw_mode(0o777)) | Mode::RWXU;
        let make = |at: BorrowedFd<'_>, name: &[u8]| rustix::fs::mkdirat(at, name, made);
        let ((), replaced) = self.make(&path, "make the directory", make)?;
        // A file of that name hid what lower layers have; so must the directory.
        self.directories.insert(path, Directory { meta: Some(meta), opaque: replaced, made });
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        path: &[u8],
        meta: &Meta,
        size: u64,
        sparse: Option<&Sparse>,
        data: &mut Entries<R>,
    ) -> Result<(), Failure> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let made = meta.mode & Mode::from_raw_mode(0o777);
        let make = |at: BorrowedFd<'_>, name: &[u8]| rustix::fs::openat(at, name, flags, made);
        let (file, _) = self.make(path, "make the file", make)?;
        match sparse {
            None => copy(&file, data, None, size)?,
            Some(map) => {
                for &(offset, length) in map.pieces() {
                    copy(&file, data, Some(offset), length)?;
                }
                rustix::fs::ftruncate(&file, size).map_err(io("set the size"))?;
            }
        }
        if self.is_owned_by_another(meta) {
            rustix::fs::fchown(&file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
                .map_err(owner(meta))?;
        }
        // Set-id bits come after the content and the owner, which clear them.
        if meta.mode & self.created.mask != meta.mode {
            rustix::fs::fchmod(&file, meta.mode).map_err(io("set the permissions"))?;
        }
        self.xattrs(path, meta, |name, value| {
            rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty())
        })?;
        rustix::fs::futimens(&file, &meta.times()).map_err(io("set the time"))?;
        Ok(())
    }

    fn symlink(&mut self, path: &[u8], meta: &Meta, target: &[u8]) -> Result<(), EntryProblem> {
        self.alias = None;
        let make = |at: BorrowedFd<'_>, name: &[u8]| rustix::fs::symlinkat(target, at, name);
        self.make(path, "make the symbolic link", make)?;
        self.settle_by_name(path, meta, None)
    }

    fn node(
        &mut self,
        path: &[u8],
        meta: &Meta,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> Result<(), EntryProblem> {
        let is_device = kind != FileType::Fifo;
        if is_device && self.options.devices == Devices::Skip {
            self.report.devices_skipped += 1;
            return Ok(());
        }
        let made = meta.mode & Mode::from_raw_mode(0o777);
        let device = rustix::fs::makedev(major, minor);
        let make = |at: BorrowedFd<'_>, name: &[u8]| rustix::fs::mknodat(at, name, kind, made, device);
        self.make(path, "make the special file", make).map_err(|problem| match problem {
            EntryProblem::Io { source, .. }
                if is_device && source.raw_os_error() == Some(Errno::PERM.raw_os_error()) =>
            {
                EntryProblem::Device { source }
            }
            other => other,
        })?;
        self.settle_by_name(path, meta, Some(made))
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), EntryProblem> {
        let refuse = |problem| EntryProblem::HardLink {
            target: String::from_utf8_lossy(target).into_owned(),
            problem,
        };
        let clean = clean_link(target)?;
        let (named, base) = split(&clean.path);
        if base.is_empty() || base == b".." {
            return Err(refuse("is a directory"));
        }
        let missing = "is not in this layer before it; a layer can't link to one below it";
        let parent = match self.tree.open(named) {
            Ok(_) if !clean.climbs => named.to_vec(),
            Err(Errno::NOENT | Errno::NOTDIR) if !clean.climbs => return Err(refuse(missing)),
            _ => self.tree.canonical(named)?,
        };
        if join(&parent, base) == path {
            return Err(refuse("is its own name"));
        }
        let from = match self.tree.open(&parent) {
            Ok(from) => from,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(refuse(missing)),
            Err(error) => return Err(io("open the directory of its target")(error)),
        };
        self.enter_or_make(split(path).0)?;
        let make =
            |at: BorrowedFd<'_>, name: &[u8]| rustix::fs::linkat(&from, base, at, name, AtFlags::empty());
        self.make(path, "make the hard link", make).map_err(|problem| match problem {
            EntryProblem::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                refuse(missing)
            }
            EntryProblem::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                refuse("is a directory, or may not be linked to")
            }
            other => other,
        })?;
        Ok(())
    }
}

fn not_directory(path: &[u8]) -> EntryProblem {
    EntryProblem::Parent(String::from_utf8_lossy(path).into_owned())
}

/// Moves content from the archive to a file, from its position or an offset on.
fn copy<R: Read>(
    file: impl AsFd,
    data: &mut Entries<R>,
    mut offset: Option<u64>,
    length: u64,
) -> Result<(), Failure> {
    let mut left = length;
    while left > 0 {
        let mut piece = data.content(left)?;
        if piece.is_empty() {
            return Err(EntryProblem::Sparse("does not cover the content").into());
        }
        left -= piece.len() as u64;
        while !piece.is_empty() {
            let written = match offset {
                None => rustix::io::write(&file, piece),
                Some(offset) => rustix::io::pwrite(&file, piece, offset),
            };
            match written {
                Ok(n) => {
                    piece = &piece[n..];
                    offset = offset.map(|offset| offset + n as u64);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(io("write its content")(error).into()),
            }
        }
    }
    Ok(())
}
