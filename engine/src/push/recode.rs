//! A layer that goes out compressed, though it lies here as a tree or in another form.
//!
//! ```text
//!   known: a form that is here        ─► as any blob
//!   large: compress (a thread, and one for each core) ─┬─► blob in the store
//!                                                      └─► PATCH … PATCH, PUT with the digest at its end
//!   small, or an upload that broke    ─► compress, then as any blob
//! ```

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;

use bytes::Bytes;
use onggi_image::store::{BlobForm, CompressedLayer, Lease};
use onggi_oci::{Descriptor, ErrorKind, Reference};
use onggi_registry_client::{Client, Upload};
use tokio::sync::mpsc;

use super::plan::Recoded;
use super::push_blob;
use crate::error::{Error, Result};
use crate::progress::{Progress, Stage};

/// A layer with fewer bytes of files is compressed before it is sent: it takes a moment, and then the registry
/// can be asked whether it has it.
const STREAM_FROM: u64 = 8 << 20;
/// Pieces between the compression and the network, each the output of one block.
const AHEAD: usize = 8;

/// Sends the layer in its new form, which is returned.
pub(super) async fn push(
    client: &Client,
    lease: &Lease,
    reference: &Reference,
    layer: &Recoded,
    progress: &Arc<dyn Progress>,
) -> Result<BlobForm> {
    let store = lease.store();
    // Another level is another form.
    let known = match layer.recipe.level {
        None => store.known_forms(&layer.diff_id, layer.recipe.compression)?,
        Some(_) => Vec::new(),
    };
    for form in &known {
        lease.protect([&form.digest])?;
        let blob = descriptor(form);
        if store.has_blob(&blob)? {
            push_blob(client, store, reference, &blob, progress).await?;
            return Ok(form.clone());
        }
    }
    let size = store.layer(&layer.diff_id)?.map_or(layer.blob.size, |layer| layer.record.bytes);
    let form = if known.is_empty() && size >= STREAM_FROM {
        match stream(client, lease, reference, layer, progress).await? {
            (form, true) => return Ok(form),
            (form, false) => form,
        }
    } else {
        let made = compress(lease, layer, |_| Ok(())).await?;
        publish(lease, made).await?
    };
    push_blob(client, store, reference, &descriptor(&form), progress).await?;
    Ok(form)
}

/// Compresses and sends at once. Tells whether the registry has it; it hasn't if it knows no uploads in parts.
async fn stream(
    client: &Client,
    lease: &Lease,
    reference: &Reference,
    layer: &Recoded,
    progress: &Arc<dyn Progress>,
) -> Result<(BlobForm, bool)> {
    let id = layer.blob.digest.to_string();
    progress.layer(&id, None);
    progress.stage(&id, Stage::Waiting);
    let upload = client.upload(reference).await?;
    progress.stage(&id, Stage::Pushing);
    // Whoever gives this future up ends the compression too.
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let (pieces, received) = mpsc::channel::<Bytes>(AHEAD);
    let made = {
        let wanted = Arc::clone(&wanted.0);
        let mut pieces = Some(pieces);
        compress(lease, layer, move |piece| {
            if !wanted.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            // A broken upload doesn't end the work: the blob is sent as a whole then.
            if pieces.as_ref().is_some_and(|p| p.blocking_send(Bytes::copy_from_slice(piece)).is_err()) {
                pieces = None;
            }
            Ok(())
        })
    };
    let (made, sent) = futures_util::future::join(made, send(upload, received, &id, progress)).await;
    let (made, upload) = match (made, sent) {
        // Compressing it all was worth nothing: the next try would end the same way.
        (_, Err(Error::Registry(error))) if error.kind() == ErrorKind::Denied => return Err(error.into()),
        (made, sent) => (made?, sent.ok()),
    };
    let digest = made.form.digest.clone();
    let committed = async {
        match upload {
            Some(upload) => upload.finish(&digest).await.is_ok(),
            None => false,
        }
    };
    let (form, committed) = futures_util::future::join(publish(lease, made), committed).await;
    let form = form?;
    if committed {
        lease.store().add_origin(&form.digest, reference)?;
        progress.stage(&id, Stage::Pushed);
    }
    Ok((form, committed))
}

/// Set to false when it is dropped.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn send(
    mut upload: Upload,
    mut pieces: mpsc::Receiver<Bytes>,
    id: &str,
    progress: &Arc<dyn Progress>,
) -> Result<Upload> {
    while let Some(piece) = pieces.recv().await {
        upload.write(&piece).await?;
        progress.advance(id, piece.len() as u64);
    }
    Ok(upload)
}

/// Compresses on threads that may block.
async fn compress(
    lease: &Lease,
    layer: &Recoded,
    mut listen: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
) -> Result<CompressedLayer> {
    let (lease, blob, diff_id, recipe) =
        (lease.clone(), layer.blob.clone(), layer.diff_id.clone(), layer.recipe);
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let work = move || lease.compress_layer(&blob, &diff_id, recipe, threads, &mut |piece| listen(piece));
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Panicked)??)
}

/// Puts the blob in its place, durably.
async fn publish(lease: &Lease, made: CompressedLayer) -> Result<BlobForm> {
    let store = lease.store().clone();
    let CompressedLayer { pending, form } = made;
    let work = move || store.publish(vec![pending]);
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Panicked)??;
    Ok(form)
}

fn descriptor(form: &BlobForm) -> Descriptor {
    Descriptor::new(form.media_type.clone(), form.digest.clone(), form.size)
}
