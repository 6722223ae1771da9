//! The file, written front to back: block 0 is left out until the end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::digest::{Digester, FileDigest};
use super::format::BLOCK;
use crate::{Error, Result};

/// Bytes that are written at once.
const BUFFER: usize = 256 << 10;
/// After this many bytes the kernel is asked to begin writing them to the disk, so that the flush at
/// the end has little left.
const BEHIND: u64 = 8 << 20;

pub(super) struct Output {
    file: File,
    buffer: Vec<u8>,
    /// Bytes that were handed to the kernel, block 0 included.
    written: u64,
    /// Up to where the kernel was asked to write to the disk.
    begun: u64,
    digester: Digester,
}

impl Output {
    /// Begins behind block 0. The file is empty.
    pub(super) fn new(file: File) -> Self {
        let buffer = Vec::with_capacity(BUFFER);
        Self { file, buffer, written: BLOCK as u64, begun: 0, digester: Digester::default() }
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// The block that begins here; the position has to be a block's border.
    pub(super) fn block(&self) -> Result<u32> {
        let limit = u64::from(u32::MAX) - 1;
        let what = "the number of blocks of the layer's file";
        u32::try_from(self.position() / BLOCK as u64)
            .ok()
            .filter(|b| u64::from(*b) < limit)
            .ok_or(Error::Limit { what, limit })
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn zeros(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let step = usize::try_from(count).unwrap_or(BUFFER).min(BUFFER - self.buffer.len());
            self.buffer.resize(self.buffer.len() + step, 0);
            count -= step as u64;
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Fills the block up.
    pub(super) fn pad(&mut self) -> Result<()> {
        let position = self.position();
        self.zeros(position.next_multiple_of(BLOCK as u64) - position)
    }

    fn flush(&mut self) -> Result<()> {
        self.digester.update(&self.buffer);
        self.file.write_all_at(&self.buffer, self.written).map_err(failed)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        if self.written - self.begun >= BEHIND {
            onggi_sys::file::begin_writeback(&self.file, self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        Ok(())
    }

    /// Reads what was put before.
    pub(super) fn read_back(&mut self, position: u64, bytes: &mut [u8]) -> Result<()> {
        if position + bytes.len() as u64 > self.written {
            self.flush()?;
        }
        let read = self.file.read_exact_at(bytes, position);
        read.map_err(|source| Error::Stream { op: "read the layer's file", source })
    }

    /// Writes block 0; the file is complete. Gives its checksum and size.
    pub(super) fn finish(mut self, first: &[u8; BLOCK]) -> Result<(FileDigest, u64)> {
        self.flush()?;
        self.file.write_all_at(first, 0).map_err(failed)?;
        Ok((self.digester.finish(first), self.written))
    }
}

fn failed(source: io::Error) -> Error {
    Error::Stream { op: "write the layer's file", source }
}
