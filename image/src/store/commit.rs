//! Publishing: what is finished below `ingest/` is flushed and renamed to its place.
//!
//! A layer is thousands of files, so one `syncfs` flushes them all, and layers that finish while a
//! flush is under way share the next one. Documents are flushed file by file. The names (the
//! directories `blobs/` and `layers/`) are flushed by whoever writes a ref that reaches them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use onggi_oci::{Algorithm, DiffId, Digest};
use rustix::io::Errno;

use super::claim::Permit;
use super::layer::BlobForm;
use super::lease::Lease;
use super::{Store, durable};
use crate::error::{Error, Result};

/// Something verified and complete, not yet in its place. Dropped, it leaves nothing.
#[derive(Debug)]
#[must_use = "it disappears unless it is published"]
pub struct Pending {
    layer: Option<StagedLayer>,
    blob: Option<StagedBlob>,
    /// A form of a layer that is there already, proven to be one.
    form: Option<(DiffId, BlobForm)>,
    /// Others wait for this one until it is published; never read, only dropped.
    _permit: Option<Permit>,
}

impl Pending {
    pub(super) fn blob(blob: StagedBlob, permit: Option<Permit>) -> Self {
        Self { layer: None, blob: Some(blob), form: None, _permit: permit }
    }

    pub(super) fn layer(
        layer: Option<StagedLayer>,
        blob: Option<StagedBlob>,
        permit: Option<Permit>,
    ) -> Self {
        Self { layer, blob, form: None, _permit: permit }
    }

    /// Notes that the blob unpacks to a layer which the store has.
    pub(super) fn with_form(self, diff_id: DiffId, form: BlobForm) -> Self {
        Self { form: Some((diff_id, form)), ..self }
    }

    /// Digest and size of its blob, if it has one.
    pub fn blob_digest(&self) -> Option<(&Digest, u64)> {
        self.blob.as_ref().map(|b| (&b.digest, b.size))
    }

    /// Where its layer lies until it is published.
    pub(super) fn layer_dir(&self) -> Option<&Path> {
        self.layer.as_ref().map(StagedLayer::dir)
    }

    /// The tree of its layer, if it has one: until it is published.
    pub fn layer_tree(&self) -> Option<PathBuf> {
        self.layer_dir().map(|dir| dir.join(super::layer::TREE))
    }

    /// Its layer, without what else was pending.
    pub(super) fn into_layer(self) -> Option<StagedLayer> {
        self.layer
    }

    /// The diff ID of its layer, if it has one.
    pub fn diff_id(&self) -> Option<&DiffId> {
        self.layer.as_ref().map(|l| &l.diff_id)
    }
}

