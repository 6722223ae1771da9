//! Digests of what a step reads: the files that it means, with names, kinds, modes, owners, link
//! targets, attributes and contents, but not their times. Two trees with one digest are the same to
//! every step.
//!
//! The content of a file of the host is read once: the memo knows it by device, inode, time of the
//! last change and size.
//!
//! ```text
//!   cache/build/memo   8 bytes of header, then records of 72 bytes, sorted by device and inode:
//!                      device, inode, ctime (seconds, ns), size, SHA-256
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use onggi_oci::{Algorithm, Digest, Hasher};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, statat};

use crate::copy::select::{Selection, State};
use crate::copy::{Match, Source, is_kept};
use crate::error::{Error, Result};
use crate::tree::{is_dir, list, open_below};

/// How much is read at once.
const BUFFER: usize = 128 << 10;
/// Deeper trees are an attack.
const MAX_DEPTH: usize = 1000;
/// A file that changed this many seconds ago may change again without another time.
const FRESH: i64 = 2;
/// A record of the memo.
const RECORD: usize = 72;
/// The header of the memo: its format.
const HEADER: &[u8; 8] = b"onggi m1";

/// What is known of the contents of the host's files.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    path: Option<PathBuf>,
    /// As it was read: sorted records.
    old: Vec<u8>,
    /// What was found out since, and what was used of the old.
    seen: BTreeMap<(u64, u64), [u8; RECORD]>,
    changed: bool,
    /// The time now, in seconds.
    now: i64,
}

impl Memo {
    /// The memo in this file; empty if there is none or it is damaged.
    pub(crate) fn open(path: PathBuf) -> Self {
        let mut old = std::fs::read(&path).unwrap_or_default();
        if old.len() < HEADER.len()
            || old[..HEADER.len()] != *HEADER
            || !(old.len() - HEADER.len()).is_multiple_of(RECORD)
        {
            old.clear();
        } else {
            old.drain(..HEADER.len());
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        Self { path: Some(path), old, seen: BTreeMap::new(), changed: false, now }
    }

    fn key(stat: &Stat) -> (u64, u64) {
        (stat.st_dev, stat.st_ino)
    }

    fn facts(stat: &Stat) -> [u8; 40] {
        let mut facts = [0; 40];
        facts[..8].copy_from_slice(&stat.st_dev.to_be_bytes());
        facts[8..16].copy_from_slice(&stat.st_ino.to_be_bytes());
        facts[16..24].copy_from_slice(&stat.st_ctime.to_be_bytes());
        facts[24..32].copy_from_slice(&stat.st_ctime_nsec.to_be_bytes());
        facts[32..40].copy_from_slice(&stat.st_size.to_be_bytes());
        facts
    }

    fn find(&mut self, stat: &Stat) -> Option<[u8; 32]> {
        self.path.as_ref()?;
        let facts = Self::facts(stat);
        let same = |record: &[u8]| -> Option<[u8; 32]> {
            (record[..40] == facts).then(|| record[40..72].try_into().ok()).flatten()
        };
        if let Some(record) = self.seen.get(&Self::key(stat)) {
            return same(record);
        }
        // By device and inode, which come first and are written with the highest byte first.
        let (mut low, mut high) = (0, self.old.len() / RECORD);
        while low < high {
            let middle = usize::midpoint(low, high);
            let record = &self.old[middle * RECORD..][..RECORD];
            match record[..16].cmp(&facts[..16]) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return same(record),
            }
        }
        None
    }

    fn learn(&mut self, stat: &Stat, digest: &[u8; 32]) {
        if self.path.is_none() || stat.st_ctime + FRESH > self.now {
            return;
        }
        let mut record = [0; RECORD];
        record[..40].copy_from_slice(&Self::facts(stat));
        record[40..].copy_from_slice(digest);
        self.seen.insert(Self::key(stat), record);
        self.changed = true;
    }

