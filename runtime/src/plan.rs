//! The specification, checked and in the form that the child needs.
//!
//! Everything that can be known to be wrong is found here, before a process
//! exists; the child only does what is written.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Capability, IOPriorityClass, Linux, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType,
    LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimitType, Process, Spec,
};
use onggi_sys::caps;
use onggi_sys::clone::Namespaces;
use onggi_sys::idmap::{IdMap, Range};
use onggi_sys::mount::Propagation;
use onggi_sys::process::{CStrings, Scheduling};
use rustix::process::Resource;

use crate::affinity::Affinity;
use crate::error::{Error, Result};
use crate::labels::{Labels, has_selinux};
use crate::memory::{self, MemoryPolicy};
use crate::mounts::{MountPlan, clean, open_source, propagation};
use crate::netdevices::{self, NetDevice};
use crate::seccomp::Filter;

/// What the container is.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Namespaces made new.
    pub(crate) new: Namespaces,
    /// Namespaces joined, opened already, with their paths for messages.
    pub(crate) join: Vec<(Namespaces, OwnedFd, String)>,
    /// Maps of the new user namespace.
    pub(crate) maps: Option<(IdMap, IdMap)>,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) read_only_root: bool,
    pub(crate) root_propagation: Option<(Propagation, bool)>,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) sysctls: Vec<(PathBuf, String)>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) time_offsets: String,
    /// Interfaces of the host that it gets.
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) process: ProcessPlan,
}

/// A device node that the container gets.
#[derive(Debug)]
pub(crate) struct DevicePlan {
    pub(crate) path: PathBuf,
    pub(crate) kind: rustix::fs::FileType,
    pub(crate) device: u64,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
}

/// What the process is, in a new container or in a running one.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) arguments: CStrings,
    pub(crate) environment: CStrings,
    /// It has no `HOME` and wants one.
    pub(crate) needs_home: bool,
    pub(crate) search_path: String,
    pub(crate) cwd: CString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: Option<u32>,
    pub(crate) capabilities: Option<caps::Sets>,
    pub(crate) rlimits: Vec<(&'static str, Resource, u64, u64)>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) filter: Option<Filter>,
    pub(crate) scheduling: Option<Scheduling>,
    pub(crate) io_priority: Option<(u8, u8)>,
    pub(crate) personality: Option<u32>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    pub(crate) labels: Labels,
    pub(crate) affinity: Affinity,
    /// It may use all CPUs of its control group, whichever its maker is confined to.
    pub(crate) all_cpus: bool,
    /// Its terminal doesn't turn line ends into carriage return and line feed.
    pub(crate) plain_lines: bool,
}

/// Strings and lists of a specification are bounded by what the kernel takes;
/// this many mounts are one hundredth of its default limit for a namespace.
const MAX_MOUNTS: usize = 1000;

pub(crate) fn id_map(what: &str, mappings: &[LinuxIdMapping]) -> Result<IdMap> {
    let range =
        |m: &LinuxIdMapping| Range { inside: m.container_id(), outside: m.host_id(), count: m.size() };
    IdMap::new(mappings.iter().map(range).collect()).map_err(|why| Error::invalid(what, why.to_string()))
}

impl Plan {
    /// Adds a mount, before those that are to lie below it.
    pub(crate) fn mount(&mut self, mount: MountPlan) {
        let below = |other: &MountPlan| other.destination.starts_with(&mount.destination);
        let place = self.mounts.iter().position(below).unwrap_or(self.mounts.len());
        self.mounts.insert(place, mount);
    }

