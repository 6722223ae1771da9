//! The build cache, for those who look at it and clear it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use onggi_build::cache::Cache;
use onggi_oci::{Algorithm, Digest};

use crate::Engine;
use crate::error::{Error, Result};

/// A build cache that nobody limited may have this part of its filesystem, but at least [`LEAST_LIMIT`]: enough for
/// what is worked on, and no full disk for who never looks.
const PART_OF_DISK: u64 = 10;
/// As above, in bytes.
const LEAST_LIMIT: u64 = 10 << 30;
/// How long after a look at the size the next one is made.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// What the cache remembers of one step, or a file that was fetched.
#[derive(Clone, Debug)]
pub struct CacheRecord {
    /// The digest of everything that the step depended on.
    pub key: String,
    /// The step.
    pub name: String,
    /// The bytes of its files.
    pub size: u64,
    /// When it ran, in seconds since 1970.
    pub created: i64,
    /// When it was last used.
    pub used: SystemTime,
    /// Where it lies, if it is a file that was fetched.
    file: Option<PathBuf>,
}

/// What was cleared.
#[derive(Clone, Debug, Default)]
pub struct CachePruned {
    /// Steps that are forgotten.
    pub removed: Vec<CacheRecord>,
    /// Bytes on disk that came free.
    pub bytes: u64,
}

impl Engine {
    /// What is remembered, the longest unused first.
    pub fn build_cache(&self) -> Result<Vec<CacheRecord>> {
        let store = self.store()?;
        let cache = Cache::of(store)?;
        let mut records = Vec::new();
        for (key, record, used) in cache.records()? {
            let size = store.layer(&record.diff_id)?.map_or(0, |layer| layer.record.bytes);
            records.push(CacheRecord {
                key: key.to_string(),
                name: record.name,
                size,
                created: record.created,
                used,
                file: None,
            });
        }
        let dir = cache.dir().join("sources");
        let failed = |source| Error::Read { path: dir.clone(), source };
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(meta) = entry.metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_file = Digest::from_hex(Algorithm::Sha256, &name).is_ok();
            if let (Ok(used), true) = (meta.modified(), is_file) {
                let created = used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                records.push(CacheRecord {
                    key: format!("sha256:{name}"),
                    name: "a file that was fetched".into(),
                    size: meta.len(),
                    created: i64::try_from(created).unwrap_or_default(),
                    used,
                    file: Some(entry.path()),
                });
            }
        }
        records.sort_by_key(|record| record.used);
        Ok(records)
    }

    /// Forgets what was not used for `unused`, then the longest unused ones until the rest has at
    /// most `keep` bytes; with `all`, cache mounts and repositories too. Layers that no image has go with them.
    pub fn prune_build_cache(
        &self,
        all: bool,
        unused: Option<Duration>,
        keep: Option<u64>,
    ) -> Result<CachePruned> {
        let store = self.store()?;
        let cache = Cache::of(store)?;
        let mut pruned = CachePruned { removed: self.forget_steps(unused, keep)?, bytes: 0 };
        for record in &pruned.removed {
            pruned.bytes += if record.file.is_some() { record.size } else { 0 };
        }
        if all {
            for name in ["mounts", "lines", "listings", "sources", "git"] {
                let dir = cache.dir().join(name);
                clear(&dir).map_err(|source| Error::Write { path: dir, source })?;
            }
        }
        pruned.bytes += store.prune(&onggi_image::store::PruneOptions::default())?.bytes;
        Ok(pruned)
    }

    fn forget_steps(&self, unused: Option<Duration>, keep: Option<u64>) -> Result<Vec<CacheRecord>> {
        let cache = Cache::of(self.store()?)?;
        let records = self.build_cache()?;
        let mut total: u64 = records.iter().map(|record| record.size).sum();
        let now = SystemTime::now();
        let mut removed = Vec::new();
        for record in records {
            let age = now.duration_since(record.used).unwrap_or_default();
            let old = unused.is_none_or(|unused| age >= unused);
            let over = keep.is_none_or(|keep| total > keep);
            if !old || !over {
                continue;
            }
            total = total.saturating_sub(record.size);
            if let Some(file) = &record.file {
                let _ = std::fs::remove_file(file);
            } else if let Ok(key) = record.key.parse() {
                cache.forget(&key)?;
            }
            removed.push(record);
        }
        Ok(removed)
    }

    /// Keeps the cache at a size of `limit` bytes: after a build that made something, and not more often than
    /// [`LOOK_AGAIN`] unless a limit was named. What builds under way use is protected by their leases.
    pub(super) fn limit_build_cache(&self, limit: Option<u64>) -> Result<()> {
        let store = self.store()?;
        let stamp = Cache::of(store)?.dir().join("looked");
        let looked = std::fs::metadata(&stamp).and_then(|meta| meta.modified()).ok();
        let recently = looked.and_then(|looked| looked.elapsed().ok()).is_some_and(|ago| ago < LOOK_AGAIN);
        if recently && limit.is_none() {
            return Ok(());
        }
        std::fs::write(&stamp, b"").map_err(|source| Error::Write { path: stamp, source })?;
        let limit = if let Some(limit) = limit {
            limit
        } else {
            let disk = rustix::fs::statvfs(store.root())
                .map_err(|errno| Error::Read { path: store.root().into(), source: errno.into() })?;
            (disk.f_blocks.saturating_mul(disk.f_frsize) / PART_OF_DISK).max(LEAST_LIMIT)
        };
        if !self.forget_steps(None, Some(limit))?.is_empty() {
            store.prune(&onggi_image::store::PruneOptions::default())?;
        }
        Ok(())
    }
}

/// Removes what is in a directory. The directory stays: builds that run just now write into it, and another prune may be
/// at the same work.
fn clear(dir: &Path) -> io::Result<()> {
    // Another was faster, or somebody writes there just now.
    let gone = |result: io::Result<()>| match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        other => other,
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => gone(std::fs::remove_dir_all(entry.path()))?,
            Ok(_) => gone(std::fs::remove_file(entry.path()))?,
            Err(error) => gone(Err(error))?,
        }
    }
    Ok(())
}
