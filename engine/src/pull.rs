//! Pull: from a reference to an image that is ready to run.
//!
//! ```text
//!   registry ──► index? ──► manifest ──► config
//!                                          │ diff IDs
//!      for every layer at once             ▼
//!      network (one async thread) ──► channel ──► feeder: write blob, hash ──► inflate ──► hash, unpack
//!      claim first: whoever holds the claim of a blob fetches it, others wait and find it there
//!   all layers published ──► config, manifest, index ──► ref
//! ```
//!
//! A layer is published as soon as it is complete, not at the end with all others: two pulls that
//! hold one finished layer each and wait for the other's would wait for ever.

use std::collections::HashSet;
use std::thread;

use bytes::Bytes;
use onggi_image::store::{Claim, LayerSource, Lease, Ref};
use onggi_oci::{
    DEFAULT_REGISTRY, Descriptor, Digest, ImageConfig, ImageManifest, MAX_CONFIG, Manifest, Platform,
    Reference,
};
use onggi_registry_client::Client;

use crate::Engine;
use crate::error::{Error, Result};
use crate::progress::{Progress, Stage};

/// How many chunks of a layer may wait between the network and the disk. A chunk is what one read from
/// a socket gave, up to half a megabyte, and all layers come at once.
const WAITING_CHUNKS: usize = 4;
/// How deep indexes may nest; nobody goes beyond two.
const MAX_NESTING: usize = 4;

/// What is wanted of a pull.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// The platform to take from an index; this host's if `None`.
    pub platform: Option<Platform>,
}

/// What a pull did.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// What the reference points to: an index if the image has several platforms.
    pub digest: Digest,
    /// Whether the store has something that it had not before.
    pub changed: bool,
    /// Bytes that came over the network for layers.
    pub bytes: u64,
}

/// Everything that has to be known before layers are fetched.
struct Plan {
    /// Documents in the order in which they must be published: manifest, then the index above it.
    documents: Vec<(Descriptor, Vec<u8>)>,
    target: Descriptor,
    layers: Vec<LayerSource>,
}

/// What the network thread hands to a layer's feeder. A dropped sender without `End` is a failure.
enum Chunk {
    Bytes(Bytes),
    End,
}

impl Engine {
    /// Pulls an image.
    ///
    /// # Errors
    /// The registry's refusals; content that is not what was promised; a full disk. Layers that were
    /// completed stay until the next garbage collection, so that another try goes on from there.
    pub fn pull(
        &self,
        reference: &Reference,
        request: &PullRequest,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        let client = self.client()?;
        let network = super::network_runtime()?;
        let store = self.store()?;
        let reference = reference.clone().with_default_tag();
        let lease = store.lease(&format!("pull {reference}"))?;
        progress.message(&match reference.tag() {
            Some(tag) => format!("{tag}: Pulling from {}", familiar_path(&reference)),
            None => format!("Pulling {}", reference.familiar()),
        });
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        let plan = network.block_on(plan(&client, &lease, &reference, &platform))?;
        let before = store.get_ref(&reference)?;
        let bytes = fetch_layers(&network, &client, &lease, &reference, &plan.layers, progress)?;
        drop(network);
        let pending = plan.documents.iter().map(|(descriptor, bytes)| lease.stage(descriptor, bytes));
        store.publish(pending.collect::<Result<_, _>>()?)?;
        store.set_refs(&[Ref::new(reference.clone(), &plan.target)])?;
        for layer in &plan.layers {
            store.add_origin(&layer.blob.digest, &reference)?;
        }
        self.note_image("pull", &plan.target.digest, &reference);
        let changed = before.is_none_or(|old| old.digest != plan.target.digest);
        Ok(Pulled { digest: plan.target.digest, changed, bytes })
    }

    /// All tags of a repository, as references.
    pub fn remote_tags(&self, repository: &Reference) -> Result<Vec<Reference>> {
        let client = self.client()?;
        let tags = super::network_runtime()?.block_on(client.tags(repository))?;
        tags.iter().map(|tag| Ok(repository.with_tag(tag)?)).collect()
    }
}

/// `library/alpine` of Docker Hub, `quay.io/me/app` elsewhere: as `docker pull` says it.
fn familiar_path(reference: &Reference) -> String {
    if reference.registry() == DEFAULT_REGISTRY { reference.repository().into() } else { reference.name() }
}

