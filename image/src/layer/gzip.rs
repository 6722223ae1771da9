//! gzip on several threads, the same bytes whatever their number.
//!
//! ```text
//! input   | block 0, 1 MiB | block 1, 1 MiB | … |
//! output  header | deflate(0), sync | deflate(1 | last 32 KiB of 0), sync | … | last | crc32, size
//! ```
//!
//! Every block is compressed on its own, primed with the end of the block before
//! it, and ends at a byte; so the blocks joined are *one* deflate stream in one
//! gzip member, which every reader takes (some take only the first of several
//! members), nearly as small as if it were compressed in one go. What a block
//! becomes depends on the input only, never on who compressed it or when.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Compress, Crc, FlushCompress, Status};

/// Input compressed as one piece. Part of the format: another number gives other
/// bytes, and so other digests.
const BLOCK: usize = 1 << 20;

/// How far back deflate can refer.
const WINDOW: usize = 32 << 10;

/// Blocks under way for each thread: one being compressed, one waiting.
const AHEAD: usize = 2;

/// Deflate, no flags, no time, no extra flags, system unknown: nothing in the
/// header tells when or where it was written.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// gzip's own default level, and that of every container tool.
pub const DEFAULT_GZIP_LEVEL: u32 = 6;

/// A block to be compressed.
struct Job {
    /// The end of the block before, then the block.
    data: Vec<u8>,
    /// Where the block begins.
    start: usize,
    last: bool,
    level: u32,
    reply: SyncSender<io::Result<Done>>,
}

/// A block compressed.
struct Done {
    output: Vec<u8>,
    crc: Crc,
}

/// Writes gzip. [`GzipWriter::finish`] must be called; without it the output is
/// cut off.
pub struct GzipWriter<W: Write> {
    inner: W,
    level: u32,
    /// The block being filled, after the end of the one before it.
    data: Vec<u8>,
    start: usize,
    crc: Crc,
    /// Nothing where the caller's thread does all.
    jobs: Option<Sender<Job>>,
    waiting: VecDeque<Receiver<io::Result<Done>>>,
    ahead: usize,
}

impl<W: Write> GzipWriter<W> {
    /// Begins a gzip stream of a level (0 to 9) with up to this many threads.
    /// With one, no thread is started. They end with the writer.
    pub fn new(mut inner: W, level: u32, threads: NonZeroUsize) -> io::Result<Self> {
        if level > 9 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a gzip level is between 0 and 9"));
        }
        inner.write_all(&HEADER)?;
        let jobs = if threads.get() > 1 { Some(start_workers(threads)?) } else { None };
        let ahead = threads.get() * AHEAD;
        let data = Vec::with_capacity(BLOCK);
        Ok(Self { inner, level, data, start: 0, crc: Crc::new(), jobs, waiting: VecDeque::new(), ahead })
    }

    /// Sends the filled block away.
    fn submit(&mut self, last: bool) -> io::Result<()> {
        let window = if last { 0 } else { self.data.len().min(WINDOW) };
        let mut next = Vec::with_capacity(if last { 0 } else { WINDOW + BLOCK });
        next.extend_from_slice(&self.data[self.data.len() - window..]);
        let data = std::mem::replace(&mut self.data, next);
        let (reply, done) = sync_channel(1);
        let job = Job { data, start: self.start, last, level: self.level, reply };
        self.start = window;
        let Some(jobs) = &self.jobs else {
            let done = compress(&job)?;
            return self.write_done(&done);
        };
        jobs.send(job).map_err(|_| worker_is_gone())?;
        self.waiting.push_back(done);
        while self.waiting.len() > self.ahead {
            self.collect()?;
        }
        Ok(())
    }

    /// Writes the oldest block that is under way.
    fn collect(&mut self) -> io::Result<()> {
        if let Some(done) = self.waiting.pop_front() {
            let done = done.recv().map_err(|_| worker_is_gone())??;
            self.write_done(&done)?;
        }
        Ok(())
    }

    fn write_done(&mut self, done: &Done) -> io::Result<()> {
        self.crc.combine(&done.crc);
        self.inner.write_all(&done.output)
    }

    /// Ends the stream and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while !self.waiting.is_empty() {
            self.collect()?;
        }
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2³², as the format has it.
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // A full block waits for the next byte, so that the last one is known.
        if self.data.len() - self.start == BLOCK && !buffer.is_empty() {
            self.submit(false)?;
        }
        let taken = buffer.len().min(BLOCK - (self.data.len() - self.start));
        self.data.extend_from_slice(&buffer[..taken]);
        Ok(taken)
    }

    /// Does nothing: where blocks end must depend on the input only.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn worker_is_gone() -> io::Error {
    io::Error::other("a compressing thread ended early")
}

/// Starts the threads. They end when the sender is dropped.
fn start_workers(threads: NonZeroUsize) -> io::Result<Sender<Job>> {
    let (jobs, queue) = channel::<Job>();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..threads.get() {
        let queue = Arc::clone(&queue);
        std::thread::Builder::new().name("gzip".to_owned()).spawn(move || {
            loop {
                // The lock is held while waiting: one thread waits for the
                // queue, the others for the lock.
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = job else { break };
                // Nobody waits for it when the writer was dropped.
                let _ = job.reply.send(compress(&job));
            }
        })?;
    }
    Ok(jobs)
}

fn compress(job: &Job) -> io::Result<Done> {
    let (before, block) = job.data.split_at(job.start);
    let mut crc = Crc::new();
    crc.update(block);
    let mut deflate = Compress::new(flate2::Compression::new(job.level), false);
    if !before.is_empty() {
        deflate.set_dictionary(before)?;
    }
    let flush = if job.last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut output = Vec::with_capacity(block.len() / 2 + 128);
    loop {
        let read = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        let status = deflate.compress_vec(&block[read.min(block.len())..], &mut output, flush)?;
        // It is done when it says so or, for a flush, when there was room left.
        if status == Status::StreamEnd || (!job.last && output.len() < output.capacity()) {
            return Ok(Done { output, crc });
        }
        output.reserve(output.len().max(128));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn gzip(input: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let threads = NonZeroUsize::new(threads).unwrap();
        let mut writer = GzipWriter::new(Vec::new(), DEFAULT_GZIP_LEVEL, threads).unwrap();
        for piece in input.chunks(piece) {
            writer.write_all(piece).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap()
    }

    /// Half noise, half text, so that blocks differ in how they compress.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        (0..length)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if i / 5000 % 2 == 0 { state.to_be_bytes()[0] } else { b"a layer of an image "[i % 20] }
            })
            .collect()
    }

    #[test]
    fn the_same_bytes_for_any_threads_and_pieces_and_one_member() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 77] {
            let input = sample(length);
            let one = gzip(&input, 1, 1 << 16);
            assert_eq!(one, gzip(&input, 2, 999), "{length}");
            assert_eq!(one, gzip(&input, 7, usize::MAX / 2), "{length}");
            let mut output = Vec::new();
            // Not the multi-member decoder: all must be in the first member.
            let mut decoder = flate2::bufread::GzDecoder::new(&one[..]);
            decoder.read_to_end(&mut output).unwrap();
            assert!(output == input, "{length}");
            assert!(decoder.into_inner().is_empty());
        }
    }

    #[test]
    fn errors_of_the_writer_come_through() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(buffer.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(buffer.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let input = sample(6 * BLOCK);
        let mut writer = GzipWriter::new(Full(BLOCK), 6, NonZeroUsize::new(2).unwrap()).unwrap();
        let result = writer.write_all(&input).and_then(|()| writer.finish().map(drop));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
