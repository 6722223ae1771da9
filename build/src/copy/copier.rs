//! One copy: a file, or a directory with everything that is meant of it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, mkdirat, statat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::select::{Selection, State};
use super::{Ids, Match, Source, make_dirs, remove_tree, split};
use crate::error::{Error, Result};
use crate::graph::Copy;
use crate::tree::{Tree, is_dir, list, open_below};

/// Deeper trees are an attack: each level holds two descriptors.
const MAX_DEPTH: usize = 1000;
/// The system allows no list of attributes and no value longer than this (xattr(7)).
const MAX_XATTR: usize = 64 << 10;

/// Files up to this size are read and written in one call each: what the kernel's own ways of copying need
/// to begin with costs more than that.
const SMALL: u64 = 128 << 10;

/// Copies from one tree to another.
pub(super) struct Copier<'a> {
    copy: &'a Copy,
    source: &'a Source<'a>,
    tree: &'a Tree,
    owner: Option<Ids>,
    selection: &'a Selection,
    levels: Vec<Level>,
    /// Where files with several names were copied to.
    links: HashMap<(u64, u64), PathBuf>,
    /// Whether the filesystems share blocks; found out with the first file.
    reflink: bool,
    /// The owner of files that this process makes, if they get the mode that is asked for.
    own: Option<Ids>,
    buffer: Vec<u8>,
}

