//! Sparse files: which pieces of a file an archive carries.

use tar::GnuSparseHeader;

use super::header;
use super::limits::MAX_SPARSE_PIECES;
use super::pax::decimal;
use crate::EntryProblem;

/// Offset and length of a part of a file that has content.
pub type Piece = (u64, u64);

/// Pieces of content in ascending order, none overlapping, all inside the file.
/// Between them are holes.
#[derive(Debug, PartialEq, Eq)]
pub struct Sparse {
    pieces: Vec<Piece>,
}

impl Sparse {
    /// Checks a map against the file's size and the bytes of content carried.
    pub(super) fn new(pieces: Vec<Piece>, real_size: u64, content: u64) -> Result<Self, EntryProblem> {
        let (mut end, mut sum) = (0, 0_u64);
        for &(offset, length) in &pieces {
            let piece_end = offset.checked_add(length).filter(|&e| offset >= end && e <= real_size);
            end = piece_end.ok_or(EntryProblem::Sparse("has pieces out of order or outside of the file"))?;
            sum += length;
        }
        if sum != content {
            return Err(EntryProblem::Sparse("does not cover the content"));
        }
        Ok(Self { pieces })
    }

    /// Offset and length of each piece.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

/// Appends the pieces of a GNU header; unused slots are zero.
pub(super) fn append_gnu(into: &mut Vec<Piece>, slots: &[GnuSparseHeader]) -> Result<(), EntryProblem> {
    for slot in slots.iter().filter(|slot| slot.offset[0] != 0 && slot.numbytes[0] != 0) {
        if into.len() >= MAX_SPARSE_PIECES {
            return Err(EntryProblem::Limit {
                what: "number of sparse pieces",
                limit: MAX_SPARSE_PIECES as u64,
            });
        }
        let offset = header::unsigned(&slot.offset, "sparse offset")?;
        into.push((offset, header::unsigned(&slot.numbytes, "sparse length")?));
    }
    Ok(())
}

/// Decimal numbers, one a line, arriving in blocks.
#[derive(Default)]
pub(super) struct Lines {
    data: Vec<u8>,
    read: usize,
}

impl Lines {
    pub(super) fn push(&mut self, block: &[u8]) {
        self.data.drain(..self.read);
        self.read = 0;
        self.data.extend_from_slice(block);
    }

    /// The next number, or nothing if its line is not complete yet.
    pub(super) fn next(&mut self) -> Result<Option<u64>, EntryProblem> {
        let rest = &self.data[self.read..];
        let Some(end) = rest.iter().position(|&b| b == b'\n') else {
            // No number has more digits than this.
            return if rest.len() > 20 {
                Err(EntryProblem::Sparse("is not a list of numbers"))
            } else {
                Ok(None)
            };
        };
        let number = decimal(&rest[..end]).ok_or(EntryProblem::Sparse("is not a list of numbers"))?;
        self.read += end + 1;
        Ok(Some(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        assert!(Sparse::new(vec![(0, 5), (10, 0), (10, 5), (20, 0)], 20, 10).is_ok());
        for (pieces, size, content) in [
            (vec![(0, 5), (4, 5)], 20, 10),
            (vec![(10, 5), (0, 5)], 20, 10),
            (vec![(16, 5)], 20, 5),
            (vec![(u64::MAX, 2)], u64::MAX, 2),
            (vec![(0, 5)], 20, 6),
        ] {
            assert!(Sparse::new(pieces, size, content).is_err());
        }
    }

    #[test]
    fn lines_across_blocks() {
        let mut lines = Lines::default();
        lines.push(b"12\n3");
        assert_eq!(lines.next().unwrap(), Some(12));
        assert_eq!(lines.next().unwrap(), None);
        lines.push(b"4\n");
        assert_eq!(lines.next().unwrap(), Some(34));
        lines.push(b"x\n");
        assert!(lines.next().is_err());
    }
}
