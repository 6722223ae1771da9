//! Layers with other owners: for an ordinary user's container whose IDs are not those of the layers on disk. The kernel
//! can't map the owners of an overlay's layers for anybody but root, so a copy is made, once for each layer and map.
//!
//! ```text
//!   layers/<diff id hex>/fs/                the layer
//!                        shifted-<hex>/     the same tree with the owners that these maps make of its own
//! ```
//!
//! A copy lies within its layer's directory: whatever removes, counts or moves the layer does so with its copies. It
//! is derived, so `system check --repair` drops one that is damaged and `system prune -a` those that no container has;
//! it is made again when it is needed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use onggi_oci::{Algorithm, Hasher};
use rustix::fs::{Mode, OFlags};

use super::layer::{Format, Layer, TREE};
use super::lock::NamedLock;
use super::{Store, disk_usage, durable};
use crate::error::{Error, Result};
use crate::layer::{PackOptions, Shift, Source, UnpackOptions, pack, unpack};

const PREFIX: &str = "shifted-";

/// Digits of the maps' digest in a name: a store has a handful of maps, and its own user chose them.
const DIGITS: usize = 16;

/// The name of a copy.
fn name(shift: &Shift) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(shift.uids.to_kernel().as_bytes());
    hasher.update(b"\0");
    hasher.update(shift.gids.to_kernel().as_bytes());
    let digest = hasher.finish();
    format!("{PREFIX}{}", digest.hex().get(..DIGITS).unwrap_or_default())
}

/// Whether something in a layer's directory is a copy of it.
pub(super) fn is_copy(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

impl Store {
    /// The layer with the owners that `shift` makes of its own, copied if it wasn't before. The caller holds a
    /// lease on the layer, or a container's record names it.
    ///
    /// # Errors
    /// An owner has no place in the maps; the layer can't be read or the copy written.
    pub fn shifted(&self, layer: &Layer, shift: &Shift) -> Result<Layer> {
        let dir = self.layer_dir(&layer.record.diff_id);
        let place = dir.join(name(shift));
        let copied = || {
            let mut record = layer.record.clone();
            (record.format, record.file) = (Format::Dir, None);
            Layer::at(place.clone(), record)
        };
        if place.is_dir() {
            return Ok(copied());
        }
        let lock =
            format!("{}-{}", place.file_name().unwrap_or_default().display(), layer.record.diff_id.0.hex());
        let _lock = NamedLock::take(&self.runroot().join("locks"), &lock)?;
        if !place.is_dir() {
            let lease = self.lease("copy a layer")?;
            lease.protect([&layer.record.diff_id.0])?;
            let made = lease.directory("shifted")?;
            let tree = made.join(TREE);
            durable::make_dir(&tree)?;
            copy(layer, &tree, &UnpackOptions { shift: Some(shift.clone()), ..self.options().clone() })?;
            let flushed = File::open(&tree).and_then(|file| Ok(rustix::fs::syncfs(&file)?));
            flushed.map_err(|e| Error::io("flush the layer", &tree, e))?;
            durable::rename(&tree, &place)?;
            durable::sync_dir(&dir)?;
        }
        Ok(copied())
    }

    /// Removes the copies of layers that no container has; returns the bytes on disk that came free. Who makes a
    /// container names its layers before it asks for copies.
    pub(super) fn drop_unused_copies(&self) -> Result<u64> {
        let mut graves = Vec::new();
        {
            let _sweep = self.lock_sweep()?;
            let mut used = self.container_digests()?;
            used.extend(self.leased()?);
            for diff_id in self.layer_ids()?.into_iter().filter(|id| !used.contains(&id.0)) {
                for copy in self.copies_of(&self.layer_dir(&diff_id))? {
                    graves.extend(self.bury(&copy)?);
                }
            }
        }
        let mut bytes = 0;
        for grave in graves {
            bytes += disk_usage(&grave)?;
            durable::remove_tree(&grave)?;
        }
        Ok(bytes)
    }

    /// The copies of a layer.
    pub(super) fn copies_of(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let failed = |e| Error::io("read the directory", dir, e);
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut copies = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if is_copy(&entry.file_name()) {
                copies.push(entry.path());
            }
        }
        Ok(copies)
    }
}

/// By way of the layer's own format, which carries everything that a layer can have.
fn copy(layer: &Layer, into: &Path, options: &UnpackOptions) -> Result<()> {
    let from = layer.open_directory()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(into, flags, Mode::empty()).map_err(|e| Error::io("open", into, e))?;
    let (reader, writer) = io::pipe().map_err(|source| Error::Stream { op: "make a pipe", source })?;
    let source = Source::OverlayUpper(options.overlay_xattr);
    let tree = PackOptions { nanoseconds: true, root_entry: true, ..PackOptions::new(source) };
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| pack(from.as_fd(), writer, &tree));
        let unpacked = unpack(reader, target.as_fd(), options);
        let packed = packing.join().unwrap_or_else(|_| {
            let source = io::Error::other("its thread panicked");
            Err(Error::Stream { op: "read a layer", source })
        });
        unpacked?;
        packed.map(drop)
    })
}
