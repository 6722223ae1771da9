//! Inodes on their way to the file: packed into blocks, gathered up to a megabyte, then put between
//! the data in one piece.
//!
//! An inode, its attributes and the rest of its content stay within one block (the kernel wants that
//! of the content); a larger one begins a block of its own and goes to the file at once.

use super::format::{BLOCK, INODE, SLOT};
use super::output::Output;
use crate::Result;

/// Blocks that are gathered: so much metadata lies together, for whoever walks a tree.
const GATHERED: usize = 256;
/// How many of the last blocks are tried for room, before a new one is begun.
const TRIED: usize = 8;

/// Where an inode is: within gathered metadata whose place is not known yet, or in the file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// The number of the gathered piece, and the slot in it.
    Gathered(u32, u32),
    /// The node id.
    Nid(u64),
}

#[derive(Default)]
pub(super) struct Metadata {
    gathered: Vec<u8>,
    /// Bytes used of each block of `gathered`.
    used: Vec<usize>,
    /// Positions in the file of the pieces before.
    pieces: Vec<u64>,
}

impl Metadata {
    /// Whether an inode with this much behind it stays within a block.
    pub(super) fn fits(behind: usize) -> bool {
        INODE + behind <= BLOCK
    }

    /// Places an inode with what is behind it, which fits into a block.
    pub(super) fn put(&mut self, inode: &[u8], behind: [&[u8]; 2], output: &mut Output) -> Result<Place> {
        let size = inode.len() + behind[0].len() + behind[1].len();
        let recent = self.used.len().saturating_sub(TRIED)..self.used.len();
        let block = recent.into_iter().find(|block| self.used[*block] + size <= BLOCK);
        let block = if let Some(block) = block {
            block
        } else {
            if self.used.len() == GATHERED {
                self.flush(output)?;
            }
            self.used.push(0);
            self.gathered.resize(self.used.len() * BLOCK, 0);
            self.used.len() - 1
        };
        let mut at = block * BLOCK + self.used[block];
        let slot = at / SLOT;
        for part in [inode, behind[0], behind[1]] {
            self.gathered[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.used[block] = (self.used[block] + size).next_multiple_of(SLOT);
        let piece = u32::try_from(self.pieces.len()).unwrap_or(u32::MAX);
        Ok(Place::Gathered(piece, u32::try_from(slot).unwrap_or(u32::MAX)))
    }

    /// Puts what is gathered into the file.
    pub(super) fn flush(&mut self, output: &mut Output) -> Result<()> {
        if !self.used.is_empty() {
            self.pieces.push(output.position());
            output.put(&self.gathered)?;
            self.gathered.clear();
            self.used.clear();
        }
        Ok(())
    }

    /// The node id of a place; all is flushed.
    pub(super) fn nid(&self, place: Place) -> u64 {
        match place {
            Place::Nid(nid) => nid,
            Place::Gathered(piece, slot) => self.pieces[piece as usize] / SLOT as u64 + u64::from(slot),
        }
    }
}
