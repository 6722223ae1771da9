//! Ready layers: a tree by diff ID, and what is known about it.
//!
//! ```text
//!   layers/<diff id hex>/layer.json   {"diffId":…,"format":"dir","entries":…,"bytes":…,"blobs":[…]}
//!   layers/<diff id hex>/fs/          format dir: the tree, whiteouts in overlay form
//!   layers/<diff id hex>/layer.erofs  format erofs: the same as one file, mounted when it is needed
//! ```

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use onggi_oci::{Algorithm, DiffId, Digest, MediaType};
use onggi_sys::verity;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::commit::{Pending, StagedLayer};
use super::lock::NamedLock;
use super::{Lease, Mounting, Store, durable};
use crate::erofs::FileDigest;
use crate::error::{Error, Result};
use crate::layer::{Devices, OverlayXattr, Ownership, PackOptions, Source, UnpackOptions, Unpacked, pack};

/// The name of a layer's record.
pub(super) const RECORD: &str = "layer.json";
/// The name of its tree.
pub(super) const TREE: &str = "fs";
/// The name of its file.
pub(super) const FILE: &str = "layer.erofs";
/// The most that is read of a record; one with a hundred known blobs has 20 kB.
const MAX_RECORD: u64 = 1 << 20;
/// How many compressed forms of one layer are remembered; the oldest goes first.
const MAX_FORMS: usize = 32;

/// How a ready layer lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// A directory tree.
    Dir,
    /// One EROFS file.
    Erofs,
}

impl Format {
    /// What the layer is called in its directory.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dir => TREE,
            Self::Erofs => FILE,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dir => "dir",
            Self::Erofs => "erofs",
        })
    }
}

/// What is known about the file of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFile {
    /// Its checksum.
    pub digest: FileDigest,
    /// Its bytes.
    pub size: u64,
    /// Its digest by fs-verity, where the filesystem has that: the kernel compares each piece when it reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<Digest>,
}

impl LayerFile {
    /// What is known of a file that is written whole. It is sealed, if the filesystem can.
    pub(super) fn sealed(path: &Path, digest: FileDigest, size: u64) -> Result<Self> {
        let failed = |e| Error::io("seal the layer's file", path, e);
        let file = fs::File::open(path).map_err(failed)?;
        let sealed = verity::enable(file.as_fd()).map_err(failed)?;
        let verity = if sealed { verity::measure(file.as_fd()).map_err(failed)? } else { None };
        Ok(Self { digest, size, verity: verity.and_then(seal) })
    }

    /// What is wrong with the seal of this file, if anything is.
    pub(super) fn broken_seal(&self, file: BorrowedFd<'_>) -> io::Result<Option<String>> {
        let Some(expected) = &self.verity else { return Ok(None) };
        let found = verity::measure(file)?.and_then(seal);
        Ok(match found {
            Some(found) if found == *expected => None,
            Some(found) => Some(format!("fs-verity says {found} of its file, its record says {expected}")),
            None => Some(format!("its file has no fs-verity digest, its record says {expected}")),
        })
    }
}

/// The digest with these bytes.
fn seal(bytes: [u8; 32]) -> Option<Digest> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Digest::from_hex(Algorithm::Sha256, &hex).ok()
}

/// One transferable form of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobForm {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type, which says how it is compressed.
    pub media_type: MediaType,
}

/// What is known about a ready layer: the content of `layer.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// The digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// How it lies on disk.
    pub format: Format,
    /// If it is a file, which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<LayerFile>,
    /// How many entries its tar has.
    pub entries: u64,
    /// The bytes of its regular files, which listings show as size.
    pub bytes: u64,
    /// The largest user or group id in it: a container's id map must reach it.
    pub max_id: u32,
    /// How many entries lost their owner because only one id was available.
    #[serde(default)]
    pub squashed: u64,
    /// How many devices were left out because a user namespace cannot make them.
    #[serde(default)]
    pub devices_skipped: u64,
    /// How many extended attributes could not be set.
    #[serde(default)]
    pub xattrs_skipped: u64,
    /// Whether its tar says what the root directory is; else a lower layer does.
    #[serde(default)]
    pub root_entry: bool,
    /// Whether it hides all layers below, which overlayfs cannot express: see
    /// [`crate::snapshot::Snapshot`].
    #[serde(default)]
    pub opaque_root: bool,
    /// Whether opaque marks are `user.overlay.*` (else `trusted.overlay.*`).
    pub user_xattr: bool,
    /// The blobs that unpack to it.
    #[serde(default)]
    pub blobs: Vec<BlobForm>,
}

impl LayerRecord {
    /// The record of a directory of which nothing is known yet.
    pub fn directory(diff_id: DiffId, xattr: OverlayXattr) -> Self {
        Self {
            diff_id,
            format: Format::Dir,
            file: None,
            entries: 0,
            bytes: 0,
            max_id: 0,
            squashed: 0,
            devices_skipped: 0,
            xattrs_skipped: 0,
            root_entry: false,
            opaque_root: false,
            user_xattr: xattr == OverlayXattr::User,
            blobs: Vec::new(),
        }
    }

