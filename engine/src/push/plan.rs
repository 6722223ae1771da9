//! What a push has to send: which blobs, which layers in another form, and the documents that name them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use onggi_image::layer::Compression;
use onggi_image::store::{BlobForm, Image, ImageLayer, Recipe, Store};
use onggi_oci::{
    Descriptor, DiffId, Digest, ImageIndex, ImageManifest, LayerCompression, Manifest, MediaType, Reference,
};

use super::PushRequest;
use crate::error::{Error, Result};

/// Where an attestation in an index says which manifest it is about.
const ABOUT: &str = "vnd.docker.reference.digest";

/// A layer that goes out in another form than the manifest here lists.
pub(super) struct Recoded {
    /// The form that is listed.
    pub(super) blob: Descriptor,
    pub(super) diff_id: DiffId,
    pub(super) recipe: Recipe,
}

/// What has to be in the registry.
pub(super) struct Plan {
    /// Layers and configs that go as they are.
    pub(super) blobs: Vec<Descriptor>,
    pub(super) recoded: Vec<Recoded>,
    /// Manifests and indexes, each after what it lists; the last is what the tag will point to.
    manifests: Vec<Descriptor>,
    pub(super) note: Option<String>,
}

impl Plan {
    /// What the tag points to here.
    pub(super) fn top(&self) -> &Descriptor {
        self.manifests.last().expect("a plan is made of a manifest")
    }

    /// All that must stay while it is sent.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        let layers = self.recoded.iter().flat_map(|layer| [&layer.blob.digest, &layer.diff_id.0]);
        self.blobs.iter().chain(&self.manifests).map(|d| &d.digest).chain(layers)
    }

    /// The documents as they go out, in this order, once the new forms of layers are known.
    pub(super) fn documents(
        &self,
        store: &Store,
        forms: &BTreeMap<Digest, BlobForm>,
    ) -> Result<Vec<(Descriptor, Bytes)>> {
        let mut renamed: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        let mut documents = Vec::new();
        for old in &self.manifests {
            let bytes = store.read_blob(&old.digest)?;
            let changed = match Manifest::parse(&bytes, Some(&old.media_type))? {
                Manifest::Image(manifest) => recoded_manifest(manifest, forms).map(Manifest::Image),
                Manifest::Index(index) => renamed_index(index, &renamed).map(Manifest::Index),
            };
            let Some(changed) = changed else {
                documents.push((old.clone(), bytes.into()));
                continue;
            };
            let bytes = changed.to_bytes();
            let new = Descriptor::of(changed.media_type(), &bytes);
            renamed.insert(old.digest.clone(), new.clone());
            documents.push((new, bytes.into()));
        }
        Ok(documents)
    }
}

/// The manifest with the new forms of its layers; `None` if none of them changes.
fn recoded_manifest(
    mut manifest: ImageManifest,
    forms: &BTreeMap<Digest, BlobForm>,
) -> Option<ImageManifest> {
    if !manifest.layers.iter().any(|layer| forms.contains_key(&layer.digest)) {
        return None;
    }
    let zstd = forms.values().any(|form| form.media_type.compression() == Some(LayerCompression::Zstd));
    let is_docker = manifest.config.media_type == MediaType::DockerConfig;
    for layer in &mut manifest.layers {
        if let Some(form) = forms.get(&layer.digest) {
            layer.digest = form.digest.clone();
            layer.size = form.size;
            layer.media_type = form.media_type.clone();
        }
        layer.media_type = match (&layer.media_type, is_docker && !zstd) {
            (MediaType::OciLayerGzip, true) => MediaType::DockerLayerGzip,
            // Docker's own manifests have no zstd: with it the image becomes an OCI image.
            (MediaType::DockerLayerGzip, false) => MediaType::OciLayerGzip,
            (MediaType::DockerLayer, false) => MediaType::OciLayer,
            (same, _) => (*same).clone(),
        };
    }
    if is_docker && zstd {
        manifest.config.media_type = MediaType::OciConfig;
        manifest.media_type = Some(MediaType::OciManifest);
    }
    Some(manifest)
}

/// The index with the new digests of what it lists; `None` if nothing changes.
fn renamed_index(mut index: ImageIndex, renamed: &BTreeMap<Digest, Descriptor>) -> Option<ImageIndex> {
    let mut changed = false;
    for entry in &mut index.manifests {
        if let Some(new) = renamed.get(&entry.digest) {
            (entry.digest, entry.size) = (new.digest.clone(), new.size);
            entry.media_type = new.media_type.clone();
            changed = true;
        }
        if let Some(about) = entry.annotations.get_mut(ABOUT)
            && let Some(new) = about.parse().ok().and_then(|old: Digest| renamed.get(&old))
        {
            *about = new.digest.to_string();
            changed = true;
        }
    }
    changed.then_some(index)
}

