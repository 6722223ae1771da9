//! What earlier builds made, by what they made it of.
//!
//! ```text
//!   cache/build/keys/<hex>       {"name":…,"layer":{…},"created":…,"facts":[[label, value]…]}
//!   cache/build/lines/<hex>      the key that this place of the build file had the last time
//!   cache/build/listings/<hex>   the files of a source, for explanations
//!   cache/build/memo             see [`crate::content`]
//! ```
//!
//! A key is the digest of facts: labels and values that say everything which the step depends on.
//! Values that could be secret (arguments, variables) are digests of them. A record is written when
//! its layer is durable; one that is damaged counts as missing.

pub(crate) mod key;
pub mod shared;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use onggi_image::Store;
use onggi_image::store::BlobForm;
use onggi_oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub use key::Fact;

/// The most that is read of a record.
const MAX_RECORD: u64 = 4 << 20;
/// The format of records.
const VERSION: u32 = 1;

/// What a step made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    /// The step's display name.
    pub name: String,
    /// Its layer.
    pub diff_id: DiffId,
    /// The layer as a blob.
    pub blob: BlobForm,
    /// When it ran, in seconds since 1970.
    pub created: i64,
    /// What it depended on.
    pub facts: Vec<Fact>,
}

impl Record {
    pub(crate) fn new(name: &str, diff_id: DiffId, blob: BlobForm, created: i64, facts: Vec<Fact>) -> Self {
        Self { version: VERSION, name: name.into(), diff_id, blob, created, facts }
    }
}

/// The folder of a store's build cache.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache of this store.
    pub fn of(store: &Store) -> Result<Self> {
        let dir = store.root().join("cache/build");
        for name in ["", "sources", "keys", "lines", "listings", "logs", "mounts"] {
            let path = dir.join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("make the directory", path)(error));
                }
                _ => {}
            }
        }
        Ok(Self { dir })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn key_path(&self, key: &Digest) -> PathBuf {
        self.dir.join("keys").join(key.hex())
    }

    /// What was made of these facts.
    pub fn find(&self, key: &Digest) -> Option<Record> {
        let path = self.key_path(key);
        let record = read(&path)?;
        // For what is removed first: the time of the last use.
        let _ = fs::File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        Some(record)
    }

    /// Remembers what was made.
    pub(crate) fn store(&self, key: &Digest, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        self.write(&self.key_path(key), &bytes)
    }

    /// The key that this place of a build file had the last time.
    pub(crate) fn last(&self, line: &Digest) -> Option<Digest> {
        fs::read_to_string(self.dir.join("lines").join(line.hex())).ok()?.trim().parse().ok()
    }

    pub(crate) fn set_last(&self, line: &Digest, key: &Digest) -> Result<()> {
        if self.last(line).as_ref() == Some(key) {
            return Ok(());
        }
        self.write(&self.dir.join("lines").join(line.hex()), key.to_string().as_bytes())
    }

    /// The files of a source with this digest.
    pub(crate) fn listing(&self, digest: &str) -> Option<BTreeMap<String, String>> {
        let hex = digest.parse::<Digest>().ok()?;
        serde_json::from_slice(&fs::read(self.dir.join("listings").join(hex.hex())).ok()?).ok()
    }

    pub(crate) fn has_listing(&self, digest: &Digest) -> bool {
        self.dir.join("listings").join(digest.hex()).exists()
    }

    pub(crate) fn set_listing(&self, digest: &Digest, listing: &BTreeMap<String, String>) -> Result<()> {
        let bytes = serde_json::to_vec(listing).unwrap_or_default();
        self.write(&self.dir.join("listings").join(digest.hex()), &bytes)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = fs::File::create(&beside)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&beside, path));
        written.map_err(|error| {
            let _ = fs::remove_file(&beside);
            Error::io("write the cache record", path)(error)
        })
    }

    /// All records by key, with the time of their last use.
    pub fn records(&self) -> Result<Vec<(Digest, Record, std::time::SystemTime)>> {
        let dir = self.dir.join("keys");
        let mut records = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::io("read the directory", &dir))? {
            let entry = entry.map_err(Error::io("read the directory", &dir))?;
            let name = entry.file_name();
            let key = name.to_str().and_then(|hex| Digest::from_hex(onggi_oci::Algorithm::Sha256, hex).ok());
            let used = entry.metadata().and_then(|meta| meta.modified());
            if let (Some(key), Some(record), Ok(used)) = (key, read(&entry.path()), used) {
                records.push((key, record, used));
            }
        }
        Ok(records)
    }

    /// Forgets what was made of these facts; the layer goes with the next garbage collection.
    pub fn forget(&self, key: &Digest) -> Result<()> {
        let path = self.key_path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Option<Record> {
    let size = fs::metadata(path).ok()?.len();
    if size > MAX_RECORD {
        return None;
    }
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (record.version == VERSION).then_some(record)
}
