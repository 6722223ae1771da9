//! Garbage collection: what no ref, container or lease reaches is removed.
//!
//! Under the sweep lock, which keeps leases and refs from changing, everything reachable is marked
//! and the rest renamed away. That takes milliseconds. The deleting itself needs no lock. A process
//! that protects a digest by its lease, and then finds it in the store, keeps it: either the
//! sweeper read that lease, or it had finished before the finding.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use onggi_oci::{Algorithm, DiffId, Digest};

use super::layer::diff_id_of;
use super::reach::Marked;
use super::refs::Ref;
use super::remove::Removed;
use super::usage::disk_usage;
use super::{ImageSummary, Store, durable};
use crate::error::{Error, Result};

/// The most that is read of a container's record.
const MAX_CONTAINER: u64 = 16 << 20;

/// The part of a record of the build cache that says which layer it keeps.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CachedLayer {
    diff_id: Option<DiffId>,
}

/// What [`Store::prune`] may remove besides garbage.
#[derive(Clone, Copy, Default)]
pub struct PruneOptions<'a> {
    /// Images without a tag, which no container uses.
    pub dangling: bool,
    /// All images that no container uses.
    pub all: bool,
    /// Blobs of layers that are ready and that a registry is known to hold.
    pub blobs: bool,
    /// Keeps an image for which it says `false` (`--filter`).
    pub only: Option<&'a dyn Fn(&ImageSummary) -> bool>,
}

impl std::fmt::Debug for PruneOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("PruneOptions");
        shown.field("dangling", &self.dangling).field("all", &self.all).field("blobs", &self.blobs);
        shown.finish_non_exhaustive()
    }
}

/// What was removed.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Names and images, in the order in which they went.
    pub removed: Vec<Removed>,
    /// Bytes on disk that came free.
    pub bytes: u64,
}

impl Store {
    /// Removes unused images as the options say, then everything that nothing reaches.
    pub fn prune(&self, options: &PruneOptions<'_>) -> Result<Pruned> {
        self.sweep()?;
        let mut pruned = Pruned::default();
        if options.dangling || options.all {
            let used = self.container_digests()?;
            let mut refs: Vec<Ref> = Vec::new();
            for summary in self.images()?.images {
                let image = &summary.image;
                let in_use = [&image.id, &image.manifest_digest, &image.target.digest];
                if in_use.iter().any(|digest| used.contains(digest))
                    || !(options.all || summary.is_dangling())
                    || options.only.is_some_and(|only| !only(&summary))
                {
                    continue;
                }
                let names = summary.refs.iter().filter_map(|r| r.name.clone());
                pruned.removed.extend(names.map(Removed::Untagged));
                pruned.removed.push(Removed::Deleted(image.id.clone()));
                refs.extend(summary.refs);
            }
            if !refs.is_empty() {
                self.remove_refs(&refs)?;
            }
        }
        pruned.bytes = self.collect_garbage(options.blobs)?;
        if options.all {
            pruned.bytes += self.drop_unused_copies()?;
        }
        self.sweep_mounts();
        Ok(pruned)
    }

    /// Removes what nothing reaches; returns the bytes on disk that came free.
    pub(super) fn collect_garbage(&self, droppable_blobs: bool) -> Result<u64> {
        let mut graves = Vec::new();
        let mut gone = Vec::new();
        {
            let _sweep = self.lock_sweep()?;
            let mut marked = self.marked()?;
            if droppable_blobs {
                self.unmark_droppable(&mut marked)?;
            }
            self.each_blob(&mut |digest, path| {
                if let Some(digest) = digest
                    && !marked.blobs.contains(&digest)
                {
                    graves.extend(self.bury(path)?);
                    gone.push(digest);
                }
                Ok(())
            })?;
            for name in self.layer_names()? {
                if let Some(diff_id) = diff_id_of(&name)
                    && !marked.layers.contains(&diff_id)
                {
                    graves.extend(self.bury(&self.layers_dir().join(&name))?);
                    // Else the mount would keep the file's blocks.
                    self.unmount(&diff_id);
                }
            }
            graves.extend(self.bury_other_forms()?);
        }
        if graves.is_empty() {
            return Ok(0);
        }
        // First the names are gone for good, then the content.
        self.sync_names()?;
        let mut bytes = 0;
        for grave in graves {
            bytes += disk_usage(&grave)?;
            durable::remove_tree(&grave)?;
        }
        if !droppable_blobs {
            self.forget_origins(gone.into_iter());
        }
        Ok(bytes)
    }

