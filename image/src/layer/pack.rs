//! Layer out: a directory tree becomes an archive, always the same one.
//!
//! What holds:
//! - The same tree gives the same bytes: names sorted by bytes, a directory
//!   before what is in it, owners as numbers only, no access and change times,
//!   PAX records only where a plain header can't say it, in a fixed order.
//! - Times are cut to whole seconds unless asked otherwise. Fractions are noise
//!   of the machine that built, double the headers (one PAX header an entry), and
//!   no peer writes them, so nobody expects to find them in an image.
//! - Hard links within the tree stay hard links: the first name in order carries
//!   the content. Holes are written as zeros, which every reader understands.
//! - An overlay's upper directory is written with whiteouts and opaque marks as
//!   the image specification has them ([`super::whiteout`]). The first name in an
//!   opaque directory is the mark.
//! - A file that changes its size while it is read is an error. Sockets, which
//!   no archive can hold, are left out and counted.
//!
//! Attributes kept: `user.*`, `trusted.*`, `security.capability` and POSIX ACLs.
//! Others (SELinux labels, IMA and EVM signatures) belong to the machine and are
//! left out.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufWriter, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::limits::{MAX_DEPTH, MAX_PATH, MAX_XATTR_VALUE};
use super::pax::{self, Time, Xattr};
use super::shift::Shift;
use super::whiteout::{OPAQUE, OverlayXattr, PREFIX};
use crate::{Error, FileProblem, Result};

/// What the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Files as they are.
    Tree,
    /// The upper directory of an overlay mounted with attributes of this kind,
    /// without `redirect_dir` and `metacopy`.
    OverlayUpper(OverlayXattr),
}

/// How to pack a tree.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// What the tree is.
    pub source: Source,
    /// Times later than this are set to it (seconds since 1970), as
    /// `SOURCE_DATE_EPOCH` has it.
    pub clamp_mtime: Option<i64>,
    /// Whether fractions of seconds are kept.
    pub nanoseconds: bool,
    /// Whether the root directory gets an entry (`./`). Layers of other tools
    /// have none.
    pub root_entry: bool,
    /// Paths that are not written, nor anything below them: without a leading slash.
    pub leave_out: BTreeSet<Vec<u8>>,
    /// Whether somebody may be writing to the tree. What grows is cut at the size that it had first, what
    /// shrinks is filled up with zeros (as by GNU tar), what disappears is left out; these are counted.
    pub live: bool,
    /// Whether this is an archive of files and no layer: a name that begins with `.wh.` is a name.
    pub plain: bool,
    /// Whose owners the tree has, if it is not the archive's.
    pub shift: Option<Shift>,
}

impl PackOptions {
    /// Whole seconds, no clamp, no entry for the root.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            clamp_mtime: None,
            nanoseconds: false,
            root_entry: false,
            leave_out: BTreeSet::new(),
            live: false,
            plain: false,
            shift: None,
        }
    }
}

/// What was packed, and what could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packed {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Bytes of the regular files, which listings show as size.
    pub file_bytes: u64,
    /// The largest user or group ID.
    pub max_id: u32,
    /// Sockets left out.
    pub sockets_skipped: u64,
    /// Attributes left out, since they belong to the machine.
    pub xattrs_skipped: u64,
    /// Files of a live tree that changed while they were read.
    pub changed: u64,
}

/// Writes a tree as an archive. The writer gets all of it, but is not flushed to
/// any disk.
pub fn pack(directory: BorrowedFd<'_>, out: impl Write, options: &PackOptions) -> Result<Packed> {
    let mut packer = Packer::new(out, options);
    packer.tree(directory)?;
    packer.finish()
}

/// Writes one name of a directory, with everything below it if it is one itself, as an archive in which it
/// is called `called`.
pub fn pack_entry(
    directory: BorrowedFd<'_>,
    name: &[u8],
    called: &[u8],
    out: impl Write,
    options: &PackOptions,
) -> Result<Packed> {
    let mut packer = Packer::new(out, options);
    packer.path = called.to_vec();
    if let Some(level) = packer.entry(directory, name)? {
        packer.walk(level)?;
    }
    packer.finish()
}

