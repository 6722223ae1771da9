//! The journal: one line of JSON an event.
//!
//! ```text
//!   <root>/events/journal      appended to by whoever does something, each event in one write
//!   <root>/events/journal.1    the one before: when the journal has reached its limit it is renamed to this
//!
//!   {"time":"2026-01-01T00:00:00Z","type":"container","action":"start","id":"…","attributes":{"name":"web",…}}
//! ```
//!
//! Nothing is flushed: it tells of the past and decides nothing. A line that a crash cut is left out.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::Event;
use crate::error::{Error, Result};

/// Some 800 events, and as many in the one before. Docker keeps 256.
const LIMIT: u64 = 256 << 10;
/// The longest line: labels may be long, but their event is one write.
const MAX_LINE: usize = 64 << 10;

const DIRECTORY: &str = "events";
const NOW: &str = "journal";
const BEFORE: &str = "journal.1";

/// Appends events, as far as that can be done.
pub(super) fn append(root: &Path, events: &[Event]) {
    let mut bytes = Vec::new();
    for event in events {
        let start = bytes.len();
        if serde_json::to_writer(&mut bytes, event).is_err() || bytes.len() - start > MAX_LINE {
            // Without its labels.
            bytes.truncate(start);
            let few = event.attributes.iter().filter(|(key, _)| matches!(&***key, "name" | "image"));
            let attributes: BTreeMap<_, _> = few.map(|(key, value)| (key.clone(), value.clone())).collect();
            let _ = serde_json::to_writer(&mut bytes, &Event { attributes, ..event.clone() });
        }
        bytes.push(b'\n');
    }
    let _ = write(&root.join(DIRECTORY), &bytes);
}

fn write(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = dir.join(NOW);
    let open = || File::options().append(true).create(true).mode(0o600).open(&path);
    let mut file = match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(dir)?;
            open()?
        }
        other => other?,
    };
    file.write_all(bytes)?;
    if file.stream_position()? < LIMIT {
        return Ok(());
    }
    // One of those who come by renames it; that it is still the same is looked at under the lock.
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(()),
        other => other?,
    }
    if inode(&path) == Some(file.metadata()?.ino()) {
        fs::rename(&path, dir.join(BEFORE))?;
    }
    Ok(())
}

/// All events that are still there, the oldest first.
pub(super) fn read(root: &Path) -> Result<Vec<Event>> {
    Follower::open(root).events()
}

/// Reads the journal, and what comes to it.
#[derive(Debug)]
pub(super) struct Follower {
    dir: PathBuf,
    inotify: Option<OwnedFd>,
    /// The one that is read now, and what of it is no whole line yet.
    file: Option<File>,
    rest: Vec<u8>,
    /// Whether the one before has been looked at.
    looked_back: bool,
}

impl Follower {
    fn open(root: &Path) -> Self {
        let dir = root.join(DIRECTORY);
        Self { dir, inotify: None, file: None, rest: Vec::new(), looked_back: false }
    }

    /// One that can wait.
    pub(super) fn new(root: &Path) -> Result<Self> {
        let mut follower = Self::open(root);
        let failed = follower.failed();
        let watch = (|| -> io::Result<OwnedFd> {
            fs::create_dir_all(&follower.dir)?;
            let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
            inotify::add_watch(&inotify, &follower.dir, flags)?;
            Ok(inotify)
        })();
        follower.inotify = Some(watch.map_err(failed)?);
        Ok(follower)
    }

    fn failed(&self) -> impl Fn(io::Error) -> Error + use<> {
        let path = self.dir.join(NOW);
        move |source| Error::Read { path: path.clone(), source }
    }

    /// Leaves out what is there.
    pub(super) fn skip(&mut self) -> Result<()> {
        self.looked_back = true;
        if let Ok(mut file) = File::open(self.dir.join(NOW)) {
            file.seek(SeekFrom::End(0)).map_err(self.failed())?;
            self.file = Some(file);
        }
        Ok(())
    }

