//! Layer in, the other way: an archive becomes one read-only EROFS file.
//!
//! ```text
//! block 0        1024 superblock (128) │ 1152 inode of the root directory, its attributes
//! then, in the   ┌ data     whole blocks of a file's content, as they stream by
//! order of the   │ metadata up to 1 MiB of inodes, packed into blocks: each with its attributes and,
//! archive        └          if there is room in the block, the rest of its content
//! at the end     ┌ directory blocks   [nid, offset of name, type]… then the names, sorted by bytes
//!                └ directory inodes
//!
//! an inode       64 bytes: layout, mode, owner, time, links, size, first block or device
//!                attributes: 12 bytes, then [length, prefix, size] name value, each filled up to 4
//!                inline rest of the content   or   one block address for each chunk (sparse files)
//! ```
//!
//! Blocks have 4096 bytes, numbers are little-endian. `meta_blkaddr` is 0, so a node id (nid) is a
//! place in the file in units of 32 bytes, and metadata may stand anywhere; only the root's nid has
//! to fit into 16 bits, which is why the root lies in block 0.
//!
//! What holds:
//! - The file is written front to back, once; block 0, which says where the root's entries are, comes
//!   last. Nothing else is written twice: a file with several names gets a second inode at the end,
//!   which knows their number.
//! - Memory is bounded: names and places of all entries ([`MAX_TREE`]), a megabyte of metadata, and
//!   the output's buffer. Content is never held.
//! - The tree is the one that [`crate::layer::unpack`] makes of the same archive, whiteouts in
//!   overlay form: same names, types, modes, owners, times, links, attributes, contents.
//! - The same archive gives the same file.
//!
//! Format: Linux `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h`.

mod attributes;
mod digest;
mod directory;
mod format;
mod metadata;
mod output;
mod tree;
mod writer;

pub use digest::{FileDigest, digest_of};
pub use writer::{Identity, Written, write};

/// Bytes that names and places of entries may take in memory until the end of a layer: five million
/// entries with names of usual length. The largest images in use have fewer than two million.
pub const MAX_TREE: usize = 512 << 20;
