//! Push: from the store to a registry.
//!
//! ```text
//!   ref ──► manifest, or index with its manifests
//!     for every blob at once:  there already? ─► mount from a repository that has it? ─► upload
//!     for every layer that a build left uncompressed:  compressed before? ─► as above
//!                                                       else compress and send at the same time
//!   all blobs there ──► manifests ──► index, under the tag, last
//! ```
//!
//! What was pulled goes out as it came in, with its digest. Where a layer changes its form, the manifest that says
//! so is kept under the name and its digest, as Docker's RepoDigests; the image's ID stays.

mod plan;
mod recode;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{try_join, try_join_all};
use onggi_image::layer::Compression;
use onggi_image::store::{Lease, Ref, Store};
use onggi_oci::{Descriptor, Digest, Platform, Reference};
use onggi_registry_client::{BlobSource, Client, Pushed as Outcome};

use crate::Engine;
use crate::error::{Error, Result};
use crate::progress::{Progress, Stage};

/// What is wanted of a push.
#[derive(Clone, Debug, Default)]
pub struct PushRequest {
    /// Only this platform of an image that has several.
    pub platform: Option<Platform>,
    /// How layers are compressed that are not yet; gzip if `None`.
    pub compression: Option<Compression>,
    /// The level of the compression; its usual one if `None`.
    pub level: Option<i32>,
    /// Whether layers that are compressed another way are compressed anew.
    pub recompress: bool,
}

/// What a push did.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// What the tag points to now.
    pub digest: Digest,
    /// The size of that manifest or index in bytes.
    pub size: u64,
    /// Something that the user should know.
    pub note: Option<String>,
}

/// A blob of the store, as an upload reads it.
struct StoredBlob {
    store: Store,
    digest: Digest,
}

impl BlobSource for StoredBlob {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.store.open_blob(&self.digest).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}

impl Engine {
    /// Pushes an image under its own name.
    ///
    /// # Errors
    /// There is no such image here, or not all of it; the registry's refusals.
    pub fn push(
        &self,
        reference: &Reference,
        request: &PushRequest,
        progress: &Arc<dyn Progress>,
    ) -> Result<Pushed> {
        let store = self.store()?;
        let lease = store.lease(&format!("push {reference}"))?;
        let plan = plan::make(store, reference, request)?;
        lease.protect(plan.digests())?;
        let client = self.client()?;
        let (top, documents) = super::network_runtime()?.block_on(async {
            let whole = plan.blobs.iter().map(|blob| push_blob(&client, store, reference, blob, progress));
            let recoded = plan.recoded.iter().map(|layer| {
                let id = layer.blob.digest.clone();
                let sent = recode::push(&client, &lease, reference, layer, progress);
                async move { Ok((id, sent.await?)) }
            });
            let (_, forms) = try_join(try_join_all(whole), try_join_all(recoded)).await?;
            let forms: BTreeMap<_, _> = forms.into_iter().collect();
            let mut documents = plan.documents(store, &forms)?;
            let Some((top, bytes)) = documents.pop() else { return Err(Error::Interrupted) };
            for (inner, bytes) in &documents {
                let name = reference.with_digest(inner.digest.clone());
                client.push_manifest(&name, &inner.media_type, bytes.clone()).await?;
            }
            client.push_manifest(reference, &top.media_type, bytes.clone()).await?;
            documents.push((top.clone(), bytes));
            Ok::<_, Error>((top, documents))
        })?;
        if top.digest != plan.top().digest {
            keep(&lease, reference, &top, &documents)?;
        }
        self.note_image("push", &plan.top().digest, reference);
        Ok(Pushed { digest: top.digest, size: top.size, note: plan.note })
    }

    /// All names with tags of a repository that are in the store.
    pub fn local_tags(&self, repository: &Reference) -> Result<Vec<Reference>> {
        let refs = self.store()?.refs()?;
        let names = refs.into_iter().filter(Ref::is_tag).filter_map(|one| one.name);
        let tags: Vec<Reference> = names.filter(|name| name.name() == repository.name()).collect();
        if tags.is_empty() {
            return Err(Error::NothingToPush { repository: repository.familiar_name() });
        }
        Ok(tags)
    }
}

/// Keeps what was pushed beside what is here: a pull finds it, and the next push needs to compress nothing.
fn keep(
    lease: &Lease,
    reference: &Reference,
    top: &Descriptor,
    documents: &[(Descriptor, bytes::Bytes)],
) -> Result<()> {
    let store = lease.store();
    let mut pending = Vec::new();
    for (descriptor, bytes) in documents {
        if !store.has_blob(descriptor)? {
            pending.push(lease.stage(descriptor, bytes)?);
        }
    }
    store.publish(pending)?;
    Ok(store.set_refs(&[Ref::new(reference.with_digest(top.digest.clone()), top)])?)
}

pub(crate) async fn push_blob(
    client: &Client,
    store: &Store,
    reference: &Reference,
    blob: &Descriptor,
    progress: &Arc<dyn Progress>,
) -> Result<()> {
    let id = blob.digest.to_string();
    progress.layer(&id, Some(blob.size));
    progress.stage(&id, Stage::Waiting);
    let source = Arc::new(StoredBlob { store: store.clone(), digest: blob.digest.clone() });
    let sent = {
        let (progress, id) = (Arc::clone(progress), id.clone());
        let last = Mutex::new(0);
        Arc::new(move |sent: u64| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if *last == 0 {
                progress.stage(&id, Stage::Pushing);
            }
            if sent >= *last {
                progress.advance(&id, sent - *last);
            } else {
                progress.position(&id, sent);
            }
            *last = sent;
        })
    };
    let origins = store.origins(&blob.digest)?;
    let outcome = client.push_blob(reference, blob, &origins, source, sent).await?;
    store.add_origin(&blob.digest, reference)?;
    progress.stage(
        &id,
        match outcome {
            Outcome::Existed => Stage::LayerAlreadyExists,
            Outcome::Mounted { from } => Stage::Mounted { from },
            _ => Stage::Pushed,
        },
    );
    Ok(())
}
