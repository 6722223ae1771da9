//! Layers that are files, mounted once and shared by all containers.
//!
//! ```text
//!   <runroot>/mounts.lock              shared: while an overlay is made; where mounts don't stay, as
//!                                      long as a process lives that uses them
//!   <runroot>/mounts/                  a tmpfs of our own, private: no mount travels elsewhere
//!   <runroot>/mounts/<diff id hex>/    the layer's file, read-only
//! ```
//!
//! Whoever needs a layer opens its place and looks whether the layer is there; if not, it mounts it.
//! Overlays keep what they lie on alive, so a mount may be taken away here without harm to a container
//! that runs; only while an overlay is being made must its layers stay where they are.
//!
//! Where the runtime directory is one of the system's (below `/run`, or on a tmpfs apart from the store), a
//! mount stays for the next container. It goes with its layer, with a prune, and with the others when
//! there are too many. (A build uses the files that it makes before they are in their place; one that dies
//! leaves their mounts to the next sweep.) Elsewhere, in a runtime directory that somebody chose on a disk and may remove
//! by hand, the last process that used mounts takes all of them away when it ends; one that was killed
//! leaves that to the next. A reboot takes everything away.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use onggi_oci::DiffId;
use onggi_sys::mount::{Attributes, Change, Propagation, attach, make};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::layer::{LayerFile, diff_id_of};
use super::lock::NamedLock;
use super::{Inner, Store, durable};
use crate::error::{Error, Result};

/// `EROFS_SUPER_MAGIC_V1`, by which statfs(2) knows the filesystem.
const MAGIC: u64 = 0xE0F5_E1E2;
/// `TMPFS_MAGIC`.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Where the system keeps what a reboot may lose, and nobody removes a store by hand (file-hierarchy(7)).
const SYSTEM: &str = "/run";
/// How many mounts stay. Each holds a few kilobytes of the kernel's memory, and is copied whenever somebody makes
/// a mount namespace; a machine that runs more layers than these mounts some of them anew.
const MAX_KEPT: usize = 128;
/// How often a layer is mounted that a sweep takes away before it is opened.
const TRIES: usize = 3;

/// While this lives, no sweep takes away the mounts of layers that an overlay is being made of.
#[derive(Debug)]
pub(crate) struct Mounting {
    store: Store,
    /// `None` where this process has the lock for as long as it lives.
    lock: Option<fs::File>,
}

impl Drop for Mounting {
    fn drop(&mut self) {
        if self.lock.take().is_some() && self.store.inner.mounted.swap(false, Ordering::Relaxed) {
            let kept = fs::read_dir(self.store.mounts_dir()).map_or(0, Iterator::count);
            if kept > MAX_KEPT {
                self.store.sweep_mounts();
            }
        }
    }
}

impl Store {
    fn mounts_dir(&self) -> PathBuf {
        self.runroot().join("mounts")
    }

    /// Where the layer with this diff ID is mounted if it is a file.
    pub(super) fn mount_place(&self, diff_id: &DiffId) -> PathBuf {
        self.mounts_dir().join(diff_id.0.hex())
    }

    /// To be held while layers are opened and an overlay is made of them.
    pub(crate) fn mounting(&self) -> Result<Mounting> {
        let lock = if self.inner.keeps_mounts() { Some(self.inner.lock_mounts()?) } else { None };
        Ok(Mounting { store: self.clone(), lock })
    }

    /// Opens the tree of a layer that is a file, and mounts it if it isn't mounted.
    pub(super) fn open_mounted(
        &self,
        place: &Path,
        file: &Path,
        known: Option<&LayerFile>,
    ) -> Result<OwnedFd> {
        self.inner.use_mounts()?;
        if let Some(tree) = open_layer(place)? {
            return Ok(tree);
        }
        let failed = |e: io::Error| Error::io("mount the layer at", place, e);
        for _ in 0..TRIES {
            let _lock = NamedLock::take(&self.runroot().join("locks"), "mounts")?;
            if let Some(tree) = open_layer(place)? {
                return Ok(tree);
            }
            check_seal(file, known)?;
            let mount = self.mount_layer_file(file)?;
            let table = self.mounts_dir();
            make_table(&table)?;
            durable::make_dir(place)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let point = match rustix::fs::openat(CWD, place, flags, Mode::empty()) {
                // A sweep took the table away.
                Err(Errno::NOENT) => continue,
                point => point.map_err(|e| failed(e.into()))?,
            };
            attach(mount.as_fd(), point.as_fd()).map_err(failed)?;
            self.inner.mounted.store(true, Ordering::Relaxed);
            // By its place: what can be cloned belongs to this namespace, not to nowhere.
            if let Some(tree) = open_layer(place)? {
                return Ok(tree);
            }
        }
        Err(failed(Errno::NOTCONN.into()))
    }

