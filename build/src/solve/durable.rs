//! New layers on their way to the disk: used where they lie at once, flushed together in the
//! background, and only then in their place and remembered.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use onggi_image::store::{BlobForm, Format, Layer, LayerRecord};
use onggi_oci::{Descriptor, DiffId, MediaType};

use super::worker::Worker;
use super::{Solver, job};
use crate::error::{Error, Result};
use crate::graph::VertexId;
use crate::host::StackLayer;

/// Layers wait at most so long for a flush while the build goes on.
pub(super) const FLUSH_AFTER: Duration = Duration::from_secs(1);

impl Solver<'_> {
    /// Makes what a step left in its directory a layer; it is used before it is flushed.
    pub(super) fn adopt(
        &mut self,
        dir: &std::path::Path,
        made: job::Layered,
        created: i64,
    ) -> Result<StackLayer> {
        let diff_id = DiffId(made.diff_id);
        let form = BlobForm { digest: diff_id.0.clone(), size: made.size, media_type: MediaType::OciLayer };
        let blob = descriptor(&form);
        self.lease.protect([&diff_id.0])?;
        self.absent.remove(&diff_id);
        if let Some(layer) = self.store.layer(&diff_id)? {
            return Ok(StackLayer { blob, layer, created: Some(created) });
        }
        let record = LayerRecord {
            entries: made.entries,
            bytes: made.bytes,
            max_id: made.max_id,
            blobs: vec![form],
            format: if made.file.is_some() { Format::Erofs } else { Format::Dir },
            file: made.file.clone(),
            ..LayerRecord::directory(diff_id, self.store.options().overlay_xattr)
        };
        let name = if made.file.is_some() { job::FILE } else { job::UPPER };
        let pending = self.lease.adopt_layer(&dir.join(name), &record)?;
        self.pending_since.get_or_insert_with(Instant::now);
        if made.file.is_some()
            && let Some(layer) = self.store.pending_file(&pending, record.clone())
        {
            self.pending.push((pending, None));
            return Ok(StackLayer { blob, layer, created: Some(created) });
        }
        let tree = pending.layer_tree().unwrap_or_default();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(&tree, flags, rustix::fs::Mode::empty())
            .map_err(Error::io("open the layer", &tree))?;
        // By descriptor: the tree moves when it is flushed.
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
        self.held.push(fd);
        self.pending.push((pending, None));
        Ok(StackLayer { blob, layer: Layer::at(path, record), created: Some(created) })
    }

    /// Begins to flush if something has waited long enough.
    pub(super) fn maybe_flush(&mut self) -> Result<()> {
        let due = self.pending_since.is_some_and(|since| since.elapsed() >= FLUSH_AFTER);
        if due && self.flusher.is_none() {
            let store = self.store.clone();
            let flush = move |_: std::os::fd::BorrowedFd<'_>| store.flush().map_err(Error::from);
            let worker = Worker::start(VertexId(usize::MAX), PathBuf::new(), self.cache.dir(), flush)?;
            self.flusher = Some((worker, self.pending.len()));
            self.pending_since = None;
        }
        Ok(())
    }

    /// Takes what a background flush made durable.
    pub(super) fn flushed(&mut self) -> Result<()> {
        let Some((worker, count)) = self.flusher.take_if(|(worker, _)| worker.has_ended()) else {
            return Ok(());
        };
        worker.collect::<()>()?;
        self.place(count)?;
        if !self.pending.is_empty() {
            self.pending_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Puts the first layers in their place and remembers them.
    fn place(&mut self, count: usize) -> Result<()> {
        let mut layers = Vec::new();
        let mut records = Vec::new();
        for (pending, record) in self.pending.drain(..count) {
            layers.push(pending);
            records.extend(record);
        }
        self.store.place(layers)?;
        records.iter().try_for_each(|(key, record)| self.cache.store(key, record))
    }

    pub(super) fn finish(&mut self) -> Result<()> {
        if let Some((worker, _)) = self.flusher.take() {
            worker.kill();
            worker.collect_quietly();
        }
        if !self.pending.is_empty() {
            self.store.flush()?;
            self.place(self.pending.len())?;
        }
        self.lines.iter().try_for_each(|(line, key)| self.cache.set_last(line, key))
    }
}

pub(super) fn descriptor(form: &BlobForm) -> Descriptor {
    Descriptor::new(form.media_type.clone(), form.digest.clone(), form.size)
}

pub(super) fn form_of(blob: &Descriptor) -> BlobForm {
    BlobForm { digest: blob.digest.clone(), size: blob.size, media_type: blob.media_type.clone() }
}
