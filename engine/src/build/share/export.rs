//! `--cache-to`: what a build made, for other machines.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::Arc;

use onggi_build::StackLayer;
use onggi_build::cache::shared::{Steps, to_json};
use onggi_image::layer::{DEFAULT_GZIP_LEVEL, GzipWriter, MAX_CONTENT, PackOptions, Source, pack};
use onggi_image::store::{BlobForm, Layer, Lease};
use onggi_oci::{
    Descriptor, DiffId, ImageManifest, LayerCompression, MAX_LAYERS, Manifest, MediaType, Reference,
};

use super::import::Shared;
use super::{ARTIFACT, CONFIG, CacheFrom, CacheMode, CachePlace, CacheTo};
use crate::Engine;
use crate::build::layout::Layout;
use crate::error::{Error, Result};
use crate::progress::{Progress, Silent};

/// What goes out: documents, and layers in the order of the manifest.
struct Artifact {
    config: (Descriptor, Vec<u8>),
    manifest: (Descriptor, Vec<u8>),
    layers: Vec<Descriptor>,
}

/// Whether a mode shares a layer: all, or those that an image has.
fn shares(mode: CacheMode, stacks: &[Vec<StackLayer>], diff_id: &DiffId) -> bool {
    mode == CacheMode::Max || stacks.iter().flatten().any(|one| one.diff_id() == diff_id)
}

/// The annotation of an image with these layers.
pub(in crate::build) fn inline(steps: &Steps, stack: &[StackLayer]) -> String {
    to_json(steps, &|diff_id| stack.iter().position(|one| one.diff_id() == diff_id))
}

impl Engine {
    /// Writes what a build made where `--cache-to` says.
    pub(in crate::build) fn export_cache(
        &self,
        to: &CacheTo,
        lease: &Lease,
        shared: &Shared<'_>,
        steps: &Steps,
        stacks: &[Vec<StackLayer>],
    ) -> Result<()> {
        let shares = |diff_id: &DiffId| shares(to.mode, stacks, diff_id);
        match &to.place {
            CachePlace::Inline => Ok(()),
            CachePlace::Local { dir, tag } => {
                let layout = Layout::create(dir)?;
                let there = |blob: &Descriptor| layout.has(blob);
                let artifact = self.artifact(lease, shared, steps, &shares, &there)?;
                let store = self.store()?;
                for blob in &artifact.layers {
                    if !layout.has(blob)? {
                        layout.put(blob, store.open_blob(&blob.digest)?)?;
                    }
                }
                for (descriptor, bytes) in [&artifact.config, &artifact.manifest] {
                    layout.put(descriptor, &bytes[..])?;
                }
                layout.set(tag, &artifact.manifest.0)
            }
            CachePlace::Registry(reference) => {
                let reference = reference.clone().with_default_tag();
                let same = |place: &CacheFrom| {
                    matches!(place, CacheFrom::Registry(from)
                        if from.registry() == reference.registry() && from.repository() == reference.repository())
                };
                // What came from this repository need not be fetched to go there again.
                let known: BTreeSet<_> = steps
                    .steps
                    .iter()
                    .filter_map(|step| shared.blob(&step.key))
                    .filter(|(place, _)| same(place))
                    .map(|(_, blob)| blob.digest.clone())
                    .collect();
                let there = |blob: &Descriptor| Ok(known.contains(&blob.digest));
                let artifact = self.artifact(lease, shared, steps, &shares, &there)?;
                self.push_cache(lease, &reference, artifact)
            }
        }
    }

