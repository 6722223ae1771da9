//! Files of a snapshot without mounting it.
//!
//! A start looks up a user in two small files; an overlay mount for that alone costs more than
//! everything else that is read. So the layers are asked one after another, as overlayfs would.
//! What is rare there (links, marks in attributes) is left to overlayfs itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, openat, statat};
use rustix::io::Errno;

use super::Snapshot;
use crate::error::{Error, Result};

/// What a snapshot has at a path.
#[derive(Debug)]
pub enum Found {
    /// A regular file, open for reading.
    File(OwnedFd),
    /// No such file.
    Nothing,
}

/// What one layer has under a name.
enum Entry {
    /// Nothing: a lower layer may have it.
    Absent,
    /// A mark that hides the same name in lower layers.
    Whiteout,
    /// Anything else, with its type and size.
    Other { mode: RawMode, size: i64 },
}

impl Snapshot {
    /// The files with these names in a directory directly below the root. `None`: only a mount can tell.
    ///
    /// # Errors
    /// A layer can't be read.
    pub fn files<const N: usize>(&self, directory: &str, names: [&str; N]) -> Result<Option<[Found; N]>> {
        let failed = |source: io::Error| Error::io("look at the image's", directory, source);
        let Some(parts) = self.directory(directory).map_err(failed)? else { return Ok(None) };
        let mut found = [const { Found::Nothing }; N];
        for (found, name) in found.iter_mut().zip(names) {
            match file(&parts, name).map_err(failed)? {
                Some(file) => *found = file,
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// The directories that overlayfs would merge, the topmost first.
    fn directory(&self, name: &str) -> io::Result<Option<Vec<OwnedFd>>> {
        let mut parts = Vec::new();
        for layer in &self.layers {
            let Ok(root) = layer.open() else { return Ok(None) };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(&root, name, flags, Mode::empty()) {
                Ok(part) => {
                    let opaque = self.xattr.is_opaque(part.as_fd())?;
                    parts.push(part);
                    if opaque {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => match entry(root.as_fd(), name)? {
                    Entry::Whiteout => break,
                    // What is no directory ends a merge below one.
                    _ if !parts.is_empty() => break,
                    _ => return Ok(None),
                },
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Some(parts))
    }
}

/// `None` for what is no plain file.
fn file(parts: &[OwnedFd], name: &str) -> io::Result<Option<Found>> {
    for part in parts {
        match entry(part.as_fd(), name)? {
            Entry::Absent => {}
            Entry::Whiteout => return Ok(Some(Found::Nothing)),
            // An empty file may be a whiteout in the form that needs no device node.
            Entry::Other { mode, size }
                if FileType::from_raw_mode(mode) == FileType::RegularFile && size > 0 =>
            {
                // A directory that a container changes may have another thing there by now.
                let calm = OFlags::NOCTTY | OFlags::NONBLOCK;
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | calm;
                return Ok(Some(Found::File(openat(part, name, flags, Mode::empty())?)));
            }
            Entry::Other { .. } => return Ok(None),
        }
    }
    Ok(Some(Found::Nothing))
}

fn entry(directory: BorrowedFd<'_>, name: &str) -> io::Result<Entry> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat)
            if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0 =>
        {
            Ok(Entry::Whiteout)
        }
        Ok(stat) => Ok(Entry::Other { mode: stat.st_mode, size: stat.st_size }),
        Err(Errno::NOENT) => Ok(Entry::Absent),
        Err(errno) => Err(errno.into()),
    }
}
