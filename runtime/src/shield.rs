//! Our own file is out of the container's reach.
//!
//! While it starts, a container's first process runs this program. A container
//! may then make the kernel execute `/proc/self/exe`, keep a descriptor of that
//! file and, when nobody executes it any more, overwrite it (CVE-2019-5736).
//! What stands in the way:
//!
//! - with its own user namespace, the container's root is not the owner of the
//!   file, so the file's mode refuses the write; nothing else is needed;
//! - where the owner of the file has an id in the container (the host's user
//!   namespace, or a program installed in the user's own home), this program
//!   executes itself once again from a read-only clone of the mount that it lies
//!   on: `/proc/self/exe` then leads to that clone, which nobody can write to.
//!   Who may not clone mounts copies the file into sealed memory instead.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use onggi_sys::idmap::IdMap;
use onggi_sys::mount::{Attributes, Change, clone_tree};
use onggi_sys::process::{CStrings, exec_fd};
use rustix::fs::{Access, CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::plan::id_map;

const OWN: &std::ffi::CStr = c"/proc/self/exe";

/// Whether a container with these maps (`None`: the caller's ids) could write to
/// our file, were it executed there.
fn exposed(maps: Option<&(IdMap, IdMap)>) -> Result<bool> {
    // Looks at what the magic link leads to, through the mount by which it was
    // executed: a read-only one says EROFS. What the caller can't write, its
    // containers can't either.
    match rustix::fs::access(OWN, Access::WRITE_OK) {
        // TXTBSY: it is being executed, which says nothing of later.
        Ok(()) | Err(Errno::TXTBSY) => {}
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => return Ok(false),
        Err(error) => return Err(Error::io("look at", "/proc/self/exe")(error)),
    }
    if sealed()? {
        return Ok(false);
    }
    let Some((uids, gids)) = maps else { return Ok(true) };
    let stat = rustix::fs::stat(OWN).map_err(Error::io("look at", "/proc/self/exe"))?;
    let others = stat.st_mode & 0o002 != 0;
    let group = stat.st_mode & 0o020 != 0 && gids.to_inside(stat.st_gid).is_some();
    Ok(others || group || uids.to_inside(stat.st_uid).is_some())
}

/// Whether we run from a memory file that nobody can change.
fn sealed() -> Result<bool> {
    let file = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", "/proc/self/exe"))?;
    Ok(rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// A copy of our own file in sealed memory, for callers who may not clone mounts.
fn sealed_copy() -> io::Result<OwnedFd> {
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let copy = rustix::fs::memfd_create(c"onggi", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut to = std::fs::File::from(copy);
    io::copy(&mut std::fs::File::from(own), &mut to)?;
    let copy = OwnedFd::from(to);
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}

/// Refuses to start a container that could overwrite us.
pub(crate) fn check(maps: Option<&(IdMap, IdMap)>) -> Result<()> {
    if exposed(maps)? {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
        return Err(Error::Exposed { program });
    }
    Ok(())
}

/// A clone of our own file. After a change of the mount namespace the magic link
/// leads to a mount of the old one, which can't be cloned; the path leads to the
/// same file on ours, if it is still the same.
fn clone_own() -> io::Result<OwnedFd> {
    match clone_tree(CWD, OWN, false) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
        other => return other,
    }
    let path = rustix::fs::readlink(OWN, Vec::new())?;
    let clone = clone_tree(CWD, &path, false)?;
    let (own, found) = (rustix::fs::stat(OWN)?, rustix::fs::fstat(&clone)?);
    if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino) {
        Ok(clone)
    } else {
        Err(Errno::STALE.into())
    }
}

/// Executes this program once again from a read-only clone, with the same
/// arguments and environment, if a container of this specification could
/// otherwise overwrite it; does nothing if not, or if that was done already.
///
/// To be called early, before anything that an exec would undo.
///
/// # Errors
/// [`Error::Io`] if the clone or the exec fails. On success of the exec the call
/// doesn't return.
pub fn shield(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let new_user = linux.and_then(|linux| linux.namespaces().as_ref()).is_some_and(|namespaces| {
        namespaces.iter().any(|one| one.typ() == LinuxNamespaceType::User && one.path().is_none())
    });
    let maps = match linux {
        Some(linux) if new_user => {
            let list = |maps: &Option<Vec<_>>| maps.clone().unwrap_or_default();
            Some((
                id_map("linux.uidMappings", &list(linux.uid_mappings()))?,
                id_map("linux.gidMappings", &list(linux.gid_mappings()))?,
            ))
        }
        _ => None,
    };
    if !exposed(maps.as_ref())? {
        return Ok(());
    }
    let step = || Error::io("shield", "/proc/self/exe");
    let read_only = || -> io::Result<OwnedFd> {
        let clone = clone_own()?;
        Change { set: Attributes::READ_ONLY, ..Change::default() }.apply(clone.as_fd(), c"")?;
        Ok(clone)
    };
    let clone = read_only().or_else(|_| sealed_copy()).map_err(step())?;
    let strings =
        |list: Vec<Vec<u8>>| CStrings::new(list).map_err(|_| Error::invalid("arguments", "have a NUL byte"));
    let arguments = strings(std::env::args_os().map(OsStringExt::into_vec).collect())?;
    let environment = strings(
        std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect(),
    )?;
    Err(step()(exec_fd(clone.as_fd(), &arguments, &environment)))
}
