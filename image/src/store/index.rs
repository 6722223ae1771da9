//! `index.json`, by which other tools read the store as an OCI image layout.
//!
//! It is derived from the refs, and written again with each change of one, under the same lock. A
//! crash between the two leaves it one change behind; `system check` compares and mends it.
//! The annotation `org.opencontainers.image.ref.name` holds the whole name, so that
//! `skopeo copy oci:ROOT:docker.io/library/alpine:latest …` finds it.

use std::path::PathBuf;

use onggi_oci::{ImageIndex, Manifest, MediaType};

use super::lock::{Hold, RefsLock};
use super::{Store, durable};
use crate::error::Result;

/// Where an OCI layout tells a manifest's name (image-spec "Pre-Defined Annotation Keys").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

impl Store {
    pub(super) fn index_path(&self) -> PathBuf {
        self.root().join("index.json")
    }

    /// What `index.json` must hold now.
    pub(super) fn index_bytes(&self) -> Result<Vec<u8>> {
        let mut entries = Vec::new();
        for one in self.refs()? {
            let mut entry = one.target;
            if let Some(name) = one.name {
                entry.annotations.insert(REF_NAME.into(), name.to_string());
            }
            entries.push(entry);
        }
        Ok(Manifest::Index(ImageIndex::new(MediaType::OciIndex, entries)).to_bytes())
    }

    pub(super) fn refresh_index(&self, hold: &Hold, _lock: &RefsLock) -> Result<()> {
        durable::replace(hold, &self.ingest_dir(), &self.index_path(), &self.index_bytes()?)
    }
}
