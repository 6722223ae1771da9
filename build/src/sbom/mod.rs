//! What an image consists of: the packages that its databases and lock files name, as an SPDX document.
//!
//! ```text
//!   /var/lib/dpkg/status, status.d/*      deb     dpkg
//!   /lib/apk/db/installed                 apk     apk
//!   /usr/lib/sysimage/rpm/rpmdb.sqlite …  rpm     rpm, over sqlite
//!   Cargo.lock, package-lock.json, …      the languages' own, wherever they lie     languages
//! ```
//!
//! Nothing of the image is run. Files are opened in the image's root, regular ones only, up to a size. What can't be
//! read is left out: a list of packages is worth having even if one database is damaged, and the build goes on.

mod apk;
mod dpkg;
mod languages;
mod rpm;
mod spdx;
mod sqlite;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use onggi_sys::path::Root;
use rustix::fs::{Dir, FileType, Mode, OFlags};

pub use spdx::{Subject, document};

/// The largest database that is read: the largest of a distribution with everything installed has half of it.
const MAX_DATABASE: u64 = 256 << 20;
/// The largest lock file.
const MAX_LOCK: u64 = 16 << 20;

/// A package that an image has.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// The type of its package URL: `deb`, `cargo`, …
    pub kind: &'static str,
    /// Its distribution or group; empty if there is none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture; empty if it has none.
    pub architecture: String,
    /// The licence that it declares, as it says it; empty if it says nothing.
    pub licence: String,
}

impl Package {
    /// Its package URL, `pkg:deb/debian/bash@5.2.15-2?arch=amd64`.
    pub fn url(&self) -> String {
        let mut url = format!("pkg:{}/", self.kind);
        for part in self.namespace.split('/').filter(|part| !part.is_empty()) {
            url += &format!("{}/", encoded(part));
        }
        url += &format!("{}@{}", encoded(&self.name), encoded(&self.version));
        if !self.architecture.is_empty() {
            url += &format!("?arch={}", encoded(&self.architecture));
        }
        url
    }
}

/// Percent-encoded as package URLs want it.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// All packages of the tree below `root`, sorted, each once.
pub fn packages(root: BorrowedFd<'_>) -> Vec<Package> {
    let tree = Tree { root };
    let distribution = tree.distribution();
    let mut all = dpkg::packages(&tree, &distribution);
    all.extend(apk::packages(&tree, &distribution));
    all.extend(rpm::packages(&tree, &distribution));
    all.extend(languages::packages(&tree));
    all.sort();
    all.dedup_by(|a, b| a.url() == b.url());
    all
}

/// The files of an image.
struct Tree<'a> {
    root: BorrowedFd<'a>,
}

impl Tree<'_> {
    /// The content of a regular file of at most `limit` bytes.
    fn read(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        // Not to block on a FIFO that an image has in its place.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = Root::new(self.root).open(Path::new(path), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || u64::try_from(stat.st_size).ok()? > limit {
            return None;
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn text(&self, path: &str, limit: u64) -> Option<String> {
        self.read(path, limit).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Names and kinds in a directory, sorted.
    fn list(&self, path: &str) -> Vec<(String, FileType)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = Root::new(self.root).open(Path::new(path), flags, Mode::empty());
        let Some(dir) = opened.ok().and_then(|fd| Dir::read_from(fd.as_fd()).ok()) else { return Vec::new() };
        let mut names: Vec<(String, FileType)> = dir
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str().ok()?.to_owned(), entry.file_type())))
            .filter(|(name, _)| name != "." && name != "..")
            .collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names
    }

    /// `ID` of os-release.
    fn distribution(&self) -> String {
        let text =
            ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| self.text(path, MAX_LOCK));
        let id = text.and_then(|text| {
            let id = text.lines().find_map(|line| line.strip_prefix("ID="))?;
            Some(id.trim_matches(['"', '\'']).to_owned())
        });
        id.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
