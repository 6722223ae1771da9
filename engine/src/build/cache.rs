//! The build cache, for those who look at it and clear it.

use std::time::{Duration, SystemTime};

use onggi_build::cache::Cache;

use crate::Engine;
use crate::error::{Error, Result};

/// What the cache remembers of one step.
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
        let mut records = Vec::new();
        for (key, record, used) in Cache::of(store)?.records()? {
            let size = store.layer(&record.diff_id)?.map_or(0, |layer| layer.record.bytes);
            records.push(CacheRecord {
                key: key.to_string(),
                name: record.name,
                size,
                created: record.created,
                used,
            });
        }
        records.sort_by_key(|record| record.used);
        Ok(records)
    }

    /// Forgets what was not used for `unused`, then the longest unused ones until the rest has at
    /// most `keep` bytes; with `all`, cache mounts too. Layers that no image has go with them.
    pub fn prune_build_cache(
        &self,
        all: bool,
        unused: Option<Duration>,
        keep: Option<u64>,
    ) -> Result<CachePruned> {
        let store = self.store()?;
        let cache = Cache::of(store)?;
        let records = self.build_cache()?;
        let mut total: u64 = records.iter().map(|record| record.size).sum();
        let now = SystemTime::now();
        let mut pruned = CachePruned::default();
        for record in records {
            let age = now.duration_since(record.used).unwrap_or_default();
            let old = unused.is_none_or(|unused| age >= unused);
            let over = keep.is_none_or(|keep| total > keep);
            if !old || !over {
                continue;
            }
            total = total.saturating_sub(record.size);
            if let Ok(key) = record.key.parse() {
                cache.forget(&key)?;
            }
            pruned.removed.push(record);
        }
        if all {
            for name in ["mounts", "lines", "listings"] {
                let dir = cache.dir().join(name);
                std::fs::remove_dir_all(&dir)
                    .and_then(|()| std::fs::create_dir(&dir))
                    .map_err(|source| Error::Write { path: dir, source })?;
            }
        }
        pruned.bytes = store.prune(&onggi_image::store::PruneOptions::default())?.bytes;
        Ok(pruned)
    }
}
