//! Writing archives, the same bytes each time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use onggi_oci::{Descriptor, Digest, Hasher, ImageIndex, Manifest, MediaType, Reference};

use super::{CONTAINERD_NAME, DockerImage, Format, Repositories, blob_name, tagged};
use crate::error::{Error, Result};
use crate::store::{Image, REF_NAME, Store};

/// How deep indexes may nest; in use is 1.
const MAX_NESTING: usize = 4;
const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

/// One image to save, with the names that it shall have.
#[derive(Clone, Debug)]
pub struct SaveItem {
    image: Image,
    names: Vec<Reference>,
    target: Descriptor,
}

impl SaveItem {
    /// Everything of the image that is here: of an index, every platform.
    pub fn new(image: Image, names: Vec<Reference>) -> Self {
        let target = image.target.clone();
        Self { image, names, target }
    }

    /// Only the one platform that was resolved, not the index that lists it.
    #[must_use]
    pub fn one_platform(mut self) -> Self {
        let media_type = self.image.manifest.media_type.clone().unwrap_or(MediaType::OciManifest);
        let bytes = Descriptor::new(media_type, self.image.manifest_digest.clone(), 0);
        self.target = bytes;
        self
    }
}

impl Store {
    /// Writes the images as one archive. Blobs are verified while they are copied.
    ///
    /// # Errors
    /// A blob is not here (`prune --blobs` dropped it: pull the image again) or damaged.
    pub fn save(&self, items: &[SaveItem], format: Format, out: &mut dyn Write) -> Result<()> {
        let plan = self.plan(items, format)?;
        // Nothing that is being written may be pruned meanwhile.
        let lease = self.lease("save images")?;
        lease.protect(&plan.blobs)?;
        let mut archive = tar::Builder::new(out);
        let stream = |source| Error::Stream { op: "write the archive", source };
        for folder in plan.folders() {
            let header = header(tar::EntryType::Directory, 0o755, 0);
            append(&mut archive, header, &folder, io::empty()).map_err(stream)?;
        }
        for digest in &plan.blobs {
            let size = self.blob_size(digest)?.ok_or_else(|| Error::NoSuchBlob { digest: digest.clone() })?;
            let file = self.open_blob(digest)?;
            let mut verified = Verified { file, hasher: Hasher::new(digest.algorithm()) };
            let header = header(tar::EntryType::Regular, 0o644, size);
            append(&mut archive, header, &blob_name(digest), &mut verified).map_err(stream)?;
            verified.check(digest)?;
        }
        for (name, bytes) in &plan.documents {
            let header = header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
            append(&mut archive, header, name, &bytes[..]).map_err(stream)?;
        }
        archive.finish().map_err(stream)?;
        archive.into_inner().and_then(Write::flush).map_err(stream)
    }

    /// Writes the images as an OCI layout into a new or empty directory.
    pub fn save_layout(&self, items: &[SaveItem], dir: &Path) -> Result<()> {
        let plan = self.plan(items, Format::Oci)?;
        let lease = self.lease("save images")?;
        lease.protect(&plan.blobs)?;
        let failed = |path: &Path, e| Error::io("write", path, e);
        fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
        if let Some(entry) = fs::read_dir(dir).map_err(|e| failed(dir, e))?.next() {
            let found = entry.map_err(|e| failed(dir, e))?.file_name();
            return Err(Error::NotEmpty { path: dir.to_owned(), found: found.to_string_lossy().into() });
        }
        for folder in plan.folders() {
            let path = dir.join(folder);
            fs::create_dir(&path).map_err(|e| failed(&path, e))?;
        }
        for digest in &plan.blobs {
            let path = dir.join(blob_name(digest));
            let mut verified =
                Verified { file: self.open_blob(digest)?, hasher: Hasher::new(digest.algorithm()) };
            let mut out = fs::File::create_new(&path).map_err(|e| failed(&path, e))?;
            io::copy(&mut verified, &mut out).map_err(|e| failed(&path, e))?;
            verified.check(digest)?;
        }
        for (name, bytes) in &plan.documents {
            let path = dir.join(name);
            fs::write(&path, bytes).map_err(|e| failed(&path, e))?;
        }
        Ok(())
    }

