//! The files of an archive that is being read: bytes in the ingest directory, names in memory.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use onggi_oci::Digest;

use crate::error::{Error, Result};
use crate::layer::{Entries, Kind, decoder};
use crate::store::{Lease, MAX_DOCUMENT, Pending};

/// The most entries of an archive: some ten for each layer, and thousands of images.
const MAX_MEMBERS: usize = 200_000;
/// The largest file: a layer of 1 TiB, as [`crate::layer::MAX_CONTENT`].
const MAX_FILE: u64 = 1 << 40;
/// How many links may follow each other.
const MAX_LINKS: usize = 16;
/// Bytes from which a compression is told.
const MAGIC: usize = 6;
/// Documents that are read from memory, not from the store.
const DOCUMENTS: [&str; 3] = ["manifest.json", "index.json", "oci-layout"];

enum Member {
    /// A file by its digest.
    File(Digest),
    /// Another name, from the root of the archive.
    Link(String),
}

/// All files of an archive.
#[derive(Default)]
pub(super) struct Members {
    names: HashMap<String, Member>,
    files: HashMap<Digest, Staged>,
    documents: BTreeMap<&'static str, Vec<u8>>,
}

/// A file that is in the ingest directory, or was published.
struct Staged {
    pending: Option<Pending>,
    size: u64,
}

fn refused(name: &str, problem: impl std::fmt::Display) -> Error {
    Error::corrupt("the archive", format_args!("{name:?} {problem}"))
}

impl Members {
    /// Reads a whole archive, plain or compressed with gzip or zstd.
    pub(super) fn read(lease: &Lease, mut input: impl Read) -> Result<Self> {
        let mut magic = Vec::with_capacity(MAGIC);
        let read = input.by_ref().take(MAGIC as u64).read_to_end(&mut magic);
        read.map_err(|source| Error::Stream { op: "read the archive", source })?;
        for (start, compression) in [(&b"\xfd7zXZ\0"[..], "xz"), (b"BZh", "bzip2"), (b"LZIP", "lzip")] {
            if magic.starts_with(start) {
                return Err(Error::ArchiveCompression { compression });
            }
        }
        let mut entries = Entries::new(decoder(std::io::Cursor::new(magic).chain(input), None)?);
        let mut members = Self::default();
        while let Some(entry) = entries.next_entry()? {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let path = clean("", &name).ok_or_else(|| refused(&name, "leads out of it"))?;
            if members.names.len() >= MAX_MEMBERS {
                let limit = MAX_MEMBERS as u64;
                return Err(Error::Limit { what: "the number of files in the archive", limit });
            }
            let member = match entry.kind {
                Kind::Directory => continue,
                Kind::File { sparse: None, .. } => members.file(lease, &path, &mut entries)?,
                Kind::Symlink(target) => {
                    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let target = String::from_utf8_lossy(&target).into_owned();
                    let target = clean(folder, &target);
                    Member::Link(target.ok_or_else(|| refused(&name, "is a link that leads out of it"))?)
                }
                Kind::HardLink(target) => {
                    let target = clean("", &String::from_utf8_lossy(&target));
                    Member::Link(target.ok_or_else(|| refused(&name, "is a link that leads out of it"))?)
                }
                _ => return Err(refused(&name, "is neither a file nor a directory nor a link")),
            };
            let same = match (members.names.get(&path), &member) {
                (None, _) => true,
                (Some(Member::File(old)), Member::File(new)) => old == new,
                (Some(Member::Link(old)), Member::Link(new)) => old == new,
                _ => false,
            };
            if !same {
                return Err(refused(&name, "occurs twice, with different contents"));
            }
            members.names.insert(path, member);
        }
        Ok(members)
    }

    fn file(&mut self, lease: &Lease, path: &str, entries: &mut Entries<impl Read>) -> Result<Member> {
        let document = DOCUMENTS.into_iter().find(|d| *d == path);
        let limit = if document.is_some() { MAX_DOCUMENT } else { MAX_FILE };
        let mut copy = Vec::new();
        let mut blob = lease.new_blob(limit)?;
        loop {
            let chunk = entries.content(u64::MAX)?;
            if chunk.is_empty() {
                break;
            }
            blob.put(chunk)?;
            if document.is_some() {
                copy.extend_from_slice(chunk);
            }
        }
        let size = blob.written();
        let pending = blob.finish(None)?;
        let digest = pending.blob_digest().map(|(digest, _)| digest.clone());
        let digest = digest.ok_or_else(|| refused(path, "has no content"))?;
        if let Some(hex) = path.strip_prefix("blobs/sha256/")
            && hex != digest.hex()
        {
            return Err(refused(path, format_args!("has the digest {digest}")));
        }
        if let Some(document) = document {
            self.documents.insert(document, copy);
        }
        self.files.entry(digest.clone()).or_insert(Staged { pending: Some(pending), size });
        Ok(Member::File(digest))
    }

    /// A document at the top of the archive.
    pub(super) fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(name).map(Vec::as_slice)
    }

    /// The file with this name, through the archive's links.
    pub(super) fn find(&self, name: &str) -> Result<(Digest, u64)> {
        let mut path = clean("", name).ok_or_else(|| refused(name, "leads out of it"))?;
        for _ in 0..MAX_LINKS {
            match self.names.get(&path) {
                Some(Member::File(digest)) => {
                    let size = self.files.get(digest).map_or(0, |f| f.size);
                    return Ok((digest.clone(), size));
                }
                Some(Member::Link(target)) => path.clone_from(target),
                None => return Err(refused(name, "is named in its manifest.json, but is not in it")),
            }
        }
        Err(refused(name, "is a link in a circle"))
    }

    /// Takes a file for publishing; `None` if it is not here, or was taken before.
    pub(super) fn take(&mut self, digest: &Digest) -> Option<Pending> {
        self.files.get_mut(digest)?.pending.take()
    }

    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        self.files.get(digest).map(|f| f.size)
    }
}

/// A name from the root of the archive, without `.` and `..`; `None` if it leads out of it.
fn clean(folder: &str, name: &str) -> Option<String> {
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn names_stay_inside() {
        assert_eq!(clean("a", "../b/./layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(clean("", "./x//y/").as_deref(), Some("x/y"));
        for (folder, name) in [("", "../x"), ("a", "../../x"), ("", "/etc/passwd"), ("", "a/../../b")] {
            assert_eq!(clean(folder, name), None, "{folder} {name}");
        }
    }
}