    /// The record of a directory that was unpacked with these options.
    pub fn new(diff_id: DiffId, unpacked: &Unpacked, options: &UnpackOptions, blobs: Vec<BlobForm>) -> Self {
        Self {
            diff_id,
            format: Format::Dir,
            file: None,
            entries: unpacked.entries,
            bytes: unpacked.bytes,
            max_id: unpacked.max_id,
            squashed: unpacked.squashed,
            devices_skipped: unpacked.devices_skipped,
            xattrs_skipped: unpacked.xattrs_skipped,
            root_entry: unpacked.root_entry,
            opaque_root: unpacked.opaque_root,
            user_xattr: options.overlay_xattr == OverlayXattr::User,
            blobs,
        }
    }
}

/// A layer that can be mounted.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Where its tree is, or will be once it was opened.
    pub path: PathBuf,
    /// What is known about it.
    pub record: LayerRecord,
    /// `None`: a directory that is not in its place.
    store: Option<Store>,
    /// Where its file is as long as it isn't in its place.
    staged: Option<PathBuf>,
}

impl Layer {
    /// A layer that is a directory and not in its place in a store: one that was just made.
    pub fn at(path: PathBuf, record: LayerRecord) -> Self {
        Self { path, record, store: None, staged: None }
    }

    /// This layer as it is now, if its form is another than when it was looked up.
    fn now(&self) -> Result<Option<Self>> {
        let now = self.store.as_ref().map(|store| store.layer(&self.record.diff_id)).transpose()?.flatten();
        Ok(now.filter(|now| now.record.format != self.record.format))
    }

    /// Its tree; a file is mounted first, if it isn't yet. The caller holds a lease on the layer, or a
    /// container's record names it.
    pub fn open(&self) -> Result<OwnedFd> {
        let missing = |path: &Path| match self.now()? {
            // It was converted since.
            Some(now) => now.open(),
            None => Err(Error::io("open the layer", path, Errno::NOENT)),
        };
        if let (Format::Erofs, Some(store)) = (self.record.format, &self.store) {
            let file = store.layer_dir(&self.record.diff_id).join(FILE);
            let known = self.record.file.as_ref();
            let mut opened = store.open_mounted(&self.path, &file, known);
            if let (Some(staged), true) = (&self.staged, is_missing(&opened)) {
                opened = store.open_mounted(&self.path, staged, known);
            }
            return if is_missing(&opened) { missing(&file) } else { opened };
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &self.path, flags, Mode::empty()) {
            Err(Errno::NOENT) => missing(&self.path),
            opened => opened.map_err(|e| Error::io("open the layer", &self.path, e)),
        }
    }
}

