//! Entries of an archive, one after another, into the file.

use std::fs;
use std::io::Read;

use super::attributes::Attributes;
use super::digest::FileDigest;
use super::format::{BLOCK, HOLE, INODE, Inode, Layout, SLOT, Type, device};
use super::metadata::{Metadata, Place};
use super::output::Output;
use super::tree::{Child, File, Names, ROOT};
use crate::layer::entries::{Failure, refuse};
use crate::layer::meta::Meta;
use crate::layer::path::{clean, clean_link, split};
use crate::layer::whiteout::{self, Mark};
use crate::layer::{Entries, Kind, Limits, Ownership, Piece, Sparse, Unpacked};
use crate::{EntryProblem, Result};

/// Chunks of sparse files have at most 2 to this many blocks: 4 GiB.
const MAX_CHUNK_BITS: u32 = 20;

/// What makes a filesystem known among others (`uuid`): overlayfs wants to tell its layers apart.
pub type Identity = [u8; 16];

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// What the archive held.
    pub unpacked: Unpacked,
    /// The checksum of the file.
    pub digest: FileDigest,
    /// Bytes of the file.
    pub size: u64,
}

/// Writes an archive's tree into `file`, which is empty. For root: owners are kept, devices made.
///
/// The stream is read to its end, so that its hash covers all of it; then `identity` is asked for.
/// Nothing is flushed. After an error the file holds a part; the caller removes it.
pub fn write(
    archive: impl Read,
    file: fs::File,
    identity: impl FnOnce() -> Identity,
    limits: &Limits,
) -> Result<Written> {
    let mut writer = Writer::new(file);
    let mut entries = Entries::new(archive);
    while let Some(mut entry) = entries.next_entry()? {
        writer.report.count(&entry, limits)?;
        let path = std::mem::take(&mut entry.path);
        let made = writer.report.admit(entry, Ownership::Keep).map_err(Failure::from);
        match made.and_then(|(kind, meta)| writer.entry(&path, kind, meta, &mut entries)) {
            Ok(()) => {}
            Err(Failure::Entry(problem)) => return Err(refuse(&path, problem)),
            Err(Failure::Stream(error)) => return Err(error),
        }
    }
    writer.report.trailing = entries.drain()?;
    writer.finish(identity())
}

pub(super) struct Writer {
    pub(super) output: Output,
    pub(super) metadata: Metadata,
    pub(super) names: Names,
    pub(super) report: Unpacked,
    /// Whether a file has chunks.
    pub(super) chunked: bool,
}

/// What stands in the file of an inode's content, and what is to stand behind the inode.
struct Content<'a> {
    layout: Layout,
    size: u64,
    place: u32,
    rest: &'a [u8],
}

impl Content<'_> {
    const NONE: Self = Self { layout: Layout::Plain, size: 0, place: 0, rest: &[] };
}

impl Writer {
    fn new(file: fs::File) -> Self {
        Self {
            output: Output::new(file),
            metadata: Metadata::default(),
            names: Names::new(),
            report: Unpacked::default(),
            chunked: false,
        }
    }

    fn entry<R: Read>(
        &mut self,
        name: &[u8],
        kind: Kind,
        meta: Meta,
        data: &mut Entries<R>,
    ) -> Result<(), Failure> {
        let clean = clean(name)?;
        if clean.path.split(|&b| b == b'/').next().is_some_and(whiteout::is_aufs) {
            return Ok(());
        }
        let (at, base) = self.names.locate(&clean.path, clean.climbs)?;
        match whiteout::read(base)? {
            Mark::None => {}
            Mark::Aufs => return Ok(()),
            Mark::Whiteout(hidden) => {
                self.names.charge(hidden.len() + 64)?;
                self.names.directories[at].whiteouts.insert(hidden.into());
                return Ok(());
            }
            Mark::Opaque => {
                self.report.opaque_root |= at == ROOT;
                self.names.directories[at].opaque = true;
                return Ok(());
            }
        }
        if base.is_empty() && kind != Kind::Directory {
            return Err(EntryProblem::Root.into());
        }
        let (kind, content) = match kind {
            Kind::Directory => {
                let id = if base.is_empty() { ROOT } else { self.names.directory(at, base)? };
                self.report.root_entry |= id == ROOT;
                self.names.charge(meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum())?;
                self.names.directories[id].meta = Some(meta);
                return Ok(());
            }
            Kind::HardLink(target) => return self.hard_link(at, base, &target),
            Kind::File { size, sparse } => {
                let attributes = self.attributes(name, Type::File, &meta)?;
                let place = match sparse {
                    None => self.file(&meta, &attributes, size, data)?,
                    Some(map) => self.sparse(&meta, &attributes, size, &map, data)?,
                };
                self.names.add(at, base, File { place, kind: Type::File, links: 1 }, None)?;
                return Ok(());
            }
            Kind::Symlink(target) => {
                let meta = Meta { mode: rustix::fs::Mode::from_raw_mode(0o777), ..meta };
                let attributes = self.attributes(name, Type::Symlink, &meta)?;
                let place = self.small(Type::Symlink, &meta, &attributes, &target)?;
                let file = File { place, kind: Type::Symlink, links: 1 };
                self.names.add(at, base, file, Some(&target))?;
                return Ok(());
            }
            Kind::CharDevice(0, 0) => return Err(EntryProblem::WhiteoutDevice.into()),
            Kind::CharDevice(major, minor) => (Type::CharDevice, device(major, minor)),
            Kind::BlockDevice(major, minor) => (Type::BlockDevice, device(major, minor)),
            Kind::Fifo => (Type::Fifo, 0),
        };
        let attributes = self.attributes(name, kind, &meta)?;
        let place = self.inode(kind, &meta, &attributes, &Content { place: content, ..Content::NONE })?;
        self.names.add(at, base, File { place, kind, links: 1 }, None)?;
        Ok(())
    }

