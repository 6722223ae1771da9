//! Who the process is: ids, capabilities, privileges, filter, limits.

use std::os::fd::AsFd;

use onggi_sys::idmap::IdMap;
use onggi_sys::{caps, process, seccomp};
use rustix::fs::Mode;
use rustix::process::{Gid, Rlimit, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{Step, failed, labels};
use crate::channel::{Channel, NOTIFY};
use crate::error::Stage;
use crate::plan::{Plan, ProcessPlan};

/// In another user namespace the process is nobody at first; becomes its root, or
/// whoever comes first in a map without one.
pub(super) fn container_root(plan: &Plan) -> Step<()> {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| IdMap::from_kernel(&text));
    let joined;
    let (uids, gids) = match &plan.maps {
        Some((uids, gids)) => (uids, gids),
        None if plan.has_user_namespace() => {
            let step = || failed(Stage::Identity, "");
            joined =
                (read("/proc/self/uid_map").map_err(step())?, read("/proc/self/gid_map").map_err(step())?);
            (&joined.0, &joined.1)
        }
        None => return Ok(()),
    };
    let id = |map: &IdMap| match map.to_outside(0) {
        Some(_) => 0,
        None => map.ranges().first().map_or(0, |range| range.inside),
    };
    set_ids(id(uids), id(gids)).map_err(failed(Stage::Identity, ""))
}

/// In a joined user namespace: its root, if it has one; what follows needs ids
/// that exist there.
pub(super) fn joined_root() {
    let _ = set_ids(0, 0);
}

fn set_ids(uid: u32, gid: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// What is still to be done after [`become_user`].
#[derive(Debug)]
pub(crate) struct Unsealed {
    sets: caps::Sets,
    /// Also has what installing a filter takes.
    filter_needs: Option<caps::Set>,
}

/// Takes on the user, its groups, limits and capabilities.
pub(crate) fn become_user(process: &ProcessPlan, user_namespace: bool) -> Step<Unsealed> {
    if let Some(persona) = process.personality {
        process::set_personality(persona).map_err(failed(Stage::Scheduling, "personality"))?;
    }
    if let Some(policy) = &process.memory_policy {
        process::set_memory_policy(policy.mode, &policy.nodes)
            .map_err(failed(Stage::Scheduling, "memory policy (set_mempolicy)"))?;
    }
    if let Some((class, priority)) = process.io_priority {
        process::set_io_priority(class, priority).map_err(failed(Stage::Scheduling, "I/O priority"))?;
    }
    if let Some(scheduling) = process.scheduling {
        process::set_scheduling(scheduling).map_err(failed(Stage::Scheduling, "policy"))?;
    }
    for (name, resource, soft, hard) in &process.rlimits {
        let limit = |value: u64| (value != u64::MAX).then_some(value);
        let wanted = Rlimit { current: limit(*soft), maximum: limit(*hard) };
        rustix::process::setrlimit(*resource, wanted)
            .map_err(failed(Stage::Rlimit, format!("{name} to {soft}:{hard}")))?;
    }
    let sets = process.capabilities.unwrap_or_default();
    caps::limit_bounding(sets.bounding).map_err(failed(Stage::Capabilities, ""))?;
    rustix::thread::set_keep_capabilities(true).map_err(failed(Stage::Capabilities, ""))?;
    let groups: Vec<Gid> = process.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match set_thread_groups(&groups) {
        Ok(()) => {}
        // With one id mapped by its owner, the kernel forbids to drop groups.
        Err(rustix::io::Errno::PERM) if groups.is_empty() && user_namespace => {}
        Err(error) => return Err(failed(Stage::Groups, format!("groups {:?}", process.groups))(error)),
    }
    set_ids(process.uid, process.gid)
        .map_err(failed(Stage::Groups, format!("{}:{} (is it in the id map?)", process.uid, process.gid)))?;
    let own = caps::permitted().map_err(failed(Stage::Capabilities, ""))?;
    // What the caller itself lacks can't be given.
    let inheritable = sets.inheritable.and(own);
    let permitted = sets.permitted.and(own);
    let sets = caps::Sets {
        bounding: sets.bounding,
        effective: sets.effective.and(permitted),
        permitted,
        inheritable,
        ambient: sets.ambient.and(permitted).and(inheritable),
    };
    // Without no_new_privs only CAP_SYS_ADMIN may install a filter.
    let filter_needs = if process.filter.is_some() && !process.no_new_privileges {
        permitted.with("SYS_ADMIN").map(|more| more.and(own))
    } else {
        None
    };
    let now = caps::Sets { permitted: filter_needs.unwrap_or(permitted), ..sets };
    caps::set(&now).map_err(failed(Stage::Capabilities, ""))?;
    /// What shells and distributions expect where nothing is said.
    const USUAL_UMASK: u32 = 0o022;
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(USUAL_UMASK)));
    Ok(Unsealed { sets, filter_needs })
}

/// The last steps before the program: labels, no new privileges, the filter. A filter may forbid
/// anything, so behind it there is nothing but giving up what installing it took.
pub(crate) fn seal(process: &ProcessPlan, last: &Unsealed, channel: &Channel) -> Step<()> {
    labels::set(&process.labels)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(failed(Stage::NoNewPrivileges, ""))?;
        return install_filter(process, channel);
    }
    let Some(permitted) = last.filter_needs else { return install_filter(process, channel) };
    let raised = caps::Sets { permitted, effective: permitted, ..last.sets };
    caps::set(&raised).map_err(failed(Stage::Capabilities, ""))?;
    install_filter(process, channel)?;
    caps::set(&last.sets).map_err(failed(Stage::Capabilities, ""))
}

fn install_filter(process: &ProcessPlan, channel: &Channel) -> Step<()> {
    let Some(filter) = &process.filter else { return Ok(()) };
    let listener = seccomp::install(&filter.program, filter.flags).map_err(failed(Stage::Seccomp, ""))?;
    if let Some(listener) = listener {
        channel.send(NOTIFY, &[], Some(listener.as_fd())).map_err(failed(Stage::Seccomp, "listener"))?;
    }
    Ok(())
}
