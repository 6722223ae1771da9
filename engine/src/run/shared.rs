//! What a container shares with others that run: `--pid`, `--ipc` and `--network container:NAME`.
//!
//! ```text
//!   other container ──► user namespace  the same: whoever has authority over its namespaces is its root
//!                   ├─► pid, ipc, net   the one that was asked for
//!                   ├─► /dev/shm        with ipc
//!                   └─► hostname, hosts, resolv.conf   with net
//! ```
//!
//! Everything is looked up and opened anew at each start, and a process that ended meanwhile is noticed, so
//! that no namespace of a stranger is joined.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};
use onggi_sys::idmap::IdMap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::ids::Ids;
use super::namespaces::{Ipc, Sharing};
use super::request::{Network, RunRequest};
use crate::Engine;
use crate::containers::{ContainerDetails, Record};
use crate::error::{Error, Result};

/// How many containers may refer to each other's network in a row.
const MAX_CHAIN: usize = 16;

/// One wish to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish<'a> {
    /// The flag, for messages.
    pub(crate) flag: &'static str,
    /// The other container.
    pub(crate) container: &'a str,
    kind: LinuxNamespaceType,
    /// The name below `/proc/PID/ns`.
    file: &'static str,
}

/// All wishes to share.
pub(crate) fn wishes(request: &RunRequest) -> Vec<Wish<'_>> {
    let namespaces = &request.namespaces;
    let pid = match &namespaces.pid {
        Sharing::Container(container) => Some(container),
        _ => None,
    };
    let ipc = match &namespaces.ipc {
        Ipc::Container(container) => Some(container),
        _ => None,
    };
    let network = match &request.network {
        Network::Container(container) => Some(container),
        _ => None,
    };
    [
        ("--pid", LinuxNamespaceType::Pid, "pid", pid),
        ("--ipc", LinuxNamespaceType::Ipc, "ipc", ipc),
        ("--network", LinuxNamespaceType::Network, "net", network),
    ]
    .into_iter()
    .filter_map(|(flag, kind, file, container)| Some(Wish { flag, container: container?, kind, file }))
    .collect()
}

/// What contradicts the network of another container.
pub(crate) fn check(request: &RunRequest) -> Result<()> {
    if request.namespaces.user.is_some_and(|user| user != super::UserNamespace::Host)
        && let Some(wish) = wishes(request).first()
    {
        return Err(Error::flag(
            wish.flag,
            "conflicting options: whoever shares a namespace has the IDs of the other container; leave --userns away",
        ));
    }
    if !matches!(request.network, Network::Container(_)) {
        return Ok(());
    }
    let resolver = &request.resolver;
    let conflict = if request.hostname.is_some() || request.domainname.is_some() {
        "conflicting options: hostname and the network mode"
    } else if !resolver.links.is_empty() {
        "conflicting options: container type network can't be used with links. This would result in undefined behavior"
    } else if !resolver.servers.is_empty() {
        "conflicting options: dns and the network mode"
    } else if !resolver.hosts.is_empty() {
        "conflicting options: custom host-to-IP mapping and the network mode"
    } else if !request.publishing.exposed.is_empty() {
        "conflicting options: port exposing and the container type network mode"
    } else {
        return Ok(());
    };
    Err(Error::flag("--network", conflict))
}

/// Namespaces of others, open.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    namespaces: Vec<(LinuxNamespaceType, OwnedFd)>,
    user: Option<User>,
    /// The mount namespace of the container whose IPC is shared.
    memory: Option<OwnedFd>,
    /// Where the files of the container are whose network is shared.
    pub(crate) files: Option<PathBuf>,
}

#[derive(Debug)]
struct User {
    namespace: OwnedFd,
    identity: (u64, u64),
    uids: IdMap,
    gids: IdMap,
    /// Who holds the IDs.
    caretaker: Option<Pid>,
    /// Whose they are.
    container: String,
}

impl Engine {
    /// The first wish's container, if there is one and it has the IDs of whoever starts it: then so has this one.
    pub(crate) fn shares_host_ids(&self, request: &RunRequest) -> Result<Option<String>> {
        let mut found = None;
        for wish in wishes(request) {
            let other = self.find_container(wish.container)?;
            if other.host_ids && found.is_none() {
                found = Some(format!("{}=container:{}", wish.flag, wish.container));
            }
        }
        Ok(found)
    }