    /// Makes the documents, and the blobs of layers that are not where they are to go.
    fn artifact(
        &self,
        lease: &Lease,
        shared: &Shared<'_>,
        steps: &Steps,
        shares: &dyn Fn(&DiffId) -> bool,
        there: &dyn Fn(&Descriptor) -> Result<bool>,
    ) -> Result<Artifact> {
        let store = self.store()?;
        let mut forms: BTreeMap<DiffId, Descriptor> = BTreeMap::new();
        let mut missing = Vec::new();
        for step in &steps.steps {
            if forms.len() >= MAX_LAYERS {
                break;
            }
            if forms.contains_key(&step.diff_id) || !shares(&step.diff_id) {
                continue;
            }
            if let Some(layer) = store.layer(&step.diff_id)? {
                forms.insert(step.diff_id.clone(), self.compressed(lease, &layer, there)?);
            } else if let Some((_, blob)) = shared.blob(&step.key) {
                if !there(blob)? {
                    missing.push(step.clone());
                }
                forms.insert(step.diff_id.clone(), plain(blob));
            }
        }
        if !missing.is_empty() {
            shared.fetch(&missing)?;
        }
        let layers: Vec<Descriptor> = forms.values().cloned().collect();
        let places: BTreeMap<&DiffId, usize> =
            forms.keys().enumerate().map(|(place, diff_id)| (diff_id, place)).collect();
        let bytes = to_json(steps, &|diff_id| places.get(diff_id).copied()).into_bytes();
        let config = Descriptor::of(MediaType::from(CONFIG), &bytes);
        let mut manifest = ImageManifest::new(MediaType::OciManifest, config.clone(), layers.clone());
        manifest.artifact_type = Some(ARTIFACT.into());
        let document = Manifest::Image(manifest).to_bytes();
        let descriptor = Descriptor::of(MediaType::OciManifest, &document);
        Ok(Artifact { config: (config, bytes), manifest: (descriptor, document), layers })
    }

    /// A layer as a gzip blob of the store: one that is known, else made now.
    pub(in crate::build) fn compressed(
        &self,
        lease: &Lease,
        layer: &Layer,
        there: &dyn Fn(&Descriptor) -> Result<bool>,
    ) -> Result<Descriptor> {
        let store = self.store()?;
        let diff_id = &layer.record.diff_id;
        for form in &layer.record.blobs {
            if form.media_type.compression().is_none_or(|kind| kind == LayerCompression::None) {
                continue;
            }
            let blob = Descriptor::new(form.media_type.clone(), form.digest.clone(), form.size);
            lease.protect([&form.digest])?;
            if store.has_blob(&blob)? || there(&blob)? {
                return Ok(plain(&blob));
            }
        }
        let stream = |source| Error::Process { op: "compress a layer", source };
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let writer = lease.new_blob(MAX_CONTENT)?;
        let mut gzip = GzipWriter::new(writer, DEFAULT_GZIP_LEVEL, threads).map_err(stream)?;
        let options = PackOptions::new(Source::OverlayUpper(store.options().overlay_xattr));
        pack(layer.open_directory()?.as_fd(), &mut gzip, &options)?;
        let pending = gzip.finish().map_err(stream)?.finish(None)?;
        let Some((digest, size)) = pending.blob_digest() else { return Err(Error::Interrupted) };
        let form = BlobForm { digest: digest.clone(), size, media_type: MediaType::OciLayerGzip };
        lease.protect([&form.digest])?;
        store.publish(vec![pending])?;
        store.add_blob_form(diff_id, form.clone())?;
        Ok(Descriptor::new(form.media_type, form.digest, form.size))
    }

    fn push_cache(&self, lease: &Lease, reference: &Reference, artifact: Artifact) -> Result<()> {
        let (store, client) = (self.store()?, self.client()?);
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        store.publish(vec![lease.stage(&artifact.config.0, &artifact.config.1)?])?;
        crate::network_runtime()?.block_on(async {
            let blobs = artifact.layers.iter().chain([&artifact.config.0]);
            let pushes = blobs.map(|blob| crate::push::push_blob(&client, store, reference, blob, &progress));
            futures_util::future::try_join_all(pushes).await?;
            client
                .push_manifest(reference, &artifact.manifest.0.media_type, artifact.manifest.1.into())
                .await?;
            Ok::<_, Error>(())
        })
    }
}

/// Without what belongs to the place that it came from.
fn plain(blob: &Descriptor) -> Descriptor {
    Descriptor::new(blob.media_type.clone(), blob.digest.clone(), blob.size)
}
