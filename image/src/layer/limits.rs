//! What a layer archive may ask for.
//!
//! Everything here bounds memory, disk or time that a hostile archive could
//! take before its digest is known. The defaults are far above what images in
//! use need.

/// Entries in one layer. The largest images in use have fewer than two million.
pub const MAX_ENTRIES: u64 = 10_000_000;

/// Bytes of file content in one layer, holes included: 1 TiB. Larger than any
/// layer that a registry carries; the caller, who knows the disk, may set less.
pub const MAX_CONTENT: u64 = 1 << 40;

/// Bytes of a path in an archive: Linux's `PATH_MAX`. A longer one could not be
/// used by any program in the container.
pub const MAX_PATH: usize = 4096;

/// Directories above an entry. Bounds descriptors and stack while a tree is
/// removed; the deepest trees in use (nested `node_modules`) stay below 100.
pub const MAX_DEPTH: usize = 512;

/// Bytes of an extended header (PAX) or a GNU long name: 1 MiB, as Go's reader
/// allows, and so every tool that is built on it.
pub const MAX_EXTENDED_HEADER: u64 = 1 << 20;

/// Extended attributes of one entry. Linux has no limit of its own, ext4 holds
/// a few dozen.
pub const MAX_XATTRS: usize = 1024;

/// Bytes of the name of an extended attribute: Linux's `XATTR_NAME_MAX`.
pub const MAX_XATTR_NAME: usize = 255;

/// Bytes of the value of an extended attribute: Linux's `XATTR_SIZE_MAX`.
pub const MAX_XATTR_VALUE: usize = 65536;

/// Pieces of a sparse file. 16 bytes of memory each.
pub const MAX_SPARSE_PIECES: usize = 1 << 18;

/// Bytes held in memory until the end of a layer: names and attributes of
/// directories and whiteouts. A million directories take about this much.
pub const MAX_DEFERRED: usize = 256 << 20;

/// Symbolic links that may be passed on the way to an entry, as Linux's own
/// limit.
pub const MAX_LINKS: u32 = 40;

/// The limits that a caller may want to set lower.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes of file content, holes included.
    pub content: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: MAX_ENTRIES, content: MAX_CONTENT }
    }
}
