//! Layers that are files, mounted once and shared by all containers.
//!
//! ```text
//!   <runroot>/mounts.lock              shared: by every process that uses mounts, as long as it lives
//!   <runroot>/mounts/                  a tmpfs of our own, private: no mount travels elsewhere
//!   <runroot>/mounts/<diff id hex>/    the layer's file, read-only
//! ```
//!
//! Whoever needs a layer opens its place and looks whether the layer is there; if not, it mounts it.
//! The last process that used mounts takes all of them away when it ends, in one call; one that was
//! killed leaves that to the next. Overlays keep what they lie on alive, so a mount may be taken away
//! here without harm to a container that runs. A reboot takes everything away.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use onggi_oci::DiffId;
use onggi_sys::mount::{Attributes, Change, Propagation, attach, make};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::lock::NamedLock;
use super::{Inner, Store, durable};
use crate::error::{Error, Result};

/// `EROFS_SUPER_MAGIC_V1`, by which statfs(2) knows the filesystem.
const MAGIC: u64 = 0xE0F5_E1E2;

impl Store {
    fn mounts_dir(&self) -> PathBuf {
        self.runroot().join("mounts")
    }

    /// Where the layer with this diff ID is mounted if it is a file.
    pub(super) fn mount_place(&self, diff_id: &DiffId) -> PathBuf {
        self.mounts_dir().join(diff_id.0.hex())
    }

    /// Opens the tree of a layer that is a file, and mounts it if it isn't mounted.
    pub(super) fn open_mounted(&self, place: &Path, file: &Path) -> Result<OwnedFd> {
        self.inner.use_mounts()?;
        if let Some(tree) = open_layer(place)? {
            return Ok(tree);
        }
        let _lock = NamedLock::take(&self.runroot().join("locks"), "mounts")?;
        if let Some(tree) = open_layer(place)? {
            return Ok(tree);
        }
        let mount = self.mount_layer_file(file)?;
        let failed = |e: io::Error| Error::io("mount the layer at", place, e);
        let table = self.mounts_dir();
        make_table(&table)?;
        durable::make_dir(place)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let point = rustix::fs::openat(CWD, place, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        attach(mount.as_fd(), point.as_fd()).map_err(failed)?;
        // By its place: what can be cloned belongs to this namespace, not to nowhere.
        open_layer(place)?.ok_or_else(|| failed(Errno::NOTCONN.into()))
    }

    /// Takes the mount of a layer away, if there is one.
    pub(super) fn unmount(&self, diff_id: &DiffId) {
        let place = self.mount_place(diff_id);
        // A mount that stays is in nobody's way: the next sweep takes it.
        if rustix::mount::unmount(&place, UnmountFlags::DETACH).is_ok() {
            let _ = fs::remove_dir(&place);
        }
    }

    /// Takes all mounts away if no process uses them.
    pub(super) fn sweep_mounts(&self) {
        if is_mount(&self.mounts_dir()) && self.inner.use_mounts().is_ok() {
            self.inner.release_mounts();
            // This process may go on, and others wait for it no longer.
            if let Some(file) = self.inner.uses_mounts.get() {
                let _ = file.lock_shared();
            }
        }
    }
}

impl Inner {
    /// Says that this process uses mounts, and keeps others from taking them away.
    fn use_mounts(&self) -> Result<()> {
        if self.uses_mounts.get().is_some() {
            return Ok(());
        }
        let path = self.runroot.join("mounts.lock");
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                durable::make_dir_all(&self.runroot)?;
                open()
            }
            other => other,
        };
        let file = file.map_err(|e| Error::io("open the lock", &path, e))?;
        file.lock_shared().map_err(|e| Error::io("lock", &path, e))?;
        // Another thread's lock is as good.
        let _ = self.uses_mounts.set(file);
        Ok(())
    }

    /// Takes all mounts away if this process was the last that used them.
    fn release_mounts(&self) {
        if let Some(file) = self.uses_mounts.get()
            && file.try_lock().is_ok()
        {
            // With everything in it. What can't be taken away now, the next one takes.
            let _ = rustix::mount::unmount(self.runroot.join("mounts"), UnmountFlags::DETACH);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.release_mounts();
    }
}

/// Opens what is mounted at a layer's place; nothing if no layer is.
fn open_layer(place: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = match rustix::fs::openat(CWD, place, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(|e| Error::io("open the layer", place, e))?,
    };
    let kind = rustix::fs::fstatfs(&opened).map_err(|e| Error::io("look at the layer", place, e))?.f_type;
    Ok((u64::from_ne_bytes(kind.to_ne_bytes()) == MAGIC).then_some(opened))
}

/// Makes the tmpfs in which layers are mounted.
fn make_table(table: &Path) -> Result<()> {
    if is_mount(table) {
        return Ok(());
    }
    let failed = |e: io::Error| Error::io("make the place for mounts of layers at", table, e);
    durable::make_dir_all(table)?;
    let tmpfs = make("tmpfs", &[("mode", Some("0700"))], Attributes::NO_DEV).map_err(failed)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let point = rustix::fs::openat(CWD, table, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    attach(tmpfs.as_fd(), point.as_fd()).map_err(failed)?;
    let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
    private.apply(tmpfs.as_fd(), c"").map_err(failed)
}

/// Whether a mount begins at this path.
fn is_mount(path: &Path) -> bool {
    let stat = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
