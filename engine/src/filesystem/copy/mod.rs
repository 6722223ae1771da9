//! Copying files into and out of a container, as `docker cp`.
//!
//! ```text
//!   source ──► archive, one entry at its top ──► target
//! ```
//!
//! Whatever moves between host and container moves as an archive through a pipe, one half of the copy in the
//! container's place and one on the host. Of a running container that half is a child with the container's IDs ([`join`]);
//! of one that does not run, its tree is mounted for as long as the copy takes, and nobody can start it
//! meanwhile. Paths in the container are resolved in its root by the kernel, links included.

mod fault;
mod join;
mod source;
mod target;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use onggi_image::layer::Shift;
use onggi_image::snapshot::Snapshot;
use onggi_sys::path::Root;
use rustix::fs::{Mode, OFlags};

use crate::Engine;
use crate::containers::{ContainerDetails, Mark};
use crate::error::{Error, Result};
use crate::run::MountPoint;

pub use fault::CopyFault;
use source::Reading;
use target::{Layout, Owner, Writing};

/// How to copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyOptions {
    /// Owners come along; else what comes into a container is its root's, and what comes out the caller's.
    pub archive: bool,
    /// A link that is the source itself is followed.
    pub follow: bool,
}

/// The end of a copy that is not in a container.
#[derive(Debug)]
pub enum LocalEnd<'a, S: ?Sized> {
    /// A path of the host.
    Path(&'a Path),
    /// A tar archive.
    Archive(&'a mut S),
}

/// Where the container's files are while they are copied.
enum Place {
    /// It runs.
    Live(rustix::process::Pid),
    /// Mounted here; nobody starts it as long as the mark is held.
    Mounted(OwnedFd, #[allow(dead_code, reason = "held, never read")] Option<Mark>),
}

impl Engine {
    /// Copies out of a container. Returns how many bytes the archive had.
    ///
    /// # Errors
    /// [`Error::Copy`] and those of finding the container.
    pub fn copy_from(
        &self,
        container: &str,
        path: &str,
        to: LocalEnd<'_, dyn Write + '_>,
        options: CopyOptions,
    ) -> Result<u64> {
        let details = self.container(container)?;
        let reading =
            Reading { path: absolute(path.as_bytes(), Path::new("/")), follow: options.follow, shift: None };
        let mut bytes = 0;
        let host = host_root()?;
        let ours = |data: std::fs::File| -> Result<(), CopyFault> {
            let mut data = Counted { inner: data, bytes: &mut bytes };
            match to {
                LocalEnd::Archive(out) => {
                    io::copy(&mut data, out).map(drop).map_err(CopyFault::system("write", "the archive"))
                }
                LocalEnd::Path(path) => {
                    let owner = if options.archive { Owner::Kept } else { Owner::Writer };
                    let layout =
                        Layout::Single { base: reading.base(), contents_only: reading.contents_only() };
                    let writing =
                        Writing { path: path.as_os_str().as_bytes().to_vec(), layout, owner, shift: None };
                    writing.extract(&Root::new(host.as_fd()), data)
                }
            }
        };
        let base = reading.base();
        let called = if reading.contents_only() { &b"."[..] } else { &base };
        let (place, inside) = self.place(&details, false, &reading.path)?;
        let reading = Reading { path: inside, shift: self.shift_at(&details, &place)?, ..reading };
        match place {
            Place::Live(target) => {
                let theirs = |root: &Root<'_>, data| reading.pack(root, called, data);
                join::both(target, true, theirs, ours)?;
            }
            Place::Mounted(root, _mark) => {
                let theirs = |data| reading.pack(&Root::new(root.as_fd()), called, data);
                join::threads(true, theirs, ours)?;
            }
        }
        self.note_container(&details.record, &["archive-path"], &[]);
        Ok(bytes)
    }

    /// Copies into a container. Returns how many bytes the archive had.
    ///
    /// # Errors
    /// [`Error::Copy`] and those of finding the container.
    pub fn copy_into(
        &self,
        from: LocalEnd<'_, dyn Read + '_>,
        container: &str,
        path: &str,
        options: CopyOptions,
    ) -> Result<u64> {
        let details = self.container(container)?;
        let host = host_root()?;
        let mut bytes = 0;
        let path = absolute(path.as_bytes(), Path::new("/"));
        let (owner, layout) = match &from {
            // Docker keeps what an archive says.
            LocalEnd::Archive(_) => (Owner::Kept, Layout::Many),
            LocalEnd::Path(path) => {
                let reading =
                    Reading { path: path.as_os_str().as_bytes().to_vec(), follow: false, shift: None };
                let owner = if options.archive { Owner::Kept } else { Owner::Fixed(0, 0) };
                (owner, Layout::Single { base: reading.base(), contents_only: reading.contents_only() })
            }
        };
        let (place, path) = self.place(&details, true, &path)?;
        let writing = Writing { path, layout, owner, shift: self.shift_at(&details, &place)? };
        let ours = |data: std::fs::File| -> Result<(), CopyFault> {
            let mut data = Counted { inner: data, bytes: &mut bytes };
            match from {
                LocalEnd::Archive(archive) => {
                    let failed = CopyFault::system("read", "the archive");
                    io::copy(archive, &mut data).map(drop).map_err(failed)
                }
                LocalEnd::Path(path) => {
                    let path = path.as_os_str().as_bytes().to_vec();
                    let reading = Reading { path, follow: options.follow, shift: None };
                    let base = reading.base();
                    let called = if base.is_empty() { &b"."[..] } else { &base };
                    reading.pack(&Root::new(host.as_fd()), called, data)
                }
            }
        };
        match place {
            Place::Live(target) => {
                join::both(target, false, |root, data| writing.extract(root, data), ours)?;
            }
            Place::Mounted(root, _mark) => {
                join::threads(false, |data| writing.extract(&Root::new(root.as_fd()), data), ours)?;
            }
        }
        self.note_container(&details.record, &["extract-to-dir"], &[]);
        Ok(bytes)
    }

    /// Where its files are, and where there. Of a container that runs nothing is mounted, and no store is
    /// opened; of another one a path on a volume or a host path leads to that.
    fn place(&self, details: &ContainerDetails, write: bool, path: &[u8]) -> Result<(Place, Vec<u8>)> {
        if let Some(pid) = details.pid {
            return Ok((Place::Live(pid), path.to_vec()));
        }
        let mark = || Mark::take(&self.settings().runroot, &details.record.id);
        if let Some((point, below)) = mount_point(&details.record.mounts, path) {
            if write && point.read_only {
                return Err(Error::MountedReadOnly { target: point.target.clone() });
            }
            let mark = if write { Some(mark()?) } else { None };
            if let Some(root) = self.mounted_directory(point)? {
                return Ok((Place::Mounted(root, mark), below));
            }
        }
        let layers = self.layers_of(&details.record)?;
        let snapshot = Snapshot::new(&layers, self.authority()?.overlay_xattr);
        let place = if write {
            let mark = mark()?;
            Place::Mounted(snapshot.writable(&details.dir).mount(None)?, Some(mark))
        } else {
            Place::Mounted(snapshot.with_changes(&details.dir).mount(None)?, None)
        };
        Ok((place, path.to_vec()))
    }
}

impl Engine {
    /// How owners at a place differ from what the container sees: not for who is inside.
    fn shift_at(&self, details: &ContainerDetails, place: &Place) -> Result<Option<Shift>> {
        match place {
            Place::Live(_) => Ok(None),
            Place::Mounted(..) => self.shift_of(&details.record),
        }
    }
}

/// The innermost mount point that the path, as written, lies on, and the path below that.
fn mount_point<'a>(points: &'a [MountPoint], path: &[u8]) -> Option<(&'a MountPoint, Vec<u8>)> {
    let below = |point: &'a MountPoint| {
        let target = point.target.trim_end_matches('/').as_bytes();
        match path.strip_prefix(target)? {
            [] => Some((point, b"/".to_vec())),
            rest @ [b'/', ..] => Some((point, rest.to_vec())),
            _ => None,
        }
    };
    points.iter().filter_map(below).max_by_key(|(point, _)| point.target.len())
}

fn host_root() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty())
        .map_err(|errno| Error::Read { path: "/".into(), source: errno.into() })
}

/// The path below `base` if it is relative; what stands at its end stays.
fn absolute(path: &[u8], base: &Path) -> Vec<u8> {
    if path.starts_with(b"/") {
        return path.to_vec();
    }
    [base.as_os_str().as_bytes().strip_suffix(b"/").unwrap_or(base.as_os_str().as_bytes()), b"/", path]
        .concat()
}

/// Counts what goes through.
struct Counted<'a, T> {
    inner: T,
    bytes: &'a mut u64,
}

impl<T: Read> Read for Counted<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        *self.bytes += count as u64;
        Ok(count)
    }
}

impl<T: Write> Write for Counted<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        *self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