    /// Brings this process where it has authority over containers whose namespaces are to be shared. Nothing to do
    /// for root; an ordinary user's process must not have opened the store yet.
    pub(crate) fn enter_beside(&self, request: &RunRequest) -> Result<()> {
        for wish in wishes(request) {
            // One that doesn't run is an error later, if the container is to be started at all.
            let other = self.container(wish.container)?;
            if other.record.request.namespaces.keep_id.is_some() {
                let why =
                    "its files have owners of their own (--userns=keep-id), and this one's would not fit";
                return Err(Error::flag(wish.flag, format!("{}: {why}", wish.container)));
            }
            if let Some(pid) = other.pid {
                onggi_runtime::rootless::enter_above(pid)?;
            }
        }
        Ok(())
    }

    /// Opens what a container shares with others; they have to run.
    pub(crate) fn shared(&self, record: &Record) -> Result<Shared> {
        let mut shared = Shared::default();
        for wish in wishes(&record.request) {
            let other = self.container(wish.container)?;
            if other.record.id == record.id {
                return Err(Error::flag(wish.flag, "a container can't share its own namespaces with itself"));
            }
            let pid =
                other.pid.ok_or_else(|| Error::NotShared { flag: wish.flag, name: wish.container.into() })?;
            let process = pidfd_open(pid, PidfdFlags::empty())
                .map_err(|_| Error::NotShared { flag: wish.flag, name: wish.container.into() })?;
            shared.namespaces.push((wish.kind, open(pid, wish.file)?));
            if wish.kind == LinuxNamespaceType::Ipc {
                shareable(&other)?;
                shared.memory = Some(open(pid, "mnt")?);
            }
            if wish.kind == LinuxNamespaceType::Network {
                shared.files = Some(self.files_of(&other, MAX_CHAIN)?);
            }
            if !record.host_ids || !self.authority()?.first_namespace {
                shared.add_user(wish, pid, self.look(&other.record.id).caretaker)?;
            }
            if has_ended(&process) {
                return Err(Error::NotShared { flag: wish.flag, name: wish.container.into() });
            }
        }
        Ok(shared)
    }

    /// The directory with the host name and so on of a container: its own, or that of the one whose network it has.
    fn files_of(&self, container: &ContainerDetails, hops: usize) -> Result<PathBuf> {
        match &container.record.request.network {
            Network::Container(next) if hops > 0 => self.files_of(&self.container(next)?, hops - 1),
            _ => Ok(container.dir.clone()),
        }
    }
}

/// A container's IPC is shared only if it says so, as Docker has it.
fn shareable(other: &ContainerDetails) -> Result<()> {
    match other.record.request.namespaces.ipc {
        Ipc::Shareable | Ipc::Host | Ipc::Container(_) => Ok(()),
        Ipc::Private | Ipc::None => Err(Error::flag(
            "--ipc",
            format!("container {} has non-shareable IPC: start it with --ipc=shareable", other.record.name),
        )),
    }
}

fn open(pid: Pid, name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{}/ns/{name}", pid.as_raw_nonzero());
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::Read { path: path.into(), source: errno.into() })
}

fn has_ended(process: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
}

fn identity(namespace: &OwnedFd) -> Result<(u64, u64)> {
    let stat = rustix::fs::fstat(namespace)
        .map_err(|errno| Error::Process { op: "look at a user namespace", source: errno.into() })?;
    Ok((stat.st_dev, stat.st_ino))
}

impl Shared {
    fn add_user(&mut self, wish: Wish<'_>, pid: Pid, caretaker: Option<Pid>) -> Result<()> {
        let namespace = open(pid, "user")?;
        let identity = identity(&namespace)?;
        if let Some(user) = &self.user {
            if user.identity != identity {
                let problem = format!(
                    "containers {} and {} have different IDs: namespaces of both can't be shared by one container",
                    user.container, wish.container
                );
                return Err(Error::flag(wish.flag, problem));
            }
            return Ok(());
        }
        let map = |name: &str| {
            let path = format!("/proc/{}/{name}", pid.as_raw_nonzero());
            let text = fs::read_to_string(&path);
            text.map(|text| IdMap::from_kernel(&text))
                .map_err(|source| Error::Read { path: path.into(), source })
        };
        let (uids, gids) = (map("uid_map")?, map("gid_map")?);
        let container = wish.container.to_owned();
        self.user = Some(User { namespace, identity, uids, gids, caretaker, container });
        Ok(())
    }