    fn plan(&self, items: &[SaveItem], format: Format) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut entries: Vec<Descriptor> = Vec::new();
        let mut images: Vec<(Digest, DockerImage)> = Vec::new();
        let mut repositories = Repositories::new();
        for item in items {
            let mut target = item.target.clone();
            target.size = self
                .blob_size(&target.digest)?
                .ok_or_else(|| Error::NoSuchBlob { digest: target.digest.clone() })?;
            for image in self.images_of(&target)? {
                self.restore_blobs(&image)?;
            }
            self.reach(&target, 0, &mut plan.blobs)?;
            // The chosen image at least must be whole.
            let image = &item.image;
            plan.blobs.insert(image.manifest_digest.clone());
            plan.blobs.insert(image.id.clone());
            plan.blobs.extend(image.layers().map(|l| l.blob.digest.clone()));
            let names: Vec<Reference> = item.names.iter().map(tagged).collect();
            let names: Vec<&Reference> = names.iter().filter(|n| n.tag().is_some()).collect();
            for name in &names {
                let mut entry = target.clone();
                entry.annotations.insert(REF_NAME.into(), name.to_string());
                entry.annotations.insert(CONTAINERD_NAME.into(), name.to_string());
                entries.push(entry);
                if let Some(tag) = name.tag() {
                    let layer = image.layers().last();
                    let id = layer.map_or_else(|| image.id.hex(), |l| l.diff_id.0.hex()).to_owned();
                    repositories.entry(name.familiar_name()).or_default().insert(tag.to_owned(), id);
                }
            }
            if names.is_empty() {
                entries.push(target);
            }
            let tags = names.iter().map(|n| n.familiar());
            match images.iter_mut().find(|(id, _)| *id == image.id) {
                Some((_, known)) => known.repo_tags.get_or_insert_default().extend(tags),
                None => images.push((image.id.clone(), docker_image(image, tags.collect()))),
            }
        }
        entries.sort_by(|a, b| (&a.annotations, &a.digest).cmp(&(&b.annotations, &b.digest)));
        entries.dedup();
        let index = Manifest::Index(ImageIndex::new(MediaType::OciIndex, entries)).to_bytes();
        plan.documents.insert("index.json", index);
        plan.documents.insert("oci-layout", OCI_LAYOUT.to_vec());
        if format == Format::Docker {
            let mut images: Vec<DockerImage> = images.into_iter().map(|(_, image)| image).collect();
            for image in &mut images {
                let tags = image.repo_tags.get_or_insert_default();
                tags.sort();
                tags.dedup();
            }
            images.sort_by(|a, b| (&a.repo_tags, &a.config).cmp(&(&b.repo_tags, &b.config)));
            let json = |e| Error::corrupt("the archive's manifest.json", e);
            plan.documents.insert("manifest.json", serde_json::to_vec(&images).map_err(json)?);
            plan.documents.insert("repositories", serde_json::to_vec(&repositories).map_err(json)?);
        }
        Ok(plan)
    }

    /// Everything below `target` that is here and whole.
    fn reach(&self, target: &Descriptor, depth: usize, blobs: &mut BTreeSet<Digest>) -> Result<()> {
        match self.read_manifest(&target.digest, Some(&target.media_type))? {
            Manifest::Image(manifest) => {
                for part in manifest.layers.iter().chain([&manifest.config]) {
                    if depth > 0 && !self.has_blob(part)? {
                        // A platform that is not wholly here stays out.
                        return Ok(());
                    }
                }
                blobs.extend(manifest.layers.into_iter().chain([manifest.config]).map(|d| d.digest));
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
                        self.reach(entry, depth + 1, blobs)?;
                    }
                }
            }
        }
        blobs.insert(target.digest.clone());
        Ok(())
    }
}

fn docker_image(image: &Image, tags: Vec<String>) -> DockerImage {
    DockerImage {
        config: blob_name(&image.id),
        repo_tags: Some(tags),
        layers: image.layers().map(|l| blob_name(&l.blob.digest)).collect(),
    }
}

/// What goes into an archive, in its order.
#[derive(Default)]
struct Plan {
    blobs: BTreeSet<Digest>,
    documents: BTreeMap<&'static str, Vec<u8>>,
}

impl Plan {
    fn folders(&self) -> Vec<String> {
        let algorithms: BTreeSet<&str> = self.blobs.iter().map(|d| d.algorithm().name()).collect();
        std::iter::once("blobs".to_owned()).chain(algorithms.iter().map(|a| format!("blobs/{a}"))).collect()
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(
    archive: &mut tar::Builder<&mut dyn Write>,
    mut header: tar::Header,
    name: &str,
    content: impl Read,
) -> io::Result<()> {
    let slash = if header.entry_type().is_dir() { "/" } else { "" };
    archive.append_data(&mut header, format!("{name}{slash}"), content)
}

/// Hashes a blob while it is copied.
struct Verified {
    file: fs::File,
    hasher: Hasher,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

impl Verified {
    fn check(self, digest: &Digest) -> Result<()> {
        let found = self.hasher.finish();
        if found == *digest {
            return Ok(());
        }
        Err(Error::corrupt(
            format_args!("the blob {digest} in the store"),
            format_args!("its content has the digest {found}; `onggi system check --repair` removes it"),
        ))
    }
}
