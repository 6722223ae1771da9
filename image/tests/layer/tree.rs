//! Directories for the tests, and everything there is to know about a tree.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use onggi_image::layer::{PackOptions, Packed, Source, UnpackOptions, Unpacked, decoder, pack, unpack};

pub(crate) fn temporary() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("onggi-test-").tempdir().unwrap()
}

/// Unpacks into a new directory `name` of `home`, and compares with the layer's other format.
pub(crate) fn unpack_at(home: &Path, name: &str, archive: &[u8]) -> onggi_image::Result<(PathBuf, Unpacked)> {
    let root = home.join(name);
    std::fs::create_dir(&root).unwrap();
    let directory = File::open(&root).unwrap();
    let unpacked = decoder(archive, None)
        .and_then(|archive| unpack(archive, directory.as_fd(), &UnpackOptions::privileged()));
    // The other format shows the same.
    if rustix::process::geteuid().is_root() {
        crate::erofs::assert_agrees(archive, unpacked.as_ref().map(|_| &*root).map_err(ToString::to_string));
    }
    Ok((root, unpacked?))
}

pub(crate) fn pack_at(root: &Path, options: &PackOptions) -> onggi_image::Result<(Vec<u8>, Packed)> {
    let mut archive = Vec::new();
    let report = pack(File::open(root).unwrap().as_fd(), &mut archive, options)?;
    assert_eq!(report.bytes, archive.len() as u64);
    Ok((archive, report))
}

pub(crate) fn exact(source: Source) -> PackOptions {
    PackOptions { nanoseconds: true, root_entry: true, ..PackOptions::new(source) }
}

/// What can be seen of a file, but for its inode number and access time.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    pub(crate) device: u64,
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The first path, in order, of the same inode.
    pub(crate) same_as: PathBuf,
}

/// Every path below a root, and the root as the empty path.
pub(crate) fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut paths = vec![root.to_owned()];
    let mut at = 0;
    while at < paths.len() {
        if paths[at].symlink_metadata().unwrap().is_dir() {
            paths.extend(std::fs::read_dir(&paths[at]).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    paths.sort();
    let mut first = HashMap::new();
    paths
        .into_iter()
        .map(|path| {
            let meta = path.symlink_metadata().unwrap();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            let content = if meta.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_vec()
            } else if meta.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            let is_whiteout = meta.mode() & 0o170_000 == 0o020_000 && meta.rdev() == 0;
            let seen = Seen {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                // The time of a whiteout means nothing.
                mtime: if is_whiteout { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) },
                device: meta.rdev(),
                content,
                xattrs: xattrs(&path),
                same_as: first.entry(meta.ino()).or_insert_with(|| relative.clone()).clone(),
            };
            (relative, seen)
        })
        .collect()
}

pub(crate) fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    names[..length]
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty() && *name != b"security.selinux")
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (std::ffi::OsStr::from_bytes(name).to_owned(), value)
        })
        .collect()
}

/// Names below a root, a directory with a slash behind it.
pub(crate) fn names(root: &Path) -> Vec<String> {
    let seen = look(root);
    let name = |(path, seen): (&PathBuf, &Seen)| {
        let slash = if seen.mode & 0o170_000 == 0o040_000 { "/" } else { "" };
        format!("{}{slash}", path.display())
    };
    seen.iter().skip(1).map(name).collect()
}

/// Nothing but the type, mode, owner, time and content differs between two trees.
pub(crate) fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (look(left), look(right));
    for (path, seen) in &left {
        assert_eq!(right.get(path), Some(seen), "{}", path.display());
    }
    assert_eq!(
        left.len(),
        right.len(),
        "{:?}",
        right.keys().filter(|k| !left.contains_key(*k)).collect::<Vec<_>>()
    );
}
