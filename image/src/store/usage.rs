//! `system df`: what the store takes on disk, counted as `du` counts.
//!
//! Allocated blocks, not lengths; a file with several links is counted once; other filesystems that
//! are mounted somewhere below are left out.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::Store;
use super::layer::diff_id_of;
use super::walk::walk;
use crate::error::{Error, Result};

/// The unit of `st_blocks` (stat(2)).
const BLOCK: u64 = 512;

/// How many of something there are, and how much they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes on disk that pruning would free.
    pub reclaimable: u64,
}

/// What the store takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images by ID; their bytes are those of blobs and layers together.
    pub images: Count,
    /// Images that a container uses.
    pub active_images: u64,
    /// Blobs.
    pub blobs: Count,
    /// Ready layers.
    pub layers: Count,
    /// Containers.
    pub containers: Count,
    /// Volumes.
    pub volumes: Count,
    /// Build cache and hints.
    pub cache: Count,
    /// What is unfinished, or waits to be deleted.
    pub ingest: Count,
    /// Everything below the store's directory, as `du -s` gives it.
    pub total: u64,
}

impl Store {
    /// Measures the store. Every file is looked at: about a second for 300,000.
    pub fn usage(&self) -> Result<Usage> {
        let mut seen = Seen::default();
        let root = self.root();
        let mut usage = Usage::default();
        // What pruning of all images would leave: what containers and leases reach.
        let (kept, used) = {
            let _hold = self.hold()?;
            let mut kept = super::reach::Marked::default();
            let used = self.container_digests()?;
            for digest in used.iter().chain(&self.leased()?) {
                self.mark_digest(&mut kept, digest)?;
            }
            (kept, used)
        };
        for summary in self.images()?.images {
            usage.images.count += 1;
            let image = &summary.image;
            let named = [&image.id, &image.manifest_digest, &image.target.digest];
            usage.active_images += u64::from(named.iter().any(|d| used.contains(*d)));
        }
        self.each_blob(&mut |digest, path| {
            let bytes = seen.measure(path)?;
            let is_kept = digest.is_none_or(|d| kept.blobs.contains(&d));
            usage.blobs.add(bytes, !is_kept);
            Ok(())
        })?;
        for name in self.layer_names()? {
            let bytes = seen.measure(&self.layers_dir().join(&name))?;
            let is_kept = diff_id_of(&name).is_none_or(|d| kept.layers.contains(&d));
            usage.layers.add(bytes, !is_kept);
        }
        usage.images.bytes = usage.blobs.bytes + usage.layers.bytes;
        usage.images.reclaimable = usage.blobs.reclaimable + usage.layers.reclaimable;
        for (folder, count) in [
            ("containers", &mut usage.containers),
            ("volumes", &mut usage.volumes),
            ("cache", &mut usage.cache),
            ("ingest", &mut usage.ingest),
        ] {
            for entry in entries(&root.join(folder))? {
                count.add(seen.measure(&entry)?, false);
            }
        }
        let counted = [&usage.containers, &usage.volumes, &usage.cache, &usage.ingest];
        let counted: u64 = counted.iter().map(|c| c.bytes).sum();
        // What is left: the directories themselves, refs, networks, index.json.
        usage.total = usage.images.bytes + counted + seen.measure(root)?;
        Ok(usage)
    }
}

impl Count {
    fn add(&mut self, bytes: u64, reclaimable: bool) {
        self.count += 1;
        self.bytes += bytes;
        self.reclaimable += if reclaimable { bytes } else { 0 };
    }
}

/// Bytes on disk of a tree.
pub fn disk_usage(path: &Path) -> Result<u64> {
    Seen::default().measure(path)
}

/// What was counted already, by inode: files with several links, and the beginnings of the trees
/// that were measured. One device only.
#[derive(Default)]
struct Seen {
    inodes: HashSet<u64>,
    device: Option<u64>,
}

impl Seen {
    /// Bytes on disk of what is at `start` and below, without what was measured before. What
    /// disappears meanwhile does not count.
    fn measure(&mut self, start: &Path) -> Result<u64> {
        let mut bytes = 0;
        walk(start, &mut |node| {
            let stat = &node.stat;
            let device = *self.device.get_or_insert(stat.st_dev);
            if stat.st_dev != device || self.inodes.contains(&stat.st_ino) {
                return Ok(false);
            }
            // The start is met again when what lies around it is measured.
            if node.depth == 0 || (stat.st_nlink > 1 && node.kind() != FileType::Directory) {
                self.inodes.insert(stat.st_ino);
            }
            bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * BLOCK;
            Ok(true)
        })?;
        Ok(bytes)
    }
}

/// What is in a directory; nothing if it is gone.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io("read the directory", dir, e);
    let entries = match fs::read_dir(dir) {
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        other => other.map_err(io)?,
    };
    entries.map(|e| Ok(e.map_err(io)?.path())).collect()
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
