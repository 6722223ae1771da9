//! Where a blob is known to be, so that a push can have the registry mount it instead of uploading.
//!
//! ```text
//!   cache/origins/<first two digits>/<hex>    one line "registry/repository" for each place
//! ```
//!
//! A hint: to lose it, or to have it wrong, costs an upload.

use std::fs;
use std::path::PathBuf;

use onggi_oci::{Digest, Reference};

use super::{Store, durable};
use crate::error::{Error, Result};

/// How many places are remembered; the oldest goes first.
const MAX_PLACES: usize = 32;
/// The most that is read: 32 names of at most 512 bytes.
const MAX_FILE: u64 = 32 << 10;

impl Store {
    /// Remembers that the repository holds the blob.
    pub fn add_origin(&self, blob: &Digest, repository: &Reference) -> Result<()> {
        let place = repository.without_tag();
        let mut places = self.origins(blob)?;
        if places.last() == Some(&place) {
            return Ok(());
        }
        places.retain(|known| *known != place);
        places.push(place);
        let surplus = places.len().saturating_sub(MAX_PLACES);
        places.drain(..surplus);
        self.write_origins(blob, &places)
    }

    /// Forgets that the repository holds the blob: it turned out otherwise.
    pub fn remove_origin(&self, blob: &Digest, repository: &Reference) -> Result<()> {
        let place = repository.without_tag();
        let mut places = self.origins(blob)?;
        places.retain(|known| *known != place);
        self.write_origins(blob, &places)
    }

    fn write_origins(&self, blob: &Digest, places: &[Reference]) -> Result<()> {
        let path = self.origin_path(blob);
        if places.is_empty() {
            return durable::remove_file(&path);
        }
        if let Some(parent) = path.parent() {
            durable::make_dir_all(parent)?;
        }
        let mut text = String::new();
        for place in places {
            text.push_str(&place.name());
            text.push('\n');
        }
        let hold = self.hold()?;
        durable::replace_volatile(&hold, &self.ingest_dir(), &path, text.as_bytes())
    }

    /// The repositories that are known to hold the blob, the one learnt last at the end.
    pub fn origins(&self, blob: &Digest) -> Result<Vec<Reference>> {
        let bytes = match durable::read_small(&self.origin_path(blob), MAX_FILE) {
            Err(Error::Corrupt { .. }) => None,
            other => other?,
        };
        let bytes = bytes.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Removes what is remembered about blobs and layers that are gone.
    pub(super) fn forget_origins(&self, gone: impl Iterator<Item = Digest>) {
        for digest in gone {
            // A hint that stays does no harm.
            let _ = fs::remove_file(self.origin_path(&digest));
        }
    }

    fn origin_path(&self, blob: &Digest) -> PathBuf {
        let hex = blob.hex();
        self.root().join("cache/origins").join(&hex[..2]).join(hex)
    }
}
