//! A tar archive as a sequence of entries, read strictly and once.
//!
//! Two readers that disagree about where an entry begins show two different
//! trees under one digest (CVE-2025-62518). So whatever readers are known to
//! treat differently is refused here, with the name of the entry: conflicting
//! sizes, content where there can be none, repeated or dangling extended
//! headers, wrong checksums, a lone zero block.
//!
//! ```text
//! [x: PAX header][records…]  or  [L: GNU long name][name]     at most one of each kind
//! [header][content, filled up to 512]   …   [zero block][zero block]  anything
//! ```
//!
//! The `tar` crate gives the layout of the blocks. Its own iterator can't serve
//! here: it splits PAX records at newlines (also inside binary attributes), does
//! not know PAX sparse files and picks one of two conflicting sizes.

use std::io::Read;

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::header::{self, BLOCK};
use super::limits::{MAX_EXTENDED_HEADER, MAX_PATH, MAX_SPARSE_PIECES};
use super::pax::{self, Pax, Time, Xattr};
use super::sparse::{self, Piece, Sparse};
use crate::{EntryProblem, Error, Result};

/// What is read at once. Measured: with 256 KiB a layer takes twice as long,
/// since the bytes have left the nearer caches before they are written.
const BUFFER: usize = 64 << 10;

/// The largest size that a ustar header can express in octal.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;

/// One entry. Its content, if any, is read from [`Entries::content`].
#[derive(Debug)]
pub struct Entry {
    /// The name as the archive has it, not yet checked.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions with set-id and sticky bits (0o7777).
    pub mode: u32,
    /// Owner; the archive can hold more than the system's 32 bits.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes by name.
    pub xattrs: Vec<Xattr>,
}

/// The type of an entry and what belongs to that type only.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; with its size.
    File {
        /// The size of the file, holes included.
        size: u64,
        /// Where the content goes, if the file has holes.
        sparse: Option<Sparse>,
    },
    /// A directory.
    Directory,
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
    /// Another name of the entry with this name.
    HardLink(Vec<u8>),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Reads entries one after another. See the module for what it refuses.
pub struct Entries<R> {
    inner: R,
    buffer: Box<[u8]>,
    /// The part of `buffer` that is filled and not yet consumed.
    filled: std::ops::Range<usize>,
    /// Bytes of the archive before `filled`, for messages.
    position: u64,
    /// Content of the current entry that is still to come, and its padding.
    content: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> Entries<R> {
    /// Begins to read an archive.
    pub fn new(inner: R) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { inner, buffer, filled: 0..0, position: 0, content: 0, padding: 0, ended: false }
    }

