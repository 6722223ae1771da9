//! Overlay mounts as descriptors.
//!
//! Two ways lead to the same detached mount:
//!
//! - Layers by descriptor: `fsconfig(FSCONFIG_SET_FD, "lowerdir+")`, Linux 6.13; layers that are
//!   detached mounts themselves (id-mapped clones), Linux 6.15. Nothing appears in any mount tree.
//! - Elsewhere a thread with a mount namespace of its own attaches clones of the layers below a
//!   tmpfs, calls `mount(2)` with short relative names (its options must fit into a page), and
//!   clones the result out. The namespace ends with the thread.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::{Errno, read};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};
use rustix::thread::UnshareFlags;

use crate::mount::{Attributes, Change, Parameter, Propagation, attach, clone_tree, make};

/// An overlay that could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}{}", said(log))]
pub struct OverlayError {
    /// Which step failed.
    pub step: &'static str,
    /// What the call answered.
    pub source: io::Error,
    /// What the kernel wrote about it; may be empty.
    pub log: String,
}

fn said(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" ({log})") }
}

/// What lies over what.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// Directories, the topmost first: `O_PATH` descriptors or detached mounts. Without an upper
    /// directory at least two.
    pub lowers: &'a [BorrowedFd<'a>],
    /// Where changes go, and the directory that overlayfs works in; both on one mount, which has to
    /// be detached for the second way.
    pub upper: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    /// Further parameters.
    pub parameters: &'a [Parameter<'a>],
    /// The user and group as which overlayfs makes its own files in the work directory: on a mount
    /// with an id map, one that it maps. `None`: the caller's.
    pub owner: Option<(u32, u32)>,
}

/// While this lives, the thread makes files as another owner, with the capabilities that it had.
struct FileOwner {
    uid: libc::c_int,
    gid: libc::c_int,
}

impl FileOwner {
    fn assume((uid, gid): (u32, u32)) -> io::Result<Self> {
        let sets = rustix::thread::capabilities(None)?;
        // SAFETY: both only change two numbers of this thread's credentials, and return the former.
        let former = unsafe { Self { gid: libc::setfsgid(gid), uid: libc::setfsuid(uid) } };
        // Giving up uid 0 took the capabilities over files away (capabilities(7)).
        rustix::thread::set_capabilities(None, sets)?;
        Ok(former)
    }
}

impl Drop for FileOwner {
    fn drop(&mut self) {
        // SAFETY: as above; ids that the thread had are ids that it may have.
        unsafe {
            libc::setfsuid(self.uid.cast_unsigned());
            libc::setfsgid(self.gid.cast_unsigned());
        }
    }
}

