//! `ADD` of an archive: its entries go below the destination, resolved inside of the tree.
//!
//! The archive is the build file's, so not trusted: names and links never leave the destination's
//! tree, contents are read as data only, and decompression happens in this process.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use onggi_image::layer::{Entries, Entry, Kind};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::copier::is_kept;
use super::{Ids, Source, make_dirs, remove_tree, split};
use crate::error::{Error, Result};
use crate::graph::Copy;
use crate::tree::{Tree, is_dir, open_below};

/// How many entries an archive may have; the largest root filesystems have a million.
const MAX_ENTRIES: u64 = 10_000_000;
/// The memory that an xz stream may ask for: what `xz -9` needs.
const XZ_MEMORY_KIB: u32 = 65 << 10;

/// Unpacks the file if it is an archive; `false` if it is none.
pub(super) fn unpack(
    copy: &Copy,
    source: &Source<'_>,
    real: &Path,
    tree: &Tree,
    owner: Option<Ids>,
) -> Result<bool> {
    let regular = |stat: &rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !source.tree.lstat(real)?.as_ref().is_some_and(regular) {
        return Ok(false);
    }
    let file = File::from(source.tree.open(real, OFlags::RDONLY | OFlags::NONBLOCK)?);
    if !is_archive(&file).map_err(Error::io("read", real))? {
        return Ok(false);
    }
    (&file).rewind().map_err(Error::io("read", real))?;
    let into = tree.real_path(Path::new(&copy.destination), true)?;
    make_dirs(tree, &into, 0o755, owner)?;
    let stream = decoded(&file).map_err(Error::io("read", real))?;
    let mut unpacker = Unpacker { tree: Tree::new(tree.open_dir(&into)?), owner, times: VecDeque::new() };
    unpacker.all(stream, real)?;
    Ok(true)
}

/// Unpacks a whole archive below a directory: a context that came as one.
pub(crate) fn unpack_context(file: impl Read, into: &Tree) -> Result<()> {
    let stream = decoded(file).map_err(Error::io("read", "the archive"))?;
    let tree = Tree::new(into.open_dir(Path::new(""))?);
    Unpacker { tree, owner: None, times: VecDeque::new() }.all(stream, Path::new("the archive"))
}

/// Whether the stream, decompressed, begins with the header of an archive.
fn is_archive(file: &File) -> io::Result<bool> {
    let mut block = [0; 512];
    let mut stream = decoded(file)?;
    match stream.read_exact(&mut block) {
        Ok(()) => {}
        Err(error) if is_damage(&error) => return Ok(false),
        Err(error) => return Err(error),
    }
    if block.iter().all(|byte| *byte == 0) {
        return Ok(false);
    }
    let number = |field: &[u8]| {
        let text = String::from_utf8_lossy(field);
        u32::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
    };
    let Some(said) = number(&block[148..156]) else { return Ok(false) };
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    Ok(sum == said)
}

/// What decoders say of bytes that are not what their beginning promised.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof, Unsupported};
    matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof | Unsupported)
}

/// The stream with its compression undone, which is told by its first bytes.
fn decoded<'a>(file: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut file = BufReader::with_capacity(128 << 10, file);
    let start = file.fill_buf()?;
    if start.starts_with(b"BZh") {
        return Ok(Box::new(bzip2::read::MultiBzDecoder::new(file)));
    }
    if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        return Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY_KIB)));
    }
    let decoder = onggi_image::layer::decoder(file, None).map_err(io::Error::other)?;
    Ok(Box::new(decoder))
}

struct Unpacker {
    tree: Tree,
    owner: Option<Ids>,
    /// Times of directories, which are set when everything is in them.
    times: VecDeque<(PathBuf, Timestamps)>,
}

