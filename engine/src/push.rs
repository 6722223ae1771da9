//! Push: from the store to a registry.
//!
//! ```text
//!   ref ──► manifest, or index with its manifests
//!     for every blob at once:  there already? ─► mount from a repository that has it? ─► upload
//!   all blobs there ──► manifests ──► index, under the tag, last
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::try_join_all;
use onggi_image::store::{Image, Store};
use onggi_oci::{Descriptor, Digest, Manifest, Platform, Reference};
use onggi_registry_client::{BlobSource, Client, Pushed as Outcome};

use crate::Engine;
use crate::error::{Error, Result};
use crate::progress::{Progress, Stage};

/// What is wanted of a push.
#[derive(Clone, Debug, Default)]
pub struct PushRequest {
    /// Only this platform of an image that has several.
    pub platform: Option<Platform>,
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

/// What has to be in the registry, in this order.
struct Plan {
    /// Layers and configs.
    blobs: Vec<Descriptor>,
    /// Manifests that an index lists, and inner indexes; inner ones first.
    inner: Vec<Descriptor>,
    /// What the tag will point to.
    top: Descriptor,
    note: Option<String>,
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
        let plan = plan(store, reference, request)?;
        lease.protect(plan.blobs.iter().chain(&plan.inner).chain([&plan.top]).map(|d| &d.digest))?;
        let client = self.client()?;
        super::network_runtime()?.block_on(async {
            try_join_all(plan.blobs.iter().map(|blob| push_blob(&client, store, reference, blob, progress)))
                .await?;
            for inner in &plan.inner {
                let bytes = store.read_blob(&inner.digest)?;
                let name = reference.with_digest(inner.digest.clone());
                client.push_manifest(&name, &inner.media_type, bytes.into()).await?;
            }
            let bytes: Bytes = store.read_blob(&plan.top.digest)?.into();
            client.push_manifest(reference, &plan.top.media_type, bytes).await?;
            Ok::<_, Error>(())
        })?;
        self.note_image("push", &plan.top.digest, reference);
        Ok(Pushed { digest: plan.top.digest, size: plan.top.size, note: plan.note })
    }

    /// All names with tags of a repository that are in the store.
    pub fn local_tags(&self, repository: &Reference) -> Result<Vec<Reference>> {
        let refs = self.store()?.refs()?;
        let names = refs.into_iter().filter(onggi_image::store::Ref::is_tag).filter_map(|one| one.name);
        let tags: Vec<Reference> = names.filter(|name| name.name() == repository.name()).collect();
        if tags.is_empty() {
            return Err(Error::NothingToPush { repository: repository.familiar_name() });
        }
        Ok(tags)
    }
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

/// Finds out what has to go.
fn plan(store: &Store, reference: &Reference, request: &PushRequest) -> Result<Plan> {
    let target =
        store.get_ref(reference)?.ok_or_else(|| Error::NothingToPush { repository: reference.familiar() })?;
    if let Some(platform) = &request.platform {
        return of_image(store, &store.image(&target, Some(platform))?, None);
    }
    if target.media_type.is_manifest() {
        return of_image(store, &store.image(&target, None)?, None);
    }
    for image in store.images_of(&target)? {
        store.restore_blobs(&image)?;
    }
    let mut parts = Parts::default();
    parts.collect(store, &target)?;
    if parts.missing.is_empty() {
        parts.inner.pop();
        return Ok(Plan {
            blobs: parts.blobs.into_values().collect(),
            inner: parts.inner,
            top: target,
            note: None,
        });
    }
    // As Docker: the one platform that is here goes alone.
    match &store.images_of(&target)?[..] {
        [only] => {
            let note = format!(
                "only {} of {} is in the store, so that image was pushed and not the whole index",
                only.platform(),
                reference.familiar()
            );
            of_image(store, only, Some(note))
        }
        _ => Err(Error::IncompleteIndex {
            reference: reference.familiar(),
            missing: parts.missing.into_iter().collect::<Vec<_>>().join(", "),
        }),
    }
}

fn of_image(store: &Store, image: &Image, note: Option<String>) -> Result<Plan> {
    store.restore_blobs(image)?;
    let size = store.blob_size(&image.manifest_digest)?.unwrap_or_default();
    let blobs: BTreeMap<_, _> =
        blobs_of(image.manifest.layers.iter().chain([&image.manifest.config])).collect();
    let media_type = Manifest::Image(image.manifest.clone()).media_type();
    let top = Descriptor::new(media_type, image.manifest_digest.clone(), size);
    Ok(Plan { blobs: blobs.into_values().collect(), inner: Vec::new(), top, note })
}

fn blobs_of<'a>(
    descriptors: impl Iterator<Item = &'a Descriptor>,
) -> impl Iterator<Item = (Digest, Descriptor)> {
    descriptors.map(|d| (d.digest.clone(), d.clone()))
}

/// Everything below an index.
#[derive(Default)]
struct Parts {
    blobs: BTreeMap<Digest, Descriptor>,
    /// Manifests and indexes, each after what it lists.
    inner: Vec<Descriptor>,
    /// Platforms (or digests) whose manifest or blobs are not here.
    missing: BTreeSet<String>,
}

impl Parts {
    fn collect(&mut self, store: &Store, entry: &Descriptor) -> Result<()> {
        let name = || entry.platform.as_ref().map_or_else(|| entry.digest.to_string(), ToString::to_string);
        if !store.has_blob(entry)? {
            self.missing.insert(name());
            return Ok(());
        }
        match Manifest::parse(&store.read_blob(&entry.digest)?, Some(&entry.media_type))? {
            Manifest::Index(index) => {
                for child in &index.manifests {
                    self.collect(store, child)?;
                }
            }
            Manifest::Image(manifest) => {
                let all = manifest.layers.iter().chain([&manifest.config]);
                for (digest, blob) in blobs_of(all) {
                    if !store.has_blob(&blob)? {
                        self.missing.insert(name());
                    }
                    self.blobs.insert(digest, blob);
                }
            }
        }
        self.inner.push(entry.clone());
        Ok(())
    }
}