/// A directory on the way.
struct Level {
    from: OwnedFd,
    stat: Stat,
    /// Of the directory in the destination.
    path: PathBuf,
    /// Opened, and made if need be, when the first thing goes into it.
    into: Option<OwnedFd>,
    /// Whether the copy made it.
    made: bool,
    /// Whether it takes the source's owner, mode and times in any case.
    dress: bool,
    /// Whether files made in it get the owner and mode of whoever makes them, and not the directory's.
    plain: Option<bool>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        copy: &'a Copy,
        source: &'a Source<'a>,
        tree: &'a Tree,
        owner: Option<Ids>,
        selection: &'a Selection,
    ) -> Self {
        let own = has_no_umask().then(|| Ids { uid: geteuid().as_raw(), gid: getegid().as_raw() });
        let (levels, links, buffer) = (Vec::new(), HashMap::new(), Vec::new());
        Self { copy, source, tree, owner, selection, levels, links, reflink: true, own, buffer }
    }

    /// Copies what was found to the destination.
    pub(super) fn copy(&mut self, one: &Match) -> Result<()> {
        let destination = Path::new(&self.copy.destination);
        let text = &self.copy.destination;
        let into = if text.ends_with('/') || text.ends_with("/.") || text == "." {
            destination
        } else {
            destination.parent().unwrap_or(Path::new("/"))
        };
        make_dirs(self.tree, &self.tree.real_path(into, true)?, 0o755, self.owner)?;

        let mut target = self.tree.real_path(destination, true)?;
        let missing = || Error::NotFound { path: self.copy.source.clone() };
        let stat = self.source.tree.lstat(&one.real)?.ok_or_else(missing)?;
        let present = self.tree.lstat(&target)?;
        let into_it = match (is_dir(&stat), &present) {
            (true, present) => !self.copy.contents_only && present.is_some(),
            (false, Some(present)) => is_dir(present),
            (false, None) => false,
        };
        if into_it {
            target.push(one.named.file_name().unwrap_or(OsStr::new("")));
        }
        let above = if self.copy.contents_only && is_dir(&stat) && present.is_none() {
            target.as_path()
        } else {
            target.parent().unwrap_or(Path::new(""))
        };
        make_dirs(self.tree, above, 0o755, self.owner)?;
        let from_root = one.real.to_string_lossy().into_owned();
        let state = self.selection.begin(&from_root);
        if is_dir(&stat) {
            self.top_directory(one, stat, target, present.is_none(), &state)
        } else {
            self.top_file(one, stat, &target)
        }
    }

    fn top_file(&mut self, one: &Match, stat: Stat, target: &Path) -> Result<()> {
        let (from, name) = split(&one.real);
        let (parent, new_name) = split(target);
        let level = Level {
            from: self.source.tree.open_dir(from)?,
            stat,
            path: parent.to_owned(),
            into: Some(self.tree.open_dir(parent)?),
            made: false,
            dress: false,
            plain: None,
        };
        self.levels.push(level);
        let done = self.file(name, new_name, &stat);
        self.levels.pop();
        done
    }

    fn top_directory(
        &mut self,
        one: &Match,
        stat: Stat,
        target: PathBuf,
        new: bool,
        state: &State,
    ) -> Result<()> {
        let mut made = false;
        if !target.as_os_str().is_empty() {
            let (parent, name) = split(&target);
            let parent = self.tree.open_dir(parent)?;
            made = self.one_directory(parent.as_fd(), name, &target, &stat)?;
        }
        let level = Level {
            from: self.source.tree.open_dir(&one.real)?,
            stat,
            into: Some(self.tree.open_dir(&target)?),
            path: target,
            made,
            dress: false,
            plain: None,
        };
        if let (true, false, Some(into), Some(mode)) = (new, made, &level.into, &self.copy.mode) {
            // It was made on the way, as the directories above it, and does not look as the source.
            let mode = Mode::from_raw_mode(mode.apply(0o755, true)?);
            rustix::fs::fchmod(into, mode).map_err(Error::io("change the mode of", &level.path))?;
        }
        let from_root = one.real.to_string_lossy().into_owned();
        self.directory(level, &from_root, "", state)
    }

    /// Makes a directory, or makes sure that there is one; whether it was made.
    fn one_directory(&self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path, stat: &Stat) -> Result<bool> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(present) if is_dir(&present) => return Ok(false),
            Ok(_) if self.copy.replace => remove_tree(parent, name, path)?,
            Ok(_) => return Err(Error::NotADirectory { path: path.into() }),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::io("look at", path)(error)),
        }
        mkdirat(parent, name, Mode::from_raw_mode(stat.st_mode & 0o7777))
            .map_err(Error::io("make the directory", path))?;
        Ok(true)
    }

    /// Copies what is meant of a directory, then gives it its looks.
    fn directory(&mut self, level: Level, from_root: &str, below: &str, state: &State) -> Result<()> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(Error::Limit { what: "the depth of a tree", limit: MAX_DEPTH as u64 });
        }
        let names = list(level.from.as_fd()).map_err(Error::io("list the directory", from_root))?;
        self.levels.push(level);
        let done = names.iter().try_for_each(|name| self.entry(name, from_root, below, state));
        let level = self.levels.pop();
        done?;
        let Some(level) = level else { return Ok(()) };
        if let (Some(into), true) = (&level.into, level.made || level.dress) {
            self.dress(into.as_fd(), level.from.as_fd(), &level.stat, &level.path)?;
        }
        Ok(())
    }

    fn entry(&mut self, name: &OsString, from_root: &str, below: &str, state: &State) -> Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let shown = level.path.join(name);
        let stat =
            statat(&level.from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::io("look at", &shown))?;
        if self.selection.is_all() && !is_dir(&stat) {
            return self.file(name, name, &stat);
        }
        let (from_root, below) = (join(from_root, name), join(below, name));
        let (taken, state) = self.selection.takes(&from_root, &below, state);
        if !is_dir(&stat) {
            return if taken { self.file(name, name, &stat) } else { Ok(()) };
        }
        if !taken && !self.selection.may_take_below(&from_root, &below) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let from = open_below(level.from.as_fd(), Path::new(name), flags, Mode::empty())
            .map_err(Error::io("open the directory", &shown))?;
        let level = Level {
            from,
            stat,
            path: shown,
            into: None,
            made: false,
            dress: taken && self.selection.include.is_none(),
            plain: None,
        };
        if !taken {
            return self.directory(level, &from_root, &below, &state);
        }
        self.levels.push(level);
        let opened = self.open_levels();
        let level = self.levels.pop();
        opened?;
        level.map_or(Ok(()), |level| self.directory(level, &from_root, &below, &state))
    }

    /// Makes the directories on the way that were not needed until now.
    fn open_levels(&mut self) -> Result<()> {
        for number in 0..self.levels.len() {
            if self.levels[number].into.is_some() {
                continue;
            }
            let Some(parent) = number.checked_sub(1).and_then(|above| self.levels[above].into.as_ref())
            else {
                continue;
            };
            let level = &self.levels[number];
            let name = level.path.file_name().unwrap_or(OsStr::new("."));
            let made = self.one_directory(parent.as_fd(), name, &level.path, &level.stat)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let into = open_below(parent.as_fd(), Path::new(name), flags, Mode::empty())
                .map_err(Error::io("open the directory", &level.path))?;
            let level = &mut self.levels[number];
            (level.into, level.made) = (Some(into), made);
        }
        Ok(())
    }

    /// Copies anything but a directory.
    fn file(&mut self, name: &OsStr, new_name: &OsStr, stat: &Stat) -> Result<()> {
        self.open_levels()?;
        let done = self.new_file(name, new_name, stat);
        // Most names are new, so nothing is looked for first.
        if !matches!(&done, Err(Error::Io { source, .. }) if is_there(source)) {
            return done;
        }
        let Some((level, into)) = self.levels.last().and_then(|level| Some((level, level.into.as_ref()?)))
        else {
            return Ok(());
        };
        let path = level.path.join(new_name);
        match rustix::fs::unlinkat(into, new_name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if self.copy.replace => {
                remove_tree(into.as_fd(), new_name, &path)?;
            }
            Err(Errno::ISDIR | Errno::PERM) => return Err(Error::IsADirectory { path }),
            Err(error) => return Err(Error::io("replace", path)(error)),
        }
        self.new_file(name, new_name, stat)
    }

    /// The same under a name that is free; else an error that says so.
    fn new_file(&mut self, name: &OsStr, new_name: &OsStr, stat: &Stat) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::RegularFile {
            return self.regular_file(name, new_name, stat);
        }
        let Some(level) = self.levels.last() else { return Ok(()) };
        let Some(into) = level.into.as_ref() else { return Ok(()) };
        let path = level.path.join(new_name);
        match kind {
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(&level.from, name, Vec::new())
                    .map_err(Error::io("read the link", &path))?;
                rustix::fs::symlinkat(&link, into, new_name).map_err(Error::io("make the link", &path))?;
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(into, new_name, kind, mode, stat.st_rdev)
                    .map_err(Error::io("make the device", &path))?;
            }
            // No archive can hold a socket.
            _ => return Ok(()),
        }
        let ids = self.ids(stat);
        let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
        rustix::fs::chownat(into, new_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("change the owner of", &path))?;
        if kind != FileType::Symlink {
            let mode = Mode::from_raw_mode(self.mode(stat)?);
            rustix::fs::chmodat(into, new_name, mode, AtFlags::empty())
                .map_err(Error::io("change the mode of", &path))?;
        }
        rustix::fs::utimensat(into, new_name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("set the times of", &path))
    }

    fn regular_file(&mut self, name: &OsStr, new_name: &OsStr, stat: &Stat) -> Result<()> {
        let (ids, mode) = (self.ids(stat), self.mode(stat)?);
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some(into) = level.into.as_ref() else { return Ok(()) };
        let path = level.path.join(new_name);
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                return rustix::fs::linkat(self.tree.fd(), first, into, new_name, AtFlags::empty())
                    .map_err(Error::io("make the hard link", path));
            }
        }
        // Not blocking: what was a file may have become a FIFO since.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let source = open_below(level.from.as_fd(), Path::new(name), flags, Mode::empty())
            .map_err(Error::io("open", &path))?;
        let plain = match level.plain {
            Some(plain) => plain,
            None => *level.plain.insert(is_plain(into.as_fd()).map_err(Error::io("look at", &level.path))?),
        };
        // Where that is all, it is made as it is to be.
        let as_made = plain && self.own == Some(ids) && mode & !0o777 == 0;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let first_mode = Mode::from_raw_mode(if as_made { mode } else { 0o600 });
        let target = open_below(into.as_fd(), Path::new(new_name), flags, first_mode)
            .map_err(Error::io("make the file", &path))?;
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let (source, target) = (File::from(source), File::from(target));
        let shared = self.reflink && content(&source, &target, stat).map_err(Error::io("write", &path))?;
        if !shared {
            self.reflink = false;
            plain_content(&source, &target, stat, &mut self.buffer).map_err(Error::io("write", &path))?;
        }
        if as_made {
            attributes(source.as_fd(), target.as_fd()).map_err(Error::io("copy the attributes of", &path))?;
            return rustix::fs::futimens(&target, &times(stat)).map_err(Error::io("set the times of", path));
        }
        self.dress(target.as_fd(), source.as_fd(), stat, &path)
    }

    /// Owner, mode, attributes and times as the source's or as asked for.
    fn dress(&self, target: BorrowedFd<'_>, source: BorrowedFd<'_>, stat: &Stat, path: &Path) -> Result<()> {
        let ids = self.ids(stat);
        let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
        rustix::fs::fchown(target, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))?;
        rustix::fs::fchmod(target, Mode::from_raw_mode(self.mode(stat)?))
            .map_err(Error::io("change the mode of", path))?;
        attributes(source, target).map_err(Error::io("copy the attributes of", path))?;
        rustix::fs::futimens(target, &times(stat)).map_err(Error::io("set the times of", path))
    }

    fn ids(&self, stat: &Stat) -> Ids {
        let own = Ids { uid: stat.st_uid, gid: stat.st_gid };
        self.owner.or(self.source.owner).unwrap_or(own)
    }

    fn mode(&self, stat: &Stat) -> Result<u32> {
        match &self.copy.mode {
            Some(mode) => mode.apply(stat.st_mode, is_dir(stat)),
            None => Ok(stat.st_mode & 0o7777),
        }
    }
}