/// Asks the registry until the layers are known. What is in the store already is not fetched.
async fn plan(client: &Client, lease: &Lease, reference: &Reference, platform: &Platform) -> Result<Plan> {
    let top = client.resolve(reference).await?;
    let target = top.descriptor();
    let mut documents = Vec::new();
    let mut current = top;
    let mut depth = 0;
    let (descriptor, bytes, manifest) = loop {
        let descriptor = current.descriptor();
        match current.manifest {
            Manifest::Image(manifest) => break (descriptor, current.bytes, manifest),
            Manifest::Index(index) => {
                let no_platform = || Error::NoPlatform {
                    reference: reference.familiar(),
                    wanted: platform.to_string(),
                    offered: index.platforms().join(", "),
                };
                let chosen =
                    index.select(platform).filter(|_| depth < MAX_NESTING).ok_or_else(no_platform)?;
                let next = client.manifest(reference, chosen).await?;
                documents.push((descriptor, current.bytes.to_vec()));
                current = next;
                depth += 1;
            }
        }
    };
    documents.push((descriptor, bytes.to_vec()));
    if !manifest.is_runnable() {
        let kind = manifest.artifact_type.unwrap_or_else(|| manifest.config.media_type.to_string());
        return Err(Error::NotAnImage { reference: reference.familiar(), kind });
    }
    let parse = |bytes: &[u8]| {
        let digest = manifest.config.digest.clone();
        let invalid = |source| Error::ImageConfig { reference: reference.familiar(), digest, source };
        ImageConfig::parse(bytes).map_err(invalid)
    };
    let config = match lease.claim_blob(&manifest.config)? {
        Claim::Fetch(permit) => {
            let bytes = client.blob_bytes(reference, &manifest.config, MAX_CONFIG).await?;
            let config = parse(&bytes)?;
            // Published before the claim is given back, so that whoever waits for it finds it.
            lease.store().publish(vec![lease.stage(&manifest.config, &bytes)?])?;
            drop(permit);
            config
        }
        _ => parse(&lease.store().read_blob(&manifest.config.digest)?)?,
    };
    let layers = layers(&manifest, &config, &reference.familiar())?;
    documents.reverse();
    Ok(Plan { documents, target, layers })
}

/// Pairs the blobs of the manifest with the diff IDs of the config; each pair once.
pub(crate) fn layers(
    manifest: &ImageManifest,
    config: &ImageConfig,
    reference: &str,
) -> Result<Vec<LayerSource>> {
    let (blobs, diff_ids) = (&manifest.layers, &config.rootfs.diff_ids);
    if blobs.len() != diff_ids.len() {
        return Err(Error::LayerCount {
            reference: reference.into(),
            blobs: blobs.len(),
            diff_ids: diff_ids.len(),
        });
    }
    if let Some(blob) = blobs.iter().find(|blob| !blob.media_type.is_layer()) {
        return Err(Error::LayerType {
            reference: reference.into(),
            media_type: blob.media_type.to_string(),
        });
    }
    let mut seen = HashSet::new();
    let pairs = blobs.iter().zip(diff_ids).filter(|(blob, diff_id)| seen.insert((&blob.digest, *diff_id)));
    Ok(pairs.map(|(blob, diff_id)| LayerSource { blob: blob.clone(), diff_id: diff_id.clone() }).collect())
}

/// Makes all layers ready, side by side. Returns the bytes that came over the network.
pub(crate) fn fetch_layers(
    network: &tokio::runtime::Runtime,
    client: &Client,
    lease: &Lease,
    reference: &Reference,
    layers: &[LayerSource],
    progress: &dyn Progress,
) -> Result<u64> {
    for layer in layers {
        progress.layer(&layer.blob.digest.to_string(), Some(layer.blob.size));
        progress.stage(&layer.blob.digest.to_string(), Stage::Waiting);
    }
    // Large layers first: the last one to come decides when all is done.
    let mut order: Vec<&LayerSource> = layers.iter().collect();
    order.sort_by_key(|layer| std::cmp::Reverse(layer.blob.size));
    thread::scope(|scope| {
        let mut feeders = Vec::new();
        let mut downloads = Vec::new();
        for layer in order {
            // A feeder that finds its layer missing asks for the bytes by this channel's first use.
            let (ask, asked) = tokio::sync::oneshot::channel();
            let (sender, receiver) = tokio::sync::mpsc::channel(WAITING_CHUNKS);
            downloads.push(download(client, reference, layer, asked, sender, progress));
            feeders.push(scope.spawn(move || feed(lease, layer, ask, receiver, progress)));
        }
        let downloaded = network.block_on(futures_util::future::try_join_all(downloads));
        // Dropped senders have let every feeder come to its end by now. When the download failed, that
        // is the cause, unless it only failed because a feeder gave up.
        let fed: Vec<Result<u64>> =
            feeders.into_iter().map(|f| f.join().unwrap_or(Err(Error::Panicked))).collect();
        let cause = fed.iter().position(|r| matches!(r, Err(error) if !matches!(error, Error::Interrupted)));
        match (cause, downloaded) {
            (Some(position), _) => fed.into_iter().nth(position).unwrap_or(Err(Error::Panicked)),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => fed.into_iter().sum(),
        }
    })
}