    /// Writes what was learned. A memo that cannot be written costs time and nothing else.
    pub(crate) fn save(&mut self) {
        let (Some(path), true) = (&self.path, self.changed) else { return };
        self.changed = false;
        for record in self.old.chunks_exact(RECORD) {
            let key = |at: usize| u64::from_be_bytes(record[at..at + 8].try_into().unwrap_or_default());
            let owned: [u8; RECORD] = record.try_into().unwrap_or([0; RECORD]);
            self.seen.entry((key(0), key(8))).or_insert(owned);
        }
        let mut bytes = HEADER.to_vec();
        bytes.extend(self.seen.values().flatten());
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = std::fs::write(&beside, &bytes).and_then(|()| std::fs::rename(&beside, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        self.old = bytes.split_off(HEADER.len());
        self.seen.clear();
    }
}

/// One file as a step sees it: for explanations.
pub(crate) type Listing = BTreeMap<String, String>;

/// Reads what a copy or a mount means.
pub(crate) struct Reader<'a> {
    source: &'a Source<'a>,
    memo: &'a mut Memo,
    hasher: Hasher,
    /// Every file with a short digest, if somebody wants to know.
    listing: Option<&'a mut Listing>,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source<'a>, memo: &'a mut Memo, listing: Option<&'a mut Listing>) -> Self {
        Self { source, memo, hasher: Hasher::new(Algorithm::Sha256), listing, buffer: Vec::new() }
    }

    /// The digest of everything that was added.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }

    /// Adds a file, or a directory with what is meant of it.
    pub(crate) fn add(&mut self, one: &Match, selection: &Selection) -> Result<()> {
        let parent = self.source.tree.open_dir(one.real.parent().unwrap_or(Path::new("")))?;
        let from_root = one.real.to_string_lossy().into_owned();
        self.field(b"source");
        self.field(one.named.file_name().unwrap_or_default().as_encoded_bytes());
        let state = selection.begin(&from_root);
        let name = one.real.file_name().unwrap_or(std::ffi::OsStr::new("."));
        let stat =
            statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::io("look at", &one.real))?;
        if !is_dir(&stat) {
            return self.entry(parent.as_fd(), name, &from_root, "", &stat);
        }
        // What the directory itself looks like counts where it is made.
        self.entry(parent.as_fd(), name, &from_root, "", &stat)?;
        let dir = self.source.tree.open_dir(&one.real)?;
        self.directory(dir.as_fd(), &from_root, "", selection, &state, 0)
    }

    fn field(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        from_root: &str,
        below: &str,
        selection: &Selection,
        state: &State,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::Limit { what: "the depth of a tree", limit: MAX_DEPTH as u64 });
        }
        for name in list(dir).map_err(Error::io("list the directory", from_root))? {
            let (from_root, below) = (join(from_root, &name), join(below, &name));
            let stat =
                statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::io("look at", &from_root))?;
            let (taken, state) = selection.takes(&from_root, &below, state);
            if taken {
                self.entry(dir, &name, &from_root, &below, &stat)?;
            }
            if is_dir(&stat) && (taken || selection.may_take_below(&from_root, &below)) {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let fd = open_below(dir, Path::new(&name), flags, Mode::empty())
                    .map_err(Error::io("open the directory", &from_root))?;
                self.directory(fd.as_fd(), &from_root, &below, selection, &state, depth + 1)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &std::ffi::OsStr,
        shown: &str,
        below: &str,
        stat: &Stat,
    ) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let ids = self.source.owner.map_or((stat.st_uid, stat.st_gid), |ids| (ids.uid, ids.gid));
        self.field(below.as_bytes());
        let facts = format!(
            "{:o} {}:{} {}",
            stat.st_mode,
            ids.0,
            ids.1,
            if kind.is_char_device() || kind.is_block_device() { stat.st_rdev } else { 0 }
        );
        self.field(facts.as_bytes());
        let mut short = String::new();
        match kind {
            FileType::RegularFile => {
                let digest = match self.memo.find(stat) {
                    Some(digest) => digest,
                    None => self.content(dir, name, shown, stat)?,
                };
                self.hasher.update(&digest);
                short = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(dir, name, Vec::new())
                    .map_err(Error::io("read the link", shown))?;
                self.field(link.to_bytes());
                short = link.to_string_lossy().into_owned();
            }
            _ => {}
        }
        if let Some(listing) = self.listing.as_deref_mut() {
            let shown = if shown.is_empty() { "." } else { shown };
            listing.insert(shown.to_owned(), format!("{facts} {short}").trim_end().to_owned());
        }
        Ok(())
    }

    /// The digest of content and attributes.
    fn content(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &std::ffi::OsStr,
        shown: &str,
        stat: &Stat,
    ) -> Result<[u8; 32]> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = open_below(dir, Path::new(name), flags, Mode::empty()).map_err(Error::io("open", shown))?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for (name, value) in attributes(fd.as_fd()).map_err(Error::io("read the attributes of", shown))? {
            hasher.update(&name);
            hasher.update(&(value.len() as u64).to_le_bytes());
            hasher.update(&value);
        }
        hasher.update(b"\0");
        self.buffer.resize(BUFFER, 0);
        let mut file = File::from(fd);
        loop {
            let count = file.read(&mut self.buffer).map_err(Error::io("read", shown))?;
            if count == 0 {
                break;
            }
            hasher.update(&self.buffer[..count]);
        }
        let digest = bytes_of(&hasher.finish());
        self.memo.learn(stat, &digest);
        Ok(digest)
    }
}

