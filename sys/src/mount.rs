//! Mounts as descriptors.
//!
//! A mount is made or cloned *detached*: it is a descriptor and nobody can walk
//! into it yet. It is configured, then attached to a directory descriptor. When
//! the last descriptor of a detached mount closes, the kernel removes it.
//!
//! ```text
//! fsopen ─ fsconfig… ─ fsmount ┐
//!                              ├─ mount_setattr ─ move_mount ─► in the tree
//! open_tree(OPEN_TREE_CLONE) ──┘
//! ```

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// Attributes of a mount (`MOUNT_ATTR_…`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    /// None.
    pub const NONE: Self = Self(0);
    /// No writes through this mount.
    pub const READ_ONLY: Self = Self(0x1);
    /// Set-id bits and file capabilities are ignored.
    pub const NO_SUID: Self = Self(0x2);
    /// Device nodes can't be opened.
    pub const NO_DEV: Self = Self(0x4);
    /// Nothing can be executed.
    pub const NO_EXEC: Self = Self(0x8);
    /// Access times are not kept.
    pub const NO_ATIME: Self = Self(0x10);
    /// Access times are always kept.
    pub const STRICT_ATIME: Self = Self(0x20);
    /// The field of access time modes; cleared whenever one of them is set.
    pub const ATIME_MASK: Self = Self(0x70);
    /// Access times of directories are not kept.
    pub const NO_DIR_ATIME: Self = Self(0x80);
    /// Symbolic links are not followed.
    pub const NO_SYMFOLLOW: Self = Self(0x20_0000);

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are in these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn fsmount_flags(self) -> MountAttrFlags {
        MountAttrFlags::from_bits_retain(u32::try_from(self.0).unwrap_or_default())
    }
}

/// How mount events travel between a mount and its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// Only in.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and it can't be bind mounted.
    Unbindable,
}

impl Propagation {
    const fn bits(self) -> u64 {
        match self {
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Private => libc::MS_PRIVATE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A change of one mount or of a whole tree of mounts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// Attributes to set.
    pub set: Attributes,
    /// Attributes to clear first.
    pub clear: Attributes,
    /// New propagation.
    pub propagation: Option<Propagation>,
    /// Ids on the mount are shifted by the maps of this user namespace.
    pub idmap: Option<BorrowedFd<'a>>,
    /// All mounts below too.
    pub recursive: bool,
}

impl Change<'_> {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.clear.is_empty() && self.propagation.is_none() && self.idmap.is_none()
    }

    /// Applies the change to the mount that `path` below `dir` names; an empty
    /// path is `dir` itself.
    ///
    /// # Errors
    /// What `mount_setattr(2)` says: `EINVAL` for an id map on a filesystem that
    /// can't be id-mapped, `EPERM` for attributes that are locked.
    pub fn apply(&self, dir: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
        /// `struct mount_attr`.
        #[repr(C)]
        struct MountAttr {
            set: u64,
            clear: u64,
            propagation: u64,
            userns_fd: u64,
        }
        const IDMAP: u64 = 0x10_0000;
        let mut attr = MountAttr {
            set: self.set.0,
            clear: self.clear.0,
            propagation: self.propagation.map_or(0, Propagation::bits),
            userns_fd: 0,
        };
        if let Some(userns) = self.idmap {
            attr.set |= IDMAP;
            attr.userns_fd = u64::try_from(userns.as_raw_fd()).unwrap_or_default();
        }
        let mut flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
        if self.recursive {
            flags |= libc::AT_RECURSIVE;
        }
        // SAFETY: `path` ends in NUL, `attr` is a whole `struct mount_attr` and
        // its size is given; the descriptors live through the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                dir.as_raw_fd(),
                path.as_ptr(),
                flags,
                &raw const attr,
                size_of::<MountAttr>(),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// One parameter of a filesystem: a flag (`None`) or `key=value`.
pub type Parameter<'a> = (&'a str, Option<&'a str>);

/// Makes a filesystem instance of this type and a detached mount of it.
///
/// # Errors
/// `ENODEV` for an unknown type, `EINVAL` for a parameter it doesn't know,
/// `EPERM` where the user namespace may not mount it.
pub fn make(kind: &str, parameters: &[Parameter<'_>], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in parameters {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), *key, *value)?,
            None => fsconfig_set_flag(context.as_fd(), *key)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes.fsmount_flags())?)
}

/// Clones the mount at `path` below `dir` (an empty path is `dir` itself) into a
/// detached one whose root is that file or directory; `recursive` takes the
/// mounts below along. Symbolic links are followed unless the path is empty.
///
/// # Errors
/// What `open_tree(2)` says; `EPERM` without authority over the mount namespace,
/// `EINVAL` for a mount of another mount namespace.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(dir, path, flags)?)
}

/// Attaches a detached mount on top of the file or directory `onto`.
///
/// # Errors
/// What `move_mount(2)` says: `ENOTDIR` where one is a directory and the other
/// is not.
pub fn attach(mount: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", onto, c"", flags)?)
}