    /// Reads more; false at the end of the stream.
    fn refill(&mut self) -> Result<bool> {
        if self.filled.is_empty() {
            self.filled = 0..0;
        } else if self.filled.end == self.buffer.len() {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        loop {
            match self.inner.read(&mut self.buffer[self.filled.end..]) {
                Ok(n) => {
                    self.filled.end += n;
                    return Ok(n > 0);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Stream { op: "read the layer", source }),
            }
        }
    }

    fn advance(&mut self, n: usize) {
        self.filled.start += n;
        self.position += n as u64;
    }

    fn corrupt(&self, problem: impl std::fmt::Display) -> Error {
        Error::Corrupt {
            what: "the layer archive".to_owned(),
            problem: format!("{problem} at byte {}", self.position),
        }
    }

    /// The next block, or nothing where the stream ends at a block's border.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        while self.filled.len() < BLOCK {
            if !self.refill()? {
                return match self.filled.len() {
                    0 => Ok(None),
                    _ => Err(self.corrupt("it ends within a header")),
                };
            }
        }
        let mut block = [0; BLOCK];
        block.copy_from_slice(&self.buffer[self.filled.start..][..BLOCK]);
        self.advance(BLOCK);
        Ok(Some(block))
    }

    fn skip(&mut self, mut n: u64) -> Result<()> {
        while n > 0 {
            if self.filled.is_empty() && !self.refill()? {
                return Err(self.corrupt("it ends within an entry"));
            }
            let step = usize::try_from(n).unwrap_or(usize::MAX).min(self.filled.len());
            self.advance(step);
            n -= step as u64;
        }
        Ok(())
    }

    /// The next piece of the current entry's content, at most `limit` bytes;
    /// empty only when there is no more content or `limit` is 0.
    ///
    /// For a sparse file this is the content of its pieces, one after another.
    pub fn content(&mut self, limit: u64) -> Result<&[u8]> {
        let limit = limit.min(self.content);
        if limit == 0 {
            return Ok(&[]);
        }
        if self.filled.is_empty() && !self.refill()? {
            return Err(self.corrupt("it ends within an entry"));
        }
        let step = usize::try_from(limit).unwrap_or(usize::MAX).min(self.filled.len());
        let start = self.filled.start;
        self.content -= step as u64;
        self.advance(step);
        Ok(&self.buffer[start..start + step])
    }

    /// The content of an extended header.
    fn extension(&mut self, size: u64, name: &[u8]) -> Result<Vec<u8>> {
        if size > MAX_EXTENDED_HEADER {
            let what = "extended header in bytes";
            return Err(refuse(name, EntryProblem::Limit { what, limit: MAX_EXTENDED_HEADER }));
        }
        self.content = size;
        let mut data = Vec::new();
        loop {
            let piece = self.content(u64::MAX)?;
            if piece.is_empty() {
                break;
            }
            data.extend_from_slice(piece);
        }
        self.skip(padding(size))?;
        Ok(data)
    }

    /// The records of a PAX header. Some readers go on in the rest of the last block as long as it isn't zero.
    fn records(&mut self, size: u64, name: &[u8]) -> Result<Vec<u8>> {
        let mut block = self.extension(size.saturating_add(padding(size)), name)?;
        let end = usize::try_from(size).unwrap_or(usize::MAX);
        if block.get(end).is_some_and(|byte| *byte != 0) {
            return Err(refuse(name, EntryProblem::ExtendedHeader("goes on behind its end")));
        }
        block.truncate(end);
        Ok(block)
    }

    /// The content of GNU's header for a long name: up to a zero byte. Some readers look for that in the whole of the
    /// last block, others only as far as the size says.
    fn long_name(&mut self, size: u64, name: &[u8]) -> Result<Vec<u8>> {
        let block = self.extension(size.saturating_add(padding(size)), name)?;
        let text = header::text(&block);
        if text.len() as u64 > size {
            return Err(refuse(name, EntryProblem::ExtendedHeader("goes on behind its end")));
        }
        Ok(text.to_vec())
    }

    /// The next entry, or nothing at the end of the archive. Content of the
    /// entry before that was not read is passed over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        self.skip(self.content + self.padding)?;
        (self.content, self.padding) = (0, 0);
        let mut pax: Option<Pax> = None;
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        loop {
            let extended = pax.is_some() || long_name.is_some() || long_link.is_some();
            let Some(block) = self.block()? else {
                // Some writers leave the zero blocks out; all readers accept that.
                if extended {
                    return Err(self.corrupt("it ends after an extended header"));
                }
                self.ended = true;
                return Ok(None);
            };
            if block.iter().all(|&b| b == 0) {
                if extended {
                    return Err(self.corrupt("it ends after an extended header"));
                }
                if let Some(second) = self.block()?
                    && second.iter().any(|&b| b != 0)
                {
                    return Err(self.corrupt("a lone zero block stands"));
                }
                self.ended = true;
                return Ok(None);
            }
            if !header::checksum_is_right(&block) {
                self.position -= BLOCK as u64;
                return Err(self.corrupt("a header with a wrong checksum stands"));
            }
            let header = Header::from_byte_slice(&block);
            let name = header::path(header);
            let fail = |problem| refuse(&name, problem);
            let size = header::unsigned(&header.as_old().size, "size").map_err(fail)?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let data = self.records(size, &name)?;
                    let parsed = pax::parse(&data).map_err(fail)?;
                    if pax.replace(parsed).is_some() {
                        return Err(fail(EntryProblem::ExtendedHeader("comes twice")));
                    }
                }
                EntryType::XGlobalHeader => {
                    if extended {
                        return Err(fail(EntryProblem::ExtendedHeader("stands before a global one")));
                    }
                    let data = self.records(size, &name)?;
                    pax::check_global(&data).map_err(fail)?;
                }
                EntryType::GNULongName | EntryType::GNULongLink => {
                    let data = self.long_name(size, &name)?;
                    let slot = match header.entry_type() {
                        EntryType::GNULongName => &mut long_name,
                        _ => &mut long_link,
                    };
                    if slot.replace(data).is_some() {
                        return Err(fail(EntryProblem::ExtendedHeader("comes twice")));
                    }
                }
                _ => return self.entry(header, pax.unwrap_or_default(), long_name, long_link).map(Some),
            }
        }
    }

    /// Puts an entry together from its header and what stood before it.
    fn entry(
        &mut self,
        header: &Header,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let old = header.as_old();
        // Which of the two counts is another for Go and Python than for GNU.
        let pax_name = pax.sparse.name.as_ref().or(pax.path.as_ref());
        for (one, other) in [(pax_name, &long_name), (pax.linkpath.as_ref(), &long_link)] {
            if let (Some(one), Some(other)) = (one, other)
                && one != other
            {
                return Err(refuse(one, EntryProblem::ExtendedHeader("comes twice, with another name")));
            }
        }
        let path = pax.path.or(long_name).unwrap_or_else(|| header::path(header));
        let path = pax.sparse.name.clone().unwrap_or(path);
        let fail = |problem| refuse(&path, problem);
        let link = pax.linkpath.or(long_link).unwrap_or_else(|| header::text(&old.linkname).to_vec());
        if path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(fail(EntryProblem::Limit { what: "path in bytes", limit: MAX_PATH as u64 }));
        }

        let field = header::unsigned(&old.size, "size").map_err(fail)?;
        let size = match pax.size {
            None => field,
            Some(size) if size == field => size,
            // What a header can't express stands there as 0 (Go, Python, GNU)
            // or as the largest number (libarchive).
            Some(size) if size > MAX_OCTAL_SIZE && matches!(field, 0 | MAX_OCTAL_SIZE) => size,
            Some(size) => return Err(fail(EntryProblem::SizeConflict { pax: size, header: field })),
        };
        let type_byte = old.linkflag[0];
        let is_file = matches!(type_byte, b'0' | 0 | b'7' | b'S');
        // Before ustar, a directory was a name with a slash at its end.
        let is_old_directory = type_byte == 0 && path.ends_with(b"/");
        // Some readers ask the header's name for it, others the whole one, and only one of them passes over content.
        if type_byte == 0 && header::text(&old.name).ends_with(b"/") != is_old_directory {
            return Err(fail(EntryProblem::ExtendedHeader(
                "and its header disagree whether it is a directory",
            )));
        }
        let no_content = |kind, what| match size {
            0 => Ok(kind),
            size => Err(fail(EntryProblem::UnexpectedContent { kind: what, size })),
        };
        let device = || header::device(header).map_err(fail);
        if pax.sparse.is_present() && !matches!(type_byte, b'0' | 0) {
            return Err(fail(EntryProblem::Sparse("stands at what is not a regular file")));
        }
        let kind = match type_byte {
            _ if is_old_directory => no_content(Kind::Directory, "a directory")?,
            b'5' => no_content(Kind::Directory, "a directory")?,
            b'1' => no_content(Kind::HardLink(link), "a hard link")?,
            b'2' => no_content(Kind::Symlink(link), "a symbolic link")?,
            b'3' => device().and_then(|(a, b)| no_content(Kind::CharDevice(a, b), "a device"))?,
            b'4' => device().and_then(|(a, b)| no_content(Kind::BlockDevice(a, b), "a device"))?,
            b'6' => no_content(Kind::Fifo, "a named pipe")?,
            _ if is_file => Kind::File { size, sparse: None },
            other => return Err(fail(EntryProblem::Type(other))),
        };
        let mut entry = Entry {
            mode: u32::try_from(header::unsigned(&old.mode, "mode").map_err(fail)? & 0o7777).unwrap_or(0),
            uid: pax.uid.map_or_else(|| header::unsigned(&old.uid, "uid").map_err(fail), Ok)?,
            gid: pax.gid.map_or_else(|| header::unsigned(&old.gid, "gid").map_err(fail), Ok)?,
            mtime: pax.mtime.map_or_else(|| header::mtime(header).map_err(fail), Ok)?,
            xattrs: pax.xattrs.into_iter().collect(),
            kind,
            path: Vec::new(),
        };
        if matches!(entry.kind, Kind::File { .. }) {
            (self.content, self.padding) = (size, padding(size));
            let map = if type_byte == b'S' {
                Some(self.gnu_sparse(header).map_err(|error| error.or_entry(&path))?)
            } else if pax.sparse.is_present() {
                Some(self.pax_sparse(pax.sparse).map_err(|error| error.or_entry(&path))?)
            } else {
                None
            };
            if let Some((real_size, pieces)) = map {
                let map = Sparse::new(pieces, real_size, self.content).map_err(fail)?;
                entry.kind = Kind::File { size: real_size, sparse: Some(map) };
            }
        }
        entry.path = path;
        Ok(entry)
    }

    /// The map of GNU's old form: four pieces in the header, more in blocks
    /// behind it, which don't count as content.
    fn gnu_sparse(&mut self, header: &Header) -> Result<(u64, Vec<Piece>), Failure> {
        let gnu = header.as_gnu().ok_or(EntryProblem::Sparse("stands in a header that is not GNU's"))?;
        let real_size = header::unsigned(&gnu.realsize, "sparse size")?;
        let mut pieces = Vec::new();
        sparse::append_gnu(&mut pieces, &gnu.sparse)?;
        let mut more = gnu.isextended[0] != 0;
        while more {
            let block = self.block()?.ok_or_else(|| self.corrupt("it ends within a sparse map"))?;
            let mut extension = GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&block);
            sparse::append_gnu(&mut pieces, &extension.sparse)?;
            more = extension.isextended[0] != 0;
        }
        Ok((real_size, pieces))
    }

    /// The map of PAX forms 0.0, 0.1 (in the records) and 1.0 (before the
    /// content, as decimal lines filled up to a block).
    fn pax_sparse(&mut self, pax: pax::PaxSparse) -> Result<(u64, Vec<Piece>), Failure> {
        let real_size = pax.real_size.ok_or(EntryProblem::Sparse("has no size"))?;
        match (pax.major.unwrap_or(0), pax.minor.unwrap_or(0)) {
            (0, _) => {
                if pax.count.is_some_and(|count| count != pax.pieces.len() as u64) {
                    return Err(EntryProblem::Sparse("has another length than it says").into());
                }
                Ok((real_size, pax.pieces))
            }
            (1, 0) => {
                let mut text = sparse::Lines::default();
                let count = self.sparse_line(&mut text)?;
                if count > MAX_SPARSE_PIECES as u64 {
                    let what = "number of sparse pieces";
                    return Err(EntryProblem::Limit { what, limit: MAX_SPARSE_PIECES as u64 }.into());
                }
                let mut pieces = Vec::new();
                for _ in 0..count {
                    pieces.push((self.sparse_line(&mut text)?, self.sparse_line(&mut text)?));
                }
                Ok((real_size, pieces))
            }
            _ => Err(EntryProblem::Sparse("is of an unknown form").into()),
        }
    }

    fn sparse_line(&mut self, text: &mut sparse::Lines) -> Result<u64, Failure> {
        loop {
            if let Some(number) = text.next()? {
                return Ok(number);
            }
            if self.content < BLOCK as u64 {
                return Err(EntryProblem::Sparse("ends within a line").into());
            }
            let block = self.block()?.ok_or_else(|| self.corrupt("it ends within a sparse map"))?;
            self.content -= BLOCK as u64;
            text.push(&block);
        }
    }

    /// Reads to the end of the stream, so that whoever hashes it has seen all.
    /// Tells how many bytes stood behind the end of the archive.
    pub fn drain(&mut self) -> Result<u64> {
        let mut trailing = 0;
        loop {
            trailing += self.filled.len() as u64;
            self.advance(self.filled.len());
            if !self.refill()? {
                return Ok(trailing);
            }
        }
    }
}

/// Bytes that fill the last block.
fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// The entry with that name is refused.
pub(crate) fn refuse(name: &[u8], problem: EntryProblem) -> Error {
    Error::Entry { name: String::from_utf8_lossy(name).into_owned(), problem }
}

/// Either the stream failed or the entry is bad.
pub(crate) enum Failure {
    Stream(Error),
    Entry(EntryProblem),
}

impl Failure {
    fn or_entry(self, name: &[u8]) -> Error {
        match self {
            Self::Stream(error) => error,
            Self::Entry(problem) => refuse(name, problem),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Stream(error)
    }
}

impl From<EntryProblem> for Failure {
    fn from(problem: EntryProblem) -> Self {
        Self::Entry(problem)
    }
}