    /// Everything that a ref, a container or a lease reaches. The caller holds the sweep lock.
    pub(super) fn marked(&self) -> Result<Marked> {
        let mut marked = Marked::default();
        for one in self.refs()? {
            self.mark(&mut marked, &one.target)?;
        }
        for digest in self.container_digests()?.iter().chain(&self.leased()?).chain(&self.cached_digests()?) {
            self.mark_digest(&mut marked, digest)?;
        }
        Ok(marked)
    }

    /// Takes the blobs out that can be had again and are not needed to run anything. What a lease
    /// protects stays.
    fn unmark_droppable(&self, marked: &mut Marked) -> Result<()> {
        let leased: BTreeSet<Digest> = self.leased()?.into_iter().collect();
        for diff_id in self.layer_ids()? {
            let Some(layer) = self.layer(&diff_id)? else { continue };
            for form in &layer.record.blobs {
                if !leased.contains(&form.digest) && !self.origins(&form.digest)?.is_empty() {
                    marked.blobs.remove(&form.digest);
                }
            }
        }
        Ok(())
    }

    /// Every digest that occurs anywhere in a container's record: more than it needs, so that no
    /// later field of that record is forgotten here.
    pub(super) fn container_digests(&self) -> Result<BTreeSet<Digest>> {
        let mut digests = BTreeSet::new();
        for (_, found) in self.containers()? {
            digests.extend(found);
        }
        Ok(digests)
    }

    /// The containers by ID, with the digests that occur in their records.
    pub(super) fn containers(&self) -> Result<Vec<(String, BTreeSet<Digest>)>> {
        let dir = self.containers_dir();
        let io = |e| Error::io("read the directory", &dir, e);
        let mut containers = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let record = entry.path().join("config.json");
            if let Some(bytes) = durable::read_small(&record, MAX_CONTAINER)? {
                let id = entry.file_name().to_string_lossy().into_owned();
                containers.push((id, digests_in(&String::from_utf8_lossy(&bytes))));
            }
        }
        Ok(containers)
    }

    /// The layers that the build cache remembers.
    fn cached_digests(&self) -> Result<BTreeSet<Digest>> {
        let dir = self.root().join("cache/build/keys");
        let io = |e| Error::io("read the directory", &dir, e);
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other.map_err(io)?,
        };
        let mut digests = BTreeSet::new();
        for entry in entries {
            let path = entry.map_err(io)?.path();
            let Some(bytes) = durable::read_small(&path, MAX_CONTAINER)? else { continue };
            let record: CachedLayer = serde_json::from_slice(&bytes).unwrap_or_default();
            digests.extend(record.diff_id.map(|id| id.0));
        }
        Ok(digests)
    }

    /// Calls `visit` for everything below `blobs/`, with its digest unless its name is none.
    pub(super) fn each_blob(&self, visit: &mut dyn FnMut(Option<Digest>, &Path) -> Result<()>) -> Result<()> {
        let blobs = self.root().join("blobs");
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir: PathBuf = blobs.join(algorithm.name());
            if !dir.is_dir() {
                continue;
            }
            let io = |e| Error::io("read the directory", &dir, e);
            for entry in fs::read_dir(&dir).map_err(io)? {
                let entry = entry.map_err(io)?;
                let digest =
                    entry.file_name().to_str().and_then(|name| Digest::from_hex(algorithm, name).ok());
                visit(digest, &entry.path())?;
            }
        }
        Ok(())
    }
}

/// All digests in a text.
fn digests_in(text: &str) -> BTreeSet<Digest> {
    let mut digests = BTreeSet::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let prefix = format!("{}:", algorithm.name());
        for (start, _) in text.match_indices(&prefix) {
            let hex = start + prefix.len();
            let digest = text.get(hex..hex + algorithm.hex_len());
            digests.extend(digest.and_then(|hex| Digest::from_hex(algorithm, hex).ok()));
        }
    }
    digests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_wherever_they_stand() {
        let digest = Digest::sha256(b"x");
        let long = Digest::of(Algorithm::Sha512, b"x");
        let text = format!("{{\"a\":\"{digest}\",\"b\":[\"n@{long}\"],\"c\":\"sha256:short\"}}sha256:");
        assert_eq!(digests_in(&text).into_iter().collect::<Vec<_>>(), [digest, long]);
    }
}
