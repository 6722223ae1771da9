//! A tree in overlay form becomes a layer in either format, by way of its archive.
//!
//! ```text
//!   upper/ ──pack (thread)──► pipe ──► hash: the diff ID ──► layer.erofs, or a directory
//! ```

use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::io::{self, PipeReader, Read, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread;

use onggi_oci::{Algorithm, DiffId, Hasher};

use super::ingest::identity;
use super::layer::{Format, LayerFile};
use super::{Store, durable};
use crate::erofs;
use crate::error::{Error, Result};
use crate::layer::{PackOptions, Packed, Source, unpack};

/// What a tree became.
#[derive(Debug)]
pub struct Remade {
    /// The digest of its archive.
    pub diff_id: DiffId,
    /// What the archive has.
    pub packed: Packed,
    /// If it is a file, which one.
    pub file: Option<LayerFile>,
}

impl Store {
    /// Makes of an overlay's upper directory, on whatever filesystem, the same layer at `at` on the store's:
    /// see [`Lease::adopt_layer`](super::Lease::adopt_layer) for what comes next. Nothing is flushed.
    ///
    /// # Errors
    /// What no archive can hold; a full disk. What was made so far stays, for the caller to remove.
    pub fn remake(&self, upper: BorrowedFd<'_>, at: &Path, format: Format) -> Result<Remade> {
        let options = PackOptions::new(Source::OverlayUpper(self.options().overlay_xattr));
        let hasher = RefCell::new(Hasher::new(Algorithm::Sha256));
        let diff_id = || DiffId(hasher.borrow().clone().finish());
        let (packed, file) = match format {
            Format::Dir => {
                let made = DirBuilder::new().mode(0o755).create(at);
                made.map_err(|e| Error::io("make the directory", at, e))?;
                let into = fs::File::open(at).map_err(|e| Error::io("open the directory", at, e))?;
                let make =
                    |archive| unpack(Hashed { archive, hasher: &hasher }, into.as_fd(), self.options());
                (repack(upper, &options, make)?.0, None)
            }
            Format::Erofs => {
                let file = durable::create_new(at)?;
                let make = |archive| {
                    let archive = Hashed { archive, hasher: &hasher };
                    erofs::write(archive, file, || identity(&diff_id()), &self.options().limits)
                };
                let (packed, written) = repack(upper, &options, make)?;
                (packed, Some(LayerFile::sealed(at, written.digest, written.size)?))
            }
        };
        Ok(Remade { diff_id: diff_id(), packed, file })
    }
}

/// Packs a tree while `make` reads the archive to its end.
pub(super) fn repack<T>(
    tree: BorrowedFd<'_>,
    options: &PackOptions,
    make: impl FnOnce(PipeReader) -> Result<T>,
) -> Result<(Packed, T)> {
    let (reader, writer) =
        pipe().map_err(|source| Error::Stream { op: "make a pipe for a layer", source })?;
    thread::scope(|scope| {
        let packer = scope.spawn(|| crate::layer::pack(tree, writer, options));
        let made = make(reader);
        let lost = |_| Error::corrupt("the layer", "packing it panicked, which is a bug of onggi");
        let packed = packer.join().map_err(lost).flatten();
        // Who can't write on tells less than who stopped to read.
        let made = made?;
        Ok((packed?, made))
    })
}

/// Hashes what is read through it.
struct Hashed<'a> {
    archive: PipeReader,
    hasher: &'a RefCell<Hasher>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        self.hasher.borrow_mut().update(&buffer[..count]);
        Ok(count)
    }
}