    /// Attributes in their form on disk; those that can't be had are counted.
    pub(super) fn attributes(
        &mut self,
        name: &[u8],
        kind: Type,
        meta: &Meta,
    ) -> Result<Attributes, EntryProblem> {
        if meta.xattrs.is_empty() {
            return Ok(Attributes::default());
        }
        let attributes = Attributes::new(kind, &meta.xattrs)?;
        self.report.xattrs_skipped += attributes.skipped;
        if let Some(skipped) = &attributes.first_skipped {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.report.first_xattr_skipped.get_or_insert_with(|| (text(name), text(skipped)));
        }
        Ok(attributes)
    }

    /// A regular file: whole blocks now, the rest behind the inode if it fits there.
    fn file<R: Read>(
        &mut self,
        meta: &Meta,
        attributes: &Attributes,
        size: u64,
        data: &mut Entries<R>,
    ) -> Result<Place, Failure> {
        let rest = size % BLOCK as u64;
        let inline = Metadata::fits(attributes.bytes.len() + usize::try_from(rest).unwrap_or(BLOCK));
        let place = self.output.block()?;
        self.copy(data, if inline { size - rest } else { size })?;
        self.output.pad()?;
        if !inline || rest == 0 {
            return self.inode(
                Type::File,
                meta,
                attributes,
                &Content { layout: Layout::Plain, size, place, rest: &[] },
            );
        }
        let mut tail = Vec::with_capacity(BLOCK);
        while (tail.len() as u64) < rest {
            let piece = data.content(rest - tail.len() as u64)?;
            if piece.is_empty() {
                return Err(EntryProblem::Sparse("does not cover the content").into());
            }
            tail.extend_from_slice(piece);
        }
        let content = Content { layout: Layout::Inline, size, place, rest: &tail };
        self.inode(Type::File, meta, attributes, &content)
    }

    fn copy<R: Read>(&mut self, data: &mut Entries<R>, mut left: u64) -> Result<(), Failure> {
        while left > 0 {
            let piece = data.content(left)?;
            if piece.is_empty() {
                return Err(EntryProblem::Sparse("does not cover the content").into());
            }
            left -= piece.len() as u64;
            self.output.put(piece)?;
        }
        Ok(())
    }

    /// Content that is in memory.
    fn small(
        &mut self,
        kind: Type,
        meta: &Meta,
        attributes: &Attributes,
        content: &[u8],
    ) -> Result<Place, Failure> {
        let size = content.len() as u64;
        if Metadata::fits(attributes.bytes.len() + content.len()) {
            let content = Content { layout: Layout::Inline, size, place: 0, rest: content };
            return self.inode(kind, meta, attributes, &content);
        }
        let place = self.output.block()?;
        self.output.put(content)?;
        self.output.pad()?;
        self.inode(kind, meta, attributes, &Content { layout: Layout::Plain, size, place, rest: &[] })
    }

