//! Layers on their way in: everything that has to happen to a layer's bytes happens while they
//! stream by, in bounded memory.
//!
//! ```text
//!   caller: write() ─► hash, blob file ──256 KiB──► inflate ──256 KiB──► hash, unpack into fs/
//!                                                                        or write layer.erofs
//!           (its own thread)            ≤ 8 waiting  (thread)  ≤ 8 waiting  (thread)
//! ```
//!
//! The two waiting lines hold 2 MiB each at most: that, a few buffers and the decoder's window are
//! all the memory a layer takes, whatever its size. A full line blocks `write`, which is how a slow
//! disk slows down the network.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use onggi_oci::{Descriptor, DiffId, Digest, Hasher};

use super::blob::BlobWriter;
use super::claim::Permit;
use super::commit::{Pending, StagedLayer};
use super::layer::{BlobForm, FILE, Format, LayerFile, LayerRecord, TREE, write_record};
use super::{Lease, durable};
use crate::erofs;
use crate::error::{Error, Result};
use crate::layer::{UnpackOptions, Unpacked, decoder, unpack};

/// How many bytes travel together: a hand-over costs nothing against them, and they stay in the
/// processor's cache from one thread to the next.
const CHUNK: usize = 64 << 10;
/// How many chunks may wait between two threads.
const WAITING: usize = 16;

/// What a layer is made from.
#[derive(Clone, Debug)]
pub struct LayerSource {
    /// Digest, size and media type of the bytes that will come.
    pub blob: Descriptor,
    /// What they must unpack to.
    pub diff_id: DiffId,
}

/// A sink for the bytes of one layer as they were transferred.
///
/// Write all of them, then call [`LayerIngest::finish`]. Dropped before, it stops its threads and
/// leaves nothing.
#[derive(Debug)]
pub struct LayerIngest {
    source: LayerSource,
    /// `None`: the blob is in the store already.
    blob: Option<BlobWriter>,
    chunk: Vec<u8>,
    /// `None` after the end, or after a worker gave up.
    line: Option<SyncSender<Vec<u8>>>,
    inflate: Option<JoinHandle<Result<()>>>,
    unpack: Option<JoinHandle<Result<Made>>>,
    permit: Option<Permit>,
}

/// What the last worker made.
struct Made {
    diff_id: Digest,
    /// `None`: the layer was ready already, only the hash was wanted.
    tree: Option<(StagedLayer, Unpacked, Option<LayerFile>)>,
}

impl Lease {
    /// Begins a layer whose blob is not here: the blob and the layer come out of the same bytes.
    pub fn ingest(&self, source: LayerSource, permit: Permit) -> Result<LayerIngest> {
        let blob = self.blob(&source.blob)?;
        self.start(source, Some(blob), Some(permit), None)
    }

    /// Makes the layer of a blob that is here.
    pub fn unpack(&self, source: LayerSource, permit: Permit) -> Result<Pending> {
        self.derive(source, Some(permit), None)
    }

    /// `again`: in this format, also if the layer is ready already.
    pub(super) fn derive(
        &self,
        source: LayerSource,
        permit: Option<Permit>,
        again: Option<Format>,
    ) -> Result<Pending> {
        let file = self.store().open_blob(&source.blob.digest)?;
        let path = self.store().blob_path(&source.blob.digest);
        let mut ingest = self.start(source, None, permit, again)?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = Read::by_ref(&mut &file).take(CHUNK as u64).read_to_end(&mut chunk);
            if read.map_err(|e| Error::io("read the blob", &path, e))? == 0 {
                return ingest.finish();
            }
            if !ingest.hand_over(chunk) {
                return Err(ingest.failure());
            }
        }
    }

    fn start(
        &self,
        source: LayerSource,
        blob: Option<BlobWriter>,
        permit: Option<Permit>,
        again: Option<Format>,
    ) -> Result<LayerIngest> {
        let ready = again.is_none() && self.store().layer(&source.diff_id)?.is_some();
        let tree = match again {
            _ if ready => None,
            Some(format) => Some(Target::new(self, &source.diff_id, format)?),
            None => Some(Target::new(self, &source.diff_id, self.store().new_layers()?.format)?),
        };
        let (line, compressed) = sync_channel(WAITING);
        let (plain, unpacked) = sync_channel(WAITING);
        let hasher = Hasher::new(source.diff_id.0.algorithm());
        let inflate = spawn("inflate", move || inflate(compressed, &plain))?;
        let unpack = spawn("unpack", move || make(unpacked, hasher, tree))?;
        Ok(LayerIngest {
            source,
            blob,
            chunk: Vec::with_capacity(CHUNK),
            line: Some(line),
            inflate: Some(inflate),
            unpack: Some(unpack),
            permit,
        })
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map_err(|source| Error::Stream { op: "start a thread for a layer", source })
}

