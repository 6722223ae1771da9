//! From layers to an image: config and manifest, the same bytes for the same input.

use onggi_oci::{Descriptor, DiffId, Digest, History, ImageConfig, ImageManifest, Manifest, MediaType};

use crate::graph::Target;
use crate::host::StackLayer;

/// The comment of history entries that only a layer tells of.
const COMMENT: &str = "buildkit.exporter.image.v0";

/// An image's documents.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The config.
    pub config: ImageConfig,
    /// Its bytes, whose digest is the image's ID.
    pub config_bytes: Vec<u8>,
    /// How the manifest lists it.
    pub config_descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// How a ref or an index lists it.
    pub manifest_descriptor: Descriptor,
}

/// Puts an image together. `time` gives a moment (in seconds since 1970) as RFC 3339; with `epoch`,
/// nothing is said to be later.
pub fn assemble(
    target: &Target,
    layers: &[StackLayer],
    epoch: Option<i64>,
    annotations: &std::collections::BTreeMap<String, String>,
    time: &dyn Fn(i64) -> String,
) -> Assembled {
    let mut config = target.config.clone();
    config.rootfs.diff_ids = layers.iter().map(|one| DiffId(one.diff_id().0.clone())).collect();
    history(&mut config, layers, time);
    if let Some(epoch) = epoch {
        config.created = Some(time(epoch));
    } else if config.created.is_none() || layers.iter().any(|one| one.created.is_some()) {
        config.created = config.history.last().and_then(|entry| entry.created.clone());
    }
    let config_bytes = config.to_bytes();
    let digest = Digest::sha256(&config_bytes);
    let config_descriptor = Descriptor::new(MediaType::OciConfig, digest, config_bytes.len() as u64);
    let blobs = layers.iter().map(|one| as_oci(&one.blob)).collect();
    let mut manifest = ImageManifest::new(MediaType::OciManifest, config_descriptor.clone(), blobs);
    manifest.annotations.clone_from(annotations);
    let manifest_bytes = Manifest::Image(manifest).to_bytes();
    let digest = Digest::sha256(&manifest_bytes);
    let mut manifest_descriptor =
        Descriptor::new(MediaType::OciManifest, digest, manifest_bytes.len() as u64);
    manifest_descriptor.platform = Some(target.platform.clone());
    Assembled { config, config_bytes, config_descriptor, manifest_bytes, manifest_descriptor }
}

/// Docker's media types of a base image do not belong into an OCI manifest.
fn as_oci(blob: &Descriptor) -> Descriptor {
    let media_type = match &blob.media_type {
        MediaType::DockerLayer => MediaType::OciLayer,
        MediaType::DockerLayerGzip => MediaType::OciLayerGzip,
        MediaType::DockerLayerZstd => MediaType::OciLayerZstd,
        other => other.clone(),
    };
    Descriptor::new(media_type, blob.digest.clone(), blob.size)
}

/// Gives each entry its time, and each layer an entry, as BuildKit does.
fn history(config: &mut ImageConfig, layers: &[StackLayer], time: &dyn Fn(i64) -> String) {
    let entries = &mut config.history;
    let told = entries.iter().filter(|entry| !entry.empty_layer).count();
    if told > layers.len() {
        // More than there are: the oldest ones made none.
        let surplus = told - layers.len();
        entries
            .iter_mut()
            .filter(|entry| !entry.empty_layer)
            .take(surplus)
            .for_each(|entry| entry.empty_layer = true);
    }
    for layer in layers.iter().skip(told) {
        entries.push(History {
            created: layer.created.map(time),
            comment: Some(COMMENT.into()),
            ..History::default()
        });
    }
    let mut of_layers = layers.iter();
    for entry in entries.iter_mut().filter(|entry| !entry.empty_layer) {
        let created = of_layers.next().and_then(|layer| layer.created);
        if entry.created.is_none() {
            entry.created = created.map(time);
        }
    }
    // Entries without a layer have the time of the first new layer, else of the layer before.
    let first_new =
        entries.iter().skip_while(|entry| entry.created.is_some()).find_map(|entry| entry.created.clone());
    let mut last = first_new.or_else(|| entries.iter().rev().find_map(|entry| entry.created.clone()));
    let mut open = false;
    for entry in entries.iter_mut() {
        if entry.created.is_some() {
            if open {
                last.clone_from(&entry.created);
            }
        } else {
            open = true;
            entry.created.clone_from(&last);
        }
    }
}