/// Everything in a directory of the host, with its times.
pub(crate) fn listing(dir: &Path) -> Result<Listing> {
    let tree = crate::tree::Tree::open_host(dir)?;
    let source = Source { tree: &tree, ignore: None, owner: None };
    let mut listing = Listing::new();
    let mut memo = Memo::default();
    let mut reader = Reader::new(&source, &mut memo, Some(&mut listing));
    reader.add(&Match { named: PathBuf::new(), real: PathBuf::new() }, &Selection::default())?;
    for (name, facts) in &mut listing {
        if let Some(stat) = tree.lstat(Path::new(name))? {
            *facts += &format!(" {}", stat.st_mtime);
        }
    }
    Ok(listing)
}

/// The 32 bytes of a SHA-256 digest.
fn bytes_of(digest: &Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digest.hex().as_bytes().chunks_exact(2)) {
        let text = std::str::from_utf8(pair).unwrap_or("00");
        *byte = u8::from_str_radix(text, 16).unwrap_or(0);
    }
    bytes
}

fn join(path: &str, name: &OsString) -> String {
    let name = name.to_string_lossy();
    if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") }
}

fn attributes(file: BorrowedFd<'_>) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = [0; 256];
    let names = match rustix::fs::flistxattr(file, &mut names) {
        Ok(0) | Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => names[..length].to_vec(),
        Err(rustix::io::Errno::RANGE) => {
            let mut large = vec![0; 64 << 10];
            let length = rustix::fs::flistxattr(file, &mut large[..])?;
            large.truncate(length);
            large
        }
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        all.push((name.to_vec(), value));
    }
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    fn digest(dir: &Path, memo: &mut Memo) -> Digest {
        let tree = Tree::open_host(dir).unwrap();
        let source = Source { tree: &tree, ignore: None, owner: None };
        let one = Match { named: PathBuf::new(), real: PathBuf::new() };
        let mut reader = Reader::new(&source, memo, None);
        reader.add(&one, &Selection::default()).unwrap();
        reader.finish()
    }

    #[test]
    fn contents_and_modes_count_and_times_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "one").unwrap();
        let first = digest(dir.path(), &mut Memo::default());
        File::open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(digest(dir.path(), &mut Memo::default()), first);
        std::fs::write(&file, "two").unwrap();
        let second = digest(dir.path(), &mut Memo::default());
        assert_ne!(second, first);
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_ne!(digest(dir.path(), &mut Memo::default()), second);
    }

    #[test]
    fn a_memo_survives_and_does_not_lie() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("c")).unwrap();
        for number in 0..20 {
            std::fs::write(dir.path().join(format!("c/{number}")), number.to_string()).unwrap();
        }
        let path = dir.path().join("memo");
        let mut memo = Memo::open(path.clone());
        // As if the files were old.
        memo.now += 100;
        let first = digest(&dir.path().join("c"), &mut memo);
        memo.save();
        let mut again = Memo::open(path);
        assert_eq!(again.old.len(), 20 * RECORD);
        assert_eq!(digest(&dir.path().join("c"), &mut again), first);
        assert!(!again.changed);
        std::fs::write(dir.path().join("c/7"), "x").unwrap();
        assert_ne!(digest(&dir.path().join("c"), &mut again), first);
    }
}
