//! The end of the file: marks and whiteouts settle, directories are laid out and written, then
//! block 0.
//!
//! A directory's blocks hold the node ids of what is in it, and the node ids of directories depend
//! on the sizes of those before. So the first pass counts and places, the second one writes.

use super::attributes::{Attributes, too_large};
use super::format::{
    BLOCK, Blocks, INODE, Inode, Layout, ROOT as ROOT_AT, SLOT, Superblock, Type, directory_block,
};
use super::metadata::Metadata;
use super::tree::{Child, DirectoryId, ROOT};
use super::writer::{Identity, Writer, Written};
use crate::Result;
use crate::layer::OverlayXattr;
use crate::layer::entries::{Failure, refuse};
use crate::layer::meta::Meta;

/// A directory that has its place.
struct Laid {
    id: DirectoryId,
    meta: Meta,
    attributes: Attributes,
    blocks: Blocks,
    layout: Layout,
}

impl Laid {
    /// How many whole blocks it takes.
    fn whole(&self) -> usize {
        self.blocks.full + usize::from(self.layout == Layout::Plain)
    }

    /// Bytes of the last block that stand behind the inode.
    fn rest(&self) -> usize {
        if self.layout == Layout::Inline { self.blocks.last } else { 0 }
    }
}

impl Writer {
    /// Writes all that is left.
    pub(super) fn finish(mut self, identity: Identity) -> Result<Written> {
        let order = self.settle()?;
        self.settle_links()?;
        self.metadata.flush(&mut self.output)?;
        let laid = self.lay_out(&order)?;
        let nids = self.place(&laid);
        let first = self.write_directories(&laid, &nids, identity)?;
        let (digest, size) = self.output.finish(&first)?;
        Ok(Written { unpacked: self.report, digest, size })
    }

    /// Turns whiteouts into marks and devices. Gives all directories, each before what is in it.
    fn settle(&mut self) -> Result<Vec<DirectoryId>> {
        // With whether something above hides everything below already.
        let mut waiting = vec![(ROOT, false)];
        let mut order = Vec::new();
        while let Some((id, hidden)) = waiting.pop() {
            order.push(id);
            let whiteouts = std::mem::take(&mut self.names.directories[id].whiteouts);
            let hidden = hidden || self.names.directories[id].opaque;
            for name in whiteouts {
                match self.names.directories[id].children.get(&name).copied() {
                    Some(Child::Directory(child)) => self.names.directories[child].opaque = true,
                    // Where the layer itself has an entry, it stays.
                    Some(Child::File(_)) => {}
                    // There is nothing left to hide, and overlayfs would list the device.
                    None if hidden => {}
                    None => self.whiteout(id, &name).map_err(|failure| match failure {
                        Failure::Entry(problem) => refuse(&name, problem),
                        Failure::Stream(error) => error,
                    })?,
                }
            }
            let children = self.names.directories[id].children.values().rev();
            waiting.extend(children.filter_map(|child| match child {
                Child::Directory(child) => Some((*child, hidden)),
                Child::File(_) => None,
            }));
        }
        Ok(order)
    }

    /// Counts each directory's blocks.
    fn lay_out(&mut self, order: &[DirectoryId]) -> Result<Vec<Laid>> {
        let mut laid = Vec::with_capacity(order.len());
        for &id in order {
            let meta = self.names.directories[id].meta.take();
            self.report.implicit_directories += u64::from(meta.is_none() && id != ROOT);
            let meta = meta.unwrap_or_else(|| Meta::implicit(0o755));
            let refused = |problem| refuse(b"a directory", problem);
            let mut attributes = self.attributes(b"a directory", Type::Directory, &meta).map_err(refused)?;
            if self.names.directories[id].opaque {
                let mark = OverlayXattr::Trusted.opaque().as_bytes();
                attributes.add(Type::Directory, mark, b"y").map_err(refused)?;
            }
            let mut blocks = Blocks::default();
            for (name, _) in self.entries_of(id) {
                blocks.add(name);
            }
            let inline = id != ROOT && Metadata::fits(attributes.bytes.len() + blocks.last);
            let layout = if inline { Layout::Inline } else { Layout::Plain };
            if id == ROOT && ROOT_AT + INODE + attributes.bytes.len() > BLOCK {
                return Err(refuse(b"/", too_large(BLOCK - ROOT_AT - INODE)));
            }
            laid.push(Laid { id, meta, attributes, blocks, layout });
        }
        Ok(laid)
    }

