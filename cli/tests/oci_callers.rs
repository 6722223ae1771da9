//! What callers and bundles that were made for runc count on, beyond the letter of the specification; each test is the
//! cause of a case of runc's own suite.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

#[path = "support/bundle.rs"]
mod support;

use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use onggi_testkit::needs;
use serde_json::{Value, json};
use support::{Bundle, bundle};

fn id(name: &str) -> String {
    format!("onggi-{name}-{}", std::process::id())
}

/// What a run prints.
fn said(bundle: &Bundle, name: &str, arguments: &Value) -> String {
    bundle.change(|config| config["process"]["args"] = arguments.clone());
    bundle.succeeds(&["run", &id(name)])
}

#[test]
fn a_home_that_is_not_named_is_that_of_passwd() {
    let Some(bundle) = bundle(&["true"]) else { return };
    std::fs::create_dir_all(bundle.path().join("rootfs/etc")).unwrap();
    std::fs::write(
        bundle.path().join("rootfs/etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nu:x:2000:7::/home/u:\n",
    )
    .unwrap();
    let home = json!(["sh", "-c", "echo \"$HOME $A\""]);
    let path = "PATH=/bin";
    for (env, expected) in [
        (json!([path]), "/root \n"),
        (json!([path, "HOME="]), "/root \n"),
        (json!([path, "HOME=/other", "A=1", "A=2"]), "/other 2\n"),
        (json!([path, "HOME=/other", "HOME="]), "/root \n"),
    ] {
        bundle.change(|config| config["process"]["env"] = env.clone());
        assert_eq!(said(&bundle, "home", &home), expected, "{env}");
    }
    let id = id("home-exec");
    bundle.change(|config| config["process"]["env"] = json!([path]));
    bundle.change(|config| config["process"]["args"] = json!(["sleep", "60"]));
    bundle.succeeds(&["run", "-d", &id]);
    assert_eq!(bundle.succeeds(&["exec", "-u", "2000", &id, "sh", "-c", "echo $HOME"]), "/home/u\n");
    assert_eq!(bundle.succeeds(&["exec", "-u", "3000", &id, "sh", "-c", "echo $HOME"]), "/\n");
    bundle.succeeds(&["delete", "-f", &id]);
    // A passwd that nobody writes to is nobody's home, and nothing waits for it.
    std::fs::remove_file(bundle.path().join("rootfs/etc/passwd")).unwrap();
    let fifo = bundle.path().join("rootfs/etc/passwd");
    assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    assert_eq!(said(&bundle, "home", &home), "/ \n");
}

#[test]
fn capabilities_that_cannot_be_had_are_warnings() {
    let Some(bundle) = bundle(&["grep", "^Cap", "/proc/self/status"]) else { return };
    bundle.change(|config| {
        let sets = &mut config["process"]["capabilities"];
        assert_eq!(sets["bounding"].as_array().unwrap().len(), 3, "as runc's template: {sets}");
        sets["bounding"].as_array_mut().unwrap().push(json!("CAP_OF_TOMORROW"));
        sets["inheritable"] = json!(["CAP_KILL"]);
        sets["ambient"] = json!(["CAP_KILL", "CAP_CHOWN"]);
    });
    let output = bundle.oci(&["run", &id("caps")]);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(
        err.contains("CAP_OF_TOMORROW") && err.contains("can't raise ambient capability CAP_CHOWN"),
        "{err}"
    );
    assert!(out.contains("CapAmb:\t0000000000000020"), "{out}");
    // What exec adds is ambient where the bundle has inheritable ones.
    let id = id("caps-exec");
    bundle.change(|config| {
        config["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL", "CAP_SYSLOG"]);
        config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_SYSLOG"]);
        config["process"]["capabilities"]["ambient"] = json!([]);
        config["process"]["args"] = json!(["sleep", "60"]);
    });
    bundle.succeeds(&["run", "-d", &id]);
    let sets = bundle.succeeds(&["exec", "--cap", "CAP_SYSLOG", &id, "grep", "^Cap", "/proc/self/status"]);
    assert!(sets.contains("CapAmb:\t0000000400000000"), "{sets}");
    bundle.succeeds(&["delete", "-f", &id]);
}

#[test]
fn a_caller_that_is_confined_to_a_cpu_does_not_confine_the_container() {
    if needs::programs(&["taskset"]).is_missing() {
        return;
    }
    let Some(bundle) = bundle(&["grep", "Cpus_allowed:", "/proc/self/status"]) else { return };
    let all = std::fs::read_to_string("/proc/1/status").unwrap();
    let all = all.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap();
    let mut confined = Command::new("taskset");
    confined.args(["-c", "0", env!("CARGO_BIN_EXE_onggi"), "oci", "--root"]).arg(bundle.state());
    let output = confined.args(["run", &id("cpus")]).current_dir(bundle.path()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), all, "{:?}", output.stderr);
}

