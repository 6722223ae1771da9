//! Id maps, and containers without being root.
//!
//! An ordinary user may map a single id, the own one. More ids come from
//! `/etc/subuid` and `/etc/subgid`, through the set-uid programs `newuidmap` and
//! `newgidmap`. [`enter`] puts the calling process itself into such a user
//! namespace; everything after that is the same as for root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use onggi_sys::caps;
use onggi_sys::clone::{Clone3, Namespaces, SingleThreaded, enter as enter_namespace, parent_of, unshare};
use onggi_sys::idmap::{IdMap, Range};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions, getgid, getpid, getuid, waitpid};

use crate::container::write_below;
use crate::error::{Error, Result};

/// Who the caller became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// User ids: inside → of the host.
    pub uids: IdMap,
    /// Group ids: inside → of the host.
    pub gids: IdMap,
    /// Only the caller's own id is mapped, because there are no subordinate ids:
    /// files of other owners can't be made.
    pub single: bool,
}

/// Whether the caller may make containers as it is: root, or root of a user
/// namespace.
///
/// # Errors
/// [`Error::Io`].
pub fn privileged() -> Result<bool> {
    let effective = caps::effective().map_err(Error::io("read", "the own capabilities"))?;
    Ok(caps::number("CAP_SYS_ADMIN").is_some_and(|number| effective.has(number)))
}

/// Makes the calling process root of a new user namespace (and of a new mount
/// namespace that belongs to it), with all subordinate ids that the user has.
/// Returns `None` and does nothing if the caller is privileged already.
///
/// The process must have one thread. Nothing else of it changes: working
/// directory, descriptors, environment. To be called before the first mount is
/// made or a layer is unpacked.
///
/// # Errors
/// [`Error::Unsupported`] where the host forbids user namespaces or the
/// subordinate ids are there and `newuidmap` isn't; [`Error::Io`].
pub fn enter() -> Result<Option<Entered>> {
    if privileged()? {
        return Ok(None);
    }
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let name = user_name(uid);
    let maps = (|| -> Result<_> {
        let uids = subordinate("/etc/subuid", uid, name.as_deref())?;
        let gids = subordinate("/etc/subgid", uid, name.as_deref())?;
        if uids.is_empty() || gids.is_empty() {
            return Ok(None);
        }
        Ok(Some((with_own(uid, uids)?, with_own(gid, gids)?)))
    })()?;
    let single = SingleThreaded::check().map_err(Error::io("enter", "a user namespace"))?;
    let kinds = Namespaces::USER.with(Namespaces::MOUNT);
    let unshared = || unshare(kinds).map_err(forbidden);
    let entered = if let Some((uids, gids)) = maps {
        // Outside of the new namespace somebody must stay who calls newuidmap.
        let (wait, go) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::io("make", "a pipe"))?;
        let target = getpid();
        let (wanted_uids, wanted_gids) = (uids.clone(), gids.clone());
        let (wait_fd, go_fd) = (wait.as_fd(), std::os::fd::AsRawFd::as_raw_fd(&go).unsigned_abs());
        let helper = single
            .fork(move || {
                let _ = onggi_sys::process::close_range(go_fd, go_fd);
                let mut byte = [0];
                match rustix::io::read(wait_fd, &mut byte) {
                    Ok(1) => i32::from(run_helpers(target, &wanted_uids, &wanted_gids).is_err()),
                    _ => 1,
                }
            })
            .map_err(Error::io("start", "a helper process"))?;
        drop(wait);
        let outcome = unshared();
        if outcome.is_ok() {
            let _ = rustix::io::write(&go, b"1");
        }
        drop(go);
        let status =
            waitpid(Some(helper), WaitOptions::empty()).map_err(Error::io("wait for", "newuidmap"))?;
        outcome?;
        if status.is_none_or(|(_, status)| status.exit_status() != Some(0)) {
            return Err(Error::unsupported(
                "the subordinate ids of /etc/subuid",
                "newuidmap or newgidmap failed; they are in the package \"uidmap\" and must be set-uid root",
            ));
        }
        Entered { uids, gids, single: false }
    } else {
        unshared()?;
        let map = |id| IdMap::single(0, id, 1).map_err(|why| Error::invalid("own id", why.to_string()));
        let (uids, gids) = (map(uid)?, map(gid)?);
        let proc = own_proc()?;
        write_single(proc.as_fd(), &uids, &gids)?;
        Entered { uids, gids, single: true }
    };
    become_root()?;
    Ok(Some(entered))
}