    pub(crate) fn read(spec: &Spec, bundle: &Path, filter: Option<Filter>) -> Result<Self> {
        let none = Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&none);
        refuse(linux)?;
        let process = spec.process().as_ref().ok_or_else(|| Error::invalid("process", "is missing"))?;
        let mut process = ProcessPlan::read(process, filter)?;
        process.belong_to(linux)?;
        let (mut new, mut join) = (Namespaces::NONE, Vec::new());
        let mut seen = Namespaces::NONE;
        for namespace in linux.namespaces().iter().flatten() {
            let kind = namespace_kind(namespace.typ());
            if seen.contains(kind) {
                return Err(Error::invalid(
                    "linux.namespaces",
                    format!("{} is listed twice", namespace.typ()),
                ));
            }
            seen = seen.with(kind);
            match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
                None => new = new.with(kind),
                Some(path) => {
                    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
                    let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
                        .map_err(Error::io("open the namespace", path.display().to_string()))?;
                    // The kernel refuses to enter a user namespace twice.
                    if kind == Namespaces::USER && is_own_user_namespace(&fd)? {
                        continue;
                    }
                    join.push((kind, fd, path.display().to_string()));
                }
            }
        }
        if !seen.contains(Namespaces::MOUNT) {
            return Err(Error::unsupported(
                "a container without its own mount namespace",
                "add {\"type\":\"mount\"} to linux.namespaces",
            ));
        }
        let maps = if new.contains(Namespaces::USER) {
            let list = |maps: &Option<Vec<LinuxIdMapping>>| maps.clone().unwrap_or_default();
            let uids = id_map("linux.uidMappings", &list(linux.uid_mappings()))?;
            let gids = id_map("linux.gidMappings", &list(linux.gid_mappings()))?;
            if uids.is_empty() || gids.is_empty() {
                return Err(Error::invalid(
                    "linux.uidMappings",
                    "a new user namespace needs uidMappings and gidMappings",
                ));
            }
            Some((uids, gids))
        } else {
            None
        };
        let list = spec.mounts().as_deref().unwrap_or_default();
        if list.len() > MAX_MOUNTS {
            return Err(Error::invalid("mounts", format!("there are more than {MAX_MOUNTS}")));
        }
        let mut mounts = Vec::with_capacity(list.len());
        for mount in list {
            let mut mount = MountPlan::read(mount, bundle)?;
            open_source(&mut mount)?;
            mounts.push(mount);
        }
        let root_propagation = match linux.rootfs_propagation().as_deref() {
            None | Some("") => None,
            Some(word) => Some(propagation(word).ok_or_else(|| {
                Error::invalid("linux.rootfsPropagation", format!("{word:?} is not a propagation"))
            })?),
        };
        let paths = |list: &Option<Vec<String>>| -> Vec<PathBuf> {
            list.iter().flatten().map(|path| clean(Path::new(path))).collect()
        };
        let hostname = spec.hostname().clone().filter(|name| !name.is_empty());
        let domainname = spec.domainname().clone().filter(|name| !name.is_empty());
        if (hostname.is_some() || domainname.is_some()) && !new.contains(Namespaces::UTS) {
            let joined = seen.contains(Namespaces::UTS);
            if !joined {
                return Err(Error::invalid(
                    "hostname",
                    "without its own uts namespace it would change the host's name",
                ));
            }
        }
        Ok(Self {
            new,
            join,
            maps,
            mounts,
            read_only_root: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            root_propagation,
            devices: devices(linux)?,
            masked: paths(linux.masked_paths()),
            read_only: paths(linux.readonly_paths()),
            sysctls: sysctls(linux, seen)?,
            hostname,
            domainname,
            time_offsets: time_offsets(linux, new)?,
            net_devices: netdevices::read(linux, seen.contains(Namespaces::NET))?,
            process,
        })
    }

    /// Whether the container's user namespace is not the caller's.
    pub(crate) fn has_user_namespace(&self) -> bool {
        self.maps.is_some() || self.joined_user_namespace().is_some()
    }

    /// The user namespace that the container shares with another one.
    pub(crate) fn joined_user_namespace(&self) -> Option<&OwnedFd> {
        self.join.iter().find_map(|(kind, fd, _)| (*kind == Namespaces::USER).then_some(fd))
    }

    /// Whether namespaces are joined before the clone, all but that of mounts: see [`joined`](crate::joined).
    pub(crate) fn joins_first(&self) -> bool {
        let later = |kind: Namespaces| kind == Namespaces::MOUNT || kind == Namespaces::PID;
        self.joined_user_namespace().is_some()
            || self.maps.is_some() && self.join.iter().any(|(kind, ..)| !later(*kind))
    }
}

