//! A container's filesystem from outside: what it changed, copies in and out, archives and images of it.
//!
//! ```text
//!   upper/   what the container changed ───► changes (diff), commit: a new layer
//!   layers   the image's                ┐
//!            both as one tree, mounted  ┴──► export, cp
//! ```
//!
//! Files on disk belong to the IDs that the image names: shifting is a matter of mounts, so nothing here has to be shifted
//! back. Volumes are no part of it, as with Docker; only `cp` of a running container sees them.

mod changes;
mod commit;
mod copy;
mod import;
mod instructions;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use onggi_image::layer::{PackOptions, Packed, Source, pack};
use onggi_image::snapshot::Snapshot;
use rustix::fs::{Mode, OFlags};

use crate::Engine;
use crate::containers::ContainerDetails;
use crate::error::{Error, Result};

pub use changes::{Change, ChangeKind};
pub use commit::CommitRequest;
pub(crate) use commit::add_image;
pub use copy::{CopyFault, CopyOptions, LocalEnd};
pub use import::ImportRequest;

/// How much space a container takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// What it changed.
    pub own: u64,
    /// All its files.
    pub total: u64,
}

impl Engine {
    /// What a container changed of its image's files, sorted by path.
    ///
    /// # Errors
    /// Those of finding the container and of reading its files.
    pub fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let details = self.container(container)?;
        Ok(self.compare(&details)?.list)
    }

    fn compare(&self, details: &ContainerDetails) -> Result<changes::Changes> {
        let layers = self.layers_of(&details.record)?;
        let xattr = self.authority()?.overlay_xattr;
        let lower = Snapshot::new(&layers, xattr).mount(None)?;
        changes::compare(upper(details)?.as_fd(), lower.as_fd(), xattr)
    }

    /// How much space a container takes: bytes on disk of what it changed, and with the files of its image.
    ///
    /// # Errors
    /// A layer is missing; a file can't be looked at.
    pub fn container_size(&self, details: &ContainerDetails) -> Result<Size> {
        let layers = self.layers_of(&details.record)?;
        let own = onggi_image::store::disk_usage(&details.dir.join("upper"))?;
        Ok(Size { own, total: own + layers.iter().map(|layer| layer.record.bytes).sum::<u64>() })
    }

    /// Writes all files of a container as an archive, without its volumes.
    ///
    /// # Errors
    /// Those of finding the container, of reading its files and of writing.
    pub fn export(&self, container: &str, out: impl Write) -> Result<Packed> {
        let details = self.container(container)?;
        let layers = self.layers_of(&details.record)?;
        let snapshot = Snapshot::new(&layers, self.authority()?.overlay_xattr).with_changes(&details.dir);
        let tree = snapshot.mount(None)?;
        // overlayfs lists whiteouts of a directory that only one layer has, and doesn't find them.
        let shift = self.shift_of(&details.record)?;
        let options = PackOptions { live: true, plain: true, shift, ..PackOptions::new(Source::Tree) };
        let mut packed = pack(tree.as_fd(), out, &options)?;
        if details.pid.is_none() {
            packed.changed = 0;
        }
        self.note_container(&details.record, &["export"], &[]);
        Ok(packed)
    }
}

/// The directory that holds what the container changed.
fn upper(details: &ContainerDetails) -> Result<OwnedFd> {
    let path = details.dir.join("upper");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| Error::Read { path, source: errno.into() })
}
