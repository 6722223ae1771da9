//! Mount points of a step, in layers of their own: so none is made in the upper directory, and nothing
//! of them has to be found and removed afterwards.
//!
//! ```text
//!   <step>/stubs-above/   those that the base's layers would hide; directories above them as the base's
//!   …                     the base
//!   <step>/stubs/         those that the base lacks
//! ```
//!
//! A layer below all others adds names and changes nothing else. But what an earlier step removed hides
//! what lies below it, so a mount point there has to lie above.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use onggi_image::layer::OverlayXattr;
use onggi_image::snapshot::Snapshot;
use onggi_image::store::{Layer, LayerRecord};
use onggi_oci::{DiffId, Digest};
use rustix::fs::{AtFlags, FileType, Gid, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::copy::attributes;
use crate::error::{Error, Result};
use crate::host::ReadyMount;
use crate::tree::{Tree, is_dir};

/// What every container has mounted.
const DIRECTORIES: [&str; 3] = ["proc", "sys", "dev"];
/// The same of files.
const FILES: [&str; 3] = ["etc/resolv.conf", "etc/hosts", "etc/hostname"];

/// The base's layers with every mount point in them; `dir` is the step's.
pub(super) fn around(
    base: &[Layer],
    mounts: &[ReadyMount],
    dir: &Path,
    xattr: OverlayXattr,
) -> Result<Vec<Layer>> {
    let (below, above) = (dir.join("stubs"), dir.join("stubs-above"));
    make_root(&below)?;
    let tree = if base.is_empty() {
        Tree::open_host(&below)?
    } else {
        Tree::new(Snapshot::new(base, xattr).mount(None)?)
    };
    let mut dressed = Vec::new();
    let mut make = |target: &Path, directory: bool| -> Result<()> {
        let real = tree.real_path(target, true)?;
        // What is there is mounted over as it is.
        if real.as_os_str().is_empty() || tree.lstat(&real)?.is_some() {
            return Ok(());
        }
        if !is_hidden(base, &real, xattr)? {
            return make_point(&below, &real, directory);
        }
        if !above.exists() {
            make_root(&above)?;
            dressed.push(PathBuf::new());
        }
        let mut ancestors: Vec<&Path> =
            real.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        ancestors.reverse();
        for path in ancestors {
            if !above.join(path).exists() && tree.lstat(path)?.is_some() {
                make_point(&above, path, true)?;
                dressed.push(path.to_owned());
            }
        }
        make_point(&above, &real, directory)
    };
    DIRECTORIES.iter().try_for_each(|target| make(Path::new(target), true))?;
    FILES.iter().try_for_each(|target| make(Path::new(target), false))?;
    for mount in mounts {
        make(&mount.target, mount.directory)?;
    }
    // Inner ones first, since each changes the time of the one that it is in.
    for path in dressed.iter().rev() {
        dress(&tree, path, &above.join(path))?;
    }
    // The kernel takes its time to end a mount. This one ends with the process, when nobody waits for it.
    std::mem::forget(tree);
    let mut layers = vec![layer_at(below, xattr)];
    layers.extend(base.iter().cloned());
    if !dressed.is_empty() {
        layers.push(layer_at(above, xattr));
    }
    Ok(layers)
}

fn make_root(path: &Path) -> Result<()> {
    let failed = || Error::io("make the mount points below", path);
    fs::create_dir(path).map_err(failed())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed())
}

/// A directory or an empty file below one of our own directories, with those above it.
fn make_point(root: &Path, real: &Path, directory: bool) -> Result<()> {
    let failed = || Error::io("make the mount point", real);
    let place = root.join(real);
    let parents = if directory { place.as_path() } else { place.parent().unwrap_or(root) };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(parents).map_err(failed())?;
    if !directory && !place.exists() {
        fs::File::create(&place).map_err(failed())?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o644)).map_err(failed())?;
    }
    Ok(())
}

/// Gives a directory the looks that the base's has.
fn dress(base: &Tree, path: &Path, place: &Path) -> Result<()> {
    let failed = || Error::io("make the mount points in", path);
    let from = base.open_dir(path)?;
    let stat: Stat = rustix::fs::fstat(&from).map_err(failed())?;
    let into: OwnedFd = fs::File::open(place).map_err(Error::io("open the directory", place))?.into();
    rustix::fs::fchown(&into, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
        .map_err(failed())?;
    rustix::fs::fchmod(&into, rustix::fs::Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(failed())?;
    attributes(from.as_fd(), into.as_fd()).map_err(failed())?;
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    rustix::fs::futimens(&into, &Timestamps { last_access: time, last_modification: time }).map_err(failed())
}

/// Whether a layer hides what lies at this path in the layers below it.
fn is_hidden(layers: &[Layer], real: &Path, xattr: OverlayXattr) -> Result<bool> {
    for layer in layers {
        let root = layer.open()?;
        let mut paths: Vec<&Path> = real.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        paths.reverse();
        for path in paths {
            match rustix::fs::statat(&root, path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_dir(&stat) => {
                    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
                    let dir = crate::tree::open_below(root.as_fd(), path, flags, rustix::fs::Mode::empty())
                        .map_err(Error::io("open the directory", path))?;
                    if xattr.is_opaque(dir.as_fd()).map_err(Error::io("look at", path))? {
                        return Ok(true);
                    }
                }
                // A whiteout, in one form or the other; a file in the way hides as well.
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink => return Ok(true),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => break,
                Err(error) => return Err(Error::io("look at", path)(error)),
            }
        }
    }
    Ok(false)
}

fn layer_at(path: PathBuf, xattr: OverlayXattr) -> Layer {
    let diff_id = DiffId(Digest::sha256(path.as_os_str().as_encoded_bytes()));
    Layer::at(path, LayerRecord::directory(diff_id, xattr))
}