impl Unpacker {
    fn all(&mut self, stream: impl Read, shown: &Path) -> Result<()> {
        let mut entries = Entries::new(stream);
        let mut count = 0;
        while let Some(entry) = entries.next_entry()? {
            count += 1;
            if count > MAX_ENTRIES {
                return Err(Error::Limit { what: "the number of entries of an archive", limit: MAX_ENTRIES });
            }
            self.entry(&entry, &mut entries, shown)?;
        }
        while let Some((path, times)) = self.times.pop_back() {
            let dir = self.tree.open_dir(&path)?;
            rustix::fs::futimens(&dir, &times).map_err(Error::io("set the times of", path))?;
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &Entry, data: &mut Entries<R>, shown: &Path) -> Result<()> {
        let named = Path::new(OsStr::from_bytes(&entry.path));
        if named.components().any(|part| part == Component::ParentDir) {
            return Err(Error::Invalid {
                what: "entry of the archive",
                text: named.display().to_string(),
                problem: "its name leads upwards".into(),
            });
        }
        let path = self.tree.real_path(named, false)?;
        let times = times(entry);
        if path.as_os_str().is_empty() {
            if entry.kind == Kind::Directory {
                let dir = self.tree.open_dir(&path)?;
                self.dress(dir.as_fd(), entry, &path)?;
                self.times.push_front((path, times));
            }
            return Ok(());
        }
        let (above, name) = split(&path);
        make_dirs(&self.tree, above, 0o755, None)?;
        let dir = self.tree.open_dir(above)?;
        let present = self.tree.lstat(&path)?;
        if let Some(present) = &present
            && !(is_dir(present) && entry.kind == Kind::Directory)
        {
            remove_tree(dir.as_fd(), name, &path)?;
        }
        let mode = Mode::from_raw_mode(entry.mode & 0o7777);
        match &entry.kind {
            Kind::Directory => {
                if present.as_ref().is_none_or(|present| !is_dir(present)) {
                    rustix::fs::mkdirat(&dir, name, mode).map_err(Error::io("make the directory", &path))?;
                }
                let made = self.tree.open_dir(&path)?;
                self.dress(made.as_fd(), entry, &path)?;
                self.times.push_back((path, times));
                return Ok(());
            }
            Kind::File { size, sparse } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let file = open_below(dir.as_fd(), Path::new(name), flags, Mode::from_raw_mode(0o600))
                    .map_err(Error::io("make the file", &path))?;
                let mut file = File::from(file);
                let pieces =
                    sparse.as_ref().map_or_else(|| vec![(0, *size)], |sparse| sparse.pieces().to_vec());
                for (offset, length) in pieces {
                    file.seek(io::SeekFrom::Start(offset)).map_err(Error::io("write", &path))?;
                    let mut left = length;
                    while left > 0 {
                        let piece = data.content(left)?;
                        if piece.is_empty() {
                            return Err(Error::io("read", shown)(io::Error::from(
                                io::ErrorKind::UnexpectedEof,
                            )));
                        }
                        left -= piece.len() as u64;
                        file.write_all(piece).map_err(Error::io("write", &path))?;
                    }
                }
                file.set_len(*size).map_err(Error::io("write", &path))?;
                self.dress(file.as_fd(), entry, &path)?;
                return rustix::fs::futimens(&file, &times).map_err(Error::io("set the times of", &path));
            }
            Kind::HardLink(target) => {
                let target = self.tree.real_path(Path::new(OsStr::from_bytes(target)), false)?;
                return rustix::fs::linkat(self.tree.fd(), &target, &dir, name, AtFlags::empty())
                    .map_err(Error::io("make the hard link", &path));
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), &dir, name)
                    .map_err(Error::io("make the link", &path))?;
            }
            Kind::CharDevice(major, minor) => {
                self.node(&dir, name, FileType::CharacterDevice, mode, (*major, *minor), &path)?;
            }
            Kind::BlockDevice(major, minor) => {
                self.node(&dir, name, FileType::BlockDevice, mode, (*major, *minor), &path)?;
            }
            Kind::Fifo => self.node(&dir, name, FileType::Fifo, mode, (0, 0), &path)?,
        }
        let (uid, gid) = self.ids(entry)?;
        rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("change the owner of", &path))?;
        rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("set the times of", &path))
    }

    fn node(
        &self,
        dir: impl AsFd,
        name: &OsStr,
        kind: FileType,
        mode: Mode,
        (major, minor): (u32, u32),
        path: &Path,
    ) -> Result<()> {
        match rustix::fs::mknodat(dir, name, kind, mode, rustix::fs::makedev(major, minor)) {
            Err(Errno::PERM) => Err(Error::Unsupported {
                what: format!("the device {} of the archive", path.display()),
                why: "an ordinary user can't make devices; build as root, or leave it out".into(),
            }),
            other => other.map_err(Error::io("make the device", path)),
        }
    }

    fn ids(&self, entry: &Entry) -> Result<(Uid, Gid)> {
        let id = |id: u64| {
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or(Error::Limit { what: "an owner in the archive", limit: u64::from(u32::MAX - 1) })
        };
        let (uid, gid) = match self.owner {
            Some(ids) => (ids.uid, ids.gid),
            None => (id(entry.uid)?, id(entry.gid)?),
        };
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// Owner, mode and attributes.
    fn dress(&self, file: std::os::fd::BorrowedFd<'_>, entry: &Entry, path: &Path) -> Result<()> {
        let (uid, gid) = self.ids(entry)?;
        rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode & 0o7777))
            .map_err(Error::io("change the mode of", path))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_kept(name)) {
            match rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
                Err(error) => return Err(Error::io("set an attribute of", path)(error)),
            }
        }
        Ok(())
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: i64::from(entry.mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}
