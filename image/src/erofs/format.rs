//! The structures on disk, as bytes.

use crate::layer::Time;

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
/// Its binary logarithm.
const BLOCK_BITS: u8 = 12;
/// What a node id counts in.
pub(super) const SLOT: usize = 32;
/// Where the superblock lies in block 0.
pub(super) const SUPERBLOCK: usize = 1024;
/// Bytes of an extended inode.
pub(super) const INODE: usize = 64;
/// Where the root's inode lies in block 0: behind the superblock.
pub(super) const ROOT: usize = SUPERBLOCK + 128;
/// The root's node id.
const ROOT_NID: u16 = 36;
/// Longest name of an entry.
pub(super) const MAX_NAME: usize = 255;
/// A chunk without content.
pub(super) const HOLE: u32 = u32::MAX;

/// Bytes of an entry of a directory, without its name.
const DIRENT: usize = 12;
const MAGIC: u32 = 0xE0F5_E1E2;
/// The superblock has a checksum; times are those of modification.
const COMPATIBLE: u32 = 0x1 | 0x2;
/// Some files have chunks.
const CHUNKED: u32 = 0x4;

/// How an inode says where its content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In consecutive blocks.
    Plain,
    /// In consecutive blocks, what does not fill a block behind the inode.
    Inline,
    /// In chunks, whose addresses stand behind the inode.
    Chunks,
}

/// The type of an inode, with the number that entries of directories have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    File = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Symlink = 7,
}

impl Type {
    /// The type's bits of a mode (inode(7)).
    fn mode(self) -> u32 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// An inode.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) layout: Layout,
    pub(super) kind: Type,
    /// Permissions (0o7777).
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) links: u32,
    /// Bytes of content; of a directory, of its blocks, the last only as far as it is used.
    pub(super) size: u64,
    /// Bytes of attributes behind the inode, 0 or at least 16.
    pub(super) attributes: usize,
    /// First block, device number or size of chunks, by `layout` and `kind`.
    pub(super) place: u32,
    /// For programs that know 32-bit inode numbers only.
    pub(super) number: u32,
}

impl Inode {
    /// `struct erofs_inode_extended`.
    pub(super) fn to_bytes(&self) -> [u8; INODE] {
        let layout = match self.layout {
            Layout::Plain => 0_u16,
            Layout::Inline => 2,
            Layout::Chunks => 4,
        };
        // The header of 12 bytes counts as one, what follows in fours.
        let attributes = match self.attributes {
            0 => 0,
            bytes => (bytes - 12) / 4 + 1,
        };
        let mut bytes = Bytes::<INODE>::new();
        bytes.u16(1 | layout << 1);
        bytes.u16(u16::try_from(attributes).unwrap_or(u16::MAX));
        bytes.u16(u16::try_from(self.kind.mode() | self.mode).unwrap_or(u16::MAX));
        bytes.u16(0);
        bytes.u64(self.size);
        bytes.u32(self.place);
        bytes.u32(self.number);
        bytes.u32(self.uid);
        bytes.u32(self.gid);
        bytes.u64(self.mtime.seconds.cast_unsigned());
        bytes.u32(self.mtime.nanoseconds);
        bytes.u32(self.links);
        bytes.finish()
    }
}

/// A device number as the kernel's `new_encode_dev` puts it: 12 bits of major, 20 of minor.
pub(super) fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

/// What the superblock says.
pub(super) struct Superblock {
    pub(super) blocks: u32,
    pub(super) inodes: u64,
    pub(super) identity: [u8; 16],
    pub(super) chunked: bool,
}

impl Superblock {
    /// Writes it into block 0, after all else is there, with the checksum of the block.
    pub(super) fn write(&self, block: &mut [u8; BLOCK]) {
        let mut bytes = Bytes::<128>::new();
        bytes.u32(MAGIC);
        bytes.u32(0);
        bytes.u32(COMPATIBLE);
        bytes.u16(u16::from(BLOCK_BITS));
        bytes.u16(ROOT_NID);
        bytes.u64(self.inodes);
        bytes.u64(0);
        bytes.u32(0);
        bytes.u32(self.blocks);
        bytes.u32(0);
        bytes.u32(0);
        bytes.raw(&self.identity);
        bytes.raw(&[0; 16]);
        bytes.u32(if self.chunked { CHUNKED } else { 0 });
        block[SUPERBLOCK..ROOT].copy_from_slice(&bytes.finish());
        let sum = crc32c(&block[SUPERBLOCK..]);
        block[SUPERBLOCK + 4..SUPERBLOCK + 8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// CRC-32C without the inversion at its end. Three kilobytes a layer need no table.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 })
    })
}

/// How the entries of a directory fall into blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Blocks before the last.
    pub(super) full: usize,
    /// Bytes used of the last.
    pub(super) last: usize,
}

impl Blocks {
    /// Counts an entry; tells whether it begins a new block.
    pub(super) fn add(&mut self, name: &[u8]) -> bool {
        let size = DIRENT + name.len();
        if self.last + size <= BLOCK {
            self.last += size;
            return false;
        }
        self.full += 1;
        self.last = size;
        true
    }

    /// The size of a directory.
    pub(super) fn size(self) -> u64 {
        (self.full * BLOCK + self.last) as u64
    }
}

/// Appends one block of a directory: the entries, then the names.
pub(super) fn directory_block(entries: &[(&[u8], u64, Type)], out: &mut Vec<u8>) {
    let mut name_at = entries.len() * DIRENT;
    for (name, nid, kind) in entries {
        out.extend_from_slice(&nid.to_le_bytes());
        out.extend_from_slice(&(u16::try_from(name_at).unwrap_or(u16::MAX)).to_le_bytes());
        out.extend_from_slice(&[*kind as u8, 0]);
        name_at += name.len();
    }
    for (name, ..) in entries {
        out.extend_from_slice(name);
    }
}

/// A structure of `N` bytes, filled from the front; what is left is zero.
struct Bytes<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Bytes<N> {
    fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    fn finish(self) -> [u8; N] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_devices() {
        assert_eq!(usize::from(ROOT_NID) * SLOT, ROOT);
        // RFC 3720 B.4 has the inverted one of 32 zeros.
        assert_eq!(!crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(device(0, 0), 0);
        assert_eq!(device(259, 1_048_575), 0xFFF0_0000 | 259 << 8 | 0xff);
    }

    #[test]
    fn directories_fall_into_blocks() {
        let mut blocks = Blocks::default();
        let name = [b'n'; MAX_NAME];
        let begun: Vec<bool> = (0..16).map(|_| blocks.add(&name)).collect();
        assert_eq!(begun.iter().position(|b| *b), Some(15));
        assert_eq!((blocks, blocks.size()), (Blocks { full: 1, last: 267 }, 4096 + 267));
    }
}