/// A finished blob below `ingest/`.
#[derive(Debug)]
pub(super) struct StagedBlob {
    lease: Lease,
    path: PathBuf,
    file: File,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl StagedBlob {
    pub(super) fn new(lease: Lease, path: PathBuf, file: File, digest: Digest, size: u64) -> Self {
        Self { lease, path, file, digest, size }
    }
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        // After publishing there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// A finished layer below `ingest/`: a directory with `layer.json` and `fs/`.
#[derive(Debug)]
pub(super) struct StagedLayer {
    lease: Lease,
    dir: PathBuf,
    pub(super) diff_id: DiffId,
}

impl StagedLayer {
    pub(super) fn new(lease: Lease, dir: PathBuf, diff_id: DiffId) -> Self {
        Self { lease, dir, diff_id }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn store(&self) -> &Store {
        self.lease.store()
    }
}

impl Drop for StagedLayer {
    fn drop(&mut self) {
        if self.dir.exists() {
            let store = self.lease.store();
            if !store.layer_dir(&self.diff_id).exists() {
                // Who used its file before it was in its place had it mounted.
                store.unmount(&self.diff_id);
            }
            let _ = self.lease.store().discard(&self.dir);
        }
    }
}

impl Store {
    /// Flushes what is pending and puts it in its place: layers first, then blobs in the order
    /// given (so a config goes before its manifest). Returns when the content is durable; the
    /// permits are given back. The leases keep it from garbage collection: keep them until a ref
    /// reaches it.
    pub fn publish(&self, pending: Vec<Pending>) -> Result<()> {
        if pending.iter().any(|p| p.layer.is_some()) {
            self.flush_staged()?;
        } else {
            for blob in pending.iter().filter_map(|p| p.blob.as_ref()) {
                blob.file.sync_all().map_err(|e| Error::io("flush the blob", &blob.path, e))?;
            }
        }
        self.place(pending)
    }

    /// Makes durable all that was written before, also by other processes: the first half of
    /// [`Store::publish`], for who can do something else meanwhile.
    pub fn flush(&self) -> Result<()> {
        self.inner.committer.flush(&self.ingest_dir())
    }

    /// The second half of [`Store::publish`]: puts what was flushed in its place.
    pub fn place(&self, pending: Vec<Pending>) -> Result<()> {
        for layer in pending.iter().filter_map(|p| p.layer.as_ref()) {
            layer.lease.protect([&layer.diff_id.0])?;
            self.place_layer(layer)?;
        }
        for blob in pending.iter().filter_map(|p| p.blob.as_ref()) {
            blob.lease.protect([&blob.digest])?;
            if blob.digest.algorithm() != Algorithm::Sha256 {
                durable::make_dir(&self.root().join("blobs").join(blob.digest.algorithm().name()))?;
            }
            durable::rename(&blob.path, &self.blob_path(&blob.digest))?;
        }
        // Only now: a form that is known counts as present.
        for (diff_id, form) in pending.iter().filter_map(|p| p.form.as_ref()) {
            self.add_blob_form(diff_id, form.clone())?;
        }
        drop(pending);
        Ok(())
    }

    /// Makes everything below `ingest/` durable.
    pub(super) fn flush_staged(&self) -> Result<()> {
        self.inner.committer.flush(&self.ingest_dir())
    }

    /// Another process may have been faster; then its layer, which is the same, stays.
    fn place_layer(&self, staged: &StagedLayer) -> Result<()> {
        let target = self.layer_dir(&staged.diff_id);
        let failed = |e: io::Error| Error::io("rename a finished layer to", &target, e);
        for _ in 0..2 {
            match fs::rename(&staged.dir, &target) {
                Ok(()) => return Ok(()),
                Err(e) if is_occupied(&e) => {}
                Err(e) => return Err(failed(e)),
            }
            if self.layer(&staged.diff_id)?.is_some() {
                return Ok(());
            }
            // What is there is damaged, or made for another way of owning files.
            self.unmount(&staged.diff_id);
            self.discard(&target)?;
        }
        Err(failed(Errno::EXIST.into()))
    }

    /// Makes the names of all blobs and layers durable; before a ref that may reach them.
    pub(super) fn sync_names(&self) -> Result<()> {
        let blobs = self.root().join("blobs");
        durable::sync_dir(&blobs.join(Algorithm::Sha256.name()))?;
        let sha512 = blobs.join(Algorithm::Sha512.name());
        if sha512.is_dir() {
            durable::sync_dir(&sha512)?;
            durable::sync_dir(&blobs)?;
        }
        durable::sync_dir(&self.layers_dir())
    }
}

fn is_occupied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

/// Flushes of the whole filesystem, shared by the threads of this process.
#[derive(Debug, Default)]
pub(super) struct Committer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    ended: u64,
    running: bool,
    /// The last flush that failed, and how.
    failed: Option<(u64, i32)>,
}

impl Committer {
    /// Returns after a flush that began after this call.
    fn flush(&self, dir: &Path) -> Result<()> {
        let failed = |e: io::Error| Error::io("flush the filesystem of", dir, e);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = state.begun + 1;
        while state.ended < needed {
            if state.running {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            state.begun += 1;
            let number = state.begun;
            drop(state);
            let result = File::open(dir).and_then(|d| Ok(rustix::fs::syncfs(&d)?));
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.running = false;
            state.ended = number;
            if let Err(e) = &result {
                state.failed = Some((number, e.raw_os_error().unwrap_or(Errno::IO.raw_os_error())));
            }
            self.changed.notify_all();
        }
        match state.failed {
            Some((number, errno)) if number >= needed => Err(failed(io::Error::from_raw_os_error(errno))),
            _ => Ok(()),
        }
    }
}