    /// Takes the mount of a layer away, if there is one.
    pub(super) fn unmount(&self, diff_id: &DiffId) {
        let place = self.mount_place(diff_id);
        // A mount that stays is in nobody's way: the next sweep takes it.
        if rustix::mount::unmount(&place, UnmountFlags::DETACH).is_ok() {
            let _ = fs::remove_dir(&place);
        }
    }

    /// Takes the mounts away of layers that never came into their place: their makers died. The caller holds
    /// the sweep lock.
    pub(super) fn unmount_lost(&self) -> Result<()> {
        let Ok(mounts) = fs::read_dir(self.mounts_dir()) else { return Ok(()) };
        let leased = self.leased()?;
        for name in mounts.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            let is_leased = leased.iter().any(|digest| digest.hex() == name);
            if let (Some(diff_id), false) = (diff_id_of(&name), is_leased)
                && !self.layer_dir(&diff_id).exists()
            {
                self.unmount(&diff_id);
            }
        }
        Ok(())
    }

    /// Takes all mounts away unless somebody makes an overlay of some just now, or a process uses them where
    /// they don't stay.
    pub(super) fn sweep_mounts(&self) {
        if is_mount(&self.mounts_dir())
            && let Ok(file) = self.inner.open_lock()
            && self.inner.uses_mounts.get().is_none_or(|own| own.unlock().is_ok())
        {
            self.inner.take_mounts_away(&file);
            // This process may go on, and others wait for it no longer.
            drop(file);
            let _ = self.inner.uses_mounts.get().map(fs::File::lock_shared);
        }
    }

    /// A store that was removed by hand left its mounts, and with them its space.
    pub(super) fn forget_mounts(&self) {
        if is_mount(&self.mounts_dir()) {
            let _ = rustix::mount::unmount(self.mounts_dir(), UnmountFlags::DETACH);
        }
    }
}

impl Inner {
    /// Whether mounts stay when nobody uses them.
    fn keeps_mounts(&self) -> bool {
        *self.keeps_mounts.get_or_init(|| {
            if self.runroot.starts_with(SYSTEM) {
                return true;
            }
            let volatile = rustix::fs::statfs(&self.runroot)
                .is_ok_and(|stat| u64::from_ne_bytes(stat.f_type.to_ne_bytes()) == TMPFS_MAGIC);
            let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
            volatile && device(&self.runroot) != device(&self.root)
        })
    }

    fn open_lock(&self) -> Result<fs::File> {
        let path = self.runroot.join("mounts.lock");
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                durable::make_dir_all(&self.runroot)?;
                open()
            }
            other => other,
        };
        file.map_err(|e| Error::io("open the lock", &path, e))
    }

    fn lock_mounts(&self) -> Result<fs::File> {
        let file = self.open_lock()?;
        file.lock_shared().map_err(|e| Error::io("lock", self.runroot.join("mounts.lock"), e))?;
        Ok(file)
    }

    /// Where mounts don't stay: says that this process uses them, and keeps others from taking them away.
    fn use_mounts(&self) -> Result<()> {
        if self.uses_mounts.get().is_none() && !self.keeps_mounts() {
            // Another thread's lock is as good.
            let _ = self.uses_mounts.set(self.lock_mounts()?);
        }
        Ok(())
    }

    /// Takes all mounts away if nobody else has the lock.
    fn take_mounts_away(&self, lock: &fs::File) {
        if lock.try_lock().is_ok() {
            // With everything in it. What can't be taken away now, the next one takes.
            let _ = rustix::mount::unmount(self.runroot.join("mounts"), UnmountFlags::DETACH);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(file) = self.uses_mounts.get() {
            self.take_mounts_away(file);
        }
    }
}

/// A file that was sealed when it was written is mounted only if it is still that file. What is in it the kernel compares
/// as it reads it.
fn check_seal(path: &Path, known: Option<&LayerFile>) -> Result<()> {
    let Some(known) = known.filter(|known| known.verity.is_some()) else { return Ok(()) };
    let failed = |e| Error::io("look at the seal of the layer's file", path, e);
    let file = fs::File::open(path).map_err(failed)?;
    match known.broken_seal(file.as_fd()).map_err(failed)? {
        None => Ok(()),
        Some(problem) => Err(Error::corrupt(format_args!("the layer's file {}", path.display()), problem)),
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
