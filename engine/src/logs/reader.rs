//! Reads a container's log, also while it is written.

use std::fs;
use std::io::{self, BufRead, ErrorKind};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::entry::{Decoder, Entry, Format};
use super::options::Driver;
use super::segments::{Segment, Segments};
use super::tail::{self, Start};
use crate::error::{Error, Result};

/// How long a follower waits before it looks whether the writer is still there: one that was killed tells nobody.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Which entries are wanted.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Not younger than this.
    pub until: Option<Timestamp>,
    /// Of the whole log only so many lines, counted from its end; the times apply to these.
    pub tail: Option<u64>,
    /// Go on as long as the log is written.
    pub follow: bool,
}

/// Who gets the entries.
pub trait LogSink {
    /// Takes one; `Break` ends the reading.
    fn entry(&mut self, entry: &Entry) -> ControlFlow<()>;

    /// Nothing more is there for now; what was taken should be shown. `Break` ends the reading.
    fn pause(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A container's log, to be read.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    segments: Segments,
}

/// A file that is being read.
struct Open {
    decoder: Decoder,
    input: Box<dyn BufRead>,
    segment: Segment,
}

impl LogReader {
    /// The log of the container `id` in its directory.
    ///
    /// # Errors
    /// The driver keeps nothing that could be read.
    pub fn new(dir: &Path, id: &str, driver: Driver) -> Result<Self> {
        let format = match driver {
            Driver::JsonFile => Format::Json,
            Driver::Local => Format::Local,
            Driver::None => return Err(Error::NoLog { id: id.into() }),
        };
        Ok(Self { dir: dir.into(), segments: Segments::new(dir, id, format) })
    }

    /// Whether anybody ever began to write it.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.segments.current().exists()
    }

    /// Gives all entries that are asked for to `sink`, in the order in which they were written. `is_written` says whether
    /// more may come; it is asked only to follow.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn read(
        &self,
        query: &LogQuery,
        is_written: &mut dyn FnMut() -> bool,
        sink: &mut dyn LogSink,
    ) -> Result<()> {
        let failed = |source| Error::Read { path: self.segments.current(), source };
        // Before the first look, so that nothing that comes after it is missed.
        let watch = if query.follow { Some(self.watch().map_err(failed)?) } else { None };
        let mut filter = Filter { query, sink };
        let done = self.read_all(watch.as_ref(), is_written, &mut filter).map_err(failed)?;
        if done.is_continue() {
            let _ = filter.sink.pause();
        }
        Ok(())
    }

    fn read_all(
        &self,
        watch: Option<&OwnedFd>,
        is_written: &mut dyn FnMut() -> bool,
        filter: &mut Filter<'_>,
    ) -> io::Result<ControlFlow<()>> {
        let mut writing = watch.is_some() && is_written();
        let mut segments = self.segments.open_all()?;
        let mut last: Option<Open> = None;
        if let (Some(lines), false) = (filter.query.tail, segments.is_empty()) {
            let start = tail::find(&segments, self.segments.format, lines)?;
            segments.drain(..start.segment);
            last = Some(self.open_tail(segments.remove(0), start)?);
        }
        for segment in segments {
            if let Some(open) = &mut last
                && open.drain(filter)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            last = Some(self.open(segment)?);
        }
        loop {
            if self.catch_up(&mut last, filter)?.is_break() || filter.sink.pause().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            // What was written before the writer went was there when that was asked.
            let over = filter.query.until.is_some_and(|until| until < Timestamp::now());
            let Some(watch) = watch.filter(|_| writing && !over) else {
                return Ok(ControlFlow::Continue(()));
            };
            wait(watch)?;
            writing = is_written() && self.dir.exists();
        }
    }

    /// Reads on in the open file, and in those that were begun since.
    fn catch_up(&self, last: &mut Option<Open>, filter: &mut Filter<'_>) -> io::Result<ControlFlow<()>> {
        loop {
            if let Some(open) = last
                && open.drain(filter)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            let now = match fs::symlink_metadata(self.segments.current()) {
                Ok(meta) => meta,
                // Between two steps of a rotation, or the container is gone.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ControlFlow::Continue(())),
                Err(error) => return Err(error),
            };
            if last.as_ref().is_some_and(|open| open.segment.is_at(&now)) {
                return Ok(ControlFlow::Continue(()));
            }
            // Whoever rotated has written to the old file for the last time.
            if let Some(open) = last
                && open.drain(filter)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            // One that is not there any more was removed with everything that was older.
            let segments = self.segments.open_after(&|segment| match &*last {
                Some(open) => open.segment.is_same(segment),
                None => Ok(false),
            })?;
            if segments.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            for segment in segments {
                let mut open = self.open(segment)?;
                if open.drain(filter)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                *last = Some(open);
            }
        }
    }

    fn open(&self, segment: Segment) -> io::Result<Open> {
        Ok(Open { decoder: Decoder::new(self.segments.format), input: segment.reader()?, segment })
    }

    /// The file in which the last lines begin, at their beginning.
    fn open_tail(&self, segment: Segment, start: Start) -> io::Result<Open> {
        let mut open = self.open(segment)?;
        if start.offset > 0 {
            open.input = open.segment.reader_at(start.offset)?;
            open.decoder = Decoder::new(self.segments.format).with_attributes(start.attributes);
        }
        for _ in 0..start.skip {
            open.decoder.next(&mut open.input)?;
        }
        Ok(open)
    }

    fn watch(&self) -> io::Result<OwnedFd> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        // The state of the container changes by a rename in the same directory.
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&watch, &self.dir, flags)?;
        Ok(watch)
    }
}

impl Open {
    /// Gives on everything that is there.
    fn drain(&mut self, filter: &mut Filter<'_>) -> io::Result<ControlFlow<()>> {
        loop {
            let next = match self.decoder.next(&mut self.input) {
                // The end of a compressed file that is damaged.
                Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => {
                    None
                }
                other => other?,
            };
            match next {
                Some(entry) if filter.entry(&entry).is_break() => return Ok(ControlFlow::Break(())),
                Some(_) => {}
                None => return Ok(ControlFlow::Continue(())),
            }
        }
    }
}

struct Filter<'a> {
    query: &'a LogQuery,
    sink: &'a mut dyn LogSink,
}

impl Filter<'_> {
    fn entry(&mut self, entry: &Entry) -> ControlFlow<()> {
        if self.query.until.is_some_and(|until| entry.time > until) {
            return ControlFlow::Break(());
        }
        if self.query.since.is_some_and(|since| entry.time < since) {
            return ControlFlow::Continue(());
        }
        self.sink.entry(entry)
    }
}

/// Waits until something changes, for a while.
fn wait(watch: &OwnedFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&PATIENCE)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut buffer = [0; 4096];
    while rustix::io::read(watch.as_fd(), &mut buffer).is_ok_and(|count| count > 0) {}
    Ok(())
}
