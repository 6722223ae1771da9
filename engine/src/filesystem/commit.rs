//! An image of a container: what it changed becomes a layer over its image's.
//!
//! ```text
//!   upper/ ─► archive ─► blob, and its tree for containers of the new image
//!   config of the image + the container's wishes + --change ─► config ─► manifest ─► ref
//! ```
//!
//! What a start put there to mount onto, and what overlayfs copied up but nobody changed, is left out of the layer.

use std::os::fd::AsFd;

use onggi_image::layer::{PackOptions, Source, pack};
use onggi_image::store::{Claim, LayerSource, Lease, Ref, Store};
use onggi_oci::{
    Descriptor, DiffId, Digest, History, ImageConfig, ImageManifest, Manifest, MediaType, Reference,
};
use onggi_runtime::cgroup::Cgroup;

use super::upper;
use crate::Engine;
use crate::containers::Status;
use crate::error::{Error, Result};

/// How to make an image of a container.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// A name, an ID or the beginning of an ID.
    pub container: String,
    /// What the image is called; nothing if `None`.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: Option<String>,
    /// A remark.
    pub message: Option<String>,
    /// Instructions of a Dockerfile that change the config.
    pub changes: Vec<String>,
    /// Whether a container that runs is frozen meanwhile.
    pub pause: bool,
}

impl Engine {
    /// Makes an image of a container and returns its ID.
    ///
    /// # Errors
    /// Those of finding the container, of reading its files and of writing to the store; a container that can't be frozen.
    pub fn commit(&self, request: &CommitRequest) -> Result<Digest> {
        let details = self.container(&request.container)?;
        let record = &details.record;
        let mut config = record.effective_config();
        super::instructions::apply(&mut config, &request.changes)?;
        let store = self.store()?;
        let lease = store.lease("commit")?;
        let frozen = match details.status {
            Status::Running if request.pause => Some(Frozen::freeze(&record.cgroup)?),
            _ => None,
        };
        let changes = self.compare(&details)?;
        let xattr = self.authority()?.overlay_xattr;
        let options = PackOptions {
            leave_out: changes.unchanged,
            live: details.pid.is_some() && frozen.is_none() && details.status != Status::Paused,
            shift: self.shift_of(record)?,
            ..PackOptions::new(Source::OverlayUpper(xattr))
        };
        let from = upper(&details)?;
        let layer = add_layer(&lease, |out| pack(from.as_fd(), out, &options).map(drop))?;
        drop(frozen);

        let base = store.read_config(&record.image.id)?;
        let Manifest::Image(manifest) = store.read_manifest(&record.image.manifest, None)? else {
            return Err(Error::NotAnImage {
                reference: record.image.reference.clone(),
                kind: "index".into(),
            });
        };
        let now = jiff::Timestamp::now().to_string();
        let mut image = base;
        let step = History {
            created: Some(now.clone()),
            created_by: Some(record.arguments.join(" ")),
            author: request.author.clone(),
            comment: request.message.clone(),
            empty_layer: false,
        };
        image.created = Some(now);
        image.author = request.author.clone().or(image.author);
        image.config = config;
        image.history.push(step);
        let blobs = manifest.layers.into_iter().chain([layer.clone()]).collect();
        image.rootfs.diff_ids.push(DiffId(layer.digest));
        let id = add_image(store, &lease, &image, blobs, request.name.as_ref())?;
        let name = request.name.as_ref().map(Reference::familiar).unwrap_or_default();
        let comment = request.message.as_deref().unwrap_or_default();
        let more = [("comment", comment), ("imageID", &id.to_string()), ("imageRef", &name)];
        self.note_container(record, &["commit"], &more);
        Ok(id)
    }
}

/// A container's control group that does not run as long as this lives.
struct Frozen(Cgroup);

impl Frozen {
    fn freeze(path: &std::path::Path) -> Result<Self> {
        let group = Cgroup::open(path)?;
        group.freeze(true)?;
        Ok(Self(group))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It was possible to stop it, so this is too; if not, `unpause` says why.
        let _ = self.0.freeze(false);
    }
}

/// Puts an uncompressed layer that `write` writes into the store: its blob, and its tree made ready.
pub(super) fn add_layer<E: Into<Error>>(
    lease: &Lease,
    write: impl FnOnce(&mut dyn std::io::Write) -> std::result::Result<(), E>,
) -> Result<Descriptor> {
    let store = lease.store();
    let mut blob = lease.new_blob(onggi_image::layer::MAX_CONTENT)?;
    write(&mut blob).map_err(Into::into)?;
    let pending = blob.finish(None)?;
    let Some((digest, size)) = pending.blob_digest() else {
        return Err(Error::Panicked);
    };
    let layer = Descriptor::new(MediaType::OciLayer, digest.clone(), size);
    lease.protect([&layer.digest])?;
    store.publish(vec![pending])?;
    let diff_id = DiffId(layer.digest.clone());
    if let Claim::Unpack(permit) = lease.claim_layer(&layer, &diff_id)? {
        let source = LayerSource { blob: layer.clone(), diff_id };
        store.publish(vec![lease.unpack(source, permit)?])?;
    }
    Ok(layer)
}

/// Puts an image's documents into the store, and gives it its name.
pub(crate) fn add_image(
    store: &Store,
    lease: &Lease,
    image: &ImageConfig,
    layers: Vec<Descriptor>,
    name: Option<&Reference>,
) -> Result<Digest> {
    let bytes = image.to_bytes();
    let config = Descriptor::of(MediaType::OciConfig, &bytes);
    let manifest =
        Manifest::Image(ImageManifest::new(MediaType::OciManifest, config.clone(), layers)).to_bytes();
    let target = Descriptor::of(MediaType::OciManifest, &manifest);
    lease.protect([&config.digest, &target.digest])?;
    store.publish(vec![lease.stage(&config, &bytes)?, lease.stage(&target, &manifest)?])?;
    let named = match name {
        Some(name) => Ref::new(name.clone().with_default_tag(), &target),
        None => Ref::nameless(&target),
    };
    store.set_refs(&[named])?;
    if let Some(name) = name {
        let name = name.clone().with_default_tag().familiar();
        crate::events::note(store.root(), "image", "tag", &config.digest.to_string(), &[("name", &name)]);
    }
    Ok(config.digest)
}