    /// What has come since the last time.
    pub(super) fn events(&mut self) -> Result<Vec<Event>> {
        let failed = self.failed();
        let mut events = Vec::new();
        if !self.looked_back {
            self.looked_back = true;
            self.file = File::open(self.dir.join(BEFORE)).ok();
        }
        loop {
            // Looked at first: whoever writes to a file that was renamed meanwhile had opened it before.
            let now = inode(&self.dir.join(NOW));
            if let Some(file) = &mut self.file {
                file.read_to_end(&mut self.rest).map_err(&failed)?;
                self.take_lines(&mut events);
            }
            let own = self.file.as_ref().and_then(|file| file.metadata().ok()).map(|meta| meta.ino());
            if now.is_none() || now == own {
                return Ok(events);
            }
            self.rest.clear();
            self.file = match File::open(self.dir.join(NOW)) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(events),
                other => Some(other.map_err(&failed)?),
            };
        }
    }

    fn take_lines(&mut self, events: &mut Vec<Event>) {
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines: Vec<u8> = self.rest.drain(..end).collect();
        events
            .extend(lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
    }

    /// Waits until something comes, or for a while; whether something came.
    pub(super) fn wait(&mut self, patience: Duration) -> Result<bool> {
        let failed = self.failed();
        let Some(inotify) = &self.inotify else { return Ok(false) };
        let time = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&time)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4 << 10];
        let mut reader = inotify::Reader::new(inotify.as_fd(), &mut buffer);
        while reader.next().is_ok() {}
        Ok(true)
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: usize) -> Event {
        let attributes = BTreeMap::from([("name".to_owned(), "x".repeat(300))]);
        Event {
            time: jiff::Timestamp::UNIX_EPOCH,
            kind: "container".into(),
            action: "start".into(),
            id: number.to_string(),
            attributes,
        }
    }

    #[test]
    fn the_journal_is_bounded_and_a_reader_misses_nothing() {
        let root = tempfile::tempdir().unwrap();
        let mut follower = Follower::new(root.path()).unwrap();
        assert_eq!(follower.events().unwrap(), []);
        let mut seen = Vec::new();
        for number in 0..2000 {
            append(root.path(), &[event(number)]);
            if number % 7 == 0 {
                assert!(follower.wait(Duration::from_secs(10)).unwrap());
                seen.extend(follower.events().unwrap());
            }
        }
        seen.extend(follower.events().unwrap());
        let numbers: Vec<String> = seen.iter().map(|event| event.id.clone()).collect();
        assert_eq!(numbers, (0..2000).map(|number| number.to_string()).collect::<Vec<_>>());
        let past = read(root.path()).unwrap();
        assert!((600..1600).contains(&past.len()), "{}", past.len());
        assert_eq!(past.last().unwrap().id, "1999");
        let size = |name| fs::metadata(root.path().join(DIRECTORY).join(name)).unwrap().len();
        assert!(size(NOW) + size(BEFORE) < 2 * LIMIT + 4096);
    }

    #[test]
    fn writers_side_by_side_lose_no_line_and_a_torn_one_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let root = root.path();
                scope.spawn(move || (0..100).for_each(|n| append(root, &[event(writer * 100 + n)])));
            }
        });
        assert_eq!(read(root.path()).unwrap().len(), 400);
        write(&root.path().join(DIRECTORY), b"{\"time\":\"20").unwrap();
        assert_eq!(read(root.path()).unwrap().len(), 400);
        // What follows a torn line is lost with it, and no more.
        append(root.path(), &[event(1)]);
        append(root.path(), &[event(2)]);
        assert_eq!(read(root.path()).unwrap().len(), 401);
    }

    #[test]
    fn labels_that_are_too_long_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let mut long = event(1);
        long.attributes.insert("label".into(), "y".repeat(MAX_LINE));
        append(root.path(), &[long]);
        let read = read(root.path()).unwrap();
        assert!(read.len() == 1 && !read[0].attributes.contains_key("label"));
    }
}
