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
    place: Place,
}

/// Where something that is kept lies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A layer of the store.
    Layer,
    /// A file that was fetched.
    File(PathBuf),
    /// A directory of the cache and the file by which its users lock it.
    Directory(PathBuf, PathBuf),
}

/// How much of the cache stays (BuildKit's words; a limit of 0 bytes is none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many bytes are never taken away.
    pub reserved: u64,
    /// At most so many stay.
    pub max_used: u64,
    /// So many bytes are to be free on the disk.
    pub min_free: u64,
}

impl Keep {
    /// How many bytes may stay of `total`, where `free` are free on the disk; `None` if nothing was said.
    fn bytes(self, total: u64, free: u64) -> Option<u64> {
        if self == Self::default() {
            return None;
        }
        let missing = self.min_free.saturating_sub(free);
        let at_most = if self.max_used == 0 { u64::MAX } else { self.max_used };
        let keep = if missing > 0 { at_most.min(total.saturating_sub(missing)) } else { at_most };
        // Said alone, what is reserved is what stays.
        let only_reserved = self.max_used == 0 && self.min_free == 0;
        Some(if only_reserved { self.reserved } else { keep.max(self.reserved) })
    }
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
                place: Place::Layer,
            });
        }
        records.extend(directories(&cache.dir().join("mounts"), |dir| {
            // Written at each use. Of one that was taken away only the lock is left.
            let id = dir.join("id");
            let name = std::fs::read_to_string(&id).ok()?;
            Some(Kept { lock: dir.join("lock"), used: id, name: format!("the cache mount {name}") })
        })?);
        records.extend(directories(&cache.dir().join("git"), |dir| {
            let lock = dir.with_extension("lock");
            let name = "a repository that was fetched".to_owned();
            dir.join("HEAD").exists().then(|| Kept { used: lock.clone(), lock, name })
        })?);
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
                    place: Place::File(entry.path()),
                });
            }
        }
        records.sort_by_key(|record| record.used);
        Ok(records)
    }

    /// Forgets what was not used for `unused`, the longest unused first, until the rest is as small as `keep` says; cache
    /// mounts and repositories only with `all` or where there is a limit. Layers that no image has go with them.
    pub fn prune_build_cache(&self, all: bool, unused: Option<Duration>, keep: Keep) -> Result<CachePruned> {
        let store = self.store()?;
        let cache = Cache::of(store)?;
        let limited = keep != Keep::default();
        let removed = self.forget(unused, |total, free| keep.bytes(total, free), all || limited)?;
        let mut pruned = CachePruned { removed, bytes: 0 };
        for record in &pruned.removed {
            pruned.bytes += if record.place == Place::Layer { 0 } else { record.size };
        }
        if all && !limited && unused.is_none() {
            for name in ["lines", "listings", "sources"] {
                let dir = cache.dir().join(name);
                clear(&dir).map_err(|source| Error::Write { path: dir, source })?;
            }
        }
        pruned.bytes += store.prune(&onggi_image::store::PruneOptions::default())?.bytes;
        Ok(pruned)
    }

    /// Forgets the longest unused until at most as many bytes are left as `keep` makes of all bytes and those that are free
    /// on the disk; what is in use stays. With `directories` also cache mounts and repositories.
    fn forget(
        &self,
        unused: Option<Duration>,
        keep: impl Fn(u64, u64) -> Option<u64>,
        directories: bool,
    ) -> Result<Vec<CacheRecord>> {
        let cache = Cache::of(self.store()?)?;
        let records = self.build_cache()?;
        let mut total: u64 = records.iter().map(|record| record.size).sum();
        let keep = keep(total, self.disk()?.1);
        let now = SystemTime::now();
        let mut removed = Vec::new();
        for record in records {
            let age = now.duration_since(record.used).unwrap_or_default();
            let old = unused.is_none_or(|unused| age >= unused);
            let over = keep.is_none_or(|keep| total > keep);
            if !old || !over {
                continue;
            }
            match &record.place {
                Place::Layer => {
                    if let Ok(key) = record.key.parse() {
                        cache.forget(&key)?;
                    }
                }
                Place::File(file) => {
                    let _ = std::fs::remove_file(file);
                }
                Place::Directory(dir, lock) => {
                    if !directories || !take_away(dir, lock) {
                        continue;
                    }
                }
            }
            total = total.saturating_sub(record.size);
            removed.push(record);
        }
        Ok(removed)
    }

    /// The bytes of the filesystem that the store is on, and those that are free.
    fn disk(&self) -> Result<(u64, u64)> {
        let root = self.store()?.root();
        let disk = rustix::fs::statvfs(root)
            .map_err(|errno| Error::Read { path: root.into(), source: errno.into() })?;
        Ok((disk.f_blocks.saturating_mul(disk.f_frsize), disk.f_bavail.saturating_mul(disk.f_frsize)))
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
        let limit = match limit {
            Some(limit) => limit,
            None => (self.disk()?.0 / PART_OF_DISK).max(LEAST_LIMIT),
        };
        if !self.forget(None, |_, _| Some(limit), true)?.is_empty() {
            store.prune(&onggi_image::store::PruneOptions::default())?;
        }
        Ok(())
    }
}

/// What is known of a directory of the cache.
struct Kept {
    /// What its users lock.
    lock: PathBuf,
    /// The file that each use writes.
    used: PathBuf,
    /// For people.
    name: String,
}

/// The directories of a directory of the cache.
fn directories(dir: &Path, of: impl Fn(&Path) -> Option<Kept>) -> Result<Vec<CacheRecord>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| Error::Read { path: dir.into(), source })?,
    };
    let mut records = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Some(Kept { lock, used, name }) = of(&path) else { continue };
        let Ok(meta) = std::fs::metadata(&used) else { continue };
        let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let created = meta.created().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        records.push(CacheRecord {
            key: entry.file_name().to_string_lossy().into_owned(),
            name,
            size: onggi_image::store::disk_usage(&path).unwrap_or_default(),
            created: created.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or_default(),
            used,
            place: Place::Directory(path, lock),
        });
    }
    Ok(records)
}

/// Removes a directory of the cache unless a step uses it; whether it did. The lock's file stays, so that nobody takes
/// it by another file of the same name.
fn take_away(dir: &Path, lock: &Path) -> bool {
    let Ok(file) = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(lock) else {
        return false;
    };
    if file.try_lock().is_err() {
        return false;
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut gone = true;
    for path in entries.map(|entry| entry.path()).filter(|path| path != lock) {
        let removed = if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        gone &= removed.is_ok();
    }
    gone
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

#[cfg(test)]
mod tests {
    use super::Keep;

    /// As BuildKit's `calculateKeepBytes`.
    #[test]
    fn limits_are_buildkits() {
        let keep = |reserved, max_used, min_free| Keep { reserved, max_used, min_free }.bytes(100, 30);
        assert_eq!(keep(0, 0, 0), None);
        assert_eq!(keep(40, 0, 0), Some(40));
        assert_eq!(keep(0, 60, 0), Some(60));
        assert_eq!(keep(80, 60, 0), Some(80));
        assert_eq!(keep(0, 0, 50), Some(80));
        assert_eq!(keep(0, 60, 50), Some(60));
        assert_eq!(keep(0, 90, 50), Some(80));
        assert_eq!(keep(85, 90, 50), Some(85));
        // Nothing has to be freed.
        assert!(keep(0, 0, 20).is_some_and(|bytes| bytes >= 100));
    }
}