const BLOCK: usize = 512;
const BUFFER: usize = 64 << 10;

/// The largest numbers of a header's octal fields of 8 and 12 bytes.
const MAX_OCTAL_8: u64 = 0o7_777_777;
const MAX_OCTAL_12: u64 = 0o77_777_777_777;

fn write_error(source: std::io::Error) -> Error {
    Error::Stream { op: "write the layer", source }
}

/// A directory that is being written, and the names in it that are to come, the
/// next one last.
struct Level {
    directory: OwnedFd,
    names: Vec<Vec<u8>>,
    path_length: usize,
}

struct Packer<'a, W: Write> {
    out: BufWriter<W>,
    options: &'a PackOptions,
    /// First names of files with several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    report: Packed,
    /// The path of the entry at hand.
    path: Vec<u8>,
    /// For content on its way.
    buffer: Vec<u8>,
}

impl<'a, W: Write> Packer<'a, W> {
    fn new(out: W, options: &'a PackOptions) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER, out),
            options,
            links: HashMap::new(),
            report: Packed::default(),
            path: Vec::new(),
            buffer: vec![0; BUFFER],
        }
    }

    /// The end: two blocks of zeros.
    fn finish(mut self) -> Result<Packed> {
        self.write(&[0; 2 * BLOCK])?;
        self.out.flush().map_err(write_error)?;
        Ok(self.report)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.report.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(write_error)
    }

    fn io(&self, op: &'static str) -> impl FnOnce(Errno) -> Error {
        let path = PathBuf::from(std::ffi::OsString::from(os(&self.path)));
        move |error| Error::io(op, path, error)
    }

    fn refuse(&self, problem: FileProblem) -> Error {
        Error::File { path: os(&self.path).into(), problem }
    }

    fn tree(&mut self, root: BorrowedFd<'_>) -> Result<()> {
        // A descriptor of its own: the caller's may be for a path only, and has a
        // position that reading would move.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::openat(root, ".", flags, Mode::empty()).map_err(self.io("open the directory"))?;
        let stat = rustix::fs::fstat(&root).map_err(self.io("look at"))?;
        let root = self.enter(root, &stat)?;
        self.walk(root)
    }

    /// Writes everything below a directory.
    fn walk(&mut self, top: Level) -> Result<()> {
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            self.path.truncate(level.path_length);
            if level.path_length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            if self.path.len() > MAX_PATH || levels.len() > MAX_DEPTH {
                return Err(self.refuse(FileProblem::TooDeep));
            }
            if self.options.leave_out.contains(&self.path) {
                continue;
            }
            let Some(parent) = levels.last().map(|level| level.directory.as_fd()) else { break };
            match self.entry(parent, &name) {
                Ok(level) => levels.extend(level),
                Err(Error::Io { source, .. })
                    if self.options.live && source.kind() == std::io::ErrorKind::NotFound =>
                {
                    self.report.changed += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes a directory's own entry and lists what is in it.
    fn enter(&mut self, directory: OwnedFd, stat: &Stat) -> Result<Level> {
        let (xattrs, opaque) = self.xattrs(&Place::Open(directory.as_fd()))?;
        let is_root = self.path.is_empty();
        if !is_root || self.options.root_entry {
            let name = if is_root { b"./".to_vec() } else { [&self.path[..], b"/"].concat() };
            self.header(&name, EntryType::Directory, stat, 0, &[], xattrs)?;
        }
        if opaque {
            let name = [&self.path[..], if is_root { b"" } else { b"/" }, OPAQUE].concat();
            self.mark(&name)?;
        }
        let mut names = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let mut entries = RawDir::new(&directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(self.io("list the directory"))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Level { directory, names, path_length: self.path.len() })
    }

    /// Writes an entry; for a directory, gives what is to be written next.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Level>> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.io("look at"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            if self.options.source == Source::Tree {
                return Err(self.refuse(FileProblem::WhiteoutDevice));
            }
            let parent = self.path.len() - name.len();
            let name = [&self.path[..parent], PREFIX, name].concat();
            self.mark(&name)?;
            return Ok(None);
        }
        if name.starts_with(PREFIX) && !self.options.plain {
            return Err(self.refuse(FileProblem::WhiteoutName));
        }
        let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | nofollow;
            let directory = rustix::fs::openat(parent, name, flags, Mode::empty())
                .map_err(self.io("open the directory"))?;
            return self.enter(directory, &stat).map(Some);
        }
        let path = self.path.clone();
        if kind == FileType::Socket {
            self.report.sockets_skipped += 1;
            return Ok(None);
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key).cloned() {
                self.header(&path, EntryType::Link, &stat, 0, &first, Vec::new())?;
                return Ok(None);
            }
            self.links.insert(key, path.clone());
        }
        if kind == FileType::RegularFile {
            // Not blocking: what was a file may have become a FIFO since.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | nofollow;
            let file =
                rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(self.io("open the file"))?;
            let stat = rustix::fs::fstat(&file).map_err(self.io("look at"))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(self.refuse(FileProblem::Changed));
            }
            let (xattrs, _) = self.xattrs(&Place::Open(file.as_fd()))?;
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            self.header(&path, EntryType::Regular, &stat, size, &[], xattrs)?;
            self.content(&file, size)?;
            return Ok(None);
        }
        let (xattrs, _) = self.xattrs(&Place::Named(parent, name))?;
        let mut target = Vec::new();
        let entry_type = match kind {
            FileType::Symlink => {
                let link =
                    rustix::fs::readlinkat(parent, name, Vec::new()).map_err(self.io("read the link"))?;
                target = link.into_bytes();
                EntryType::Symlink
            }
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            _ => return Err(self.refuse(FileProblem::UnknownType)),
        };
        self.header(&path, entry_type, &stat, 0, &target, xattrs)?;
        Ok(None)
    }

    fn content(&mut self, file: &OwnedFd, size: u64) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.copy(file, size, &mut buffer);
        self.buffer = buffer;
        result?;
        self.pad(size)
    }

    fn copy(&mut self, file: &OwnedFd, size: u64, buffer: &mut [u8]) -> Result<()> {
        let mut left = size;
        loop {
            // One byte more than there should be shows that the file has grown.
            let want = usize::try_from(left + 1).unwrap_or(usize::MAX).min(BUFFER);
            match rustix::io::read(file, &mut buffer[..want]) {
                Ok(0) if left == 0 => return Ok(()),
                Ok(n) if n > 0 && n as u64 <= left => {
                    self.write(&buffer[..n])?;
                    left -= n as u64;
                }
                Ok(n) if self.options.live => {
                    self.report.changed += 1;
                    if n > 0 {
                        return self.write(&buffer[..usize::try_from(left).unwrap_or(0)]);
                    }
                    buffer.fill(0);
                    while left > 0 {
                        let n = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
                        self.write(&buffer[..n])?;
                        left -= n as u64;
                    }
                    return Ok(());
                }
                Ok(_) => return Err(self.refuse(FileProblem::Changed)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.io("read the file")(error)),
            }
        }
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.write(&[0; BLOCK][..usize::try_from(padding).unwrap_or(0)])
    }

    /// A whiteout or opaque mark. Its metadata means nothing and is fixed.
    fn mark(&mut self, name: &[u8]) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(0);
        let mut records = Vec::new();
        set_path(&mut header, &mut records, name);
        self.emit(header, &records, name)
    }

    fn header(
        &mut self,
        name: &[u8],
        kind: EntryType,
        stat: &Stat,
        size: u64,
        link: &[u8],
        xattrs: Vec<Xattr>,
    ) -> Result<()> {
        self.report.file_bytes += size;
        let (uid, gid) = match &self.options.shift {
            Some(shift) => shift.inside(stat.st_uid, stat.st_gid),
            None => (stat.st_uid, stat.st_gid),
        };
        self.report.max_id = self.report.max_id.max(uid).max(gid);
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        set_path(&mut header, &mut records, name);
        let field = &mut header.as_old_mut().linkname;
        if link.len() <= field.len() && is_plain(link) {
            field[..link.len()].copy_from_slice(link);
        } else {
            set_cut(field, link);
            pax::append(&mut records, b"linkpath", link);
        }
        let mut number = |keyword: &[u8], value: u64, limit| {
            if value <= limit {
                return value;
            }
            pax::append(&mut records, keyword, value.to_string().as_bytes());
            0
        };
        header.set_uid(number(b"uid", uid.into(), MAX_OCTAL_8));
        header.set_gid(number(b"gid", gid.into(), MAX_OCTAL_8));
        header.set_size(number(b"size", size, MAX_OCTAL_12));
        let mtime = self.time(stat);
        match u64::try_from(mtime.seconds) {
            Ok(seconds) if seconds <= MAX_OCTAL_12 && mtime.nanoseconds == 0 => header.set_mtime(seconds),
            seconds => {
                header.set_mtime(seconds.map_or(0, |seconds| seconds.min(MAX_OCTAL_12)));
                pax::append(&mut records, b"mtime", mtime.to_string().as_bytes());
            }
        }
        if matches!(kind, EntryType::Char | EntryType::Block)
            && let Some(ustar) = header.as_ustar_mut()
        {
            ustar.set_device_major(rustix::fs::major(stat.st_rdev));
            ustar.set_device_minor(rustix::fs::minor(stat.st_rdev));
        }
        for (name, value) in xattrs {
            pax::append_xattr(&mut records, &name, &value);
        }
        self.emit(header, &records, name)
    }

    fn time(&self, stat: &Stat) -> Time {
        let nanoseconds =
            if self.options.nanoseconds { u32::try_from(stat.st_mtime_nsec).unwrap_or(0) } else { 0 };
        let time = Time { seconds: stat.st_mtime, nanoseconds };
        match self.options.clamp_mtime {
            Some(seconds) => time.min(Time { seconds, nanoseconds: 0 }),
            None => time,
        }
    }

    /// Writes a header, after an extended one if there are records.
    fn emit(&mut self, mut header: Header, records: &[u8], name: &[u8]) -> Result<()> {
        self.report.entries += 1;
        if !records.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.set_mode(0o644);
            extended.set_uid(0);
            extended.set_gid(0);
            extended.set_mtime(0);
            extended.set_size(records.len() as u64);
            let base = name.split(|&b| b == b'/').rfind(|part| !part.is_empty()).unwrap_or(b".");
            set_cut(&mut extended.as_old_mut().name, &[b"PaxHeaders/", base].concat());
            extended.set_cksum();
            self.write(extended.as_bytes())?;
            self.write(records)?;
            self.pad(records.len() as u64)?;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    /// The attributes to be kept, sorted by name, and whether the overlay's
    /// opaque mark is among them.
    fn xattrs(&mut self, place: &Place<'_>) -> Result<(Vec<Xattr>, bool)> {
        let names = match place.names() {
            Ok(names) if names.is_empty() => return Ok((Vec::new(), false)),
            Ok(names) => names,
            Err(Errno::OPNOTSUPP) => return Ok((Vec::new(), false)),
            Err(error) => return Err(self.io("list the attributes of")(error)),
        };
        let (mut kept, mut opaque) = (Vec::new(), false);
        for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
            let get = |packer: &Self| place.value(name).map_err(packer.io("read an attribute of"));
            if OverlayXattr::owns(name) {
                opaque |= self.overlay_xattr(name, || get(self))?;
            } else if is_kept(name) {
                if name.contains(&b'=') {
                    return Err(
                        self.refuse(FileProblem::XattrName(String::from_utf8_lossy(name).into_owned()))
                    );
                }
                kept.push((name.to_vec(), get(self)?));
            } else {
                self.report.xattrs_skipped += 1;
            }
        }
        kept.sort_unstable();
        Ok((kept, opaque))
    }

    /// Reads one of overlayfs's own attributes: true for an opaque mark.
    fn overlay_xattr(&self, name: &[u8], value: impl FnOnce() -> Result<Vec<u8>>) -> Result<bool> {
        let refuse = || self.refuse(FileProblem::OverlayXattr(String::from_utf8_lossy(name).into_owned()));
        let prefix: &[u8] = match self.options.source {
            Source::OverlayUpper(OverlayXattr::Trusted) => b"trusted.overlay.",
            Source::OverlayUpper(OverlayXattr::User) => b"user.overlay.",
            Source::Tree => return Err(refuse()),
        };
        match name.strip_prefix(prefix) {
            Some(b"opaque") => match &value()?[..] {
                b"y" => Ok(true),
                b"n" => Ok(false),
                _ => Err(refuse()),
            },
            // Bookkeeping without a meaning outside of this mount.
            Some(b"origin" | b"impure" | b"nlink" | b"upper" | b"uuid") => Ok(false),
            // Redirects, metadata-only copies and what is yet to be invented
            // would make the layer say something else than the tree.
            _ => Err(refuse()),
        }
    }
}

