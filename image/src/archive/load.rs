//! Reading archives and layouts into the store.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use onggi_oci::{
    Descriptor, DiffId, Digest, ImageConfig, ImageManifest, MAX_LAYERS, Manifest, MediaType, Reference,
};

use super::layout::Layout;
use super::member::Members;
use super::{CONTAINERD_NAME, DockerImage, MAX_IMAGES, tagged};
use crate::error::{Error, Result};
use crate::layer::Compression;
use crate::store::{Claim, LayerSource, Lease, Pending, REF_NAME, Ref, Store};

/// How deep indexes may nest; in use is 1.
const MAX_NESTING: usize = 4;

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its name; `None` if the archive gives it none.
    pub name: Option<Reference>,
    /// Its ID.
    pub id: Digest,
}

impl Store {
    /// Loads all images of an archive: docker-archive or oci-archive, plain, gzip or zstd, from a
    /// file or a pipe.
    ///
    /// # Errors
    /// It is no such archive; something in it is missing, damaged or hostile. Then no name changes.
    pub fn load(&self, archive: impl Read) -> Result<Vec<Loaded>> {
        let lease = self.lease("load images")?;
        let members = Members::read(&lease, archive)?;
        let index = members.document("index.json").map(<[u8]>::to_vec);
        let docker = members.document("manifest.json").map(<[u8]>::to_vec);
        let mut load = Load { lease, source: Source::Archive(members), refs: Vec::new(), loaded: Vec::new() };
        match (index, docker) {
            (Some(index), _) => load.layout(&index)?,
            (None, Some(docker)) => load.docker(&docker)?,
            (None, None) => {
                let problem = "it has neither manifest.json nor index.json: it is no image archive \
                               (a root filesystem is read by `import`)";
                return Err(Error::corrupt("the archive", problem));
            }
        }
        load.finish()
    }

    /// Loads all images of an OCI layout in a directory.
    pub fn load_layout(&self, dir: &Path) -> Result<Vec<Loaded>> {
        let layout = Layout::open(dir)?;
        let index = layout.index()?;
        let lease = self.lease("load images")?;
        let source = Source::Layout(layout);
        let mut load = Load { lease, source, refs: Vec::new(), loaded: Vec::new() };
        load.layout(&index)?;
        load.finish()
    }
}

enum Source {
    Archive(Members),
    Layout(Layout),
}

struct Load {
    lease: Lease,
    source: Source,
    refs: Vec<Ref>,
    loaded: Vec<Loaded>,
}

impl Load {
    fn store(&self) -> &Store {
        self.lease.store()
    }

    fn finish(self) -> Result<Vec<Loaded>> {
        self.store().set_refs(&self.refs)?;
        Ok(self.loaded)
    }

    /// An OCI layout, by its index.
    fn layout(&mut self, index: &[u8]) -> Result<()> {
        let document = |source| Error::Document { what: "the archive's index.json".to_owned(), source };
        let Manifest::Index(index) = Manifest::parse(index, None).map_err(document)? else {
            return Err(Error::corrupt("the archive's index.json", "it is an image manifest"));
        };
        limit_images(index.manifests.len())?;
        for entry in &index.manifests {
            let name = name_of(entry)?;
            let missing = self.fetch(entry, 0)?;
            if !missing.is_empty() {
                let what = name.as_ref().map_or_else(|| entry.digest.to_string(), Reference::familiar);
                return Err(Error::Incomplete { what, missing: missing.join(", ") });
            }
            self.add(entry, name)?;
        }
        Ok(())
    }

    /// Publishes everything below `entry` that the source has. Returns what is nowhere, in words.
    fn fetch(&mut self, entry: &Descriptor, depth: usize) -> Result<Vec<String>> {
        if !self.publish(entry)? {
            return Ok(vec![format!("the manifest {}", entry.digest)]);
        }
        match self.store().read_manifest(&entry.digest, Some(&entry.media_type))? {
            Manifest::Image(manifest) => {
                let mut missing = Vec::new();
                for part in manifest.layers.iter().chain([&manifest.config]) {
                    if !self.publish(part)? {
                        missing.push(format!("the blob {}", part.digest));
                    }
                }
                Ok(missing)
            }
            Manifest::Index(_) if depth >= MAX_NESTING => {
                Err(Error::Limit { what: "the depth of indexes in indexes", limit: MAX_NESTING as u64 })
            }
            Manifest::Index(index) => {
                // Platforms that the archive leaves out are no fault as long as one is there.
                let mut best: Option<Vec<String>> = None;
                for entry in &index.manifests {
                    if !self.has(entry)? {
                        continue;
                    }
                    let missing = self.fetch(entry, depth + 1)?;
                    if best.as_ref().is_none_or(|b| missing.len() < b.len()) {
                        best = Some(missing);
                    }
                }
                Ok(best.unwrap_or_else(|| vec![format!("every manifest of the index {}", entry.digest)]))
            }
        }
    }

    /// Whether the store or the source has it.
    fn has(&self, part: &Descriptor) -> Result<bool> {
        Ok(self.store().has_blob(part)? || self.source_size(&part.digest)?.is_some())
    }

    fn source_size(&self, digest: &Digest) -> Result<Option<u64>> {
        match &self.source {
            Source::Archive(members) => Ok(members.size(digest)),
            Source::Layout(layout) => layout.size(digest),
        }
    }

