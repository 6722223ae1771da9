//! An OCI layout in a directory: a build cache, or images as a context (`oci-layout://`).
//!
//! ```text
//!   index.json    an entry for each tag (org.opencontainers.image.ref.name)
//!   blobs/sha256/<hex>
//! ```
//!
//! Files are found below a held directory, without following links: what was carried here by others must not lead
//! anywhere else. Everything is verified by its digest. Names in it change none of the store.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use onggi_image::store::{Claim, Image, LayerSource, Lease};
use onggi_oci::{
    Algorithm, DEFAULT_TAG, Descriptor, Digest, Hasher, ImageConfig, ImageIndex, MAX_CONFIG, MAX_MANIFEST,
    Manifest, MediaType, Platform,
};
use onggi_sys::path::Root;
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result};

/// The annotation that names an entry (image-spec "Pre-Defined Annotation Keys").
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
/// How deep indexes may nest; in use is 1.
const MAX_NESTING: usize = 4;
/// How much is copied at a time.
const PIECE: usize = 256 << 10;

/// An open layout.
#[derive(Debug)]
pub(super) struct Layout {
    dir: OwnedFd,
    path: PathBuf,
}

impl Layout {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Error::Read { path: path.into(), source: errno.into() })?;
        Ok(Self { dir, path: path.into() })
    }

    /// The same, made if it isn't there.
    pub(super) fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|source| Error::Write { path: path.into(), source })?;
        let layout = Self::open(path)?;
        for dir in ["blobs", "blobs/sha256"] {
            layout.root().make_dirs(Path::new(dir)).map_err(layout.write_failed(dir))?;
        }
        if layout.file("oci-layout")?.is_none() {
            layout.write("oci-layout", OCI_LAYOUT)?;
        }
        Ok(layout)
    }

    fn root(&self) -> Root<'_> {
        Root::single(self.dir.as_fd())
    }

    fn write_failed(&self, name: &str) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = self.path.join(name);
        move |source| Error::Write { path, source }
    }

    fn file(&self, name: &str) -> Result<Option<(File, u64)>> {
        let failed = |source| Error::Read { path: self.path.join(name), source };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match self.root().open(Path::new(name), flags, Mode::empty()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(std::io::Error::other("it is no regular file")));
        }
        Ok(Some((file.into(), u64::try_from(stat.st_size).unwrap_or_default())))
    }

    /// Writes a file beside its place and puts it there.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.place(name, |file| file.write_all(bytes))
    }

    fn place(&self, name: &str, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
        let beside = format!("{name}.{}.tmp", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let _ = rustix::fs::unlinkat(&self.dir, &beside, rustix::fs::AtFlags::empty());
        let opened = self.root().open(Path::new(&beside), flags, Mode::from_raw_mode(0o644));
        let mut file = File::from(opened.map_err(self.write_failed(name))?);
        let written = fill(&mut file)
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(rustix::fs::renameat(&self.dir, &beside, &self.dir, name)?));
        written.map_err(|error| {
            let _ = rustix::fs::unlinkat(&self.dir, &beside, rustix::fs::AtFlags::empty());
            self.write_failed(name)(error)
        })
    }

    fn index(&self) -> Result<ImageIndex> {
        let Some((file, _)) = self.file("index.json")? else {
            return Ok(ImageIndex::new(MediaType::OciIndex, Vec::new()));
        };
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Read { path: self.path.join("index.json"), source })?;
        match Manifest::parse(&bytes, Some(&MediaType::OciIndex))? {
            Manifest::Index(index) => Ok(index),
            Manifest::Image(_) => Err(self.problem("its index.json is no index".into())),
        }
    }

    fn problem(&self, problem: String) -> Error {
        Error::SharedCache { place: self.path.display().to_string(), problem }
    }

    /// The entry with this tag or digest.
    pub(super) fn entry(&self, tag: &str, digest: Option<&Digest>) -> Result<Descriptor> {
        let entries = self.index()?.manifests;
        let found = entries.into_iter().find(|entry| match digest {
            Some(digest) => entry.digest == *digest,
            None => is_named(entry, tag),
        });
        let name = digest.map_or_else(|| format!("tag {tag}"), ToString::to_string);
        found.ok_or_else(|| self.problem(format!("there is no entry with the {name} in it")))
    }

    /// Brings the image with this tag or digest, for a platform, into the store. The lease keeps it.
    pub(super) fn image(
        &self,
        lease: &Lease,
        tag: Option<&str>,
        digest: Option<&Digest>,
        platform: &Platform,
    ) -> Result<Image> {
        let mut entries = self.index()?.manifests;
        let named = |entry: &Descriptor, tag: &str| {
            let name = entry.annotations.get(REF_NAME).map(String::as_str).unwrap_or_default();
            // Some tools write the whole name.
            name == tag || name.rsplit_once(':').is_some_and(|(_, own)| own == tag && !own.contains('/'))
        };
        if let Some(digest) = digest {
            if !entries.iter().any(|entry| entry.digest == *digest) {
                // A manifest of one of its indexes.
                let inner = entries.iter().filter_map(|entry| self.index_at(entry).ok().flatten());
                entries = inner.flat_map(|index| index.manifests).collect();
            }
            entries.retain(|entry| entry.digest == *digest);
        } else if let Some(tag) = tag {
            entries.retain(|entry| named(entry, tag));
        } else if entries.iter().any(|entry| named(entry, DEFAULT_TAG)) {
            entries.retain(|entry| named(entry, DEFAULT_TAG));
        }
        let wanted = || match (digest, tag) {
            (Some(digest), _) => format!("with the digest {digest}"),
            (None, Some(tag)) => format!("with the tag {tag}"),
            (None, None) => "in it".to_owned(),
        };
        // An entry may say no platform: then its image does.
        let mut current = match &entries[..] {
            [] => return Err(self.problem(format!("there is no image {}", wanted()))),
            [only] => only.clone(),
            several => self.select(several, platform, &wanted())?,
        };
        for _ in 0..MAX_NESTING {
            let Some(index) = self.index_at(&current)? else { break };
            current = self.select(&index.manifests, platform, &wanted())?;
        }
        self.take(lease, &current, platform)
    }

    fn select(&self, entries: &[Descriptor], platform: &Platform, wanted: &str) -> Result<Descriptor> {
        let index = ImageIndex::new(MediaType::OciIndex, entries.to_vec());
        let chosen = index.select(platform).cloned();
        chosen.ok_or_else(|| self.problem(format!("there is no image {wanted} for {platform}")))
    }

    fn index_at(&self, entry: &Descriptor) -> Result<Option<ImageIndex>> {
        if !entry.media_type.is_index() {
            return Ok(None);
        }
        match Manifest::parse(&self.document(entry, MAX_MANIFEST)?, Some(&entry.media_type))? {
            Manifest::Index(index) => Ok(Some(index)),
            Manifest::Image(_) => Ok(None),
        }
    }

    fn take(&self, lease: &Lease, entry: &Descriptor, platform: &Platform) -> Result<Image> {
        let shown = self.path.display().to_string();
        let bytes = self.document(entry, MAX_MANIFEST)?;
        let Manifest::Image(manifest) = Manifest::parse(&bytes, Some(&entry.media_type))? else {
            return Err(self.problem("its indexes are nested too deep".into()));
        };
        if !manifest.is_runnable() {
            let kind = manifest.artifact_type.unwrap_or_else(|| manifest.config.media_type.to_string());
            return Err(Error::NotAnImage { reference: shown, kind });
        }
        let config_bytes = self.document(&manifest.config, MAX_CONFIG)?;
        let config = ImageConfig::parse(&config_bytes).map_err(|source| {
            let digest = manifest.config.digest.clone();
            Error::ImageConfig { reference: shown.clone(), digest, source }
        })?;
        let pairs = crate::pull::layers(&manifest, &config, &shown)?;
        lease.protect([&entry.digest, &manifest.config.digest])?;
        pairs.into_iter().try_for_each(|layer| self.ingest(lease, layer))?;
        let store = lease.store();
        let target = Descriptor::new(entry.media_type.clone(), entry.digest.clone(), entry.size);
        let mut pending = Vec::new();
        for (descriptor, bytes) in [(&manifest.config, &config_bytes), (&target, &bytes)] {
            if !store.has_blob(descriptor)? {
                pending.push(lease.stage(descriptor, bytes)?);
            }
        }
        store.publish(pending)?;
        // What names no platform serves all.
        let asked = if config.architecture.is_empty() { None } else { Some(platform) };
        Ok(store.image(&target, asked)?)
    }

    /// Brings a layer into the store, verified by digest and diff ID.
    pub(super) fn ingest(&self, lease: &Lease, layer: LayerSource) -> Result<()> {
        let pending = match lease.claim_layer(&layer.blob, &layer.diff_id)? {
            Claim::Present => return Ok(()),
            Claim::Unpack(permit) => lease.unpack(layer, permit)?,
            Claim::Fetch(permit) => {
                let mut file = self.blob(&layer.blob.digest)?;
                let path = self.path.join(name_of(&layer.blob.digest));
                let mut ingest = lease.ingest(layer, permit)?;
                let mut buffer = vec![0; PIECE];
                loop {
                    let read = file.read(&mut buffer);
                    let count = read.map_err(|source| Error::Read { path: path.clone(), source })?;
                    if count == 0 {
                        break;
                    }
                    ingest.put(&buffer[..count])?;
                }
                ingest.finish()?
            }
        };
        Ok(lease.store().publish(vec![pending])?)
    }

    /// A small blob, verified.
    pub(super) fn document(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if blob.size > limit {
            return Err(self.problem(format!("{} is larger than {limit} bytes", blob.digest)));
        }
        let file = self.blob(&blob.digest)?;
        file.take(blob.size + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Read { path: self.path.join(name_of(&blob.digest)), source })?;
        if Digest::of(blob.digest.algorithm(), &bytes) != blob.digest {
            return Err(self.problem(format!("{} is damaged", blob.digest)));
        }
        Ok(bytes)
    }

    /// A blob, to be verified by who reads it.
    pub(super) fn blob(&self, digest: &Digest) -> Result<File> {
        let found = self.file(&name_of(digest))?;
        found.map(|(file, _)| file).ok_or_else(|| self.problem(format!("the blob {digest} is missing")))
    }

    /// Whether a blob is there, by its name and size.
    pub(super) fn has(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.file(&name_of(&blob.digest))?.is_some_and(|(_, size)| size == blob.size))
    }

    /// Copies a blob into it, verified on the way.
    pub(super) fn put(&self, blob: &Descriptor, mut from: impl Read) -> Result<()> {
        if self.has(blob)? {
            return Ok(());
        }
        self.place(&name_of(&blob.digest), |file| {
            let mut hasher = Hasher::new(blob.digest.algorithm());
            let mut buffer = vec![0; PIECE];
            loop {
                let count = from.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                hasher.update(&buffer[..count]);
                file.write_all(&buffer[..count])?;
            }
            if hasher.finish() == blob.digest {
                return Ok(());
            }
            Err(std::io::Error::other(format!("the blob {} in the store is damaged", blob.digest)))
        })
    }

    /// Points a tag to a manifest that is in it, and removes what only the manifest before needed.
    pub(super) fn set(&self, tag: &str, target: &Descriptor) -> Result<()> {
        let mut index = self.index()?;
        let (old, mut kept): (Vec<_>, Vec<_>) =
            index.manifests.into_iter().partition(|entry| is_named(entry, tag));
        let mut entry = target.clone();
        entry.annotations.insert(REF_NAME.into(), tag.into());
        kept.push(entry);
        index.manifests = kept;
        let manifests = index.manifests.clone();
        self.write("index.json", &Manifest::Index(index).to_bytes())?;
        let mut needed = Vec::new();
        for entry in &manifests {
            // What can't be understood may need anything.
            let Some(blobs) = self.reached(entry) else { return Ok(()) };
            needed.extend(blobs);
        }
        for digest in old.iter().filter_map(|entry| self.reached(entry)).flatten() {
            if !needed.contains(&digest) {
                let _ = rustix::fs::unlinkat(&self.dir, name_of(&digest), rustix::fs::AtFlags::empty());
            }
        }
        Ok(())
    }

    /// The blobs of a manifest, with its own.
    fn reached(&self, entry: &Descriptor) -> Option<Vec<Digest>> {
        let bytes = self.document(entry, MAX_MANIFEST).ok()?;
        match Manifest::parse(&bytes, Some(&entry.media_type)).ok()? {
            Manifest::Image(manifest) => {
                let parts = manifest.layers.into_iter().chain([manifest.config]).map(|part| part.digest);
                Some(parts.chain([entry.digest.clone()]).collect())
            }
            Manifest::Index(_) => None,
        }
    }
}

fn is_named(entry: &Descriptor, tag: &str) -> bool {
    entry.annotations.get(REF_NAME).is_some_and(|name| name == tag)
}

fn name_of(digest: &Digest) -> String {
    debug_assert!(matches!(digest.algorithm(), Algorithm::Sha256 | Algorithm::Sha512));
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}
