//! What is sent: bytes that can be read again from any offset, as the body of a request.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::upload::Progress;

/// Bytes read at one time, and, times the depth of the queue, held in memory for one upload.
const PIECE: usize = 256 << 10;

/// Pieces read ahead of the network.
const AHEAD: usize = 2;

/// A blob to be sent. Broken uploads read it again.
pub trait BlobSource: Send + Sync + 'static {
    /// A reader from `offset` to the end. Called and read on a thread that may block.
    ///
    /// # Errors
    /// What the system says; the upload then fails with [`Error::Source`](crate::Error::Source).
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>>;
}

impl BlobSource for Bytes {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(io::Cursor::new(self.slice(start..))))
    }
}

/// The part of a source that one request sends.
pub(crate) struct Feed {
    source: Arc<dyn BlobSource>,
    offset: u64,
    size: u64,
    progress: Progress,
}

/// What is known of a body while it is being sent.
#[derive(Clone)]
pub(crate) struct Watch {
    sent: Arc<AtomicU64>,
    size: u64,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Watch {
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.sent() >= self.size
    }

    /// Why the source could not be read, if it could not.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn failed(&self, error: io::Error) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl Feed {
    pub(crate) fn new(source: Arc<dyn BlobSource>, offset: u64, size: u64, progress: Progress) -> Self {
        Self { source, offset, size, progress }
    }

    /// Bytes that will be sent.
    pub(crate) fn remaining(&self) -> u64 {
        self.size - self.offset
    }

    /// The body, read by a thread of its own, and an eye on it.
    pub(crate) fn into_body(self) -> (reqwest::Body, Watch) {
        let sent = Arc::new(AtomicU64::new(self.offset));
        let watch = Watch { sent, size: self.size, failure: Arc::default() };
        let (pieces, received) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
        let eye = watch.clone();
        let (source, offset, remaining) = (self.source, self.offset, self.size - self.offset);
        // Ends when everything is read or the request is dropped, and its queue with it.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read(source.as_ref(), offset, remaining, &pieces) {
                let copy = io::Error::new(error.kind(), error.to_string());
                eye.failed(error);
                let _ = pieces.blocking_send(Err(copy));
            }
        });
        let (eye, progress) = (watch.clone(), self.progress);
        let stream = futures_util::stream::unfold(received, move |mut received| {
            let (eye, progress) = (eye.clone(), Arc::clone(&progress));
            async move {
                let piece = received.recv().await?;
                if let Ok(bytes) = &piece {
                    let length = bytes.len() as u64;
                    progress(eye.sent.fetch_add(length, Ordering::Relaxed) + length);
                }
                Some((piece, received))
            }
        });
        (reqwest::Body::wrap_stream(stream), watch)
    }
}

fn read(
    source: &dyn BlobSource,
    offset: u64,
    mut remaining: u64,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut reader = source.open(offset)?;
    while remaining > 0 {
        let mut piece = Vec::new();
        let want = remaining.min(PIECE as u64);
        reader.by_ref().take(want).read_to_end(&mut piece)?;
        if piece.is_empty() {
            let missing = format!("it ends {remaining} bytes before its size");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, missing));
        }
        remaining -= piece.len() as u64;
        if pieces.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
