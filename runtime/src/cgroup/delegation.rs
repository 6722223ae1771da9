//! Which part of the version 2 tree may be used, and handing controllers down in it.
//!
//! A directory has a controller's files only if its parent's `cgroup.subtree_control`
//! names it. Everything above the container's own directory is written to only for that.
//!
//! ```text
//!  root   /sys/fs/cgroup/onggi/ID
//!  user   /sys/fs/cgroup/user.slice/…/app.slice/onggi/ID    beside the group that the
//!         (delegated: the user owns it)                     caller itself is in
//! ```

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::directory::{make, write};
use super::limits::Limit;
use super::{COMMON_PARENT, Hierarchies};
use crate::error::{Error, Result};

/// Where a caller without authority over the whole tree may make groups, as a path
/// below the root of version 2: beside the group that it is in, where that was handed
/// over to it. `None` if not.
pub fn delegated_parent() -> Option<PathBuf> {
    let hierarchies = Hierarchies::detect().ok()?;
    let root = hierarchies.unified().filter(|_| hierarchies.is_unified())?;
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let parent = Path::new(own).parent()?;
    // Processes move only below a directory whose list of processes the caller may write.
    let list = root.join(parent).join("cgroup.procs");
    rustix::fs::access(&list, rustix::fs::Access::WRITE_OK).ok()?;
    Some(parent.join(COMMON_PARENT))
}

/// Has every directory above `path` hand the controllers of these limits down.
pub(super) fn hand_down(root: &Path, path: &Path, limits: &[Limit]) -> Result<()> {
    let mut wanted: Vec<&str> =
        limits.iter().map(|limit| limit.controller).filter(|name| !name.is_empty()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(());
    }
    // Nearly always they are there already, and one look below tells.
    if let Some(parent) = path.parent()
        && lacking(&root.join(parent), &wanted).is_ok_and(|lacking| lacking.is_empty())
    {
        return Ok(());
    }
    let mut directory = root.to_owned();
    for part in path.components() {
        let file = directory.join("cgroup.subtree_control");
        let lacking = lacking(&directory, &wanted).map_err(Error::io("read", file.display().to_string()))?;
        for controller in lacking {
            write(&file, format!("+{controller}").as_bytes()).map_err(|error| {
                Error::unsupported(
                    format!("the {controller} controller"),
                    format!("{} does not hand it down: {}", directory.display(), reason(&directory, &error)),
                )
            })?;
        }
        directory.push(part);
        if directory != root.join(path) {
            make(&directory)?;
        }
    }
    Ok(())
}

fn lacking<'a>(directory: &Path, wanted: &[&'a str]) -> io::Result<Vec<&'a str>> {
    let have = std::fs::read_to_string(directory.join("cgroup.subtree_control"))?;
    let has = |controller: &str| have.split_ascii_whitespace().any(|one| one == controller);
    Ok(wanted.iter().copied().filter(|controller| !has(controller)).collect())
}

fn reason(directory: &Path, error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::BUSY) => "processes are in it, and a group has either those or groups below that are \
                              limited; move them to a group of their own"
            .to_owned(),
        Some(Errno::NOENT) => {
            let have = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
            format!("it has only these: {}", have.trim())
        }
        Some(Errno::ACCESS | Errno::PERM) => "it is not the caller's (no delegation)".to_owned(),
        _ => error.to_string(),
    }
}
