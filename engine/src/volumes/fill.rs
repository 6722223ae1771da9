//! What a new volume gets: the image's files at the place where it is mounted, with their owners.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use onggi_image::layer::{PackOptions, Source, UnpackOptions, pack, unpack};
use onggi_sys::path::Root;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Uid};

use super::Volume;
use super::record::DATA;
use crate::error::{Error, Result};

/// Tells of a copy that has not ended.
const FILLING: &str = "filling";
/// Deeper trees come from loops that a filesystem can't have.
const MAX_DEPTH: usize = 4096;

/// Fills the volume, if it is empty, with what the image has at `target`.
pub(crate) fn fill(
    volume: &Volume,
    image_root: BorrowedFd<'_>,
    target: &str,
    options: &UnpackOptions,
) -> Result<()> {
    let own = volume.mountpoint.parent().unwrap_or(&volume.mountpoint);
    let failed = |source| Error::Write { path: own.join(DATA), source };
    let lock = File::open(own).map_err(failed)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    let marker = own.join(FILLING);
    if marker.exists() {
        // Somebody died while copying.
        empty(&own.join(DATA)).map_err(failed)?;
    } else if fs::read_dir(own.join(DATA)).map_err(failed)?.next().is_some() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let Ok(from) = Root::new(image_root).open(Path::new(target), flags, Mode::empty()) else {
        // The image has nothing there, or a file, which can't be a volume's root.
        return Ok(());
    };
    File::create(&marker).map_err(failed)?;
    let into = File::open(own.join(DATA)).map_err(failed)?;
    copy(from.as_fd(), into.as_fd(), options)?;
    fs::remove_file(&marker).map_err(failed)
}

/// Copies a tree with everything that a layer can carry, by way of the layer's own format.
fn copy(from: BorrowedFd<'_>, into: BorrowedFd<'_>, options: &UnpackOptions) -> Result<()> {
    let (reader, writer) = io::pipe().map_err(|source| Error::Process { op: "make a pipe", source })?;
    let tree = PackOptions { nanoseconds: true, root_entry: true, ..PackOptions::new(Source::Tree) };
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| pack(from, writer, &tree));
        let unpacked = unpack(reader, into, options);
        let packed = packing.join().map_err(|_| Error::Panicked)?;
        unpacked?;
        packed?;
        Ok(())
    })
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Gives everything below (and with) a directory this owner.
pub(crate) fn change_owner(path: &Path, uid: u32, gid: u32) -> Result<()> {
    let failed = |source| Error::Write { path: path.into(), source };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    own_below(top.as_fd(), Uid::from_raw(uid), Gid::from_raw(gid), 0).map_err(failed)
}

fn own_below(dir: BorrowedFd<'_>, uid: Uid, gid: Gid, depth: usize) -> io::Result<()> {
    let stat = rustix::fs::fstat(dir)?;
    if stat.st_uid != uid.as_raw() || stat.st_gid != gid.as_raw() {
        rustix::fs::chownat(dir, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Err(io::Error::other("too deep a tree"));
    }
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(below) => own_below(below.as_fd(), uid, gid, depth + 1)?,
            // Anything but a directory; a link is not followed.
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
