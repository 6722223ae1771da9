//! The control group of a container: where it lies, who may do without, and what it tells at the end.
//!
//! ```text
//!   root           <parent>/<id>             parent is `onggi`, or --cgroup-parent
//!   a user         <own group's parent>/onggi/<id>   if that was delegated (version 2)
//! ```
//!
//! The default limit of processes is left out where no group can be made; a limit that was asked for
//! is an error then, never left out.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::LinuxDeviceCgroup;
use onggi_oci::ErrorKind;
use onggi_runtime::cgroup::{COMMON_PARENT, Cgroup, Hierarchies, delegated_parent};

use super::resources::Resources;
use crate::authority::Authority;
use crate::error::{Error, Result};

/// Where the group of a container will be.
pub(crate) fn path(resources: &Resources, authority: &Authority, id: &str) -> Result<PathBuf> {
    let Some(parent) = &resources.cgroup_parent else {
        let delegated = if authority.first_namespace { None } else { delegated_parent() };
        return Ok(delegated.unwrap_or_else(|| COMMON_PARENT.into()).join(id));
    };
    let parent = Path::new(parent.trim_start_matches('/'));
    if parent.as_os_str().is_empty() || parent.components().any(|part| !matches!(part, Component::Normal(_)))
    {
        return Err(Error::flag("--cgroup-parent", "expected the path of a control group"));
    }
    Ok(parent.join(id))
}

/// Makes the group with its limits; `None` where the caller can't, and nothing was asked for.
pub(crate) fn make(
    path: &Path,
    resources: &Resources,
    authority: &Authority,
    devices: Option<Vec<LinuxDeviceCgroup>>,
) -> Result<Option<Cgroup>> {
    let asked = resources.asked();
    // Ordinary users can make groups only below what version 2 delegated to them.
    if !authority.first_namespace && asked.is_empty() && !is_unified()? {
        return Ok(None);
    }
    let swap = resources.memory.is_some() && counts_swap();
    let linux = resources.to_linux(true, swap, devices)?;
    match Cgroup::create(path, Some(&linux)) {
        Ok(group) => Ok(group),
        Err(_) if !authority.first_namespace && asked.is_empty() => Ok(None),
        Err(source) => {
            let flags =
                if asked.is_empty() { "--pids-limit (by default)".to_owned() } else { asked.join(", ") };
            let hint = match (authority.first_namespace, source.kind()) {
                (false, _) => ": an ordinary user needs a delegated control group of version 2 for it",
                (true, ErrorKind::Denied | ErrorKind::Unsupported) if asked.is_empty() => {
                    ": --pids-limit=-1 does without"
                }
                _ => "",
            };
            Err(Error::Limit { flags, source: Box::new(source), hint })
        }
    }
}

/// Whether control groups of this host are version 2 alone.
pub(crate) fn is_unified() -> Result<bool> {
    Ok(Hierarchies::detect()?.is_unified())
}

/// Whether memory and swap can be limited together.
fn counts_swap() -> bool {
    let Ok(trees) = Hierarchies::detect() else { return false };
    match trees.legacy("memory") {
        Some(root) => root.join("memory.memsw.limit_in_bytes").exists(),
        // The root of version 2 has no such file; nearly all kernels count.
        None => trees.is_unified() && Path::new("/proc/swaps").exists(),
    }
}

/// Whether something in the group was killed because its memory was used up.
pub(crate) fn was_out_of_memory(group: &Cgroup) -> bool {
    let killed = |text: String| {
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ").map(str::to_owned));
        count.is_some_and(|count| count.trim() != "0")
    };
    ["memory.events", "memory.oom_control"].into_iter().filter_map(|file| group.read(file)).any(killed)
}

/// Removes the group of a container whose caretaker is gone, with all that is in it.
pub(crate) fn sweep(path: &Path) {
    if let Ok(group) = Cgroup::open(path) {
        // What can't be removed now is tried again by nobody: the kernel removes nothing by itself,
        // and an empty group does no harm.
        let _ = group.remove();
    }
}