impl Overlay<'_> {
    /// Mounts by descriptors alone.
    ///
    /// # Errors
    /// `EINVAL` where the kernel does not take descriptors, or for layers that it refuses.
    pub fn mount(&self, attributes: Attributes) -> Result<OwnedFd, OverlayError> {
        let failed = |source| OverlayError { step: "change the owner", source, log: String::new() };
        let _owner = self.owner.map(FileOwner::assume).transpose().map_err(failed)?;
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| plain("fsopen", e))?;
        let context = context.as_fd();
        let failed = |step, e: Errno| OverlayError { step, source: e.into(), log: log_of(context) };
        for (key, value) in self.parameters {
            let set = match value {
                Some(value) => fsconfig_set_string(context, *key, *value),
                None => fsconfig_set_flag(context, *key),
            };
            set.map_err(|e| failed("set an option", e))?;
        }
        for lower in self.lowers {
            fsconfig_set_fd(context, "lowerdir+", lower).map_err(|e| failed("add a layer", e))?;
        }
        if let Some((upper, work)) = &self.upper {
            fsconfig_set_fd(context, "upperdir", upper).map_err(|e| failed("set the upper directory", e))?;
            fsconfig_set_fd(context, "workdir", work).map_err(|e| failed("set the work directory", e))?;
        }
        fsconfig_create(context).map_err(|e| failed("create the filesystem", e))?;
        fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes.fsmount_flags())
            .map_err(|e| failed("mount", e))
    }

    /// Mounts the old way. All layers, and the mount of the upper directory, must be detached mounts;
    /// `writable` is that mount, `upper` and `work` the names of the two directories in it.
    ///
    /// # Errors
    /// What the calls say; `EINVAL` also where the options do not fit into a page.
    pub fn mount_in_namespace(
        lowers: &[BorrowedFd<'_>],
        writable: Option<(BorrowedFd<'_>, &str, &str)>,
        parameters: &[Parameter<'_>],
        owner: Option<(u32, u32)>,
        attributes: Attributes,
    ) -> Result<OwnedFd, OverlayError> {
        std::thread::scope(|scope| {
            let spawned = std::thread::Builder::new()
                .name("overlay".into())
                .spawn_scoped(scope, || stage(lowers, writable, parameters, owner, attributes));
            let thread = spawned.map_err(|source| OverlayError {
                step: "start a thread",
                source,
                log: String::new(),
            })?;
            thread.join().unwrap_or_else(|_| Err(plain("mount in a namespace", Errno::IO)))
        })
    }
}

fn plain(step: &'static str, errno: Errno) -> OverlayError {
    OverlayError { step, source: errno.into(), log: String::new() }
}

/// What the kernel wrote about this context, its prefixes taken off.
fn log_of(context: BorrowedFd<'_>) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    // One message a read; a context keeps at most eight.
    for _ in 0..8 {
        let Ok(count @ 1..) = read(context, &mut buffer) else { break };
        let line = String::from_utf8_lossy(&buffer[..count]);
        lines.push(line.trim().trim_start_matches("e ").trim_start_matches("overlay: ").to_owned());
    }
    lines.join("; ")
}

/// Runs in a thread of its own.
fn stage(
    lowers: &[BorrowedFd<'_>],
    writable: Option<(BorrowedFd<'_>, &str, &str)>,
    parameters: &[Parameter<'_>],
    owner: Option<(u32, u32)>,
    attributes: Attributes,
) -> Result<OwnedFd, OverlayError> {
    let io = |step| move |source: io::Error| OverlayError { step, source, log: String::new() };
    let errno = |step| move |e: Errno| plain(step, e);
    // SAFETY: working directory and mount namespace of this thread, which does nothing but this, are
    // no longer shared with others; no file descriptor is affected.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
        .map_err(errno("unshare the mount namespace"))?;
    let open = |name: &str| openat(CWD, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let root = open("/").map_err(errno("open the root directory"))?;
    let private = Change { propagation: Some(Propagation::Private), recursive: true, ..Change::default() };
    private.apply(root.as_fd(), c"").map_err(io("make the namespace private"))?;

    let desk = make("tmpfs", &[("mode", Some("0700"))], Attributes::NONE).map_err(io("mount a tmpfs"))?;
    attach(desk.as_fd(), root.as_fd()).map_err(io("attach the tmpfs"))?;
    rustix::process::fchdir(&desk).map_err(errno("enter the tmpfs"))?;
    let place = |name: &str, mount: BorrowedFd<'_>| -> Result<(), OverlayError> {
        mkdirat(&desk, name, Mode::RWXU).map_err(errno("create a mount point"))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(mount, c"", &desk, name, flags).map_err(errno("attach a layer"))
    };
    let mut names = Vec::new();
    for (number, lower) in lowers.iter().enumerate() {
        let name = format!("{number:x}");
        place(&name, *lower)?;
        names.push(name);
    }
    let mut options = format!("lowerdir={}", names.join(":"));
    if let Some((mount, upper, work)) = writable {
        place("w", mount)?;
        options = format!("{options},upperdir=w/{upper},workdir=w/{work}");
    }
    for (key, value) in parameters {
        options.push(',');
        options.push_str(key);
        if let Some(value) = value {
            options.push('=');
            options.push_str(value);
        }
    }
    mkdirat(&desk, "m", Mode::RWXU).map_err(errno("create a mount point"))?;
    let options = CString::new(options).map_err(|_| plain("write the options", Errno::INVAL))?;
    let owner = owner.map(FileOwner::assume).transpose().map_err(io("change the owner"))?;
    rustix::mount::mount("overlay", "m", "overlay", MountFlags::empty(), &*options)
        .map_err(errno("mount the overlay"))?;
    drop(owner);
    let mounted = clone_tree(desk.as_fd(), c"m", false).map_err(io("clone the overlay"))?;
    let change = Change { set: attributes, ..Change::default() };
    if !change.is_empty() {
        change.apply(mounted.as_fd(), c"").map_err(io("set the mount's attributes"))?;
    }
    Ok(mounted)
}