#[test]
fn a_hook_that_fails_is_quoted_and_a_start_hook_is_bound_as_the_program() {
    let Some(bundle) = bundle(&["true"]) else { return };
    let hook = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    bundle.change(|config| {
        config["hooks"] =
            json!({"createRuntime": [hook("exit 0"), hook("echo out; echo words >&2; exit 4")]});
    });
    let error = bundle.fails(&["run", &id("hook")], 1, "error running createRuntime hook #1: /bin/sh");
    assert!(error.contains("exit status: 4: out\nwords"), "{error}");
    bundle.change(|config| {
        let script = "echo $ONE $HOME; grep -E 'CapEff|Uid|Seccomp:' /proc/self/status; exit 1";
        let mut start = hook(script);
        start.as_object_mut().unwrap().insert("path".into(), json!("/bin/busybox"));
        config["hooks"] = json!({"startContainer": [start]});
        config["process"]["user"] = json!({"uid": 7, "gid": 7});
        config["process"]["env"] = json!(["PATH=/bin", "ONE=two"]);
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    });
    let error = bundle.fails(&["run", &id("hook")], 1, "error running startContainer hook #0");
    for words in ["two /", "Uid:\t7", "CapEff:\t0000000000000000", "Seccomp:\t2"] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_named_control_group_is_in_all_trees_and_must_not_stand_still() {
    let Some(bundle) = bundle(&["cat", "/proc/self/cgroup"]) else { return };
    let path = format!("/{}", id("groups"));
    bundle.change(|config| config["linux"]["cgroupsPath"] = json!(path));
    let groups = bundle.succeeds(&["run", &id("groups")]);
    let own = groups.lines().filter(|line| line.ends_with(&path)).count();
    assert_eq!(own, groups.lines().count(), "{groups}");
    let freezer = ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup"].map(|root| format!("{root}{path}"));
    let (root, file, word) = match std::path::Path::new("/sys/fs/cgroup/freezer").is_dir() {
        true => (&freezer[0], "freezer.state", "FROZEN"),
        false => (&freezer[1], "cgroup.freeze", "1"),
    };
    std::fs::create_dir(root).unwrap();
    std::fs::write(format!("{root}/{file}"), word).unwrap();
    let refused = bundle.oci(&["run", &id("groups")]);
    let _ = std::fs::remove_dir(root);
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("container's cgroup unexpectedly frozen"), "{words}");
}

#[test]
fn mounts_follow_what_the_root_filesystem_has() {
    let Some(bundle) = bundle(&["true"]) else { return };
    let rootfs = bundle.path().join("rootfs");
    std::fs::create_dir_all(rootfs.join("etc")).unwrap();
    std::fs::create_dir(rootfs.join("closed")).unwrap();
    std::fs::set_permissions(rootfs.join("closed"), std::fs::Permissions::from_mode(0o710)).unwrap();
    // To nowhere, by way of another link to nowhere.
    symlink("/jump/baz/hosts", rootfs.join("etc/hosts")).unwrap();
    symlink("/var/foo", rootfs.join("jump")).unwrap();
    bundle.change(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/closed", "type": "tmpfs", "source": "tmpfs"}));
        mounts.push(json!({"destination": "/open", "type": "tmpfs", "source": "tmpfs"}));
        mounts.push(json!({"destination": "/etc/hosts", "source": "config.json", "options": ["bind"]}));
    });
    let script =
        "stat -c %a /closed /open; wc -c </etc/hosts; grep -c ' /var/foo/baz/hosts ' /proc/self/mounts";
    let length = |bundle: &Bundle| std::fs::metadata(bundle.path().join("config.json")).unwrap().len();
    let out = said(&bundle, "mounts", &json!(["sh", "-c", script]));
    assert_eq!(out, format!("710\n1777\n{}\n1\n", length(&bundle)));
    assert!(rootfs.join("var/foo/baz/hosts").is_file());
}

#[test]
fn a_pidfd_goes_to_the_socket() {
    let Some(bundle) = bundle(&["sleep", "60"]) else { return };
    let path = bundle.path().join("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (id, socket) = (id("pidfd"), path.to_str().unwrap());
    bundle.succeeds(&["create", "--pidfd-socket", socket, &id]);
    let first = received(&listener);
    bundle.succeeds(&["start", &id]);
    bundle.succeeds(&["exec", "-d", "--pidfd-socket", socket, &id, "sleep", "50"]);
    let further = received(&listener);
    let kill = |pidfd| rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).unwrap();
    kill(&further);
    assert_eq!(bundle.status(&id), "running");
    kill(&first);
    bundle.wait_for(&id, "stopped");
    bundle.succeeds(&["delete", &id]);
}