/// The asynchronous half of one layer: bytes from the registry into the channel.
async fn download(
    client: &Client,
    reference: &Reference,
    layer: &LayerSource,
    asked: tokio::sync::oneshot::Receiver<()>,
    sender: tokio::sync::mpsc::Sender<Chunk>,
    progress: &dyn Progress,
) -> Result<()> {
    let id = layer.blob.digest.to_string();
    if asked.await.is_err() {
        // The layer is here, or somebody else made it, or its feeder failed and will say so.
        return Ok(());
    }
    let mut stream = client.blob(reference, &layer.blob).await?.hashed_by_caller();
    progress.stage(&id, Stage::Downloading);
    let mut resumes = 0;
    while let Some(bytes) = stream.next_chunk().await? {
        if stream.resumes() > resumes {
            resumes = stream.resumes();
            progress.stage(&id, Stage::Retrying { attempt: resumes });
            progress.stage(&id, Stage::Downloading);
            progress.position(&id, stream.offset() - bytes.len() as u64);
        }
        progress.advance(&id, bytes.len() as u64);
        if sender.send(Chunk::Bytes(bytes)).await.is_err() {
            return Err(Error::Interrupted);
        }
    }
    progress.stage(&id, Stage::DownloadComplete);
    let _ = sender.send(Chunk::End).await;
    Ok(())
}

/// The blocking half of one layer: claim, then from the channel into the store. Returns the bytes
/// that came in.
fn feed(
    lease: &Lease,
    layer: &LayerSource,
    ask: tokio::sync::oneshot::Sender<()>,
    mut receiver: tokio::sync::mpsc::Receiver<Chunk>,
    progress: &dyn Progress,
) -> Result<u64> {
    let id = layer.blob.digest.to_string();
    let (pending, bytes) = match lease.claim_layer(&layer.blob, &layer.diff_id)? {
        Claim::Present => {
            progress.stage(&id, Stage::AlreadyExists);
            return Ok(0);
        }
        Claim::Unpack(permit) => {
            progress.stage(&id, Stage::Unpacking);
            (lease.unpack(layer.clone(), permit)?, 0)
        }
        Claim::Fetch(permit) => {
            let mut ingest = lease.ingest(layer.clone(), permit)?;
            let mut total = 0;
            ask.send(()).map_err(|()| Error::Interrupted)?;
            loop {
                match receiver.blocking_recv() {
                    Some(Chunk::Bytes(bytes)) => {
                        total += bytes.len() as u64;
                        ingest.put(&bytes)?;
                    }
                    Some(Chunk::End) => break,
                    None => return Err(Error::Interrupted),
                }
            }
            progress.stage(&id, Stage::Unpacking);
            (ingest.finish()?, total)
        }
    };
    lease.store().publish(vec![pending])?;
    progress.stage(&id, Stage::PullComplete);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onggi_oci::{DiffId, MediaType};

    #[test]
    fn blobs_and_diff_ids_must_pair() {
        let blob = |n: u8| Descriptor::of(MediaType::OciLayerGzip, &[n]);
        let diff = |n: u8| DiffId(Digest::sha256(&[n]));
        let reference = "app";
        let config_blob = Descriptor::of(MediaType::OciConfig, b"{}");
        let manifest = |blobs| ImageManifest::new(MediaType::OciManifest, config_blob.clone(), blobs);
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = vec![diff(1), diff(2), diff(1)];
        let paired = layers(&manifest(vec![blob(1), blob(2), blob(1)]), &config, reference).unwrap();
        assert_eq!(paired.len(), 2);
        assert!(layers(&manifest(vec![blob(1)]), &config, reference).is_err());
        let odd = Descriptor::of(MediaType::OciConfig, b"x");
        assert!(layers(&manifest(vec![blob(1), blob(2), odd]), &config, reference).is_err());
    }
}
