//! Labels of security modules: which this host has, and what the kernel is told.
//!
//! ```text
//!  process.apparmorProfile   exec NAME   → /proc/self/attr/apparmor/exec (attr/exec before Linux 5.8)
//!  process.selinuxLabel      LABEL       → /proc/self/attr/exec
//! ```

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// What the program is to get, and the host's procfs through which it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    pub(crate) proc: Option<OwnedFd>,
    /// Files below `/proc/self` and what is written to them.
    pub(crate) list: Vec<(&'static str, String)>,
}

impl Labels {
    /// # Errors
    /// [`Error::Unsupported`] where the host doesn't have the security module.
    pub(crate) fn of(process: &Process) -> Result<Self> {
        let mut labels = Self::default();
        if let Some(profile) = process.apparmor_profile().as_ref().filter(|name| !name.is_empty()) {
            if !has_apparmor() {
                return Err(Error::unsupported(
                    "process.apparmorProfile",
                    "this host has no AppArmor; leave the field out",
                ));
            }
            // The general file belongs to whichever module comes first.
            let own = Path::new("/proc/self/attr/apparmor/exec").exists();
            let file = if own { "attr/apparmor/exec" } else { "attr/exec" };
            labels.list.push((file, format!("exec {profile}")));
        }
        if let Some(label) = process.selinux_label().as_ref().filter(|label| !label.is_empty()) {
            if !has_selinux() {
                return Err(Error::unsupported(
                    "process.selinuxLabel",
                    "this host has no SELinux; leave the field out",
                ));
            }
            labels.list.push(("attr/exec", label.clone()));
        }
        if !labels.list.is_empty() {
            labels.proc = Some(own_proc()?);
        }
        Ok(labels)
    }
}

/// The caller's `/proc`, which must be one.
fn own_proc() -> Result<OwnedFd> {
    let step = || Error::io("open", "/proc");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).map_err(step())?;
    let kind = rustix::fs::fstatfs(&proc).map_err(step())?.f_type;
    /// The inode of the root of every procfs (`PROC_ROOT_INO`).
    const ROOT: u64 = 1;
    let inode = rustix::fs::fstat(&proc).map_err(step())?.st_ino;
    if kind == rustix::fs::PROC_SUPER_MAGIC && inode == ROOT {
        return Ok(proc);
    }
    Err(Error::unsupported("a host without a proc filesystem on /proc", "mount one"))
}

/// Whether AppArmor is in force.
pub(crate) fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.trim_start().starts_with(['Y', 'y']))
}

/// Whether SELinux is in force.
pub(crate) fn has_selinux() -> bool {
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|fs| fs.f_type == SELINUX)
}

/// `SELINUX_MAGIC`
const SELINUX: rustix::fs::FsWord = 0xf97c_ff8c;
