//! Single flight: of all processes and threads that want a blob which is not here, one gets it and
//! the others wait.
//!
//! Deadlock is impossible if a permit's holder never waits for another permit before it has
//! published or given up what its own permit is for. One thread or task for each blob, which
//! publishes on its own, keeps that rule by itself. Where transfers are limited in number, take the
//! permit first and the transfer slot second.

use onggi_oci::{Descriptor, DiffId};

use super::lock::NamedLock;
use super::{Lease, Store};
use crate::error::Result;

/// The right to make one blob. Dropping it lets the next one try.
#[derive(Debug)]
pub struct Permit {
    _lock: NamedLock,
}

/// What a claim found.
#[derive(Debug)]
pub enum Claim {
    /// Everything asked for is in the store, and protected by the lease.
    Present,
    /// The blob is in the store, its layer is not ready or not known to be made from it: see
    /// [`Lease::unpack`].
    Unpack(Permit),
    /// The blob is not in the store and it is the caller's turn to fetch it.
    Fetch(Permit),
}

impl Lease {
    /// Claims a blob, waiting while another process or thread fetches it.
    pub fn claim_blob(&self, blob: &Descriptor) -> Result<Claim> {
        self.claim(blob, None, true).map(|c| c.unwrap_or(Claim::Present))
    }

    /// Claims a layer: its blob, and the tree made from it.
    pub fn claim_layer(&self, blob: &Descriptor, diff_id: &DiffId) -> Result<Claim> {
        self.claim(blob, Some(diff_id), true).map(|c| c.unwrap_or(Claim::Present))
    }

    /// As [`Lease::claim_blob`], but `None` at once if another is fetching it.
    pub fn try_claim_blob(&self, blob: &Descriptor) -> Result<Option<Claim>> {
        self.claim(blob, None, false)
    }

    /// As [`Lease::claim_layer`], but `None` at once if another is fetching it.
    pub fn try_claim_layer(&self, blob: &Descriptor, diff_id: &DiffId) -> Result<Option<Claim>> {
        self.claim(blob, Some(diff_id), false)
    }

    fn claim(&self, blob: &Descriptor, diff_id: Option<&DiffId>, wait: bool) -> Result<Option<Claim>> {
        self.protect(std::iter::once(&blob.digest).chain(diff_id.map(|d| &d.0)))?;
        let store = self.store();
        // The usual case, everything is here, needs no lock.
        if store.wanting(blob, diff_id)? == Wanting::Nothing {
            return Ok(Some(Claim::Present));
        }
        let locks = store.runroot().join("locks");
        let name = format!("{}-{}", blob.digest.algorithm().name(), blob.digest.hex());
        let lock = if wait {
            NamedLock::take(&locks, &name)?
        } else {
            match NamedLock::try_take(&locks, &name)? {
                Some(lock) => lock,
                None => return Ok(None),
            }
        };
        let permit = Permit { _lock: lock };
        Ok(Some(match store.wanting(blob, diff_id)? {
            Wanting::Nothing => Claim::Present,
            Wanting::Tree => Claim::Unpack(permit),
            Wanting::Blob => Claim::Fetch(permit),
        }))
    }
}

#[derive(PartialEq)]
enum Wanting {
    Nothing,
    Tree,
    Blob,
}

impl Store {
    fn wanting(&self, blob: &Descriptor, diff_id: Option<&DiffId>) -> Result<Wanting> {
        let here = self.has_blob(blob)?;
        let Some(diff_id) = diff_id else {
            return Ok(if here { Wanting::Nothing } else { Wanting::Blob });
        };
        Ok(match self.layer(diff_id)? {
            // Known to be one and the same, also after `prune --blobs` dropped the blob.
            Some(layer) if layer.record.blobs.iter().any(|b| b.digest == blob.digest) => Wanting::Nothing,
            // A blob that nobody unpacked yet may be anything, whether or not there is a tree with the
            // diff ID that somebody says it has.
            _ if here => Wanting::Tree,
            _ => Wanting::Blob,
        })
    }
}
