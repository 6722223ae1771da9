//! A disk that remembers in which order it was written and flushed, so that a power cut can be played at any moment.
//!
//! ```text
//!   program ─► ext4 ─► loop device ─► a file (FUSE) ─► RecordedDisk
//!                                                        log: write, write, flush, write, …
//!   cut at n:   what lay there before ┃ writes up to the last flush ┃ some of the writes since, none, or all
//! ```
//!
//! What a disk has not been told to flush it may write in any order, or never: pieces of 4 KiB each for itself. From a
//! moment on it can answer with errors, too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use tempfile::TempDir;

/// What a disk writes as a whole.
const PIECE: usize = 4096;
/// Nothing but we change the file's size or times.
const FOREVER: Duration = Duration::from_secs(1 << 20);

/// What a disk was told.
enum Event {
    Write(u64, Vec<u8>),
    Flush,
}

/// A disk, by pieces; those that nobody wrote are zeros.
type Pieces = BTreeMap<u64, Box<[u8]>>;

#[derive(Default)]
struct State {
    /// What lies there now.
    now: Pieces,
    /// What lay there when the log began.
    before: Pieces,
    log: Vec<Event>,
    /// How many more writes succeed.
    writes_left: Option<u64>,
    /// Whether reads fail.
    unreadable: bool,
    /// How many requests were answered with an error.
    errors: u64,
}

/// A file for a loop device; see the module.
pub struct RecordedDisk {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    session: Option<BackgroundSession>,
    /// Where the file is; goes last.
    _home: TempDir,
}

impl std::fmt::Debug for RecordedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordedDisk").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RecordedDisk {
    /// An empty disk of so many bytes.
    pub fn new(size: u64) -> io::Result<Self> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("disk");
        File::create(&path)?;
        let state = Arc::new(Mutex::new(State::default()));
        let served = Served { state: Arc::clone(&state), size };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("recorded-disk".to_owned())];
        let session = fuser::spawn_mount(served, &path, &config)?;
        Ok(Self { state, path, session: Some(session), _home: home })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From here on the log counts.
    pub fn begin(&self) {
        let mut state = self.state();
        state.before = state.now.clone();
        state.log.clear();
    }

    /// How much has happened: the moment of a cut.
    pub fn moment(&self) -> usize {
        self.state().log.len()
    }

    /// The moments just after a flush.
    pub fn flushes(&self) -> Vec<usize> {
        let state = self.state();
        let flushes = state.log.iter().enumerate().filter(|(_, event)| matches!(event, Event::Flush));
        flushes.map(|(place, _)| place + 1).collect()
    }

    /// Writes what a power cut at this moment leaves into a file. `survives` says of each piece that was not flushed
    /// whether it had reached the disk.
    pub fn cut(&self, moment: usize, image: &Path, mut survives: impl FnMut() -> bool) -> io::Result<()> {
        let state = self.state();
        let events = &state.log[..moment];
        let durable = events.iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        let mut pieces: BTreeMap<u64, &[u8]> =
            state.before.iter().map(|(at, piece)| (*at, &piece[..])).collect();
        let mut partial = Pieces::new();
        for (place, event) in events.iter().enumerate() {
            let Event::Write(offset, bytes) = event else { continue };
            for (at, piece) in split(*offset, bytes) {
                if place >= durable && !survives() {
                    continue;
                }
                if piece.len() == PIECE {
                    partial.remove(&at);
                    pieces.insert(at, piece);
                } else {
                    let old = partial.remove(&at);
                    let old = old.unwrap_or_else(|| whole(pieces.get(&at).copied()));
                    partial.insert(at, overlaid(old, *offset, at, piece));
                }
            }
        }
        let _ = fs::remove_file(image);
        let file = File::create(image)?;
        file.set_len(fs::metadata(&self.path)?.len())?;
        for (at, piece) in &pieces {
            file.write_all_at(piece, at * PIECE as u64)?;
        }
        for (at, piece) in &partial {
            file.write_all_at(piece, at * PIECE as u64)?;
        }
        Ok(())
    }

    /// After so many more writes each write and flush fails; `None`: none does.
    pub fn fail_writes_after(&self, count: Option<u64>) {
        self.state().writes_left = count;
    }

    /// Whether each read fails.
    pub fn fail_reads(&self, fail: bool) {
        self.state().unreadable = fail;
    }

    /// How many requests failed.
    pub fn errors(&self) -> u64 {
        self.state().errors
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RecordedDisk {
    fn drop(&mut self) {
        // Lazily: a loop device that somebody forgot must not keep the test waiting.
        let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
        drop(self.session.take());
    }
}

/// A write by pieces: the number of the piece and its bytes, fewer than a whole one at the ends.
fn split(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let first = (PIECE - usize::try_from(offset % PIECE as u64).expect("below a piece")).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let start = offset / PIECE as u64;
    std::iter::once((start, head)).chain((start + 1..).zip(rest.chunks(PIECE)))
}

/// A whole piece, to be changed.
fn whole(piece: Option<&[u8]>) -> Box<[u8]> {
    piece.map_or_else(|| vec![0; PIECE].into(), Into::into)
}

/// A piece with a part of it written.
fn overlaid(mut piece: Box<[u8]>, offset: u64, at: u64, part: &[u8]) -> Box<[u8]> {
    let start = usize::try_from(offset.saturating_sub(at * PIECE as u64)).expect("below a piece");
    piece[start..start + part.len()].copy_from_slice(part);
    piece
}

/// The file that the kernel sees.
struct Served {
    state: Arc<Mutex<State>>,
    size: u64,
}

impl Served {
    fn attributes(&self) -> FileAttr {
        FileAttr {
            ino: INodeNo::ROOT,
            size: self.size,
            blocks: self.size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: FileType::RegularFile,
            perm: 0o600,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filesystem for Served {
    fn getattr(&self, _: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No cache in between: each request comes here.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.state();
        if state.unreadable {
            state.errors += 1;
            return reply.error(Errno::EIO);
        }
        let end = (offset + u64::from(size)).min(self.size);
        let mut bytes = Vec::with_capacity(size as usize);
        while offset + (bytes.len() as u64) < end {
            let at = offset + bytes.len() as u64;
            let within = usize::try_from(at % PIECE as u64).expect("below a piece");
            let length = (PIECE - within).min(usize::try_from(end - at).unwrap_or(PIECE));
            match state.now.get(&(at / PIECE as u64)) {
                Some(piece) => bytes.extend_from_slice(&piece[within..within + length]),
                None => bytes.resize(bytes.len() + length, 0),
            }
        }
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        match &mut state.writes_left {
            Some(0) => {
                state.errors += 1;
                return reply.error(Errno::EIO);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        for (at, part) in split(offset, data) {
            let old = state.now.remove(&at);
            let new = overlaid(old.unwrap_or_else(|| whole(None)), offset, at, part);
            state.now.insert(at, new);
        }
        state.log.push(Event::Write(offset, data.to_vec()));
        reply.written(u32::try_from(data.len()).expect("a request of the kernel"));
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        if state.writes_left == Some(0) {
            state.errors += 1;
            return reply.error(Errno::EIO);
        }
        state.log.push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}