impl LayerIngest {
    /// Takes the next bytes; blocks while the workers are busy.
    ///
    /// # Errors
    /// More bytes than promised; a full disk; whatever a worker found wrong with the bytes so far.
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        if let Some(blob) = &mut self.blob {
            blob.put(bytes)?;
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK {
                let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
                if !self.hand_over(chunk) {
                    return Err(self.failure());
                }
            }
        }
        Ok(())
    }

    /// Waits for the workers, and compares size, digest and diff ID with what was promised.
    /// Nothing is in its place yet: see [`Store::publish`].
    pub fn finish(mut self) -> Result<Pending> {
        let rest = std::mem::take(&mut self.chunk);
        if !rest.is_empty() {
            self.hand_over(rest);
        }
        // The digest first: "wrong bytes" says more than what the decoder makes of them.
        let staged = self.blob.take().map(BlobWriter::finish_staged).transpose();
        let made = self.join();
        let (staged, made) = (staged?, made?);
        if made.diff_id != self.source.diff_id.0 {
            return Err(Error::Mismatch {
                what: format!("the uncompressed layer {}", self.source.blob.digest),
                promised: format!("diff ID {}", self.source.diff_id),
                found: made.diff_id.to_string(),
            });
        }
        let form = BlobForm {
            digest: self.source.blob.digest.clone(),
            size: self.source.blob.size,
            media_type: self.source.blob.media_type.clone(),
        };
        let Some((layer, unpacked, file)) = made.tree else {
            let pending = Pending::layer(None, staged, self.permit.take());
            return Ok(pending.with_form(self.source.diff_id.clone(), form));
        };
        let options = layer.store().options();
        let mut record = LayerRecord::new(self.source.diff_id.clone(), &unpacked, options, vec![form]);
        if file.is_some() {
            (record.format, record.file) = (Format::Erofs, file);
        }
        write_record(layer.dir(), &record)?;
        Ok(Pending::layer(Some(layer), staged, self.permit.take()))
    }

    /// `false`: a worker gave up, [`LayerIngest::failure`] tells why.
    fn hand_over(&mut self, chunk: Vec<u8>) -> bool {
        self.line.as_ref().is_some_and(|line| line.send(chunk).is_ok())
    }

    /// Why a worker gave up.
    fn failure(&mut self) -> Error {
        match self.join() {
            Err(e) => e,
            Ok(_) => Error::corrupt("the layer", "more bytes follow after its end"),
        }
    }

    /// The workers' results. When both failed, the last one's is the cause unless it only saw its
    /// input end.
    fn join(&mut self) -> Result<Made> {
        self.line = None;
        let inflated = join(self.inflate.take());
        let made = join(self.unpack.take());
        inflated?;
        made
    }
}

fn join<T>(worker: Option<JoinHandle<Result<T>>>) -> Result<T> {
    let lost = |problem| Error::corrupt("the layer", problem);
    let worker = worker.ok_or_else(|| lost("its ingest has failed before"))?;
    worker.join().map_err(|_| lost("the program that unpacked it panicked, which is a bug of onggi"))?
}

