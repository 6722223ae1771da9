//! The specification that a container has when nothing else is said.
//!
//! It is Docker's: capabilities, mounts, masked and read-only paths; and stricter
//! in that the container has its own user namespace and can't gain privileges.

use std::collections::HashSet;
use std::path::PathBuf;

use oci_spec::runtime::{
    Capability, Linux, LinuxBuilder, LinuxCapabilities, LinuxIdMapping, LinuxIdMappingBuilder,
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, Process, ProcessBuilder,
    Root, RootBuilder, Spec, SpecBuilder, User,
};
use onggi_sys::idmap::IdMap;

/// The version of the runtime specification that [`default_spec`] follows.
const OCI_VERSION: &str = "1.2.0";

/// `PATH` where the image has none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's default capabilities.
pub const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Hidden: what tells of, or reaches, the host's kernel and hardware.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Only to be read.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What [`default_spec`] asks.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The id maps of the container's user namespace, inside → the caller's ids;
    /// `None` for the caller's user namespace (`--userns=host`).
    pub maps: Option<(IdMap, IdMap)>,
    /// Whether the container has its own network namespace.
    pub own_network: bool,
    /// The host name; the container's id is usual.
    pub hostname: Option<String>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Whether the root filesystem is read-only.
    pub read_only: bool,
}

impl Default for Defaults {
    /// The caller's ids, an own network namespace, 64 MiB of shared memory.
    fn default() -> Self {
        Self { maps: None, own_network: true, hostname: None, shm_size: 64 << 20, read_only: false }
    }
}

/// Docker's defaults as a specification, with `sh` as the command. The caller
/// replaces process arguments, environment, user and working directory, and adds
/// mounts; it leaves the seccomp profile to
/// [`SeccompSource::Docker`](crate::SeccompSource::Docker).
pub fn default_spec(defaults: &Defaults) -> Spec {
    let mut kinds = vec![
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    if defaults.own_network {
        kinds.push(LinuxNamespaceType::Network);
    }
    if defaults.maps.is_some() {
        kinds.push(LinuxNamespaceType::User);
    }
    let namespaces: Vec<LinuxNamespace> = kinds.into_iter().filter_map(namespace).collect();
    let mut linux: Linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(MASKED.map(String::from).to_vec())
        .readonly_paths(READ_ONLY.map(String::from).to_vec())
        .build()
        .unwrap_or_default();
    linux.set_resources(None).set_devices(None);
    if let Some((uids, gids)) = &defaults.maps {
        linux.set_uid_mappings(Some(mappings(uids))).set_gid_mappings(Some(mappings(gids)));
    } else {
        linux.set_uid_mappings(None).set_gid_mappings(None);
    }
    // devpts takes a group only if the container has it.
    let tty = defaults.maps.as_ref().is_none_or(|(_, gids)| gids.to_outside(5).is_some());
    let mut spec = SpecBuilder::default()
        .version(OCI_VERSION)
        .process(process())
        .mounts(mounts(defaults.shm_size, tty))
        .linux(linux)
        .build()
        .unwrap_or_default();
    spec.set_root(root(defaults.read_only));
    spec.set_hostname(defaults.hostname.clone());
    spec
}

fn root(read_only: bool) -> Option<Root> {
    RootBuilder::default().path("rootfs").readonly(read_only).build().ok()
}

fn namespace(kind: LinuxNamespaceType) -> Option<LinuxNamespace> {
    LinuxNamespaceBuilder::default().typ(kind).build().ok()
}

/// A map as the specification writes it.
fn mappings(map: &IdMap) -> Vec<LinuxIdMapping> {
    let mapping = |range: &onggi_sys::idmap::Range| {
        LinuxIdMappingBuilder::default()
            .container_id(range.inside)
            .host_id(range.outside)
            .size(range.count)
            .build()
            .ok()
    };
    map.ranges().iter().filter_map(mapping).collect()
}

fn process() -> Process {
    let set: HashSet<Capability> = DEFAULT_CAPABILITIES.into_iter().collect();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    let mut process = ProcessBuilder::default()
        .args(vec!["sh".to_owned()])
        .env(vec![DEFAULT_PATH.to_owned()])
        .cwd(PathBuf::from("/"))
        .user(User::default())
        .capabilities(capabilities)
        .no_new_privileges(true)
        .build()
        .unwrap_or_default();
    process.set_rlimits(None).set_terminal(None).set_apparmor_profile(None).set_selinux_label(None);
    process
}

fn mounts(shm_size: u64, tty: bool) -> Vec<Mount> {
    let shm = format!("size={shm_size}");
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if tty {
        pts.push("gid=5");
    }
    let list: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &pts),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ];
    let mount = |(destination, kind, source, options): (&str, &str, &str, &[&str])| {
        MountBuilder::default()
            .destination(destination)
            .typ(kind)
            .source(source)
            .options(options.iter().map(ToString::to_string).collect::<Vec<_>>())
            .build()
            .ok()
    };
    list.into_iter().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_complete() {
        let maps =
            Some((IdMap::single(0, 100_000, 65536).unwrap(), IdMap::single(0, 100_000, 65536).unwrap()));
        let spec = default_spec(&Defaults { maps, hostname: Some("box".into()), ..Defaults::default() });
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 7);
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].host_id(), 100_000);
        assert_eq!(linux.masked_paths().as_ref().unwrap().len(), MASKED.len());
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.no_new_privileges(), Some(true));
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 14);
        assert!(process.capabilities().as_ref().unwrap().ambient().is_none());
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
        assert_eq!(spec.hostname().as_deref(), Some("box"));
    }
}
