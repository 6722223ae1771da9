//! Writes a container's log.
//!
//! ```text
//!   chunk of a pipe ─► lines, the last unfinished one kept back ─► entries ─► one write(2)
//! ```
//!
//! What could not be written (a full disk) is counted, and told in the log itself as soon as that can be written
//! again. A write that stopped halfway is taken back, so that a file never holds half an entry.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;

use super::entry::{Format, Stream};
use super::options::{Driver, LogOptions};
use super::segments::Segments;
use super::{json, local};
use crate::error::{Error, Result};

/// Where a line without an end is cut, as Docker does.
const LONGEST: usize = 16 << 10;
/// A supervisor lives long and is small: room beyond this is given back.
const KEPT: usize = 128 << 10;

/// One container's log, open for writing. Only one process may have it.
#[derive(Debug)]
pub struct LogWriter {
    /// `None` for the driver `none`.
    target: Option<Target>,
    /// The unfinished lines of output and error.
    pending: [Pending; 2],
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// When the line's first part came, while the line has been cut.
    since: Option<Timestamp>,
}

#[derive(Debug)]
struct Target {
    segments: Segments,
    options: LogOptions,
    /// The attributes as JSON; empty for none.
    attributes: String,
    file: File,
    size: u64,
    /// Entries that are not in the file yet.
    ready: Vec<u8>,
    lost: Lost,
}

/// What did not get into the log.
#[derive(Debug, Default)]
struct Lost {
    bytes: u64,
    because: Option<io::Error>,
}

impl LogWriter {
    /// Opens the log of the container `id` in its directory, and goes on where it ended.
    ///
    /// # Errors
    /// The file can't be made or read.
    pub fn open(dir: &Path, id: &str, options: &LogOptions) -> Result<Self> {
        let format = match options.driver {
            Driver::None => return Ok(Self { target: None, pending: Default::default() }),
            Driver::JsonFile => Format::Json,
            Driver::Local => Format::Local,
        };
        let segments = Segments::new(dir, id, format);
        let failed = |source| Error::Write { path: segments.current(), source };
        let file = segments.open_current().map_err(failed)?;
        let attributes = if options.attributes.is_empty() {
            String::new()
        } else {
            serde_json::to_string(&options.attributes).expect("text serialises")
        };
        let mut target = Target {
            segments: segments.clone(),
            options: options.clone(),
            attributes,
            file,
            size: 0,
            ready: Vec::new(),
            lost: Lost::default(),
        };
        target.mend().map_err(failed)?;
        Ok(Self { target: Some(target), pending: Default::default() })
    }

    /// Writes what came from a stream; the beginning of a line waits for its rest.
    ///
    /// # Errors
    /// The file could not be written. What is lost is counted; the next call tries again, and says in the log
    /// how much is missing.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> Result<()> {
        let Some(target) = &mut self.target else { return Ok(()) };
        let pending = &mut self.pending[usize::from(stream == Stream::Stderr)];
        let mut rest = bytes;
        let mut outcome = Ok(());
        while !rest.is_empty() {
            let room = LONGEST - pending.bytes.len();
            let window = &rest[..rest.len().min(room)];
            if let Some(end) = window.iter().position(|&byte| byte == b'\n') {
                let time = pending.since.take().unwrap_or_else(Timestamp::now);
                let (line, after) = rest.split_at(end + 1);
                rest = after;
                // The usual line, which came whole, is copied once.
                let kept = if pending.bytes.is_empty() {
                    target.entry(stream, time, line)
                } else {
                    pending.bytes.extend_from_slice(line);
                    let kept = target.entry(stream, time, &pending.bytes);
                    pending.bytes.clear();
                    kept
                };
                outcome = outcome.and(kept);
            } else {
                pending.bytes.extend_from_slice(window);
                rest = &rest[window.len()..];
                if pending.bytes.len() == LONGEST {
                    let time = *pending.since.get_or_insert_with(Timestamp::now);
                    let cut = boundary(&pending.bytes);
                    outcome = outcome.and(target.entry(stream, time, &pending.bytes[..cut]));
                    pending.bytes.drain(..cut);
                }
            }
        }
        outcome.and(target.flush())
    }

    /// The stream has ended: what waits for the rest of its line is written without a newline.
    ///
    /// # Errors
    /// As [`LogWriter::write`].
    pub fn end(&mut self, stream: Stream) -> Result<()> {
        let Some(target) = &mut self.target else { return Ok(()) };
        let pending = &mut self.pending[usize::from(stream == Stream::Stderr)];
        let time = pending.since.take().unwrap_or_else(Timestamp::now);
        let bytes = std::mem::take(&mut pending.bytes);
        let kept = if bytes.is_empty() { Ok(()) } else { target.entry(stream, time, &bytes) };
        kept.and(target.flush())
    }
}

