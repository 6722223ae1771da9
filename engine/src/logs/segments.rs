//! The files of one log: their names, their order, and what a rotation does to them.
//!
//! ```text
//!   rotate:  remove .2   .1 ─► .2   (current) ─► .1   new (current)   [.1 ─► .1.gz]
//! ```
//!
//! Any step may be the last one before a crash; readers and the next rotation take the files as they find them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::{Mode, OFlags};

use super::entry::{Decoder, Format};

/// A log is as public as what is in it: the owner's.
const MODE: Mode = Mode::from_raw_mode(0o640);
/// Compression must be quicker than the program writes.
const GZIP_LEVEL: u32 = 1;
const ZSTD_LEVEL: i32 = 1;

/// Where a log lies.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    name: String,
    pub(super) format: Format,
}

/// One file of a log, open: it can be read to its end whatever happens to its name.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: File,
    pub(super) compressed: bool,
    format: Format,
    /// As long as the file is open, no other has this number.
    inode: u64,
}

impl Segments {
    pub(super) fn new(dir: &Path, id: &str, format: Format) -> Self {
        Self { dir: dir.to_owned(), name: format.file_name(id), format }
    }

    /// The file that is being written.
    pub(super) fn current(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    fn rotated(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{}.{number}", self.name))
    }

    fn compressed(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{}.{number}{}", self.name, self.format.compressed_suffix()))
    }

    /// Opens the current file for appending, made if missing.
    pub(super) fn open_current(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.current(), flags, MODE)?.into())
    }

    /// Moves every file one place on, and what is beyond `max_files` away.
    pub(super) fn rotate(&self, max_files: u32, compress: bool) -> io::Result<()> {
        if max_files < 2 {
            return remove(&self.current());
        }
        let oldest = max_files - 1;
        for path in [self.rotated(oldest), self.compressed(oldest)] {
            remove(&path)?;
        }
        for number in (1..oldest).rev() {
            rename(&self.rotated(number), &self.rotated(number + 1))?;
            rename(&self.compressed(number), &self.compressed(number + 1))?;
        }
        rename(&self.current(), &self.rotated(1))?;
        if compress {
            // Where there is no room, the file stays as it is, and is read as it is.
            let _ = self.compress(1);
        }
        Ok(())
    }

    /// Replaces a rotated file by its compressed form, which appears at once.
    fn compress(&self, number: u32) -> io::Result<()> {
        let (from, to) = (self.rotated(number), self.compressed(number));
        let beside = self.dir.join(format!("{}.tmp", self.name));
        let compressed = (|| {
            let mut input = File::open(&from)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut out = BufWriter::new(File::from(rustix::fs::open(&beside, flags, MODE)?));
            match self.format {
                Format::Json => {
                    let mut encoder = GzEncoder::new(&mut out, Compression::new(GZIP_LEVEL));
                    io::copy(&mut input, &mut encoder)?;
                    encoder.finish()?;
                }
                Format::Local => {
                    let mut encoder = zstd::stream::write::Encoder::new(&mut out, ZSTD_LEVEL)?;
                    io::copy(&mut input, &mut encoder)?;
                    encoder.finish()?;
                }
            }
            out.flush()?;
            fs::rename(&beside, &to)?;
            fs::remove_file(&from)
        })();
        if compressed.is_err() {
            let _ = fs::remove_file(&beside);
        }
        compressed
    }

    /// All files, the oldest first, the current one last.
    pub(super) fn open_all(&self) -> io::Result<Vec<Segment>> {
        self.open_after(&|_| Ok(false))
    }

    /// The files that are younger than the one for which `is_known` holds, the oldest first.
    pub(super) fn open_after(
        &self,
        is_known: &dyn Fn(&Segment) -> io::Result<bool>,
    ) -> io::Result<Vec<Segment>> {
        /// A rotation can come while the files are opened; so many in a row do not.
        const RACES: usize = 64;
        let mut opened = Vec::new();
        for _ in 0..RACES {
            opened.clear();
            for (number, path, compressed) in self.paths()? {
                let Some(segment) = self.open(&path, compressed)? else { continue };
                // Of a file that is just being compressed both forms are there.
                if opened.last().is_some_and(|(last, _, _)| *last == number) {
                    continue;
                }
                let known = is_known(&segment)?;
                opened.push((number, path, segment));
                if known {
                    break;
                }
            }
            let stays = |(_, path, segment): &(u32, PathBuf, Segment)| {
                fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == segment.inode)
            };
            if opened.iter().all(stays) {
                break;
            }
        }
        let mut segments: Vec<Segment> = opened.into_iter().map(|(_, _, segment)| segment).collect();
        if let Some(last) = segments.last()
            && is_known(last)?
        {
            segments.pop();
        }
        segments.reverse();
        Ok(segments)
    }

    /// The names that may be there, the youngest first.
    fn paths(&self) -> io::Result<Vec<(u32, PathBuf, bool)>> {
        let mut paths = vec![(0, self.current(), false)];
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&self.name)?.strip_prefix('.'))
            else {
                continue;
            };
            let digits = rest.strip_suffix(self.format.compressed_suffix());
            if let Ok(number) = digits.unwrap_or(rest).parse() {
                paths.push((number, entry.path(), digits.is_some()));
            }
        }
        paths.sort_unstable();
        Ok(paths)
    }

    fn open(&self, path: &Path, compressed: bool) -> io::Result<Option<Segment>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let meta = file.metadata()?;
        let segment = Segment { file, compressed, format: self.format, inode: meta.ino() };
        Ok(meta.is_file().then_some(segment))
    }
}

impl Segment {
    /// A reader from the beginning.
    pub(super) fn reader(&self) -> io::Result<Box<dyn BufRead>> {
        let file = At { file: self.file.try_clone()?, at: 0 };
        Ok(match (self.compressed, self.format) {
            (false, _) => Box::new(BufReader::new(file)),
            (true, Format::Json) => Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file)))),
            (true, Format::Local) => Box::new(BufReader::new(zstd::stream::read::Decoder::new(file)?)),
        })
    }

    /// A reader of a file that is not compressed, from there.
    pub(super) fn reader_at(&self, at: u64) -> io::Result<Box<dyn BufRead>> {
        Ok(Box::new(BufReader::new(At { file: self.file.try_clone()?, at })))
    }

    /// Whether this is the file that is being written.
    pub(super) fn is_at(&self, meta: &fs::Metadata) -> bool {
        !self.compressed && self.inode == meta.ino()
    }

    /// Whether both are the same file, or one the compressed form of the other. No two files of a log begin
    /// with the same bytes at the same nanosecond.
    pub(super) fn is_same(&self, other: &Self) -> io::Result<bool> {
        if self.compressed == other.compressed {
            return Ok(self.inode == other.inode);
        }
        let first = |segment: &Self| Decoder::new(segment.format).next(&mut segment.reader()?);
        let (ours, theirs) = (first(self)?, first(other)?);
        Ok(ours.is_some() && ours == theirs)
    }
}

/// Reads a file without moving the position that other descriptors of it share.
struct At {
    file: File,
    at: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    accept_missing(fs::rename(from, to))
}

fn remove(path: &Path) -> io::Result<()> {
    accept_missing(fs::remove_file(path))
}

fn accept_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
