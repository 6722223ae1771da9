//! Images as a user sees them: an ID, names, a config, layers, a size.

use std::collections::{BTreeMap, BTreeSet};

use onggi_oci::{
    Descriptor, DiffId, Digest, History, ImageConfig, ImageManifest, Manifest, Platform, Reference,
};

use super::refs::Ref;
use super::{Layer, Store};
use crate::error::{Error, Result};

/// How deep indexes may nest; in use is 1.
const MAX_NESTING: usize = 4;

/// One image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its ID as Docker counts it: the digest of the config.
    pub id: Digest,
    /// What its names point to: the manifest, or an index that lists it.
    pub target: Descriptor,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// Its manifest.
    pub manifest: ImageManifest,
    /// Its config.
    pub config: ImageConfig,
}

/// One layer of an image.
#[derive(Clone, Copy, Debug)]
pub struct ImageLayer<'a> {
    /// How it is transferred.
    pub blob: &'a Descriptor,
    /// What it unpacks to.
    pub diff_id: &'a DiffId,
}

impl Image {
    /// Its layers, lowest first. Manifest and config agree on their number.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = ImageLayer<'_>> + DoubleEndedIterator {
        let pairs = self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids);
        pairs.map(|(blob, diff_id)| ImageLayer { blob, diff_id })
    }

    /// The platform that it says it is for.
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }
}

/// An image in a listing.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// The image; of an index, the one for this host, else the first that is here.
    pub image: Image,
    /// Its names with tags.
    pub tags: Vec<Reference>,
    /// Its names with digests.
    pub digests: Vec<Reference>,
    /// Bytes of the files of all its layers, which is what Docker shows as size.
    pub size: u64,
    /// Every ref that keeps it.
    pub refs: Vec<Ref>,
}

impl ImageSummary {
    /// Whether it has no tag, so that `image prune` removes it.
    pub fn is_dangling(&self) -> bool {
        self.tags.is_empty()
    }
}

/// All images.
#[derive(Debug, Default)]
pub struct Images {
    /// Those that can be read, the youngest first.
    pub images: Vec<ImageSummary>,
    /// Refs whose image cannot be read, and why.
    pub broken: Vec<(Ref, Error)>,
}

impl Store {
    /// The image that `target` is or lists: for `platform`, else for this host, else any.
    pub fn image(&self, target: &Descriptor, platform: Option<&Platform>) -> Result<Image> {
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        if target.media_type.is_manifest() {
            let image = self.image_of_manifest(target, target)?;
            if platform.is_some_and(|p| !p.accepts(&image.platform())) {
                return Err(no_platform(target, wanted, &[image]));
            }
            return Ok(image);
        }
        let mut images = self.images_of(target)?;
        let rank = |image: &Image| wanted.rank(&image.platform());
        let best = (0..images.len()).filter_map(|i| Some((rank(&images[i])?, i))).min();
        match (best, platform) {
            (Some((_, i)), _) => Ok(images.swap_remove(i)),
            (None, None) if !images.is_empty() => Ok(images.swap_remove(0)),
            _ => Err(no_platform(target, wanted, &images)),
        }
    }

