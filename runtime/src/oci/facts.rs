//! spec, features and statistics.

use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType, Spec,
};
use onggi_sys::idmap::IdMap;
use serde_json::{Value, json};

use super::Runtime;
use crate::cgroup::{Cgroup, Hierarchies};
use crate::defaults::{Defaults, default_spec};
use crate::error::{Error, Result};

/// Descriptors that a program of the template may have open, as runc's template says.
const TEMPLATE_DESCRIPTORS: u64 = 1024;

/// What a program of the template may do, as runc's template says: less than Docker's default.
const TEMPLATE_CAPABILITIES: [Capability; 3] =
    [Capability::AuditWrite, Capability::Kill, Capability::NetBindService];

/// A specification to start a bundle from, as runc writes it: a shell in `rootfs`, read-only, with few
/// capabilities. `rootless` maps the caller's own ids to root. The view of control groups is the container's own
/// where version 2 is all there is.
///
/// # Errors
/// [`Error::Io`] without `/proc`.
pub fn bundle_spec(rootless: bool) -> Result<Spec> {
    let maps = if rootless {
        let map = |id| IdMap::single(0, id, 1).map_err(|why| Error::invalid("own id", why.to_string()));
        Some((map(rustix::process::getuid().as_raw())?, map(rustix::process::getgid().as_raw())?))
    } else {
        None
    };
    let defaults = Defaults { maps, hostname: Some("onggi".into()), read_only: true, ..Defaults::default() };
    let mut spec = default_spec(&defaults);
    spec.set_annotations(None);
    if let Some(linux) = spec.linux_mut()
        && !Hierarchies::detect()?.is_unified()
    {
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        namespaces.retain(|one| one.typ() != LinuxNamespaceType::Cgroup);
        linux.set_namespaces(Some(namespaces));
    }
    if let Some(process) = spec.process_mut() {
        let set = || Some(TEMPLATE_CAPABILITIES.into_iter().collect());
        let mut sets = LinuxCapabilities::default();
        sets.set_bounding(set()).set_effective(set()).set_permitted(set());
        sets.set_inheritable(None).set_ambient(None);
        process.set_capabilities(Some(sets));
        let limit = PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .hard(TEMPLATE_DESCRIPTORS)
            .soft(TEMPLATE_DESCRIPTORS)
            .build()
            .map_err(|why| Error::invalid("process.rlimits", why.to_string()))?;
        process.set_rlimits(Some(vec![limit]));
        process.set_terminal(Some(true));
        process.set_env(Some(vec![crate::DEFAULT_PATH.to_owned(), "TERM=xterm".to_owned()]));
    }
    Ok(spec)
}

/// What this runtime can do (runtime-spec, "Features").
pub fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "exec", "idmap", "noatime", "nodev",
            "nodiratime", "noexec", "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime",
            "rbind", "rdev", "rdiratime", "relatime", "rexec", "ridmap", "rnoatime", "rnodev", "rnodiratime",
            "rnoexec", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw", "rshared",
            "rslave", "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared", "slave",
            "strictatime", "suid", "symfollow", "tmpcopyup", "unbindable",
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": onggi_sys::caps::NAMES.as_slice(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                ],
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "memoryPolicy": {
                "modes": [
                    "MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY", "MPOL_LOCAL",
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            },
            "netDevices": {"enabled": true},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
    })
}

fn memory_kills(cgroup: &Cgroup) -> Option<u64> {
    let text = cgroup.read("memory.oom_control").or_else(|| cgroup.read("memory.events"))?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

impl Runtime {
    /// How many of a container's processes the kernel has killed for want of memory; 0 where it doesn't count.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`].
    pub fn memory_kills(&self, id: &str) -> Result<u64> {
        Ok(self.record(id)?.cgroup()?.as_ref().and_then(memory_kills).unwrap_or(0))
    }

    /// One line of `events`: what the container uses now, in runc's form. Numbers
    /// are bytes, nanoseconds and counts; what this host doesn't count is absent.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without a control group.
    pub fn statistics(&self, id: &str) -> Result<Value> {
        let record = self.record(id)?;
        let Some(cgroup) = record.cgroup()? else {
            return Err(Error::unsupported("events", "the container has no control group"));
        };
        let number = |file: &str| cgroup.read(file).and_then(|text| text.trim().parse::<u64>().ok());
        let line = |file: &str, key: &str| {
            let text = cgroup.read(file)?;
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok())
        };
        let cpu = number("cpuacct.usage").or_else(|| line("cpu.stat", "usage_usec ").map(|usec| usec * 1000));
        let memory = number("memory.usage_in_bytes").or_else(|| number("memory.current"));
        let limit = number("memory.limit_in_bytes").or_else(|| number("memory.max"));
        let pids = number("pids.current")
            .or_else(|| cgroup.processes().ok().and_then(|list| u64::try_from(list.len()).ok()));
        let ooms = memory_kills(&cgroup);
        Ok(json!({
            "type": "stats",
            "id": id,
            "data": {
                "cpu": {"usage": {"total": cpu}},
                "memory": {"usage": {"usage": memory, "limit": limit}, "oomKills": ooms},
                "pids": {"current": pids, "limit": number("pids.max")},
            },
        }))
    }
}