/// The number of the execution domain that all processes of a container have.
fn personality(linux: &Linux) -> Result<Option<u32>> {
    let Some(wanted) = linux.personality() else { return Ok(None) };
    if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Error::unsupported("linux.personality.flags", "no flag is defined"));
    }
    Ok(Some(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

fn is_own_user_namespace(other: &OwnedFd) -> Result<bool> {
    let path = "/proc/self/ns/user";
    let own = rustix::fs::stat(path).map_err(Error::io("look at", path))?;
    let other = rustix::fs::fstat(other).map_err(Error::io("look at", "the user namespace"))?;
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

/// Fields that this host or program can't honour are refused by name.
fn refuse(linux: &Linux) -> Result<()> {
    if linux.intel_rdt().is_some() {
        return Err(Error::unsupported("linux.intelRdt", "cache allocation is not part of this runtime"));
    }
    if linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()) {
        let why = if has_selinux() {
            "labels of file systems are not part of this runtime"
        } else {
            "this host has no SELinux"
        };
        return Err(Error::unsupported("linux.mountLabel", why));
    }
    Ok(())
}

fn namespace_kind(kind: LinuxNamespaceType) -> Namespaces {
    match kind {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NET,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

fn devices(linux: &Linux) -> Result<Vec<DevicePlan>> {
    use rustix::fs::{FileType, makedev};
    let mut plans = Vec::new();
    for device in linux.devices().iter().flatten() {
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => {
                return Err(Error::invalid("linux.devices", "a device node can't have the type \"a\""));
            }
        };
        let number = |n: i64| {
            u32::try_from(n).map_err(|_| Error::invalid("linux.devices", format!("device number {n}")))
        };
        let device_number = if kind == FileType::Fifo {
            0
        } else {
            makedev(number(device.major())?, number(device.minor())?)
        };
        plans.push(DevicePlan {
            path: clean(device.path()),
            kind,
            device: device_number,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
        });
    }
    Ok(plans)
}

/// Only settings that belong to a namespace which the container doesn't share
/// with the host; anything else would change the host.
fn sysctls(linux: &Linux, own: Namespaces) -> Result<Vec<(PathBuf, String)>> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let mut list = Vec::new();
    for (name, value) in linux.sysctl().iter().flatten() {
        // net.ipv4.conf.eth0/1.x: where a slash comes first, dots stay.
        let dotted = match name.find(['.', '/']) {
            Some(at) if name.as_bytes().get(at) == Some(&b'/') => name
                .chars()
                .map(|c| {
                    if c == '/' {
                        '.'
                    } else if c == '.' {
                        '/'
                    } else {
                        c
                    }
                })
                .collect(),
            _ => name.clone(),
        };
        let needed = if dotted.starts_with("net.") {
            Some((Namespaces::NET, "network"))
        } else if dotted.starts_with("fs.mqueue.") || IPC.contains(&dotted.as_str()) {
            Some((Namespaces::IPC, "ipc"))
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            Some((Namespaces::UTS, "uts"))
        } else if dotted.starts_with("user.") {
            Some((Namespaces::USER, "user"))
        } else {
            None
        };
        match needed {
            Some((kind, _)) if own.contains(kind) => {}
            Some((_, kind)) => {
                return Err(Error::invalid(
                    format!("sysctl {name}"),
                    format!("needs the container's own {kind} namespace; it would change the host's"),
                ));
            }
            None => {
                return Err(Error::invalid(format!("sysctl {name}"), "is not separate for each container"));
            }
        }
        let path: PathBuf =
            dotted.split('.').map(|part| part.replace('/', ".")).collect::<Vec<_>>().join("/").into();
        if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(Error::invalid(format!("sysctl {name}"), "is not a sysctl name"));
        }
        list.push((Path::new("sys").join(path), value.clone()));
    }
    list.sort();
    Ok(list)
}

fn time_offsets(linux: &Linux, new: Namespaces) -> Result<String> {
    use std::fmt::Write;
    let mut text = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::invalid(
                "linux.timeOffsets",
                format!("{clock:?} is not monotonic or boottime"),
            ));
        }
        if !new.contains(Namespaces::TIME) {
            return Err(Error::invalid("linux.timeOffsets", "needs a new time namespace"));
        }
        let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        let _ = writeln!(text, "{clock} {secs} {nanos}");
    }
    Ok(text)
}

