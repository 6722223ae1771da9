//! The control group of a container: where it lies, who may do without, and what it tells at the end.
//!
//! ```text
//!   root           <parent>/<id>             parent is `onggi`, or --cgroup-parent
//!   a user         <own group's parent>/onggi/<id>   if that was delegated (version 2)
//! ```
//!
//! The default limit of processes is left out where no group can be made; a limit that was asked for
//! is an error then, never left out.

use std::fs;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxPidsBuilder};
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

/// Changes the limits of a container that runs: those of `wanted`, which make `all` of them.
pub(crate) fn update(path: &Path, wanted: &Resources, all: &Resources) -> Result<()> {
    let failed =
        |source| Error::Limit { flags: wanted.asked().join(", "), source: Box::new(source), hint: "" };
    let mut group = Cgroup::open(path).map_err(failed)?;
    let before: Vec<PathBuf> = group.directories().map(Path::to_owned).collect();
    if before.is_empty() {
        let why = "this container has no control group, because whoever started it can't make one";
        return Err(Error::flag_unsupported(wanted.asked().join(", "), why));
    }
    let mut changed = wanted.clone();
    // What is set relative to memory, or follows from it.
    changed.memory = changed.memory.or(wanted.memory_swap.and(all.memory));
    changed.memory_swap = changed.memory_swap.or(wanted.memory.and(all.memory_swap));
    let mut linux = changed.to_linux(false, changed.memory.is_some() && counts_swap(), None)?;
    if wanted.pids_limit.is_some_and(|limit| limit <= 0) {
        let unlimited = LinuxPidsBuilder::default().limit(-1).build().map_err(Error::specification)?;
        linux.set_pids(Some(unlimited));
    }
    // Memory may not be above memory and swap at any moment: one of two orders is right.
    if let Err(first) = group.update(&linux) {
        let Some(memory) = linux.memory().filter(|memory| memory.swap().is_some()) else {
            return Err(failed(first));
        };
        let mut swap = memory;
        swap.set_limit(None);
        let mut early = linux.clone();
        early.set_memory(Some(swap));
        group.update(&early).and_then(|()| group.update(&linux)).map_err(|_| failed(first))?;
    }
    // A controller that had no directory for this container has none of its processes yet.
    for directory in group.directories().filter(|one| !before.iter().any(|old| old == one)) {
        for _ in 0..MOVES {
            let inside = members(directory);
            let outside: Vec<i32> =
                group.processes().map_err(failed)?.into_iter().filter(|pid| !inside.contains(pid)).collect();
            if outside.is_empty() {
                break;
            }
            for pid in outside {
                // One that has ended meanwhile can't be moved.
                let _ = fs::write(directory.join("cgroup.procs"), pid.to_string());
            }
        }
    }
    Ok(())
}

/// How often new processes are looked for while the known ones are moved.
const MOVES: usize = 16;

fn members(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Lets the processes of a group go on that were killed while they were frozen: in version 1 they end
/// only then.
pub(crate) fn thaw(path: &Path) {
    if let Ok(group) = Cgroup::open(path)
        && group.is_frozen()
    {
        let _ = group.freeze(false);
    }
}

/// Removes the group of a container whose caretaker is gone, with all that is in it.
pub(crate) fn sweep(path: &Path) {
    if let Ok(group) = Cgroup::open(path) {
        // What can't be removed now is tried again by nobody: the kernel removes nothing by itself,
        // and an empty group does no harm.
        let _ = group.remove();
    }
}
