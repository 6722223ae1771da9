//! Packages of Fedora, SUSE and their like: headers in a table of a SQLite database.
//!
//! ```text
//!   header of a package, big-endian
//!     u32 entries   u32 bytes of data
//!     entries × { u32 tag, u32 type, u32 offset into the data, u32 count }
//!     data
//! ```
//!
//! The older forms of the database (Berkeley DB, ndb) are not read.

use super::sqlite::Database;
use super::{MAX_DATABASE, Package, Tree};

const PLACES: [&str; 2] = ["/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite"];
const TAG_NAME: u32 = 1000;
const TAG_VERSION: u32 = 1001;
const TAG_RELEASE: u32 = 1002;
const TAG_EPOCH: u32 = 1003;
const TAG_LICENCE: u32 = 1014;
const TAG_ARCH: u32 = 1022;
/// A text that ends with a NUL.
const TYPE_STRING: u32 = 6;
const TYPE_INT32: u32 = 4;

pub(super) fn packages(tree: &Tree<'_>, distribution: &str) -> Vec<Package> {
    let Some(bytes) = PLACES.iter().find_map(|path| tree.read(path, MAX_DATABASE)) else { return Vec::new() };
    let Some(database) = Database::open(&bytes) else { return Vec::new() };
    database.blobs("Packages").iter().filter_map(|header| package(header, distribution)).collect()
}

fn package(header: &[u8], distribution: &str) -> Option<Package> {
    let header = Header::read(header)?;
    let (version, release) = (header.text(TAG_VERSION)?, header.text(TAG_RELEASE)?);
    let epoch = header.number(TAG_EPOCH).map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let name = header.text(TAG_NAME)?;
    // Keys of signatures are kept like packages.
    (name != "gpg-pubkey").then(|| Package {
        kind: "rpm",
        namespace: distribution.to_owned(),
        name,
        version: format!("{epoch}{version}-{release}"),
        architecture: header.text(TAG_ARCH).unwrap_or_default(),
        licence: header.text(TAG_LICENCE).unwrap_or_default(),
    })
}

struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let entries = usize::try_from(word(bytes, 0)?).ok()?;
        let index = bytes.get(8..entries.checked_mul(16)?.checked_add(8)?)?;
        Some(Self { index, data: bytes.get(8 + index.len()..)? })
    }

    fn find(&self, tag: u32, kind: u32) -> Option<&'a [u8]> {
        let entry = self.index.chunks_exact(16).find(|entry| word(entry, 0) == Some(tag))?;
        (word(entry, 4)? == kind).then(|| self.data.get(usize::try_from(word(entry, 8)?).ok()?..)).flatten()
    }

    fn text(&self, tag: u32) -> Option<String> {
        let bytes = self.find(tag, TYPE_STRING)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned())
    }

    fn number(&self, tag: u32) -> Option<u32> {
        word(self.find(tag, TYPE_INT32)?, 0)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
pub(super) fn header(fields: &[(u32, &str)]) -> Vec<u8> {
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, text) in fields {
        for number in [*tag, TYPE_STRING, u32::try_from(data.len()).unwrap(), 1] {
            index.extend(number.to_be_bytes());
        }
        data.extend(text.bytes().chain([0]));
    }
    let count = u32::try_from(fields.len()).unwrap();
    let size = u32::try_from(data.len()).unwrap();
    [&count.to_be_bytes()[..], &size.to_be_bytes(), &index, &data].concat()
}
