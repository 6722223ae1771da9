//! The half of a copy that reads: a path becomes an archive with one entry at its top.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use onggi_image::layer::{PackOptions, Shift, Source, pack_entry};
use onggi_sys::path::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::fault::{CopyFault, shown};

/// Links that a path may have one after another, as in Linux.
const MAX_LINKS: usize = 40;

/// What to read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Absolute, or relative to the root; `/` or `/.` at its end want a directory.
    pub(super) path: Vec<u8>,
    /// Whether a link at the end is followed.
    pub(super) follow: bool,
    /// Whose owners the files have, if not the container's.
    pub(super) shift: Option<Shift>,
}

impl Reading {
    /// What the copy is called: the last name of the path as given.
    pub(super) fn base(&self) -> Vec<u8> {
        let mut names =
            self.path.rsplit(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        names.next().filter(|name| *name != b"..").map(<[u8]>::to_vec).unwrap_or_default()
    }

    /// Whether only what is in the directory is meant.
    pub(super) fn contents_only(&self) -> bool {
        self.path.ends_with(b"/.") || self.path == b"." || self.base().is_empty()
    }

    /// Writes the archive; its top entry is called `called`. Others may be writing to these files.
    pub(super) fn pack(&self, root: &Root<'_>, called: &[u8], out: impl Write) -> Result<(), CopyFault> {
        let (directory, name) = self.locate(root)?;
        let options = PackOptions {
            live: true,
            plain: true,
            nanoseconds: true,
            shift: self.shift.clone(),
            ..PackOptions::new(Source::Tree)
        };
        let packed = pack_entry(directory.as_fd(), &name, called, out, &options);
        packed
            .map(drop)
            .map_err(|error| CopyFault::Pack { path: shown(&self.path), problem: error.to_string() })
    }

    /// The directory that holds the source, and the source's name in it.
    fn locate(&self, root: &Root<'_>) -> Result<(OwnedFd, Vec<u8>), CopyFault> {
        let missing = || CopyFault::NoSource { path: shown(&self.path) };
        let failed = |error: std::io::Error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => missing(),
            Some(Errno::NOTDIR) => CopyFault::NotDirectory { path: shown(&self.path) },
            _ => CopyFault::system("open", &self.path)(error),
        };
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let mut path = PathBuf::from(std::ffi::OsStr::from_bytes(&self.path));
        let wants_directory = self.path.ends_with(b"/")
            || self.path.ends_with(b"/.")
            || self.path.ends_with(b"..")
            || self.base().is_empty();
        if wants_directory {
            return Ok((root.open(&path, directory, Mode::empty()).map_err(failed)?, b".".to_vec()));
        }
        for _ in 0..MAX_LINKS {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                // A link to `/` or `..`.
                return Ok((root.open(&path, directory, Mode::empty()).map_err(failed)?, b".".to_vec()));
            };
            let parent = parent.to_owned();
            let name = name.as_bytes().to_vec();
            let at = root.open(&parent, directory, Mode::empty()).map_err(failed)?;
            let stat = rustix::fs::statat(&at, &name[..], AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed(e.into()))?;
            if !self.follow || FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                return Ok((at, name));
            }
            let target = rustix::fs::readlinkat(&at, &name[..], Vec::new()).map_err(|e| failed(e.into()))?;
            // Resolved below the root again, wherever it leads.
            path = parent.join(Path::new(std::ffi::OsStr::from_bytes(target.as_bytes())));
        }
        Err(failed(Errno::LOOP.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sources() {
        for (path, base, contents) in [
            ("/etc/motd", "motd", false),
            ("/etc/", "etc", false),
            ("/etc/.", "etc", true),
            ("/", "", true),
            (".", "", true),
            ("a", "a", false),
            ("/a/..", "", true),
        ] {
            let reading = Reading { path: path.into(), follow: false, shift: None };
            assert_eq!((reading.base(), reading.contents_only()), (base.into(), contents), "{path}");
        }
    }
}