/// The search path of a process whose environment has none.
const FALLBACK_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl ProcessPlan {
    /// Takes on what all processes of a container have in common.
    pub(crate) fn belong_to(&mut self, linux: &Linux) -> Result<()> {
        self.personality = personality(linux)?;
        self.memory_policy = memory::policy(linux)?;
        Ok(())
    }

    pub(crate) fn read(process: &Process, filter: Option<Filter>) -> Result<Self> {
        let nul = |what: &'static str| move |_| Error::invalid(what, "has a NUL byte");
        let arguments = process.args().as_deref().unwrap_or_default();
        if arguments.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("process.args", "is empty: there is no command to run"));
        }
        let environment = last_of_each(process.env().as_deref().unwrap_or_default());
        let needs_home = !environment.iter().any(|variable| variable.starts_with("HOME="));
        let path = environment.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
        if !process.cwd().is_absolute() {
            return Err(Error::invalid(
                "process.cwd",
                format!("{} is not an absolute path", process.cwd().display()),
            ));
        }
        let user = process.user();
        let mut rlimits = Vec::new();
        for limit in process.rlimits().iter().flatten() {
            if limit.soft() > limit.hard() {
                return Err(Error::invalid("process.rlimits", "a soft limit is above its hard limit"));
            }
            let (name, resource) = resource(limit.typ());
            rlimits.push((name, resource, limit.soft(), limit.hard()));
        }
        Ok(Self {
            arguments: CStrings::new(arguments).map_err(nul("process.args"))?,
            environment: CStrings::new(environment).map_err(nul("process.env"))?,
            needs_home,
            search_path: path.unwrap_or(FALLBACK_PATH).to_owned(),
            cwd: CString::new(process.cwd().as_os_str().as_bytes())
                .map_err(|_| Error::invalid("process.cwd", "has a NUL byte"))?,
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
            capabilities: process.capabilities().as_ref().map(capability_sets),
            rlimits,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
            filter,
            scheduling: scheduling(process)?,
            io_priority: io_priority(process)?,
            personality: None,
            memory_policy: None,
            labels: Labels::of(process)?,
            affinity: Affinity::of(process)?,
            all_cpus: false,
            plain_lines: false,
        })
    }
}

/// Of variables that are set more than once the last counts; an empty `HOME` is none.
fn last_of_each(list: &[String]) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<&str> = list
        .iter()
        .rev()
        .map(String::as_str)
        .filter(|variable| seen.insert(variable.split('=').next().unwrap_or_default()))
        .filter(|variable| *variable != "HOME=")
        .collect();
    kept.reverse();
    kept
}

fn resource(kind: PosixRlimitType) -> (&'static str, Resource) {
    match kind {
        PosixRlimitType::RlimitCpu => ("RLIMIT_CPU", Resource::Cpu),
        PosixRlimitType::RlimitFsize => ("RLIMIT_FSIZE", Resource::Fsize),
        PosixRlimitType::RlimitData => ("RLIMIT_DATA", Resource::Data),
        PosixRlimitType::RlimitStack => ("RLIMIT_STACK", Resource::Stack),
        PosixRlimitType::RlimitCore => ("RLIMIT_CORE", Resource::Core),
        PosixRlimitType::RlimitRss => ("RLIMIT_RSS", Resource::Rss),
        PosixRlimitType::RlimitNproc => ("RLIMIT_NPROC", Resource::Nproc),
        PosixRlimitType::RlimitNofile => ("RLIMIT_NOFILE", Resource::Nofile),
        PosixRlimitType::RlimitMemlock => ("RLIMIT_MEMLOCK", Resource::Memlock),
        PosixRlimitType::RlimitAs => ("RLIMIT_AS", Resource::As),
        PosixRlimitType::RlimitLocks => ("RLIMIT_LOCKS", Resource::Locks),
        PosixRlimitType::RlimitSigpending => ("RLIMIT_SIGPENDING", Resource::Sigpending),
        PosixRlimitType::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
        PosixRlimitType::RlimitNice => ("RLIMIT_NICE", Resource::Nice),
        PosixRlimitType::RlimitRtprio => ("RLIMIT_RTPRIO", Resource::Rtprio),
        PosixRlimitType::RlimitRttime => ("RLIMIT_RTTIME", Resource::Rttime),
    }
}

fn capability_sets(sets: &oci_spec::runtime::LinuxCapabilities) -> caps::Sets {
    let set = |list: &Option<Capabilities>| {
        list.iter()
            .flatten()
            .fold(caps::Set::EMPTY, |set, capability| set.with(capability_name(*capability)).unwrap_or(set))
    };
    caps::Sets {
        bounding: set(sets.bounding()),
        effective: set(sets.effective()),
        permitted: set(sets.permitted()),
        inheritable: set(sets.inheritable()),
        ambient: set(sets.ambient()),
    }
}