    /// Puts a blob into the store; `false` if it is nowhere.
    fn publish(&mut self, part: &Descriptor) -> Result<bool> {
        self.lease.protect([&part.digest])?;
        if self.store().has_blob(part)? {
            return Ok(true);
        }
        match self.source_size(&part.digest)? {
            None => return Ok(false),
            Some(size) if size != part.size => {
                return Err(Error::Mismatch {
                    what: format!("the blob {} of the archive", part.digest),
                    promised: format!("{} bytes", part.size),
                    found: format!("{size} bytes"),
                });
            }
            Some(_) => {}
        }
        let pending = match &mut self.source {
            Source::Archive(members) => members.take(&part.digest),
            Source::Layout(layout) => layout.take(&self.lease, &part.digest)?,
        };
        let Some(pending) = pending else { return Ok(false) };
        self.store().publish(vec![pending])?;
        Ok(true)
    }

    /// Makes the layers of the image that would run here ready, and notes the name.
    fn add(&mut self, target: &Descriptor, name: Option<Reference>) -> Result<()> {
        let image = self.store().image(target, None)?;
        let mut done = BTreeSet::new();
        for layer in image.layers() {
            if done.insert(layer.diff_id) {
                self.unpack(layer.blob, layer.diff_id)?;
            }
        }
        let id = image.id.clone();
        self.refs.push(name.clone().map_or_else(|| Ref::nameless(target), |name| Ref::new(name, target)));
        self.loaded.push(Loaded { name, id });
        Ok(())
    }

    fn unpack(&self, blob: &Descriptor, diff_id: &DiffId) -> Result<()> {
        match self.lease.claim_layer(blob, diff_id)? {
            Claim::Present => Ok(()),
            Claim::Unpack(permit) => {
                let source = LayerSource { blob: blob.clone(), diff_id: diff_id.clone() };
                self.store().publish(vec![self.lease.unpack(source, permit)?])
            }
            Claim::Fetch(_) => Err(Error::NoSuchBlob { digest: blob.digest.clone() }),
        }
    }

    /// A docker-archive, by its `manifest.json`. It gets an OCI manifest, the same for the same
    /// archive; config and ID stay.
    fn docker(&mut self, manifest: &[u8]) -> Result<()> {
        let damaged = |problem: String| Error::corrupt("the archive's manifest.json", problem);
        let images: Vec<DockerImage> =
            serde_json::from_slice(manifest).map_err(|e| damaged(e.to_string()))?;
        if images.is_empty() {
            return Err(damaged("it lists no image".into()));
        }
        limit_images(images.len())?;
        for image in images {
            if image.layers.len() > MAX_LAYERS {
                return Err(Error::Limit { what: "the number of layers", limit: MAX_LAYERS as u64 });
            }
            let names = image.repo_tags.unwrap_or_default();
            let names: Vec<Reference> = names.iter().map(|name| parse_name(name)).collect::<Result<_>>()?;
            let target = self.docker_image(&image.config, &image.layers)?;
            if names.is_empty() {
                self.add(&target, None)?;
            }
            for name in names {
                self.add(&target, Some(name))?;
            }
        }
        Ok(())
    }

    fn docker_image(&mut self, config: &str, layers: &[String]) -> Result<Descriptor> {
        let member = |load: &Self, name: &str, media_type| match &load.source {
            Source::Archive(members) => {
                members.find(name).map(|(digest, size)| Descriptor::new(media_type, digest, size))
            }
            Source::Layout(_) => Err(Error::NoSuchImage { name: name.to_owned() }),
        };
        let config = member(self, config, MediaType::OciConfig)?;
        self.publish(&config)?;
        let parsed: ImageConfig = self.store().read_config(&config.digest)?;
        if parsed.rootfs.diff_ids.len() != layers.len() {
            let (here, there) = (layers.len(), parsed.rootfs.diff_ids.len());
            let problem = format!("it lists {here} layers for a config that has {there}");
            return Err(Error::corrupt("the archive's manifest.json", problem));
        }
        let mut blobs = Vec::new();
        for name in layers {
            let mut blob = member(self, name, MediaType::OciLayer)?;
            self.publish(&blob)?;
            blob.media_type = self.layer_type(&blob.digest)?;
            blobs.push(blob);
        }
        let manifest = ImageManifest::new(MediaType::OciManifest, config, blobs);
        let bytes = Manifest::Image(manifest).to_bytes();
        let target = Descriptor::of(MediaType::OciManifest, &bytes);
        let pending: Pending = self.lease.stage(&target, &bytes)?;
        self.store().publish(vec![pending])?;
        Ok(target)
    }

    fn layer_type(&self, digest: &Digest) -> Result<MediaType> {
        let mut start = Vec::new();
        let read = self.store().open_blob(digest)?.take(4).read_to_end(&mut start);
        read.map_err(|source| Error::Stream { op: "read the layer", source })?;
        Ok(match Compression::of(&start) {
            Compression::None => MediaType::OciLayer,
            Compression::Gzip => MediaType::OciLayerGzip,
            Compression::Zstd => MediaType::OciLayerZstd,
        })
    }
}

fn limit_images(count: usize) -> Result<()> {
    if count > MAX_IMAGES {
        return Err(Error::Limit { what: "the number of images in the archive", limit: MAX_IMAGES as u64 });
    }
    Ok(())
}

/// The name that a layout gives an image. A bare tag (`latest`), which is what the specification
/// means by the annotation, names no repository.
fn name_of(entry: &Descriptor) -> Result<Option<Reference>> {
    if let Some(name) = entry.annotations.get(CONTAINERD_NAME) {
        return parse_name(name).map(Some);
    }
    match entry.annotations.get(REF_NAME) {
        Some(name) if name.contains(['/', ':']) => parse_name(name).map(Some),
        _ => Ok(None),
    }
}

fn parse_name(text: &str) -> Result<Reference> {
    let parsed = text.parse::<Reference>();
    let what = || format!("the name {text:?} in the archive");
    parsed.map(|name| tagged(&name)).map_err(|source| Error::Document { what: what(), source })
}
