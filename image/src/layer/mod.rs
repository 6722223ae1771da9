//! Layers: archives of file-system changes, in and out.
//!
//! ```text
//! blob ─ decoder ─► tar ─ unpack ─► tree in overlay form     (pull, load)
//! tree ─ pack ─► tar ─ GzipWriter, ZstdWriter ─► blob        (build, commit, push)
//! ```
//!
//! Everything here works on streams and directory descriptors; it knows no store.

mod compression;
pub(crate) mod entries;
mod gzip;
mod header;
pub(crate) mod limits;
pub(crate) mod meta;
mod pack;
pub(crate) mod path;
mod pax;
mod shift;
mod sparse;
mod tree;
mod unpack;
pub mod whiteout;

pub use compression::{Compression, DEFAULT_ZSTD_LEVEL, Decoder, Encoder, ZstdWriter, decoder};
pub use entries::{Entries, Entry, Kind};
pub use gzip::{DEFAULT_GZIP_LEVEL, GzipWriter};
pub use limits::*;
pub use pack::{PackOptions, Packed, Source, pack, pack_entry};
pub use pax::{Time, Xattr};
pub use shift::Shift;
pub use sparse::{Piece, Sparse};
pub use unpack::{Devices, Ownership, UnpackOptions, Unpacked, unpack};
pub use whiteout::OverlayXattr;