    /// Every image of `target` that is here. Of an index, what is no runnable image (attestations)
    /// is left out.
    pub fn images_of(&self, target: &Descriptor) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        self.collect_images(target, target, 0, &mut images)?;
        Ok(images)
    }

    fn collect_images(
        &self,
        target: &Descriptor,
        entry: &Descriptor,
        depth: usize,
        images: &mut Vec<Image>,
    ) -> Result<()> {
        match self.read_manifest(&entry.digest, Some(&entry.media_type))? {
            Manifest::Image(manifest) => {
                let attestation = entry.platform.as_ref().is_some_and(|p| p.os == "unknown");
                if depth == 0 || (manifest.is_runnable() && !attestation) {
                    images.push(self.image_of_parsed(target, &entry.digest, manifest)?);
                }
            }
            Manifest::Index(_) if depth >= MAX_NESTING => {
                return Err(Error::Limit {
                    what: "the depth of indexes in indexes",
                    limit: MAX_NESTING as u64,
                });
            }
            Manifest::Index(index) => {
                for entry in &index.manifests {
                    if self.has_blob(entry)? {
                        self.collect_images(target, entry, depth + 1, images)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn image_of_manifest(&self, target: &Descriptor, entry: &Descriptor) -> Result<Image> {
        match self.read_manifest(&entry.digest, Some(&entry.media_type))? {
            Manifest::Image(manifest) => self.image_of_parsed(target, &entry.digest, manifest),
            Manifest::Index(_) => Err(Error::NotAnImage { what: format!("the index {}", entry.digest) }),
        }
    }

    fn image_of_parsed(
        &self,
        target: &Descriptor,
        digest: &Digest,
        manifest: ImageManifest,
    ) -> Result<Image> {
        if !manifest.is_runnable() {
            let what = format!("the artifact {digest} (config type {})", manifest.config.media_type);
            return Err(Error::NotAnImage { what });
        }
        let config = self.read_config(&manifest.config.digest)?;
        let (blobs, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if blobs != diff_ids {
            return Err(Error::corrupt(
                format_args!("the image {digest}"),
                format_args!("its manifest lists {blobs} layers and its config {diff_ids}"),
            ));
        }
        Ok(Image {
            id: manifest.config.digest.clone(),
            target: target.clone(),
            manifest_digest: digest.clone(),
            manifest,
            config,
        })
    }

    /// The image's layers, ready to be mounted, lowest first.
    ///
    /// # Errors
    /// One is not ready ([`Error::NoSuchLayer`]): [`super::Lease::unpack`] makes it from its blob.
    pub fn ready_layers(&self, image: &Image) -> Result<Vec<Layer>> {
        let layers = image
            .layers()
            .map(|l| self.layer(l.diff_id)?.ok_or_else(|| Error::NoSuchLayer { diff_id: l.diff_id.clone() }));
        layers.collect()
    }

    /// All images, by ID.
    pub fn images(&self) -> Result<Images> {
        let mut by_id: BTreeMap<Digest, ImageSummary> = BTreeMap::new();
        let mut broken = Vec::new();
        for one in self.refs()? {
            let image = match self.image(&one.target, None) {
                Ok(image) => image,
                Err(e) => {
                    broken.push((one, e));
                    continue;
                }
            };
            let summary = match by_id.entry(image.id.clone()) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let size = self.content_size(&image)?;
                    let (tags, digests, refs) = (Vec::new(), Vec::new(), Vec::new());
                    entry.insert(ImageSummary { image, tags, digests, size, refs })
                }
            };
            if let Some(name) = &one.name {
                let list = if one.is_tag() { &mut summary.tags } else { &mut summary.digests };
                list.push(name.clone());
            }
            summary.refs.push(one);
        }
        let mut images: Vec<_> = by_id.into_values().collect();
        images.sort_by(|a, b| b.image.config.created.cmp(&a.image.config.created));
        Ok(Images { images, broken })
    }

    /// Bytes of the files of an image's layers; of a layer that is not ready, the size of its blob.
    pub fn content_size(&self, image: &Image) -> Result<u64> {
        let sizes = image.layers().map(|l| self.layer_size(l));
        sizes.sum()
    }

    fn layer_size(&self, layer: ImageLayer<'_>) -> Result<u64> {
        Ok(self.layer(layer.diff_id)?.map_or(layer.blob.size, |ready| ready.record.bytes))
    }

    /// The image's history, oldest first, each step with the bytes of the layer that it made.
    pub fn history(&self, image: &Image) -> Result<Vec<(History, u64)>> {
        let mut layers = image.layers();
        let mut lines = Vec::new();
        for step in &image.config.history {
            let layer = if step.empty_layer { None } else { layers.next() };
            lines.push((step.clone(), layer.map_or(Ok(0), |l| self.layer_size(l))?));
        }
        // Some tools write no history, or one that is too short.
        for layer in layers {
            lines.push((History::default(), self.layer_size(layer)?));
        }
        Ok(lines)
    }
}

fn no_platform(target: &Descriptor, wanted: &Platform, images: &[Image]) -> Error {
    let found: BTreeSet<String> = images.iter().map(|i| i.platform().to_string()).collect();
    Error::NoPlatform {
        image: target.digest.to_string(),
        wanted: wanted.to_string(),
        found: found.into_iter().collect(),
    }
}