fn received(listener: &UnixListener) -> OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (connection, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    recvmsg(&connection, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.unwrap()
}

#[test]
fn a_further_process_has_the_containers_personality_and_memory_policy() {
    let Some(bundle) = bundle(&["sleep", "60"]) else { return };
    let numa = std::path::Path::new("/proc/self/numa_maps").exists();
    bundle.change(|config| {
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
        if numa {
            config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"});
        }
    });
    let id = id("persona");
    bundle.succeeds(&["run", "-d", &id]);
    let machine = bundle.succeeds(&["exec", &id, "uname", "-m"]);
    assert!(matches!(machine.trim(), "i686" | "armv8l"), "{machine}");
    if numa {
        let policy = bundle.succeeds(&[
            "exec",
            &id,
            "sh",
            "-c",
            "head -n1 /proc/self/numa_maps; head -n1 /proc/1/numa_maps",
        ]);
        assert_eq!(policy.matches(" interleave:0 ").count(), 2, "{policy}");
    }
    bundle.succeeds(&["delete", "-f", &id]);
    bundle.change(|config| config["linux"]["memoryPolicy"] = json!({"mode": "SOME", "nodes": "0"}));
    bundle.fails(&["create", &id], 1, "invalid memory policy mode \"SOME\"");
    bundle.change(|config| {
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"});
    });
    bundle.fails(&["create", &id], 1, "invalid memory policy node");
    bundle.change(|config| config["linux"]["memoryPolicy"] = json!({}));
    bundle.succeeds(&["create", &id]);
    bundle.succeeds(&["delete", "-f", &id]);
}

/// Runs a script in a network namespace of its own, which is the host's for what it starts; `$O` is the runtime.
fn beside_the_network(bundle: &Bundle, script: &str) -> (bool, String) {
    let runtime = format!("{} oci --root {}", env!("CARGO_BIN_EXE_onggi"), bundle.state().display());
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-ec", &format!("exec 2>&1; {script}")]).env("O", runtime);
    let output = command.current_dir(bundle.path()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn interfaces_of_the_host_move_into_the_container() {
    if needs::programs(&["unshare", "ip"]).is_missing() {
        return;
    }
    let Some(bundle) = bundle(&["ip", "address", "show"]) else { return };
    let host = "ip link add test0 type veth peer name other; ip addr add 192.0.2.9/24 dev test0; \
                ip -6 addr add 2001:db8::9/64 dev test0 nodad; ip link set test0 up; ip link set other up";
    bundle.change(|config| config["linux"]["netDevices"] = json!({"test0": {"name": "inside0"}}));
    let (done, out) = beside_the_network(
        &bundle,
        &format!("{host}; $O run {}; ip link show test0 || echo gone", id("net")),
    );
    assert!(done, "{out}");
    for words in ["inside0", "192.0.2.9/24", "2001:db8::9/64", "MULTICAST,UP", "gone"] {
        assert!(out.contains(words), "{words}: {out}");
    }
    // One that has the name already, and a number that the kernel chooses.
    bundle.change(|config| config["linux"]["netDevices"] = json!({"test0": {"name": "lo"}}));
    let (done, out) = beside_the_network(&bundle, &format!("{host}; $O run {}", id("net")));
    assert!(!done && out.contains("network device test0 as lo"), "{out}");
    bundle.change(|config| config["linux"]["netDevices"] = json!({"test0": {"name": "net%d"}}));
    let (done, out) = beside_the_network(&bundle, &format!("{host}; $O run {}", id("net")));
    assert!(done && out.contains("net0") && out.contains("192.0.2.9/24"), "{out}");
    bundle.change(|config| config["linux"]["netDevices"] = json!({"nosuch": {}}));
    let (done, out) = beside_the_network(&bundle, &format!("{host}; $O run {}", id("net")));
    assert!(!done && out.contains("cannot find network device nosuch"), "{out}");
    bundle.change(|config| {
        let list = config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|one| one["type"] != "network");
    });
    bundle.fails(&["create", &id("net")], 1, "unable to move network devices without a NET namespace");
}

#[test]
fn a_container_joins_all_namespaces_of_another() {
    let Some(bundle) = bundle(&["sleep", "60"]) else { return };
    let (one, two) = (id("joined"), id("joins"));
    bundle.change(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    });
    bundle.succeeds(&["run", "-d", &one]);
    let state: Value = serde_json::from_str(&bundle.succeeds(&["state", &one])).unwrap();
    bundle.change(|config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap().to_owned();
            if kind != "mount" {
                let file = if kind == "network" { "net" } else { &kind };
                namespace["path"] = json!(format!("/proc/{}/ns/{file}", state["pid"]));
            }
        }
    });
    bundle.succeeds(&["run", "-d", &two]);
    assert!(bundle.succeeds(&["exec", &two, "ps"]).matches("sleep 60").count() == 2);
    bundle.succeeds(&["delete", "-f", &two]);
    bundle.succeeds(&["delete", "-f", &one]);
}

