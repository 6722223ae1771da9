//! Blobs: bytes by digest, written with their hash and verified when they are read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use onggi_oci::{Algorithm, Descriptor, Digest, Hasher, MAX_CONFIG};

use super::claim::Permit;
use super::commit::{Pending, StagedBlob};
use super::lease::Lease;
use super::{Store, durable};
use crate::error::{Error, Result};

/// The most that is read into memory of one blob: a manifest (4 MiB) or a config (8 MiB).
pub const MAX_DOCUMENT: u64 = MAX_CONFIG;

impl Store {
    /// Whether the blob is here with the size that the descriptor promises. Its content was
    /// verified when it came in.
    pub fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.blob_size(&blob.digest)? == Some(blob.size))
    }

    /// The size in bytes of a blob that is here.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.blob_path(digest);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
            Ok(_) => Err(Error::corrupt(path.display(), "it is no regular file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("look at the blob", path, e)),
        }
    }

    /// Opens a blob for reading. Whoever needs to be sure of its content hashes it on the way.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::NoSuchBlob { digest: digest.clone() },
            _ => Error::io("open the blob", path, e),
        })
    }

    /// Reads a small blob (a manifest, a config) and verifies it.
    ///
    /// # Errors
    /// It is not here, larger than [`MAX_DOCUMENT`], or not what its name says.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let io = |e| Error::io("read the blob", &path, e);
        let size = file.metadata().map_err(io)?.len();
        if size > MAX_DOCUMENT {
            return Err(Error::Limit {
                what: "the size in bytes of a manifest or config",
                limit: MAX_DOCUMENT,
            });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(io)?;
        let found = Digest::of(digest.algorithm(), &bytes);
        if found != *digest {
            return Err(Error::corrupt(
                format_args!("the blob {digest} in the store"),
                format_args!("its content has the digest {found}; `onggi system check --repair` removes it"),
            ));
        }
        Ok(bytes)
    }
}

/// A blob that is being written. Dropped before [`BlobWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    lease: Lease,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    written: u64,
    /// The most bytes it may get: the promised size, or a limit.
    limit: u64,
    promised: Option<(Digest, u64)>,
    /// Whether the file belongs to a [`Pending`] now.
    handed_over: bool,
}

impl Lease {
    /// Begins the blob that the descriptor promises.
    pub fn blob(&self, promised: &Descriptor) -> Result<BlobWriter> {
        let name = (promised.digest.clone(), promised.size);
        self.begin(promised.digest.algorithm(), promised.size, Some(name))
    }

    /// Begins a blob whose digest is not known yet, of at most `limit` bytes.
    pub fn new_blob(&self, limit: u64) -> Result<BlobWriter> {
        self.begin(Algorithm::Sha256, limit, None)
    }

    /// Stages a document that is in memory already (a manifest, a config).
    pub fn stage(&self, promised: &Descriptor, bytes: &[u8]) -> Result<Pending> {
        let mut writer = self.blob(promised)?;
        writer.put(bytes)?;
        writer.finish(None)
    }

    fn begin(&self, algorithm: Algorithm, limit: u64, promised: Option<(Digest, u64)>) -> Result<BlobWriter> {
        let path = self.scratch("blob")?;
        let file = durable::create_new(&path)?;
        let hasher = Hasher::new(algorithm);
        let lease = self.clone();
        Ok(BlobWriter { lease, path, file, hasher, written: 0, limit, promised, handed_over: false })
    }
}

impl BlobWriter {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// There are more than promised; the disk is full.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.written > self.limit {
            return Err(match &self.promised {
                Some((digest, size)) => Error::Mismatch {
                    what: format!("the blob {digest}"),
                    promised: format!("{size} bytes"),
                    found: "more".into(),
                },
                None => Error::Limit { what: "the size in bytes of a blob", limit: self.limit },
            });
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|e| Error::io("write the blob", &self.path, e))
    }

    /// How many bytes came in.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Compares size and digest with what was promised. The blob is published by
    /// [`Store::publish`]; until then `permit` keeps others from fetching it.
    pub fn finish(self, permit: Option<Permit>) -> Result<Pending> {
        let staged = self.finish_staged()?;
        Ok(Pending::blob(staged, permit))
    }

    pub(super) fn finish_staged(mut self) -> Result<StagedBlob> {
        let digest = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256)).finish();
        if let Some((name, size)) = &self.promised {
            let mismatch =
                |promised, found| Error::Mismatch { what: format!("the blob {name}"), promised, found };
            if self.written != *size {
                return Err(mismatch(format!("{size} bytes"), format!("{} bytes", self.written)));
            }
            if digest != *name {
                return Err(mismatch(name.to_string(), digest.to_string()));
            }
        }
        let file = self.file.try_clone().map_err(|e| Error::io("write the blob", &self.path, e))?;
        self.handed_over = true;
        Ok(StagedBlob::new(self.lease.clone(), self.path.clone(), file, digest, self.written))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.handed_over {
            let _ = fs::remove_file(&self.path);
        }
    }
}
