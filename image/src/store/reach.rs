//! What a manifest or index reaches: whether all of it is here, and what must stay because of it.
//!
//! An index may be here with only some of its manifests: those of platforms that were asked for. A
//! layer counts as here if its blob is, or if the tree that was made from it is ready (its blob may
//! have been dropped by `prune --blobs`).

use std::collections::HashSet;

use onggi_oci::{Descriptor, DiffId, Digest, ImageConfig, ImageManifest, Manifest, MediaType};

use super::Store;
use crate::error::{Error, Result};

/// How deep indexes may nest; in use is 1.
const MAX_NESTING: usize = 4;

/// What garbage collection must leave alone.
#[derive(Debug, Default)]
pub(super) struct Marked {
    pub(super) blobs: HashSet<Digest>,
    pub(super) layers: HashSet<DiffId>,
}

impl Store {
    /// Reads a manifest or index that is here, verified.
    pub fn read_manifest(&self, digest: &Digest, media_type: Option<&MediaType>) -> Result<Manifest> {
        let bytes = self.read_blob(digest)?;
        Manifest::parse(&bytes, media_type)
            .map_err(|source| Error::Document { what: format!("the manifest {digest}"), source })
    }

    /// Reads an image config that is here, verified.
    pub fn read_config(&self, digest: &Digest) -> Result<ImageConfig> {
        let bytes = self.read_blob(digest)?;
        ImageConfig::parse(&bytes)
            .map_err(|source| Error::Document { what: format!("the image config {digest}"), source })
    }

    /// What of the image is not here, in words; empty if it can be used.
    pub fn missing(&self, target: &Descriptor) -> Result<Vec<String>> {
        self.missing_below(target, 0)
    }

    fn missing_below(&self, target: &Descriptor, depth: usize) -> Result<Vec<String>> {
        if !self.has_blob(target)? {
            return Ok(vec![format!("the manifest {}", target.digest)]);
        }
        let index = match self.read_manifest(&target.digest, Some(&target.media_type))? {
            Manifest::Image(manifest) => return self.missing_of_image(&manifest),
            Manifest::Index(index) => index,
        };
        if depth >= MAX_NESTING {
            return Err(Error::Limit { what: "the depth of indexes in indexes", limit: MAX_NESTING as u64 });
        }
        if index.manifests.is_empty() {
            // A list that somebody is about to fill.
            return Ok(Vec::new());
        }
        let mut best: Option<Vec<String>> = None;
        for entry in &index.manifests {
            if !self.has_blob(entry)? {
                continue;
            }
            let missing = self.missing_below(entry, depth + 1)?;
            if missing.is_empty() {
                return Ok(missing);
            }
            if best.as_ref().is_none_or(|b| missing.len() < b.len()) {
                best = Some(missing);
            }
        }
        Ok(best.unwrap_or_else(|| vec![format!("every manifest of the index {}", target.digest)]))
    }

    fn missing_of_image(&self, manifest: &ImageManifest) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        let mut diff_ids = Vec::new();
        if !self.has_blob(&manifest.config)? {
            missing.push(format!("the config {}", manifest.config.digest));
        } else if manifest.is_runnable() {
            diff_ids = self.read_config(&manifest.config.digest)?.rootfs.diff_ids;
        }
        for (position, blob) in manifest.layers.iter().enumerate() {
            let ready = match diff_ids.get(position) {
                Some(diff_id) => self.layer(diff_id)?.is_some(),
                None => false,
            };
            if !ready && !self.has_blob(blob)? {
                missing.push(format!("the layer {}", blob.digest));
            }
        }
        Ok(missing)
    }

    /// Marks a blob and everything that it reaches, if it is a document that reaches anything.
    ///
    /// # Errors
    /// A document that is here cannot be read: then nobody knows what it reaches, and nothing may
    /// be removed.
    pub(super) fn mark(&self, marked: &mut Marked, target: &Descriptor) -> Result<()> {
        if !marked.blobs.insert(target.digest.clone()) || self.blob_size(&target.digest)?.is_none() {
            return Ok(());
        }
        if target.media_type.is_config() {
            let config = self.read_config(&target.digest)?;
            marked.layers.extend(config.rootfs.diff_ids);
        } else if target.media_type.is_index() || target.media_type.is_manifest() {
            match self.read_manifest(&target.digest, Some(&target.media_type))? {
                Manifest::Image(manifest) => {
                    marked.blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
                    self.mark(marked, &manifest.config)?;
                }
                Manifest::Index(index) => {
                    index.manifests.iter().try_for_each(|entry| self.mark(marked, entry))?;
                }
            }
        }
        Ok(())
    }

    /// Marks a digest of which only the digest is known: a blob, a document of any kind, a layer.
    pub(super) fn mark_digest(&self, marked: &mut Marked, digest: &Digest) -> Result<()> {
        marked.layers.insert(DiffId(digest.clone()));
        let Some(size) = self.blob_size(digest)?.filter(|size| *size <= super::MAX_DOCUMENT) else {
            marked.blobs.insert(digest.clone());
            return Ok(());
        };
        let bytes = self.read_blob(digest)?;
        let media_type = if let Ok(manifest) = Manifest::parse(&bytes, None) {
            manifest.media_type()
        } else if ImageConfig::parse(&bytes).is_ok() {
            MediaType::OciConfig
        } else {
            marked.blobs.insert(digest.clone());
            return Ok(());
        };
        self.mark(marked, &Descriptor::new(media_type, digest.clone(), size))
    }
}
