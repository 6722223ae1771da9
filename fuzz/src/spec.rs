//! Specifications of containers (`config.json`): read, and checked as far as no process is needed.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use onggi_runtime::{Container, Defaults, default_spec};

/// One specification.
pub fn feed(bytes: &[u8]) {
    let Ok(mut spec) = serde_json::from_slice::<Spec>(bytes) else { return };
    // Whatever the host has by a name that came about by chance is not opened here.
    for mount in spec.mounts_mut().iter_mut().flatten() {
        mount.set_source(mount.source().as_ref().map(|_| PathBuf::from("/dev/null")));
    }
    for namespace in spec.linux_mut().iter_mut().flat_map(|linux| linux.namespaces_mut().iter_mut().flatten())
    {
        namespace.set_path(None);
    }
    if let Err(error) = Container::new("fuzz", spec).check() {
        assert!(!error.to_string().is_empty());
    }
}

/// What containers of onggi have, and more.
pub fn seeds() -> Vec<Vec<u8>> {
    let plain = serde_json::to_vec(&default_spec(&Defaults::default())).expect("JSON");
    let more = r#"{"ociVersion":"1.2.0","process":{"args":["/bin/sh"],"cwd":"/","env":["A=b"],"user":{"uid":1,"gid":2,
        "additionalGids":[3],"umask":18},"rlimits":[{"type":"RLIMIT_NOFILE","hard":10,"soft":5}],"noNewPrivileges":true,
        "oomScoreAdj":-5,"scheduler":{"policy":"SCHED_FIFO","priority":3,"flags":["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4},"capabilities":{"bounding":["CAP_CHOWN"]},
        "apparmorProfile":"x","selinuxLabel":"y"},"root":{"path":"rootfs","readonly":true},"hostname":"h","domainname":"d",
        "mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/b","type":"bind","source":"/dev/null",
        "options":["rbind","ro","nosuid","rslave","idmap"],"uidMappings":[{"containerID":0,"hostID":5,"size":2}],
        "gidMappings":[{"containerID":0,"hostID":5,"size":2}]},{"destination":"/t","type":"tmpfs","source":"tmpfs",
        "options":["size=64k","mode=1777"]}],"hooks":{"poststop":[{"path":"/bin/true"}]},"annotations":{"a":"b"},"linux":{
        "uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":100000,
        "size":65536}],"namespaces":[{"type":"user"},{"type":"mount"},{"type":"pid"},{"type":"time"}],"devices":[{"path":
        "/dev/x","type":"c","major":1,"minor":3,"fileMode":438,"uid":0,"gid":0}],"sysctl":{"net.ipv4.ip_forward":"1"},
        "maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],"timeOffsets":{"monotonic":{"secs":1,"nanosecs":2}},
        "resources":{"memory":{"limit":1,"swap":2},"cpu":{"shares":2,"quota":3},"pids":{"limit":4},"devices":[{"allow":false,
        "access":"rwm"}],"unified":{"memory.max":"1"}},"rootfsPropagation":"rslave","personality":{"domain":"LINUX32"},
        "seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG"}]}}}"#;
    vec![plain, more.as_bytes().to_vec()]
}