    /// Gives every directory its blocks and its node id, in the order in which they are written.
    fn place(&self, laid: &[Laid]) -> Vec<u64> {
        let whole: usize = laid.iter().map(Laid::whole).sum();
        let mut nids = vec![0; self.names.directories.len()];
        let mut position = self.output.position() + (whole * BLOCK) as u64;
        for directory in laid {
            if directory.id == ROOT {
                nids[ROOT] = (ROOT_AT / SLOT) as u64;
                continue;
            }
            position = Self::room(position, INODE + directory.attributes.bytes.len() + directory.rest());
            nids[directory.id] = position / SLOT as u64;
            position += (INODE + directory.attributes.bytes.len() + directory.rest()) as u64;
        }
        nids
    }

    /// Where the next inode of this size goes: not across the border of a block unless it begins one.
    fn room(position: u64, size: usize) -> u64 {
        let position = position.next_multiple_of(SLOT as u64);
        let left = BLOCK as u64 - position % BLOCK as u64;
        if size as u64 <= left { position } else { position.next_multiple_of(BLOCK as u64) }
    }

    /// Names of a directory in the order on disk, its own and its parent's included.
    fn entries_of(&self, id: DirectoryId) -> impl Iterator<Item = (&[u8], Child)> {
        let directory = &self.names.directories[id];
        let dots = [(&b"."[..], Child::Directory(id)), (&b".."[..], Child::Directory(directory.parent))];
        let mut dots = dots.into_iter().peekable();
        let mut rest = directory.children.iter().map(|(name, child)| (&name[..], *child)).peekable();
        std::iter::from_fn(move || match (dots.peek(), rest.peek()) {
            (Some((dot, _)), Some((name, _))) if dot < name => dots.next(),
            (Some(_), None) => dots.next(),
            _ => rest.next(),
        })
    }

    fn write_directories(&mut self, laid: &[Laid], nids: &[u64], identity: Identity) -> Result<[u8; BLOCK]> {
        let mut places = Vec::with_capacity(laid.len());
        for directory in laid {
            places.push(self.output.block()?);
            let mut bytes = self.blocks_of(directory, nids);
            bytes.truncate(bytes.len() - directory.rest());
            self.output.put(&bytes)?;
            self.output.pad()?;
        }
        let mut first = [0; BLOCK];
        for (directory, place) in laid.iter().zip(places) {
            let inode = self.inode_of(directory, place);
            let attributes = &directory.attributes.bytes;
            if directory.id == ROOT {
                first[ROOT_AT..ROOT_AT + INODE].copy_from_slice(&inode);
                first[ROOT_AT + INODE..ROOT_AT + INODE + attributes.len()].copy_from_slice(attributes);
                continue;
            }
            let position = self.output.position();
            self.output.zeros(nids[directory.id] * SLOT as u64 - position)?;
            self.output.put(&inode)?;
            self.output.put(attributes)?;
            if directory.layout == Layout::Inline {
                let bytes = self.blocks_of(directory, nids);
                self.output.put(&bytes[bytes.len() - directory.rest()..])?;
            }
        }
        self.output.pad()?;
        let files = self.names.files.iter().filter(|file| file.links > 0).count();
        let superblock = Superblock {
            blocks: self.output.block()?,
            inodes: (files + laid.len()) as u64,
            identity,
            chunked: self.chunked,
        };
        superblock.write(&mut first);
        Ok(first)
    }

    /// The blocks of a directory, all but the last filled up.
    fn blocks_of(&self, directory: &Laid, nids: &[u64]) -> Vec<u8> {
        let mut out = Vec::with_capacity((directory.blocks.full + 1) * BLOCK);
        let (mut entries, mut blocks) = (Vec::new(), Blocks::default());
        for (name, child) in self.entries_of(directory.id) {
            if blocks.add(name) {
                directory_block(&entries, &mut out);
                out.resize(out.len().next_multiple_of(BLOCK), 0);
                entries.clear();
            }
            let (nid, kind) = match child {
                Child::Directory(id) => (nids[id], Type::Directory),
                Child::File(id) => {
                    let file = self.names.files[id];
                    (self.metadata.nid(file.place), file.kind)
                }
            };
            entries.push((name, nid, kind));
        }
        directory_block(&entries, &mut out);
        out
    }

    fn inode_of(&self, directory: &Laid, place: u32) -> [u8; INODE] {
        let children = self.names.directories[directory.id].children.values();
        let below = children.filter(|child| matches!(child, Child::Directory(_))).count();
        let mode = directory.meta.mode.as_raw_mode();
        let inode = Inode {
            layout: directory.layout,
            kind: Type::Directory,
            mode: directory.attributes.mode.map_or(mode, |listed| mode & 0o7000 | listed),
            uid: directory.meta.uid,
            gid: directory.meta.gid,
            mtime: directory.meta.mtime,
            links: u32::try_from(below + 2).unwrap_or(u32::MAX),
            size: directory.blocks.size(),
            attributes: directory.attributes.bytes.len(),
            place,
            number: u32::try_from(self.names.files.len() + directory.id + 3).unwrap_or(u32::MAX),
        };
        inode.to_bytes()
    }
}