/// Makes the calling process root of the user namespace above that of `target`, the first process of a container, and
/// of a new mount namespace that belongs to it: what it makes there can share namespaces with the container. To be
/// called in place of [`enter`], by the user who started the container. Does nothing where the caller is in that
/// namespace already, or `target` in the caller's.
///
/// The process must have one thread.
///
/// # Errors
/// [`Error::Unsupported`] for a namespace of somebody else, or beside the one that the caller is in; [`Error::Io`].
pub fn enter_above(target: Pid) -> Result<()> {
    let open = |path: &str| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", path))
    };
    let number = |fd: &OwnedFd| {
        let stat = rustix::fs::fstat(fd).map_err(Error::io("look at", "a user namespace"))?;
        Ok((stat.st_dev, stat.st_ino))
    };
    let path = format!("/proc/{}/ns/user", target.as_raw_nonzero());
    let (own, theirs) = (open("/proc/self/ns/user")?, open(&path)?);
    if number(&own)? == number(&theirs)? {
        return Ok(());
    }
    let foreign = |error: io::Error| match error.raw_os_error() {
        Some(1) => Error::unsupported(
            format!("sharing the namespaces of process {}", target.as_raw_nonzero()),
            "its user namespace is another user's, or this container was started beside it: stop and start it again",
        ),
        _ => Error::io("enter the user namespace above", &path)(error),
    };
    let above = parent_of(theirs.as_fd()).map_err(foreign)?;
    if number(&above)? == number(&own)? {
        return Ok(());
    }
    enter_namespace(above.as_fd(), Namespaces::USER).map_err(foreign)?;
    unshare(Namespaces::MOUNT).map_err(forbidden)?;
    become_root()
}

fn become_root() -> Result<()> {
    let step = || Error::io("become", "root of the user namespace");
    let (root_uid, root_gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_res_gid(root_gid, root_gid, root_gid).map_err(step())?;
    rustix::thread::set_thread_res_uid(root_uid, root_uid, root_uid).map_err(step())
}

/// As [`enter`], but into the user namespace that a process of the same user is in, with a mount namespace
/// of the caller's own: what it makes there the others of that namespace have authority over.
///
/// # Errors
/// [`Error::Io`] if there is no such process or it is another user's.
pub fn join(process: Pid) -> Result<()> {
    let path = format!("/proc/{}/ns/user", process.as_raw_nonzero());
    let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", &path))?;
    enter_namespace(namespace.as_fd(), Namespaces::USER)
        .and_then(|()| unshare(Namespaces::MOUNT))
        .map_err(Error::io("enter", path))?;
    become_root()
}

/// The identity maps of all ids that the caller's user namespace has: what a
/// container of a caller who is inside one gets. `None` in the host's own user
/// namespace, where a range must be chosen.
///
/// # Errors
/// [`Error::Io`].
pub fn nested_maps() -> Result<Option<(IdMap, IdMap)>> {
    let read = |name: &str| -> Result<IdMap> {
        let path = format!("/proc/self/{name}");
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", path))?;
        Ok(IdMap::from_kernel(&text))
    };
    let (uids, gids) = (read("uid_map")?, read("gid_map")?);
    if uids.ranges().iter().any(|range| range.count == u32::MAX) {
        return Ok(None);
    }
    let identity = |map: &IdMap| {
        let ranges = map.ranges().iter();
        let ranges =
            ranges.map(|range| Range { inside: range.inside, outside: range.inside, count: range.count });
        IdMap::new(ranges.collect()).map_err(|why| Error::invalid("the own id map", why.to_string()))
    };
    Ok(Some((identity(&uids)?, identity(&gids)?)))
}

fn forbidden(error: io::Error) -> Error {
    match error.raw_os_error() {
        // EPERM, ENOSPC: switched off by a sysctl, a limit or a security module.
        Some(1 | 28) => Error::unsupported(
            "running without root",
            "this host forbids user namespaces (see the sysctls user.max_user_namespaces, \
             kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns)",
        ),
        _ => Error::io("make", "a user namespace")(error),
    }
}

fn own_proc() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self", flags, Mode::empty()).map_err(Error::io("open", "/proc/self"))
}

/// The name of a user, from the host's passwd file.
fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id == uid).then(|| name.to_owned())
    })
}

/// The ranges that a file like `/etc/subuid` gives a user: `first, count`.
fn subordinate(file: &str, uid: u32, name: Option<&str>) -> Result<Vec<(u32, u32)>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", file)(error)),
    };
    Ok(ranges(&text, uid, name))
}

