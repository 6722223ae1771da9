//! Options of the local driver: a volume that is a device, a network filesystem, or another directory.
//!
//! `type`, `device` and `o` mean what they mean to mount(8). Docker mounts such a volume when the first container
//! starts that has it, and unmounts it when the last one has ended; so does this.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use onggi_sys::mount::{Attributes, Parameter, attach, make};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::mount::UnmountFlags;

use super::Volume;
use crate::error::{Error, Result};

/// Checks options.
///
/// # Errors
/// [`Error::VolumeOption`] names the option.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<()> {
    let bad = |option: &str, problem| Err(Error::VolumeOption { option: option.into(), problem });
    for (key, value) in options {
        match key.as_str() {
            "type" | "o" | "device" if value.contains('\0') => return bad(key, "it has a NUL byte"),
            "type" | "o" | "device" => {}
            "size" => {
                return bad(
                    key,
                    "quotas of volumes can't be set; a size limit of a tmpfs goes into o=size=…",
                );
            }
            _ => return bad(key, "the local driver has type, o and device"),
        }
    }
    let has = |key| options.get(key).is_some_and(|value| !value.is_empty());
    if !options.is_empty() && !has("device") {
        return bad("device", "it is required where there is a type or o");
    }
    if has("device") && !has("type") && !is_bind(options) {
        return bad("type", "it is required where there is a device, unless o has bind");
    }
    Ok(())
}

fn words(options: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    options.get("o").map(String::as_str).unwrap_or_default().split(',').filter(|word| !word.is_empty())
}

fn is_bind(options: &BTreeMap<String, String>) -> bool {
    words(options).any(|word| word == "bind" || word == "rbind")
}

/// The directory to show to a container, mounted first if the volume has a filesystem of its own.
pub(crate) fn source(runroot: &Path, volume: &Volume, first_namespace: bool) -> Result<PathBuf> {
    let Some(device) = volume.options.get("device").filter(|device| !device.is_empty()) else {
        return Ok(volume.mountpoint.clone());
    };
    if is_bind(&volume.options) {
        return Ok(device.into());
    }
    if !first_namespace {
        return Err(Error::flag_unsupported(
            format!("the volume {} of type {}", volume.name, kind(volume)),
            "mounting a filesystem for several containers needs root",
        ));
    }
    let place = place(runroot, volume);
    let failed = |source| Error::VolumeMount { name: volume.name.clone(), source };
    fs::create_dir_all(&place).map_err(failed)?;
    let dir = rustix::fs::open(&place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let dir = dir.map_err(|errno| failed(errno.into()))?;
    // One mounts, the others wait and find it mounted.
    let lock = fs::File::open(volume.mountpoint.parent().unwrap_or(&volume.mountpoint)).map_err(failed)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    if !is_mounted(&place).map_err(failed)? {
        let (parameters, attributes) = parameters(volume, device);
        let mount = make(kind(volume), &parameters, attributes).map_err(failed)?;
        attach(mount.as_fd(), dir.as_fd()).map_err(failed)?;
    }
    Ok(place)
}

fn kind(volume: &Volume) -> &str {
    volume.options.get("type").map(String::as_str).unwrap_or_default()
}

/// Words of mount(8): those about the mount, and the rest, which is for the filesystem.
fn parameters<'a>(volume: &'a Volume, device: &'a str) -> (Vec<Parameter<'a>>, Attributes) {
    let mut attributes = Attributes::NONE;
    let mut parameters = vec![("source", Some(device))];
    for word in words(&volume.options) {
        match word {
            "ro" => attributes = attributes.with(Attributes::READ_ONLY),
            "nosuid" => attributes = attributes.with(Attributes::NO_SUID),
            "nodev" => attributes = attributes.with(Attributes::NO_DEV),
            "noexec" => attributes = attributes.with(Attributes::NO_EXEC),
            "noatime" => attributes = attributes.with(Attributes::NO_ATIME),
            "rw" | "suid" | "dev" | "exec" | "defaults" | "relatime" => {}
            other => parameters.push(match other.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (other, None),
            }),
        }
    }
    (parameters, attributes)
}

/// Takes the volume's own filesystem away if it is mounted and nothing uses it.
pub(crate) fn unmount(runroot: &Path, volume: &Volume) -> Result<()> {
    if volume.options.is_empty() {
        return Ok(());
    }
    let place = place(runroot, volume);
    let failed = |source| Error::VolumeMount { name: volume.name.clone(), source };
    match is_mounted(&place) {
        Ok(true) => match rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(errno) => return Err(failed(errno.into())),
        },
        Ok(false) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    let _ = fs::remove_dir(&place);
    Ok(())
}

fn place(runroot: &Path, volume: &Volume) -> PathBuf {
    runroot.join("volumes").join(&volume.name)
}

fn is_mounted(place: &Path) -> io::Result<bool> {
    let stat = rustix::fs::statx(CWD, place, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let options = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        for good in [
            &[][..],
            &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")],
            &[("device", "/srv"), ("o", "bind")],
            &[("type", "none"), ("device", "/srv"), ("o", "rbind,ro")],
        ] {
            check(&options(good)).unwrap();
        }
        for (bad, named) in [
            (&[("type", "tmpfs")][..], "device"),
            (&[("device", "/srv")], "type"),
            (&[("size", "1g")], "size"),
            (&[("color", "red")], "color"),
        ] {
            assert!(check(&options(bad)).unwrap_err().to_string().contains(named), "{bad:?}");
        }
    }
}