/// How a layer has to change its form on the way out, if it has to. One that came from a registry uncompressed
/// stays so, as do those in a form that is none of ours to distribute.
fn recipe(store: &Store, layer: ImageLayer<'_>, request: &PushRequest) -> Result<Option<Recipe>> {
    let has = match layer.blob.media_type.compression() {
        Some(has) if !layer.blob.media_type.is_foreign() => has,
        _ => return Ok(None),
    };
    let wanted = request.compression.unwrap_or(Compression::Gzip);
    let recode = if has == LayerCompression::None {
        request.compression.is_some() || store.origins(&layer.blob.digest)?.is_empty()
    } else {
        request.recompress && has != wanted.into()
    };
    Ok(recode.then_some(Recipe { compression: wanted, level: request.level }))
}

/// Finds out what has to go.
pub(super) fn make(store: &Store, reference: &Reference, request: &PushRequest) -> Result<Plan> {
    let target =
        store.get_ref(reference)?.ok_or_else(|| Error::NothingToPush { repository: reference.familiar() })?;
    if let Some(platform) = &request.platform {
        return of_image(store, request, &store.image(&target, Some(platform))?, None);
    }
    if target.media_type.is_manifest() {
        return of_image(store, request, &store.image(&target, None)?, None);
    }
    let images = store.images_of(&target)?;
    let mut recoded = BTreeMap::new();
    for image in &images {
        recoded.extend(layers_of(store, request, image)?);
    }
    let mut parts = Parts { recoded, ..Parts::default() };
    parts.collect(store, &target)?;
    if parts.missing.is_empty() {
        return Ok(Plan {
            blobs: parts.blobs.into_values().collect(),
            recoded: parts.recoded.into_values().collect(),
            manifests: parts.manifests,
            note: None,
        });
    }
    // As Docker: the one platform that is here goes alone.
    match &images[..] {
        [only] => {
            let note = format!(
                "only {} of {} is in the store, so that image was pushed and not the whole index",
                only.platform(),
                reference.familiar()
            );
            of_image(store, request, only, Some(note))
        }
        _ => Err(Error::IncompleteIndex {
            reference: reference.familiar(),
            missing: parts.missing.into_iter().collect::<Vec<_>>().join(", "),
        }),
    }
}

fn of_image(store: &Store, request: &PushRequest, image: &Image, note: Option<String>) -> Result<Plan> {
    let recoded = layers_of(store, request, image)?;
    let size = store.blob_size(&image.manifest_digest)?.unwrap_or_default();
    let blobs: BTreeMap<_, _> = image
        .manifest
        .layers
        .iter()
        .filter(|layer| !recoded.contains_key(&layer.digest))
        .chain([&image.manifest.config])
        .map(|blob| (blob.digest.clone(), blob.clone()))
        .collect();
    let media_type = Manifest::Image(image.manifest.clone()).media_type();
    let top = Descriptor::new(media_type, image.manifest_digest.clone(), size);
    Ok(Plan {
        blobs: blobs.into_values().collect(),
        recoded: recoded.into_values().collect(),
        manifests: vec![top],
        note,
    })
}

/// The layers of the image that go in another form, by the digest of the one that is listed. The others are here as
/// blobs afterwards.
fn layers_of(store: &Store, request: &PushRequest, image: &Image) -> Result<BTreeMap<Digest, Recoded>> {
    let mut recoded = BTreeMap::new();
    let mut whole = Vec::new();
    for layer in image.layers() {
        match recipe(store, layer, request)? {
            Some(recipe) => {
                let (blob, diff_id) = (layer.blob.clone(), layer.diff_id.clone());
                recoded.insert(blob.digest.clone(), Recoded { blob, diff_id, recipe });
            }
            None => whole.push(layer),
        }
    }
    store.restore_blobs_of(whole.into_iter())?;
    Ok(recoded)
}

/// Everything below an index.
#[derive(Default)]
struct Parts {
    recoded: BTreeMap<Digest, Recoded>,
    blobs: BTreeMap<Digest, Descriptor>,
    /// Manifests and indexes, each after what it lists.
    manifests: Vec<Descriptor>,
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
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    if self.recoded.contains_key(&blob.digest) {
                        continue;
                    }
                    if !store.has_blob(blob)? {
                        self.missing.insert(name());
                    }
                    self.blobs.insert(blob.digest.clone(), blob.clone());
                }
            }
        }
        self.manifests.push(entry.clone());
        Ok(())
    }
}