    /// A file with holes: chunks that have content, and behind the inode their addresses.
    fn sparse<R: Read>(
        &mut self,
        meta: &Meta,
        attributes: &Attributes,
        size: u64,
        map: &Sparse,
        data: &mut Entries<R>,
    ) -> Result<Place, Failure> {
        if size == 0 {
            return self.inode(Type::File, meta, attributes, &Content::NONE);
        }
        let bits = chunk_bits(map.pieces(), size);
        let chunk = (BLOCK as u64) << bits;
        // Runs of chunks: the first, how many, the block where they begin.
        let mut runs: Vec<(u64, u64, u32)> = Vec::new();
        let mut filled = 0;
        for &(mut offset, mut length) in map.pieces() {
            while length > 0 {
                let number = offset / chunk;
                let begins = match runs.last_mut() {
                    Some((first, count, _)) if *first + *count > number => false,
                    Some((first, count, _)) if *first + *count == number => {
                        self.output.zeros(number * chunk - filled)?;
                        *count += 1;
                        filled = number * chunk;
                        false
                    }
                    _ => true,
                };
                if begins {
                    if let Some((first, count, _)) = runs.last() {
                        self.output.zeros((*first + *count) * chunk - filled)?;
                    }
                    runs.push((number, 1, self.output.block()?));
                    filled = number * chunk;
                }
                self.output.zeros(offset - filled)?;
                let step = length.min((number + 1) * chunk - offset);
                self.copy(data, step)?;
                (offset, length) = (offset + step, length - step);
                filled = offset;
            }
        }
        if let Some((first, count, _)) = runs.last() {
            // The last chunk may reach beyond the end of the file; whole blocks are enough there.
            let end = ((*first + *count) * chunk).min(size.next_multiple_of(BLOCK as u64));
            self.output.zeros(end - filled)?;
        }
        self.chunked = true;
        let content = Content { layout: Layout::Chunks, size, place: bits, rest: &[] };
        let inode = self.record(Type::File, meta, attributes, &content, 1);
        let nid = self.output.position() / SLOT as u64;
        self.output.put(&inode)?;
        self.output.put(&attributes.bytes)?;
        let mut at = 0;
        for (first, count, block) in runs {
            for _ in at..first {
                self.output.put(&HOLE.to_le_bytes())?;
            }
            for number in 0..count {
                let address = u64::from(block) + (number << bits);
                self.output.put(&u32::try_from(address).unwrap_or(HOLE).to_le_bytes())?;
            }
            at = first + count;
        }
        for _ in at..size.div_ceil(chunk) {
            self.output.put(&HOLE.to_le_bytes())?;
        }
        self.output.pad()?;
        Ok(Place::Nid(nid))
    }

    fn record(
        &self,
        kind: Type,
        meta: &Meta,
        attributes: &Attributes,
        content: &Content<'_>,
        links: u32,
    ) -> [u8; INODE] {
        // The access list decides about the lower bits.
        let mode = meta.mode.as_raw_mode();
        let mode = attributes.mode.map_or(mode, |listed| mode & 0o7000 | listed);
        let inode = Inode {
            layout: content.layout,
            kind,
            mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime: meta.mtime,
            links,
            size: content.size,
            attributes: attributes.bytes.len(),
            place: content.place,
            number: u32::try_from(self.names.files.len() + 2).unwrap_or(u32::MAX),
        };
        inode.to_bytes()
    }

    fn inode(
        &mut self,
        kind: Type,
        meta: &Meta,
        attributes: &Attributes,
        content: &Content<'_>,
    ) -> Result<Place, Failure> {
        let inode = self.record(kind, meta, attributes, content, 1);
        self.put(&inode, [&attributes.bytes, content.rest])
    }

    /// Puts an inode and what is behind it where there is room.
    fn put(&mut self, inode: &[u8; INODE], behind: [&[u8]; 2]) -> Result<Place, Failure> {
        if Metadata::fits(behind[0].len() + behind[1].len()) {
            return Ok(self.metadata.put(inode, behind, &mut self.output)?);
        }
        let nid = self.output.position() / SLOT as u64;
        for part in [inode, behind[0], behind[1]] {
            self.output.put(part)?;
        }
        self.output.pad()?;
        Ok(Place::Nid(nid))
    }

    fn hard_link(&mut self, at: usize, base: &[u8], target: &[u8]) -> Result<(), Failure> {
        let refuse = |problem| EntryProblem::HardLink {
            target: String::from_utf8_lossy(target).into_owned(),
            problem,
        };
        let clean = clean_link(target)?;
        let (named, name) = split(&clean.path);
        if name.is_empty() || name == b".." {
            return Err(refuse("is a directory").into());
        }
        let missing = "is not in this layer before it; a layer can't link to one below it";
        let found = self.names.link_target(named, name, clean.climbs)?;
        match found {
            Some((directory, _)) if directory == at && name == base => Err(refuse("is its own name").into()),
            None => Err(refuse(missing).into()),
            Some((_, Child::Directory(_))) => Err(refuse("is a directory, or may not be linked to").into()),
            Some((directory, Child::File(file))) => {
                self.names.remove(at, base);
                // What was removed may have been a directory with the target in it.
                if !self.names.directories[directory].children.contains_key(name) {
                    return Err(refuse(missing).into());
                }
                Ok(self.names.link(at, base, file)?)
            }
        }
    }

