//! Compressed forms of layers, for who sends them away: made once, remembered by diff ID.
//!
//! ```text
//!   tree ─ pack ─► tar ─ SHA-256, the diff ID ─► gzip or zstd on all cores ─► blob, and whoever listens
//!   blob ─ inflate ─┘
//! ```
//!
//! The same layer gives the same bytes on any machine, with any number of cores. What was made is noted
//! in the layer's record beside the forms that were pulled.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;

use onggi_oci::{Descriptor, DiffId, Hasher, MediaType};

use super::blob::BlobWriter;
use super::commit::Pending;
use super::layer::{BlobForm, read_record};
use super::{Lease, Store};
use crate::error::{Error, Result};
use crate::layer::{Compression, Encoder, PackOptions, Source, decoder, pack};

/// What is read of an archive at once.
const PIECE: usize = 256 << 10;

/// How a layer is to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The algorithm.
    pub compression: Compression,
    /// Its level; its usual one if `None`.
    pub level: Option<i32>,
}

/// A layer's compressed form that was just made.
#[derive(Debug)]
pub struct CompressedLayer {
    /// To be published.
    pub pending: Pending,
    /// Digest, size and OCI media type of the blob.
    pub form: BlobForm,
}

impl Store {
    /// The forms with this compression in which the layer is known to travel, the one learnt last first.
    pub fn known_forms(&self, diff_id: &DiffId, compression: Compression) -> Result<Vec<BlobForm>> {
        let record = match read_record(&self.layer_dir(diff_id)) {
            Err(Error::Corrupt { .. }) => None,
            other => other?,
        };
        let forms = record.into_iter().flat_map(|record| record.blobs.into_iter().rev());
        Ok(forms.filter(|form| form.media_type.compression() == Some(compression.into())).collect())
    }
}

impl Lease {
    /// Compresses a layer: from the blob of another form if that is here, else from its tree. `listen` gets every
    /// piece as it is made, and may end the work by an error.
    ///
    /// # Errors
    /// The layer is neither here as a blob nor as a tree, or is no longer what its diff ID says.
    pub fn compress_layer(
        &self,
        blob: &Descriptor,
        diff_id: &DiffId,
        recipe: Recipe,
        threads: NonZeroUsize,
        listen: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<CompressedLayer> {
        let store = self.store();
        self.protect([&blob.digest, &diff_id.0])?;
        let out = Out { blob: self.new_blob(u64::MAX)?, listen };
        let failed = |source| Error::Stream { op: "compress the layer", source };
        let encoder = Encoder::with_level(out, recipe.compression, recipe.level, threads).map_err(failed)?;
        let mut tar = Hashed { inner: encoder, hasher: Hasher::new(diff_id.0.algorithm()) };
        let layer = store.layer(diff_id)?;
        if store.has_blob(blob)? {
            let mut archive = decoder(store.open_blob(&blob.digest)?, None)?;
            copy(&mut archive, &mut tar).map_err(failed)?;
        } else if let Some(layer) = &layer {
            let tree = layer.open_directory()?;
            let options = PackOptions::new(Source::OverlayUpper(store.options().overlay_xattr));
            pack(tree.as_fd(), &mut tar, &options)?;
        } else {
            return Err(Error::NoSuchLayer { diff_id: diff_id.clone() });
        }
        let found = tar.hasher.finish();
        if found != diff_id.0 {
            return Err(Error::Mismatch {
                what: format!("the layer {diff_id}"),
                promised: diff_id.to_string(),
                found: found.to_string(),
            });
        }
        let out = tar.inner.finish().map_err(failed)?;
        let staged = out.blob.finish_staged()?;
        let media_type = media_type_of(recipe.compression);
        let form = BlobForm { digest: staged.digest.clone(), size: staged.size, media_type };
        let pending = Pending::blob(staged, None);
        // A level that was asked for once is not what the next one wants.
        let usual = layer.is_some() && recipe.level.is_none();
        let pending = if usual { pending.with_form(diff_id.clone(), form.clone()) } else { pending };
        Ok(CompressedLayer { pending, form })
    }
}

fn media_type_of(compression: Compression) -> MediaType {
    match compression {
        Compression::None => MediaType::OciLayer,
        Compression::Gzip => MediaType::OciLayerGzip,
        Compression::Zstd => MediaType::OciLayerZstd,
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&piece[..count])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The blob, and who wants to see it at once.
struct Out<'a> {
    blob: BlobWriter,
    listen: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.blob.write_all(bytes)?;
        (self.listen)(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The archive on its way into the compression.
struct Hashed<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
