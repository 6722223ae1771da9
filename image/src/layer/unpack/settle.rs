//! Metadata of what was made: at once for files, at the end for directories and whiteouts.

use std::os::fd::AsRawFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Ownership, Unpacked, Unpacker, not_directory};
use crate::layer::entries::refuse;
use crate::layer::meta::Meta;
use crate::layer::path::split;
use crate::layer::tree::{Lookup, io};
use crate::{EntryProblem, Result};

/// What a directory gets at the end.
pub(super) struct Directory {
    /// Nothing for a directory without an entry.
    pub(super) meta: Option<Meta>,
    pub(super) opaque: bool,
    /// The permissions that it was made with.
    pub(super) made: Mode,
}

impl Unpacker<'_> {
    pub(super) fn is_owned_by_another(&self, meta: &Meta) -> bool {
        self.options.ownership == Ownership::Keep
            && (meta.uid, meta.gid) != (self.created.uid, self.created.gid)
    }

    /// Owner, permissions (of what was made with `made`; links have none),
    /// attributes and time of an entry of the current directory that can't be
    /// opened.
    pub(super) fn settle_by_name(
        &mut self,
        path: &[u8],
        meta: &Meta,
        made: Option<Mode>,
    ) -> Result<(), EntryProblem> {
        let base = split(path).1;
        if self.is_owned_by_another(meta) {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            rustix::fs::chownat(self.tree.current(), base, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(owner(meta))?;
        }
        if let Some(made) = made
            && made & self.created.mask != meta.mode
        {
            rustix::fs::chmodat(self.tree.current(), base, meta.mode, AtFlags::empty())
                .map_err(io("set the permissions"))?;
        }
        if !meta.xattrs.is_empty() {
            // There is no call for attributes by directory and name; the kernel
            // goes straight to the open directory, and the name isn't followed.
            let directory = format!("/proc/self/fd/{}/", self.tree.current().as_raw_fd());
            let place = [directory.as_bytes(), base].concat();
            self.xattrs(path, meta, |name, value| {
                rustix::fs::lsetxattr(&place[..], name, value, XattrFlags::empty())
            })?;
        }
        rustix::fs::utimensat(self.tree.current(), base, &meta.times(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io("set the time"))
    }

    /// Sets attributes; counts those that cannot be had here.
    pub(super) fn xattrs(
        &mut self,
        path: &[u8],
        meta: &Meta,
        set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
    ) -> Result<(), EntryProblem> {
        for (name, value) in &meta.xattrs {
            match set(name, value) {
                Ok(()) => {}
                // A file system without them, or a name space that needs more
                // privilege than there is in a user namespace.
                Err(Errno::OPNOTSUPP | Errno::PERM) => {
                    self.report.xattrs_skipped += 1;
                    self.report.first_xattr_skipped.get_or_insert_with(|| {
                        (
                            String::from_utf8_lossy(path).into_owned(),
                            String::from_utf8_lossy(name).into_owned(),
                        )
                    });
                }
                Err(error) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(EntryProblem::Xattr { name, source: error.into() });
                }
            }
        }
        Ok(())
    }

    /// Whiteouts and the metadata of directories.
    pub(super) fn finish(mut self) -> Result<Unpacked> {
        for path in std::mem::take(&mut self.whiteouts) {
            self.whiteout(&path).map_err(|problem| refuse(&path, problem))?;
        }
        // From the end, so that what is in a directory comes before it.
        for (path, directory) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.settle_directory(&path, directory).map_err(|problem| refuse(&path, problem))?;
        }
        Ok(self.report)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), EntryProblem> {
        if let Some(directory) = self.directories.get_mut(path) {
            directory.opaque = true;
            return Ok(());
        }
        // In an opaque directory there is nothing left to hide, and overlayfs
        // would list the device.
        let parent = split(path).0;
        let is_opaque = |end| self.directories.get(&parent[..end]).is_some_and(|directory| directory.opaque);
        let slashes = parent.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        if slashes.chain([0, parent.len()]).any(is_opaque) {
            return Ok(());
        }
        if self.tree.enter(parent)? != Lookup::Open {
            return Ok(());
        }
        let (at, base) = (self.tree.current(), split(path).1);
        match rustix::fs::mknodat(
            at,
            base,
            FileType::CharacterDevice,
            Mode::empty(),
            rustix::fs::makedev(0, 0),
        ) {
            // Where the layer itself has an entry, it stays.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(io("make the whiteout")(error)),
        }
    }

    fn settle_directory(&mut self, path: &[u8], directory: Directory) -> Result<(), EntryProblem> {
        let (parent, base) = split(path);
        let base = if path.is_empty() { b"." } else { base };
        if self.tree.enter(parent)? != Lookup::Open {
            return Err(not_directory(parent));
        }
        if directory.meta.is_none() {
            self.report.implicit_directories += u64::from(!path.is_empty());
        }
        let meta = directory.meta.unwrap_or_else(|| Meta::implicit(0o755));
        // Opened before its permissions may forbid that.
        let opened = if directory.opaque || !meta.xattrs.is_empty() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(self.tree.current(), base, flags, Mode::empty());
            Some(fd.map_err(io("open the directory"))?)
        } else {
            None
        };
        let at = self.tree.current();
        if self.is_owned_by_another(&meta) {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            rustix::fs::chownat(at, base, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(owner(&meta))?;
        }
        if path.is_empty() || directory.made & self.created.mask != meta.mode {
            rustix::fs::chmodat(at, base, meta.mode, AtFlags::empty()).map_err(io("set the permissions"))?;
        }
        if let Some(fd) = &opened {
            self.xattrs(path, &meta, |name, value| {
                rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
            })?;
            if directory.opaque {
                let name = self.options.overlay_xattr.opaque();
                rustix::fs::fsetxattr(fd, name, b"y", XattrFlags::empty())
                    .map_err(|error| EntryProblem::Xattr { name: name.to_owned(), source: error.into() })?;
            }
        }
        rustix::fs::utimensat(self.tree.current(), base, &meta.times(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io("set the time"))
    }
}

pub(super) fn owner(meta: &Meta) -> impl FnOnce(Errno) -> EntryProblem {
    let (uid, gid) = (meta.uid, meta.gid);
    move |error| EntryProblem::Owner { uid, gid, source: error.into() }
}