fn join(path: &str, name: &OsStr) -> String {
    let name = name.to_string_lossy();
    if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |sec: i64, nsec: u64| Timespec { tv_sec: sec, tv_nsec: i64::try_from(nsec).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Shares the blocks; `false` where that is not possible.
fn content(source: &File, target: &File, stat: &Stat) -> std::io::Result<bool> {
    if stat.st_size == 0 {
        return Ok(true);
    }
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::PERM | Errno::ISDIR) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn plain_content(
    mut source: &File,
    mut target: &File,
    stat: &Stat,
    buffer: &mut Vec<u8>,
) -> std::io::Result<()> {
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size <= SMALL {
        // One byte more than there should be, to see the end in the same call.
        buffer.resize(usize::try_from(size).unwrap_or_default() + 1, 0);
        let count = source.read(buffer)?;
        target.write_all(&buffer[..count])?;
        if count as u64 == size {
            return Ok(());
        }
    }
    // copy_file_range where the kernel can, else read and write.
    std::io::copy(&mut source, &mut target).map(drop)
}

/// Whether somebody has the name already.
fn is_there(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AlreadyExists
}

/// Whether this process takes nothing away from modes. Asked of the kernel by a file, since the system call
/// can only ask by changing it.
fn has_no_umask() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.is_some_and(|mask| mask.trim().bytes().all(|digit| digit == b'0'))
}

/// Whether a directory gives what is made in it neither its group nor modes of its own.
fn is_plain(directory: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    if rustix::fs::fstat(directory)?.st_mode & Mode::SGID.bits() != 0 {
        return Ok(false);
    }
    match rustix::fs::fgetxattr(directory, c"system.posix_acl_default", &mut [0_u8; 0][..]) {
        Ok(length) => Ok(length == 0),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Copies the attributes that are part of an image.
pub(crate) fn attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut small = [0; 256];
    let names = match rustix::fs::flistxattr(source, &mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0; MAX_XATTR];
            let length = rustix::fs::flistxattr(source, &mut large[..])?;
            large.truncate(length);
            large
        }
        Err(error) => return Err(error),
    };
    for name in names.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        let mut value = vec![0; MAX_XATTR];
        let length = rustix::fs::fgetxattr(source, name, &mut value[..])?;
        match rustix::fs::fsetxattr(target, name, &value[..length], XattrFlags::empty()) {
            // A filesystem or a user that cannot have it: as BuildKit, the file comes without.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Attributes of the overlay and of the machine's security modules are none of an image.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}