/// The kernel's name of a capability, without `CAP_`.
pub(crate) fn capability_name(capability: Capability) -> &'static str {
    match capability {
        Capability::AuditControl => "AUDIT_CONTROL",
        Capability::AuditRead => "AUDIT_READ",
        Capability::AuditWrite => "AUDIT_WRITE",
        Capability::BlockSuspend => "BLOCK_SUSPEND",
        Capability::Bpf => "BPF",
        Capability::CheckpointRestore => "CHECKPOINT_RESTORE",
        Capability::Chown => "CHOWN",
        Capability::DacOverride => "DAC_OVERRIDE",
        Capability::DacReadSearch => "DAC_READ_SEARCH",
        Capability::Fowner => "FOWNER",
        Capability::Fsetid => "FSETID",
        Capability::IpcLock => "IPC_LOCK",
        Capability::IpcOwner => "IPC_OWNER",
        Capability::Kill => "KILL",
        Capability::Lease => "LEASE",
        Capability::LinuxImmutable => "LINUX_IMMUTABLE",
        Capability::MacAdmin => "MAC_ADMIN",
        Capability::MacOverride => "MAC_OVERRIDE",
        Capability::Mknod => "MKNOD",
        Capability::NetAdmin => "NET_ADMIN",
        Capability::NetBindService => "NET_BIND_SERVICE",
        Capability::NetBroadcast => "NET_BROADCAST",
        Capability::NetRaw => "NET_RAW",
        Capability::Perfmon => "PERFMON",
        Capability::Setgid => "SETGID",
        Capability::Setfcap => "SETFCAP",
        Capability::Setpcap => "SETPCAP",
        Capability::Setuid => "SETUID",
        Capability::SysAdmin => "SYS_ADMIN",
        Capability::SysBoot => "SYS_BOOT",
        Capability::SysChroot => "SYS_CHROOT",
        Capability::SysModule => "SYS_MODULE",
        Capability::SysNice => "SYS_NICE",
        Capability::SysPacct => "SYS_PACCT",
        Capability::SysPtrace => "SYS_PTRACE",
        Capability::SysRawio => "SYS_RAWIO",
        Capability::SysResource => "SYS_RESOURCE",
        Capability::SysTime => "SYS_TIME",
        Capability::SysTtyConfig => "SYS_TTY_CONFIG",
        Capability::Syslog => "SYSLOG",
        Capability::WakeAlarm => "WAKE_ALARM",
    }
}

fn scheduling(process: &Process) -> Result<Option<Scheduling>> {
    let Some(wanted) = process.scheduler() else { return Ok(None) };
    let mut plan = Scheduling {
        policy: match wanted.policy() {
            LinuxSchedulerPolicy::SchedOther => 0,
            LinuxSchedulerPolicy::SchedFifo => 1,
            LinuxSchedulerPolicy::SchedRr => 2,
            LinuxSchedulerPolicy::SchedBatch => 3,
            LinuxSchedulerPolicy::SchedIso => {
                return Err(Error::unsupported("SCHED_ISO", "Linux never implemented it"));
            }
            LinuxSchedulerPolicy::SchedIdle => 5,
            LinuxSchedulerPolicy::SchedDeadline => 6,
        },
        nice: wanted.nice().unwrap_or(0),
        runtime: wanted.runtime().unwrap_or(0),
        deadline: wanted.deadline().unwrap_or(0),
        period: wanted.period().unwrap_or(0),
        ..Scheduling::default()
    };
    plan.priority = u32::try_from(wanted.priority().unwrap_or(0))
        .map_err(|_| Error::invalid("process.scheduler.priority", "is negative"))?;
    for flag in wanted.flags().iter().flatten() {
        plan.flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        };
    }
    Ok(Some(plan))
}

fn io_priority(process: &Process) -> Result<Option<(u8, u8)>> {
    let Some(wanted) = process.io_priority() else { return Ok(None) };
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u8::try_from(wanted.priority()) {
        Ok(priority @ 0..=7) => Ok(Some((class, priority))),
        _ => Err(Error::invalid("process.ioPriority.priority", "is not between 0 and 7")),
    }
}