#[test]
fn events_come_as_often_as_is_asked_and_tell_of_a_lack_of_memory() {
    let Some(bundle) = bundle(&["sleep", "60"]) else { return };
    let id = id("events");
    bundle.change(|config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
    });
    bundle.succeeds(&["run", "-d", &id]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_onggi"));
    command.args(["oci", "--root"]).arg(bundle.state()).args(["events", "--interval", "100ms", &id]);
    let log = bundle.path().join("events");
    let mut events = command.stdout(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let has = |words: &str| {
        for _ in 0..100 {
            if std::fs::read_to_string(&log).unwrap().contains(words) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    };
    assert!(has("\"stats\""));
    bundle.oci(&["exec", &id, "sh", "-c", "head -c 100000000 /dev/zero | tail"]);
    assert!(
        has(&format!("{{\"type\":\"oom\",\"id\":\"{id}\"}}")),
        "{}",
        std::fs::read_to_string(&log).unwrap()
    );
    bundle.succeeds(&["delete", "-f", &id]);
    // Its end is theirs.
    assert!(events.wait().unwrap().success());
}

#[test]
fn signals_reach_a_container_that_waits_and_all_of_one_without_a_pid_namespace() {
    let Some(bundle) = bundle(&["sleep", "60"]) else { return };
    let waits = id("waits");
    bundle.succeeds(&["create", &waits]);
    bundle.succeeds(&["kill", &waits, "TERM"]);
    bundle.wait_for(&waits, "stopped");
    bundle.succeeds(&["delete", &waits]);
    // Nobody ends with its first process there.
    bundle.change(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("/{}", id("hostpid")));
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    });
    let shares = id("hostpid");
    bundle.succeeds(&["run", "-d", &shares]);
    bundle.succeeds(&["exec", "-d", &shares, "sleep", "61"]);
    let processes = |bundle: &Bundle| -> Vec<i32> {
        serde_json::from_str(&bundle.succeeds(&["ps", "--format", "json", &shares])).unwrap()
    };
    assert_eq!(processes(&bundle).len(), 2);
    bundle.succeeds(&["kill", &shares, "KILL"]);
    bundle.wait_for(&shares, "stopped");
    assert!(processes(&bundle).is_empty());
    bundle.fails(&["kill", &shares, "KILL"], 1, "container not running");
    bundle.succeeds(&["delete", &shares]);
}

#[test]
fn a_container_that_is_kept_keeps_its_control_group() {
    let Some(bundle) = bundle(&["true"]) else { return };
    let kept = id("kept");
    bundle.change(|config| config["linux"]["cgroupsPath"] = json!(format!("/{kept}")));
    bundle.succeeds(&["run", "--keep", &kept]);
    assert_eq!(bundle.status(&kept), "stopped");
    let groups = || {
        ["", "pids/", "unified/"]
            .iter()
            .any(|tree| std::path::Path::new(&format!("/sys/fs/cgroup/{tree}{kept}")).exists())
    };
    assert!(groups());
    bundle.succeeds(&["delete", &kept]);
    assert!(!groups());
}

#[test]
fn hooks_of_the_caller_reach_the_root_filesystem_where_it_was() {
    if needs::programs(&["nsenter", "jq"]).is_missing() {
        return;
    }
    let Some(bundle) = bundle(&["cat", "/bound"]) else { return };
    std::fs::write(bundle.path().join("source"), "of the hook\n").unwrap();
    std::fs::write(bundle.path().join("rootfs/bound"), "").unwrap();
    let (source, target) = (bundle.path().join("source"), bundle.path().join("rootfs/bound"));
    let script = format!("nsenter -m -t $(jq .pid) mount --bind {} {}", source.display(), target.display());
    bundle.change(|config| {
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]});
    });
    assert_eq!(bundle.succeeds(&["run", &id("hookroot")]), "of the hook\n");
}