/// Attributes that are part of an image.
fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// Where attributes are read.
enum Place<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a [u8]),
}

impl Place<'_> {
    /// The kernel goes straight to the open directory; the name isn't followed.
    fn path(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
        [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat()
    }

    fn names(&self) -> rustix::io::Result<Vec<u8>> {
        retry_larger(|buffer| match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::Named(fd, name) => rustix::fs::llistxattr(&Self::path(*fd, name)[..], buffer),
        })
    }

    fn value(&self, attribute: &[u8]) -> rustix::io::Result<Vec<u8>> {
        retry_larger(|buffer| match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, attribute, buffer),
            Self::Named(fd, name) => rustix::fs::lgetxattr(&Self::path(*fd, name)[..], attribute, buffer),
        })
    }
}

/// Most files have no attributes, and few have long ones: the first question
/// asks into a small buffer.
fn retry_larger(ask: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0; 512];
    match ask(&mut small) {
        Ok(length) => return Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    // The system allows no list and no value longer than this.
    let mut large = vec![0; MAX_XATTR_VALUE];
    let length = ask(&mut large)?;
    large.truncate(length);
    Ok(large)
}

/// Whether a name needs no extended header: POSIX has ASCII in plain ones. What
/// is no UTF-8 either can't stand in an extended header, and every reader takes
/// the bytes of a plain one as they are.
fn is_plain(name: &[u8]) -> bool {
    name.is_ascii() || std::str::from_utf8(name).is_err()
}

/// As much of a name as fits, for readers that know no extended headers.
fn set_cut(field: &mut [u8], name: &[u8]) {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
}

/// Sets the name: plain, split at a slash into prefix and name, or in a record.
fn set_path(header: &mut Header, records: &mut Vec<u8>, path: &[u8]) {
    const NAME: usize = 100;
    const PREFIX: usize = 155;
    if is_plain(path) {
        if path.len() <= NAME {
            header.as_old_mut().name[..path.len()].copy_from_slice(path);
            return;
        }
        // The leftmost slash that leaves a name short enough.
        let from = path.len().saturating_sub(NAME + 1).max(1);
        let split = (from..path.len() - 1).find(|&at| path[at] == b'/').filter(|&at| at <= PREFIX);
        if let (Some(at), Some(ustar)) = (split, header.as_ustar_mut()) {
            ustar.prefix[..at].copy_from_slice(&path[..at]);
            ustar.name[..path.len() - at - 1].copy_from_slice(&path[at + 1..]);
            return;
        }
    }
    set_cut(&mut header.as_old_mut().name, path);
    pax::append(records, b"path", path);
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}
