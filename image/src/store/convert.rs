//! Converting layers between the formats, while containers run.
//!
//! ```text
//!   layers/<diff id>/   layer.json   fs/                    1  the new form is made below ingest/, flushed
//!                       layer.json   fs/   layer.erofs      2  renamed beside the old one
//!                       layer.json'  fs/   layer.erofs      3  the record names the new one, durably
//!                       layer.json'        layer.erofs      4  the old one goes
//! ```
//!
//! A death between any two steps leaves a layer that is whole and one form too many, which the next
//! garbage collection removes. A directory that a container or a build may have mounted stays until
//! then too: its files would vanish below whoever reads them. A file doesn't: what is mounted lives on.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use onggi_oci::{DiffId, Digest};

use super::commit::StagedLayer;
use super::ingest::Target;
use super::layer::{FILE, Format, Layer, LayerFile, LayerRecord, TREE, read_record};
use super::reach::Marked;
use super::remake::repack;
use super::{Lease, Store, durable};
use crate::error::{Error, Result};
use crate::layer::{PackOptions, Source};

/// What was converted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Layers that have the other format now.
    pub layers: u64,
    /// Layers that had it before.
    pub already: u64,
    /// Layers whose directory stays beside, since a container may have it mounted.
    pub kept: u64,
}

impl Store {
    /// Gives all layers this format. Others may work meanwhile, containers may run.
    ///
    /// # Errors
    /// This machine can't mount files; a layer is damaged; a full disk. What was converted stays so.
    pub fn convert(&self, format: Format) -> Result<Converted> {
        if format == Format::Erofs {
            self.require_file_mounts()?;
        }
        let lease = self.lease("convert layers")?;
        let mut converted = Converted::default();
        for diff_id in self.layer_ids()? {
            let used = self.mounted_somewhere()?;
            lease.protect([&diff_id.0])?;
            let Some(layer) = self.layer(&diff_id)? else { continue };
            if layer.record.format == format {
                converted.already += 1;
                continue;
            }
            let (staged, file) = self.other_form(&lease, &layer, format)?;
            if self.replace_form(&staged, &diff_id, format, file, &used)? {
                converted.kept += 1;
            }
            converted.layers += 1;
        }
        Ok(converted)
    }

    /// Makes a layer again in this format: from its blob, whose digest proves it, else from its tree.
    fn other_form(
        &self,
        lease: &Lease,
        layer: &Layer,
        format: Format,
    ) -> Result<(StagedLayer, Option<LayerFile>)> {
        if let Some(source) = self.source_of(&layer.record)?
            && let Some(staged) = lease.derive(source, None, Some(format))?.into_layer()
        {
            let file = read_record(staged.dir())?.and_then(|record| record.file);
            return Ok((staged, file));
        }
        let tree = layer.open_directory()?;
        let source = Source::OverlayUpper(self.options().overlay_xattr);
        let options = PackOptions { nanoseconds: true, root_entry: true, ..PackOptions::new(source) };
        let target = Target::new(lease, &layer.record.diff_id, format)?;
        let (_, (staged, _, file)) = repack(tree.as_fd(), &options, |archive| target.fill(archive))?;
        Ok((staged, file))
    }

    /// Steps 2 to 4. Tells whether the old form stays.
    fn replace_form(
        &self,
        staged: &StagedLayer,
        diff_id: &DiffId,
        format: Format,
        file: Option<LayerFile>,
        used: &Marked,
    ) -> Result<bool> {
        self.flush_staged()?;
        let dir = self.layer_dir(diff_id);
        let _lock = self.lock_record(diff_id)?;
        let name = format.name();
        if fs::symlink_metadata(dir.join(name)).is_ok() {
            // Left by a conversion the other way. A directory in use is what it was; a file is made anew.
            if format == Format::Erofs {
                durable::remove_file(&dir.join(name))?;
            } else if !used.layers.contains(diff_id) {
                self.discard(&dir.join(name))?;
            }
        }
        if fs::symlink_metadata(dir.join(name)).is_err() {
            durable::rename(&staged.dir().join(name), &dir.join(name))?;
        }
        durable::sync_dir(&dir)?;
        let Some(record) = read_record(&dir)? else {
            return Err(Error::NoSuchLayer { diff_id: diff_id.clone() });
        };
        self.replace_record(&dir, &LayerRecord { format, file, ..record })?;
        Ok(!self.drop_other_form(&dir, diff_id, format, used)?)
    }

    /// Removes the form that the record does not name, unless it is a directory in use. Tells whether
    /// there is none left.
    fn drop_other_form(&self, dir: &Path, diff_id: &DiffId, format: Format, used: &Marked) -> Result<bool> {
        match format {
            Format::Dir => {
                self.unmount(diff_id);
                durable::remove_file(&dir.join(FILE))?;
            }
            Format::Erofs if used.layers.contains(diff_id) => return Ok(!dir.join(TREE).exists()),
            Format::Erofs => self.discard(&dir.join(TREE))?,
        }
        Ok(true)
    }

    /// Removes what conversions left beside: part of the garbage collection. The caller holds the sweep
    /// lock; what is returned is to be deleted.
    pub(super) fn bury_other_forms(&self) -> Result<Vec<std::path::PathBuf>> {
        let mut graves = Vec::new();
        let mut used = None;
        for diff_id in self.layer_ids()? {
            let dir = self.layer_dir(&diff_id);
            let both = [TREE, FILE].iter().all(|name| fs::symlink_metadata(dir.join(name)).is_ok());
            let Some(record) = both.then(|| read_record(&dir)).transpose()?.flatten() else { continue };
            if used.is_none() {
                used = Some(self.mounted_somewhere()?);
            }
            match record.format {
                Format::Dir => graves.extend(self.bury(&dir.join(FILE))?),
                Format::Erofs if used.as_ref().is_some_and(|used| used.layers.contains(&diff_id)) => {}
                Format::Erofs => graves.extend(self.bury(&dir.join(TREE))?),
            }
        }
        Ok(graves)
    }

    /// The layers that a container or a lease reaches: somebody may have them mounted.
    fn mounted_somewhere(&self) -> Result<Marked> {
        let mut used = Marked::default();
        let digests: HashSet<Digest> = self.container_digests()?.into_iter().chain(self.leased()?).collect();
        for digest in &digests {
            self.mark_digest(&mut used, digest)?;
        }
        Ok(used)
    }
}