    /// The IDs that it has with that; `None` if nothing is shared, or with the host's IDs.
    pub(crate) fn ids(&self, first_namespace: bool, runroot: &Path, highest: u32) -> Result<Option<Ids>> {
        let Some(user) = &self.user else { return Ok(None) };
        let own = rustix::fs::stat("/proc/self/ns/user")
            .map_err(|errno| Error::Process { op: "look at its user namespace", source: errno.into() })?;
        if user.identity == (own.st_dev, own.st_ino) {
            return Err(Error::flag(
                "--userns",
                format!("container {} has the host's IDs by now: make this one anew", user.container),
            ));
        }
        let covers = |map: &IdMap| map.to_outside(highest).is_some();
        if first_namespace && !(covers(&user.uids) && covers(&user.gids)) {
            let problem = format!(
                "the image needs the ID {highest}, which container {} does not have; start that one with --userns=auto:size={}",
                user.container,
                u64::from(highest) + 1
            );
            return Err(Error::flag("--userns", problem));
        }
        let locks = match user.caretaker {
            Some(caretaker) if first_namespace => borrowed(caretaker, &runroot.join("ids")),
            _ => Vec::new(),
        };
        let (uids, gids) = (user.uids.clone(), user.gids.clone());
        Ok(Some(Ids::Shared { uids, gids, shifted: first_namespace, locks }))
    }

    /// The shared memory, as a detached mount.
    pub(crate) fn memory(&self) -> Result<Option<OwnedFd>> {
        use std::os::fd::AsFd;
        let tree = self.memory.as_ref().map(|mounts| onggi_runtime::shared_memory_of(mounts.as_fd()));
        Ok(tree.transpose()?)
    }

    /// Puts the namespaces into the specification. They must stay open until the runtime has them.
    pub(crate) fn apply(&self, spec: &mut Spec) -> Result<()> {
        let Some(linux) = spec.linux_mut() else { return Ok(()) };
        let mut list = linux.namespaces().clone().unwrap_or_default();
        let user = self.user.iter().map(|user| (LinuxNamespaceType::User, &user.namespace));
        for (kind, fd) in self.namespaces.iter().map(|(kind, fd)| (*kind, fd)).chain(user) {
            list.retain(|one| one.typ() != kind);
            list.push(joined(kind, fd)?);
        }
        linux.set_namespaces(Some(list));
        if self.user.is_some() {
            linux.set_uid_mappings(None).set_gid_mappings(None);
        }
        Ok(())
    }
}

fn joined(kind: LinuxNamespaceType, fd: &OwnedFd) -> Result<LinuxNamespace> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    LinuxNamespaceBuilder::default().typ(kind).path(path).build().map_err(Error::specification)
}

/// The locks of a range of IDs, taken over from whoever holds them: the same open files, so that the range is given to
/// nobody before the last of its users has gone.
fn borrowed(caretaker: Pid, directory: &Path) -> Vec<OwnedFd> {
    let Ok(process) = pidfd_open(caretaker, PidfdFlags::empty()) else { return Vec::new() };
    let path = format!("/proc/{}/fd", caretaker.as_raw_nonzero());
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let lock = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let of_range = fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(directory));
        of_range.then(|| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()).flatten()
    };
    entries.filter_map(lock).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_a_shared_network_is_named() {
        let mut request = RunRequest { network: Network::Container("web".into()), ..RunRequest::default() };
        assert!(check(&request).is_ok());
        assert_eq!(wishes(&request).len(), 1);
        request.hostname = Some("other".into());
        assert!(check(&request).unwrap_err().to_string().contains("hostname and the network mode"));
        request.hostname = None;
        request.resolver.servers = vec!["1.1.1.1".parse().unwrap()];
        assert!(check(&request).unwrap_err().to_string().contains("dns and the network mode"));
        request.network = Network::None;
        assert!(check(&request).is_ok() && wishes(&request).is_empty());
    }

    #[test]
    fn a_lock_goes_with_its_last_holder() {
        let runroot = tempfile::tempdir().unwrap();
        let range = crate::run::idrange::IdRange::take(runroot.path(), 0, 0).unwrap();
        let first = range.map();
        let locks = borrowed(rustix::process::getpid(), &runroot.path().join("ids"));
        assert_eq!(locks.len(), 1);
        drop(range);
        let other = crate::run::idrange::IdRange::take(runroot.path(), 0, 0).unwrap();
        assert_ne!(other.map(), first);
        drop(locks);
        assert_eq!(crate::run::idrange::IdRange::take(runroot.path(), 0, 0).unwrap().map(), first);
    }
}