fn ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ((Some(who) == name || who == uid) && count > 0).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// The own id as root, then the subordinate ones from 1.
fn with_own(own: u32, subordinate: Vec<(u32, u32)>) -> Result<IdMap> {
    let mut ranges = vec![Range { inside: 0, outside: own, count: 1 }];
    let mut next: u32 = 1;
    for (outside, count) in subordinate {
        let room = (u32::MAX - 1).saturating_sub(next);
        ranges.push(Range { inside: next, outside, count: count.min(room) });
        next = next.saturating_add(count);
    }
    IdMap::new(ranges).map_err(|why| Error::invalid("/etc/subuid", why.to_string()))
}

/// Runs newuidmap and newgidmap, both at once.
fn run_helpers(target: Pid, uids: &IdMap, gids: &IdMap) -> Result<()> {
    let start = |program: &'static str, map: &IdMap| {
        let mut command = Command::new(program);
        command.arg(target.as_raw_nonzero().to_string()).stdin(Stdio::null());
        for range in map.ranges() {
            command.args([range.inside, range.outside, range.count].map(|number| number.to_string()));
        }
        command.spawn().map_err(Error::io("run", program))
    };
    let (first, second) = (start("newuidmap", uids), start("newgidmap", gids));
    for (program, child) in [("newuidmap", first), ("newgidmap", second)] {
        let status = child?.wait().map_err(Error::io("wait for", program))?;
        if !status.success() {
            return Err(Error::unsupported(
                format!("the wanted id map ({program} refused it: {status})"),
                "the ranges must lie within the caller's ranges of /etc/subuid and /etc/subgid",
            ));
        }
    }
    Ok(())
}

fn write_single(proc: BorrowedFd<'_>, uids: &IdMap, gids: &IdMap) -> Result<()> {
    write_below(proc, "setgroups", b"deny").map_err(Error::io("write", "setgroups"))?;
    write_below(proc, "uid_map", uids.to_kernel().as_bytes()).map_err(Error::io("write", "the uid map"))?;
    write_below(proc, "gid_map", gids.to_kernel().as_bytes()).map_err(Error::io("write", "the gid map"))
}

/// Gives the user namespace of a child its maps, by whichever way the caller has.
pub(crate) fn write_maps(proc: BorrowedFd<'_>, pid: Pid, uids: &IdMap, gids: &IdMap) -> Result<()> {
    let effective = caps::effective().map_err(Error::io("read", "the own capabilities"))?;
    let may = |name| caps::number(name).is_some_and(|number| effective.has(number));
    if may("CAP_SETUID") && may("CAP_SETGID") {
        let hint = |what| move |error| Error::io("write", what)(error);
        write_below(proc, "uid_map", uids.to_kernel().as_bytes())
            .map_err(hint("the uid map (are all its host ids mapped for the caller?)"))?;
        return write_below(proc, "gid_map", gids.to_kernel().as_bytes())
            .map_err(hint("the gid map (are all its host ids mapped for the caller?)"));
    }
    let only = |map: &IdMap, own: u32| matches!(map.ranges(), [one] if one.count == 1 && one.outside == own);
    if only(uids, getuid().as_raw()) && only(gids, getgid().as_raw()) {
        return write_single(proc, uids, gids);
    }
    run_helpers(pid, uids, gids)
}

/// A user namespace with these maps and no process in it, for id-mapped mounts.
///
/// # Errors
/// As for a container with these maps.
pub fn user_namespace(uids: &IdMap, gids: &IdMap) -> Result<OwnedFd> {
    let (wait, go) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::io("make", "a pipe"))?;
    let go_fd = std::os::fd::AsRawFd::as_raw_fd(&go).unsigned_abs();
    let clone = Clone3 { namespaces: Namespaces::USER, ..Clone3::default() };
    let child = clone
        .run(|_| {
            let _ = onggi_sys::process::close_range(go_fd, go_fd);
            let _ = rustix::io::read(&wait, &mut [0]);
            0
        })
        .map_err(forbidden)?;
    let proc = Path::new("/proc").join(child.pid.as_raw_nonzero().to_string());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let made = (|| {
        let dir = rustix::fs::open(&proc, flags, Mode::empty())
            .map_err(Error::io("open", proc.display().to_string()))?;
        write_maps(dir.as_fd(), child.pid, uids, gids)?;
        rustix::fs::openat(&dir, "ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", "the new user namespace"))
    })();
    drop(go);
    let _ = waitpid(Some(child.pid), WaitOptions::empty());
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_number() {
        let text = "# comment\nann:100000:65536\n1000:300000:10\nbob:1:1\nann:junk:1\nann:5:0\n";
        assert_eq!(ranges(text, 1000, Some("ann")), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(ranges(text, 7, None), []);
        let map = with_own(1000, vec![(100_000, 65536), (300_000, 10)]).unwrap();
        assert_eq!(map.to_kernel(), "0 1000 1\n1 100000 65536\n65537 300000 10\n");
    }
}