impl Write for LayerIngest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LayerIngest {
    fn drop(&mut self) {
        if self.inflate.is_some() {
            let _ = self.join();
        }
    }
}

/// Where a layer's tree goes: an empty directory or an empty file.
pub(super) struct Target {
    pub(super) staged: StagedLayer,
    into: File,
    format: Format,
    options: UnpackOptions,
}

impl Target {
    pub(super) fn new(lease: &Lease, diff_id: &DiffId, format: Format) -> Result<Self> {
        let dir = lease.scratch("layer")?;
        durable::make_dir(&dir)?;
        let staged = StagedLayer::new(lease.clone(), dir.clone(), diff_id.clone());
        let into = match format {
            Format::Dir => {
                let path = dir.join(TREE);
                durable::make_dir(&path)?;
                File::open(&path).map_err(|e| Error::io("open the directory", &path, e))?
            }
            Format::Erofs => durable::create_new(&dir.join(FILE))?,
        };
        Ok(Self { staged, into, format, options: lease.store().options().clone() })
    }

    /// Makes the tree of this archive.
    pub(super) fn fill(self, archive: impl Read) -> Result<(StagedLayer, Unpacked, Option<LayerFile>)> {
        let Self { staged, into, format, options } = self;
        match format {
            Format::Dir => Ok((staged, unpack(archive, into.as_fd(), &options)?, None)),
            Format::Erofs => {
                let identity = || identity(&staged.diff_id);
                let written = erofs::write(archive, into, identity, &options.limits)?;
                let file = LayerFile::sealed(&staged.dir().join(FILE), written.digest, written.size)?;
                Ok((staged, written.unpacked, Some(file)))
            }
        }
    }
}

/// What tells the filesystem of one layer from that of another: the beginning of its diff ID.
pub(super) fn identity(diff_id: &DiffId) -> erofs::Identity {
    let mut identity = [0; 16];
    for (byte, pair) in identity.iter_mut().zip(diff_id.0.hex().as_bytes().chunks(2)) {
        let text = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    identity
}

/// The middle worker.
fn inflate(compressed: Receiver<Vec<u8>>, plain: &SyncSender<Vec<u8>>) -> Result<()> {
    let broken = |source| Error::Stream { op: "decompress the layer", source };
    // By content, as every other tool does: media types are often wrong about compression, and the
    // diff ID tells whether the right bytes came out.
    let mut input = decoder(Line::new(compressed), None)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = Read::by_ref(&mut input).take(CHUNK as u64).read_to_end(&mut chunk).map_err(broken)?;
        if read == 0 || plain.send(chunk).is_err() {
            // A receiver that is gone has its own reason, which is the one to report.
            return Ok(());
        }
    }
}

/// The last worker.
fn make(plain: Receiver<Vec<u8>>, hasher: Hasher, tree: Option<Target>) -> Result<Made> {
    let mut input = Hashing { line: Line::new(plain), hasher };
    let tree = tree.map(|target| target.fill(&mut input)).transpose()?;
    // The diff ID is about all bytes, also those after the end of the archive.
    io::copy(&mut input, &mut io::sink()).map_err(|source| Error::Stream { op: "read the layer", source })?;
    Ok(Made { diff_id: input.hasher.finish(), tree })
}

/// The reading end of a waiting line.
struct Line {
    chunks: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
}

impl Line {
    fn new(chunks: Receiver<Vec<u8>>) -> Self {
        Self { chunks, chunk: Vec::new(), position: 0 }
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.chunk.len() {
            // The sender is gone: that was the end.
            let Ok(chunk) = self.chunks.recv() else { return Ok(0) };
            (self.chunk, self.position) = (chunk, 0);
        }
        let rest = &self.chunk[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

/// Hashes what is read through it.
struct Hashing {
    line: Line,
    hasher: Hasher,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.line.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
