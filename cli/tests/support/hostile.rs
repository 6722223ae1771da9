//! Archives as an attacker writes them: any name, type, size and attribute; and a place outside of the store that
//! they aim at.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

/// An archive, entry by entry, with no check of what stands in it.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    /// A header with this name; the checksum is made at the end, after `change`.
    pub fn entry(mut self, name: &str, content: &[u8], change: impl FnOnce(&mut Header)) -> Self {
        let mut header = Header::new_ustar();
        let field = &mut header.as_old_mut().name;
        let length = name.len().min(field.len());
        field[..length].copy_from_slice(&name.as_bytes()[..length]);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        change(&mut header);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, content, |_| {})
    }

    pub fn directory(self, name: &str) -> Self {
        self.entry(name, b"", |header| header.set_entry_type(EntryType::Directory))
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.link(name, target, EntryType::Symlink)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(name, target, EntryType::Link)
    }

    fn link(self, name: &str, target: &str, kind: EntryType) -> Self {
        if target.len() > 100 {
            let archive = self.pax(&[("linkpath", target.as_bytes())]);
            return archive.entry(name, b"", |header| header.set_entry_type(kind));
        }
        self.entry(name, b"", |header| {
            header.set_entry_type(kind);
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    pub fn device(self, name: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        self.entry(name, b"", |header| {
            header.set_entry_type(kind);
            header.set_device_major(major).expect("a ustar header");
            header.set_device_minor(minor).expect("a ustar header");
        })
    }

    /// An extended header for the entry that follows.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = rest.len() + 1;
            while length.to_string().len() + rest.len() != length {
                length = length.to_string().len() + rest.len();
            }
            text.extend(length.to_string().into_bytes());
            text.extend(rest);
        }
        self.entry("PaxHeaders/x", &text, |header| header.set_entry_type(EntryType::XHeader))
    }

    /// The archive with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// The archive as it is: it breaks off.
    pub fn broken_off(self) -> Vec<u8> {
        self.bytes
    }
}

/// A directory with a victim, which nothing that an archive or an image says may change.
pub struct Outside {
    folder: PathBuf,
    before: String,
}

impl Outside {
    pub fn new(folder: &Path) -> Self {
        let folder = folder.join("outside");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("victim"), "untouched").expect("a file");
        fs::set_permissions(folder.join("victim"), PermissionsExt::from_mode(0o600)).expect("a mode");
        fs::write(folder.join("passwd"), "outsider:x:0:0::/:/bin/sh\n").expect("a file");
        fs::write(folder.join("secret"), "only the host may see this").expect("a file");
        let before = listing(&folder);
        Self { folder, before }
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The path of something in it, as text.
    pub fn name(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("a path of ours").to_owned()
    }

    #[track_caller]
    pub fn assert_untouched(&self, what: &str) {
        assert_eq!(listing(&self.folder), self.before, "{what} changed something outside");
    }
}

/// Everything about the files of a folder but when they were read.
fn listing(folder: &Path) -> String {
    let mut lines = vec![line(folder)];
    lines.extend(fs::read_dir(folder).expect("a folder").flatten().map(|entry| line(&entry.path())));
    lines.sort();
    lines.join("\n")
}

fn line(path: &Path) -> String {
    let meta = fs::symlink_metadata(path).expect("what was listed");
    let content = if meta.is_file() { fs::read(path).expect("a file") } else { Vec::new() };
    format!(
        "{} {:o} {}:{} {} links, changed {}.{}, {content:?}",
        path.display(),
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.nlink(),
        meta.ctime(),
        meta.ctime_nsec()
    )
}