fn is_missing<T>(opened: &Result<T>) -> bool {
    matches!(opened, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
}

impl Layer {
    /// To be held while overlays are made of this layer and others, if it is one that is mounted.
    pub(crate) fn mounting(&self) -> Result<Option<Mounting>> {
        let store = self.store.as_ref().filter(|_| self.record.format == Format::Erofs);
        store.map(Store::mounting).transpose()
    }

    /// Its tree, to be read.
    pub fn open_directory(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(self.open()?, ".", flags, Mode::empty())
            .map_err(|e| Error::io("open the layer", &self.path, e))
    }
}

impl Store {
    /// The layer with this diff ID, if it is ready and made for a store such as this one. One whose
    /// record is damaged counts as missing: it is made again, or `system check` tells.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        let dir = self.layer_dir(diff_id);
        let record = match read_record(&dir) {
            Err(Error::Corrupt { .. }) => None,
            other => other?,
        };
        let ready = record.filter(|r| r.diff_id == *diff_id && self.suits(r));
        Ok(ready.map(|record| self.layer_of(record)))
    }

    pub(super) fn layer_of(&self, record: LayerRecord) -> Layer {
        let path = match record.format {
            Format::Dir => self.layer_dir(&record.diff_id).join(TREE),
            Format::Erofs => self.mount_place(&record.diff_id),
        };
        Layer { path, record, store: Some(self.clone()), staged: None }
    }

    /// A layer whose file is pending, to be used before it is in its place. The caller keeps `pending`, or
    /// publishes it.
    pub fn pending_file(&self, pending: &Pending, record: LayerRecord) -> Option<Layer> {
        let staged = pending.layer_dir()?.join(FILE);
        let path = self.mount_place(&record.diff_id);
        Some(Layer { path, record, store: Some(self.clone()), staged: Some(staged) })
    }

    /// A layer made with one id or without devices, or for the other kind of overlay mount, does not
    /// serve a store that can do better.
    fn suits(&self, record: &LayerRecord) -> bool {
        let options = self.options();
        record.user_xattr == (options.overlay_xattr == OverlayXattr::User)
            && (record.squashed == 0 || options.ownership == Ownership::Squash)
            && (record.devices_skipped == 0 || options.devices == Devices::Skip)
    }

    /// Remembers that this blob unpacks to the layer, so that a push finds it.
    pub fn add_blob_form(&self, diff_id: &DiffId, form: BlobForm) -> Result<()> {
        let _lock = self.lock_record(diff_id)?;
        let dir = self.layer_dir(diff_id);
        let Some(mut record) = read_record(&dir)? else {
            return Err(Error::NoSuchLayer { diff_id: diff_id.clone() });
        };
        if record.blobs.contains(&form) {
            return Ok(());
        }
        record.blobs.retain(|known| known.digest != form.digest);
        record.blobs.push(form);
        if record.blobs.len() > MAX_FORMS {
            record.blobs.remove(0);
        }
        self.replace_record(&dir, &record)
    }

    /// The right to change a layer's record.
    pub(super) fn lock_record(&self, diff_id: &DiffId) -> Result<NamedLock> {
        NamedLock::take(&self.runroot().join("locks"), &format!("layer-{}", diff_id.0.hex()))
    }

    /// Changes the record of a layer that is in its place, durably. The caller has its lock.
    pub(super) fn replace_record(&self, dir: &Path, record: &LayerRecord) -> Result<()> {
        durable::replace(&self.hold()?, &self.ingest_dir(), &dir.join(RECORD), &to_json(record))
    }

    /// The diff IDs of all ready layers.
    pub fn layer_ids(&self) -> Result<Vec<DiffId>> {
        let names = self.layer_names()?;
        Ok(names.iter().filter_map(|name| diff_id_of(name)).collect())
    }

    pub(super) fn layer_names(&self) -> Result<Vec<String>> {
        let dir = self.layers_dir();
        let io = |e| Error::io("read the directory", &dir, e);
        let entries = fs::read_dir(&dir).map_err(io)?;
        entries.map(|e| Ok(e.map_err(io)?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// The diff ID whose directory has this name.
pub(super) fn diff_id_of(name: &str) -> Option<DiffId> {
    use onggi_oci::Algorithm::{Sha256, Sha512};
    [Sha256, Sha512].into_iter().find_map(|algorithm| Digest::from_hex(algorithm, name).ok()).map(DiffId)
}

/// Reads the record of a layer's directory, `None` if there is no such layer.
pub(super) fn read_record(dir: &Path) -> Result<Option<LayerRecord>> {
    let path = dir.join(RECORD);
    let Some(bytes) = durable::read_small(&path, MAX_RECORD)? else { return Ok(None) };
    let record = serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(path.display(), e))?;
    Ok(Some(record))
}

fn to_json(record: &LayerRecord) -> Vec<u8> {
    serde_json::to_vec(record).expect("plain values always serialise")
}

/// Writes the record of a layer that is being made; it is flushed with the layer.
pub(super) fn write_record(dir: &Path, record: &LayerRecord) -> Result<()> {
    let path = dir.join(RECORD);
    fs::write(&path, to_json(record)).map_err(|e| Error::io("write the record of the layer", &path, e))
}

impl Lease {
    /// Makes a finished tree (of a build step, say) a layer, by rename: `tree` is a directory in
    /// overlay form on the store's filesystem, or the file that the record names, and belongs to the store
    /// from here on.
    pub fn adopt_layer(&self, tree: &Path, record: &LayerRecord) -> Result<Pending> {
        let dir = self.scratch("layer")?;
        durable::make_dir(&dir)?;
        let staged = StagedLayer::new(self.clone(), dir.clone(), record.diff_id.clone());
        durable::rename(tree, &dir.join(record.format.name()))?;
        write_record(&dir, record)?;
        Ok(Pending::layer(Some(staged), None, None))
    }
}

impl Store {
    /// Makes the blobs of layers that exist as trees only, which is how a build leaves them: whoever
    /// sends an image away as it is needs them.
    ///
    /// # Errors
    /// A tree is no longer what its layer was made as.
    pub fn restore_blobs(&self, image: &super::Image) -> Result<()> {
        self.restore_blobs_of(image.layers())
    }

    /// The same for some of an image's layers.
    ///
    /// # Errors
    /// As [`Store::restore_blobs`].
    pub fn restore_blobs_of<'a>(&self, layers: impl Iterator<Item = super::ImageLayer<'a>>) -> Result<()> {
        let mut missing = Vec::new();
        for one in layers {
            if one.blob.digest == one.diff_id.0 && !self.has_blob(one.blob)? {
                missing.push(one);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let lease = self.lease("make archives of layers")?;
        let mut pending = Vec::new();
        for one in missing {
            lease.protect([&one.blob.digest])?;
            let Some(layer) = self.layer(one.diff_id)? else { continue };
            let tree = layer.open_directory()?;
            let mut writer = lease.blob(one.blob)?;
            let options = PackOptions::new(Source::OverlayUpper(self.options().overlay_xattr));
            pack(tree.as_fd(), &mut writer, &options)?;
            pending.push(writer.finish(None)?);
        }
        self.publish(pending)
    }
}