    /// Gives files with several names an inode that says how many. All metadata is in the file.
    pub(super) fn settle_links(&mut self) -> Result<()> {
        self.metadata.flush(&mut self.output)?;
        for id in 0..self.names.files.len() {
            let file = self.names.files[id];
            if file.links < 2 {
                continue;
            }
            let position = self.metadata.nid(file.place) * SLOT as u64;
            let mut inode = [0; INODE];
            self.output.read_back(position, &mut inode)?;
            let behind = behind(&inode);
            inode[44..48].copy_from_slice(&file.links.to_le_bytes());
            // A large one lies alone from the start of a block on: it is copied piece by piece.
            self.names.files[id].place = if Metadata::fits(usize::try_from(behind).unwrap_or(usize::MAX)) {
                let mut bytes = vec![0; usize::try_from(behind).unwrap_or_default()];
                self.output.read_back(position + INODE as u64, &mut bytes)?;
                self.metadata.put(&inode, [&bytes, &[]], &mut self.output)?
            } else {
                let nid = self.output.position() / SLOT as u64;
                self.output.put(&inode)?;
                let mut buffer = vec![0; 64 << 10];
                let (mut from, end) = (position + INODE as u64, position + INODE as u64 + behind);
                while from < end {
                    let step = usize::try_from(end - from).unwrap_or(buffer.len()).min(buffer.len());
                    self.output.read_back(from, &mut buffer[..step])?;
                    self.output.put(&buffer[..step])?;
                    from += step as u64;
                }
                self.output.pad()?;
                Place::Nid(nid)
            };
        }
        Ok(())
    }

    /// A whiteout in overlay form.
    pub(super) fn whiteout(&mut self, at: usize, name: &[u8]) -> Result<(), Failure> {
        let meta = Meta::implicit(0);
        let place = self.inode(Type::CharDevice, &meta, &Attributes::default(), &Content::NONE)?;
        self.names.add(at, name, File { place, kind: Type::CharDevice, links: 1 }, None)?;
        Ok(())
    }
}

/// Bytes behind an inode that was written here: attributes, the rest of the content, addresses.
fn behind(inode: &[u8; INODE]) -> u64 {
    let u16_at = |at: usize| u64::from(u16::from_le_bytes([inode[at], inode[at + 1]]));
    let size = u64::from_le_bytes(inode[8..16].try_into().unwrap_or_default());
    let attributes = match u16_at(2) {
        0 => 0,
        count => 12 + 4 * (count - 1),
    };
    let content = match u16_at(0) >> 1 {
        2 => size % BLOCK as u64,
        4 => 4 * size.div_ceil((BLOCK as u64) << (u16_at(16) & 0x1f)),
        _ => 0,
    };
    attributes + content
}

/// The size of chunks that costs least: what is filled up, and four bytes of address for each.
fn chunk_bits(pieces: &[Piece], size: u64) -> u32 {
    let cost = |bits: u32| {
        let chunk = (BLOCK as u64) << bits;
        let (mut touched, mut next) = (0, 0);
        for &(offset, length) in pieces.iter().filter(|(_, length)| *length > 0) {
            let (first, last) = ((offset / chunk).max(next), (offset + length - 1) / chunk);
            touched += (last + 1).saturating_sub(first);
            next = last + 1;
        }
        touched.saturating_mul(chunk).saturating_add(4 * size.div_ceil(chunk))
    };
    (0..=MAX_CHUNK_BITS).min_by_key(|bits| cost(*bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_as_large_as_is_cheap() {
        assert_eq!(chunk_bits(&[], 1), 0);
        // Nothing in it: one address.
        assert_eq!(chunk_bits(&[], 1 << 32), 20);
        // One block at each end of a gigabyte: addresses against filling up.
        assert_eq!(chunk_bits(&[(0, 4096), ((1 << 30) - 4096, 4096)], 1 << 30), 3);
        // Dense content needs no fine map.
        assert_eq!(chunk_bits(&[(0, 1 << 30)], 1 << 30), 18);
    }
}