impl Target {
    /// Takes off what a crash left half written, and begins a new file where there is nothing.
    fn mend(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let good = match self.segments.format {
            Format::Json => whole_lines(&self.file, length)?,
            Format::Local => local::whole(&mut BufReader::new(&self.file))?,
        };
        if good < length {
            self.file.set_len(good)?;
        }
        self.size = good;
        self.begin();
        Ok(())
    }

    /// A `local` file has a header.
    fn begin(&mut self) {
        if self.size == 0 && self.segments.format == Format::Local {
            self.ready = local::header(&self.attributes);
        }
    }

    /// Makes an entry ready; what is ready is written first if the file is full.
    fn entry(&mut self, stream: Stream, time: Timestamp, line: &[u8]) -> Result<()> {
        let outcome = match self.options.max_size {
            Some(limit) if self.size + self.ready.len() as u64 >= limit => self.rotate(),
            _ => Ok(()),
        };
        if let Some(because) = self.lost.because.take() {
            let bytes = std::mem::take(&mut self.lost.bytes);
            let note = format!("onggi: {bytes} bytes of this log were lost: {because}\n");
            self.encode(Stream::Stderr, time, note.as_bytes());
        }
        self.encode(stream, time, line);
        if self.ready.len() > KEPT { outcome.and(self.flush()) } else { outcome }
    }

    fn encode(&mut self, stream: Stream, time: Timestamp, line: &[u8]) {
        match self.segments.format {
            Format::Json => {
                json::encode(&mut self.ready, stream, &time.to_string(), line, &self.attributes);
            }
            Format::Local => local::encode(&mut self.ready, stream, time, line),
        }
    }

    fn rotate(&mut self) -> Result<()> {
        self.flush()?;
        let failed = |source| Error::Write { path: self.segments.current(), source };
        self.segments.rotate(self.options.max_files, self.options.compress).map_err(failed)?;
        self.file = self.segments.open_current().map_err(failed)?;
        self.size = self.file.metadata().map_err(failed)?.len();
        self.begin();
        Ok(())
    }

    /// Writes what is ready.
    fn flush(&mut self) -> Result<()> {
        if self.ready.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.ready);
        let length = self.ready.len() as u64;
        self.ready.clear();
        self.ready.shrink_to(KEPT);
        match written {
            Ok(()) => {
                self.size += length;
                Ok(())
            }
            Err(error) => {
                let _ = self.file.set_len(self.size);
                self.lost.bytes += length;
                self.lost.because = Some(io::Error::new(error.kind(), error.to_string()));
                self.begin();
                Err(Error::Write { path: self.segments.current(), source: error })
            }
        }
    }
}

/// Where a full buffer is cut: not inside of a character, if it is text.
fn boundary(bytes: &[u8]) -> usize {
    let start = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    let needed = match bytes[start] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if start > 0 && bytes.len() - start < needed { start } else { bytes.len() }
}

/// The length without what follows the last newline.
fn whole_lines(file: &File, length: u64) -> io::Result<u64> {
    let mut block = [0; 4096];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(boundary("aé".as_bytes()), 3);
        assert_eq!(boundary(&"aé".as_bytes()[..2]), 1);
        assert_eq!(boundary(&"옹".as_bytes()[..2]), 2);
        assert_eq!(boundary(&"x옹".as_bytes()[..3]), 1);
        assert_eq!(boundary(b"ab\xff"), 3);
        assert_eq!(boundary(b"\x80\x80"), 2);
    }

    #[test]
    fn what_a_full_disk_swallowed_is_told_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path(), "c", &LogOptions::default()).unwrap();
        writer.write(Stream::Stdout, b"before\n").unwrap();
        let path = dir.path().join("c-json.log");
        let good = {
            let target = writer.target.as_mut().unwrap();
            std::mem::replace(&mut target.file, File::options().write(true).open("/dev/full").unwrap())
        };
        let error = writer.write(Stream::Stdout, b"swallowed\n").unwrap_err().to_string();
        assert!(error.contains("No space left"), "{error}");
        writer.target.as_mut().unwrap().file = good;
        writer.write(Stream::Stdout, b"after\n").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().map(|line| json::decode(line.as_bytes()).unwrap().line).collect();
        assert_eq!((&lines[0][..], &lines[2][..]), (&b"before\n"[..], &b"after\n"[..]));
        let note = String::from_utf8_lossy(&lines[1]);
        assert!(note.contains("bytes of this log were lost: No space left"), "{note}");
    }
}
