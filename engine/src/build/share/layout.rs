//! A build cache in a directory: an OCI layout with an entry for each tag.
//!
//! Files are found below a held directory, without following links: a cache that was carried here by others must not lead
//! anywhere else.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use onggi_oci::{Algorithm, Descriptor, Digest, Hasher, ImageIndex, MAX_MANIFEST, Manifest, MediaType};
use onggi_sys::path::Root;
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result};

/// The annotation that names an entry (image-spec "Pre-Defined Annotation Keys").
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
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
