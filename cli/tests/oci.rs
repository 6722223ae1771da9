//! `onggi oci`, the OCI runtime interface, through the built binary: the life of a container
//! (runtime-spec, "Lifecycle"), refusals in the wrong state, hooks, and what stays behind: nothing.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

#[path = "support/bundle.rs"]
mod support;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use support::bundle;

#[test]
fn the_life_of_a_container() {
    let Some(bundle) = bundle(&["sleep", "60"]) else { return };
    let id = format!("onggi-test-{}", std::process::id());
    let id = id.as_str();
    bundle.succeeds(&["create", id]);
    assert_eq!(bundle.status(id), "created");
    bundle.fails(&["create", id], 1, "there already");
    bundle.succeeds(&["start", id]);
    assert_eq!(bundle.status(id), "running");
    bundle.fails(&["start", id], 1, "it is running");
    bundle.fails(&["delete", id], 1, "it is running");
    assert_eq!(bundle.succeeds(&["exec", id, "id", "-u"]).trim(), "0");
    assert_eq!(
        bundle.succeeds(&["exec", "-u", "7:8", "-e", "A=b", id, "sh", "-c", "id -u; echo $A"]),
        "7\nb\n"
    );
    bundle.fails(&["exec", id, "nosuch"], 255, "not found in PATH");
    assert_eq!(bundle.oci(&["exec", id, "sh", "-c", "exit 5"]).status.code(), Some(5));
    bundle.succeeds(&["pause", id]);
    assert_eq!(bundle.status(id), "paused");
    bundle.fails(&["exec", id, "true"], 255, "paused");
    bundle.succeeds(&["resume", id]);
    let listed: Value = serde_json::from_str(&bundle.succeeds(&["list", "--format", "json"])).unwrap();
    assert_eq!(listed[0]["id"], json!(id));
    let processes: Value = serde_json::from_str(&bundle.succeeds(&["ps", "--format", "json", id])).unwrap();
    assert_eq!(processes.as_array().unwrap().len(), 1);
    let table = bundle.succeeds(&["ps", id]);
    assert!(table.starts_with("UID") && table.contains("sleep 60") && table.lines().count() == 2, "{table}");
    bundle.succeeds(&["update", "--pids-limit", "20", id]);
    bundle.succeeds(&["kill", id, "KILL"]);
    for _ in 0..100 {
        if bundle.status(id) == "stopped" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    bundle.fails(&["kill", id], 1, "it is stopped");
    bundle.succeeds(&["delete", id]);
    bundle.fails(&["state", id], 1, "does not exist");
    assert_eq!(std::fs::read_dir(bundle.state()).unwrap().count(), 0);
    for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(!tree.unwrap().path().join("onggi").join(id).exists());
    }
}

#[test]
fn run_gives_the_status_and_leaves_nothing() {
    let Some(bundle) = bundle(&["sh", "-c", "echo hi; exit 3"]) else { return };
    let id = format!("onggi-run-{}", std::process::id());
    let output = bundle.oci(&["run", &id]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"hi\n".as_slice()));
    assert_eq!(std::fs::read_dir(bundle.state()).unwrap().count(), 0);
    // A terminal without anybody who types.
    bundle.change(|config| config["process"]["terminal"] = json!(true));
    // Its line ends are left to the caller's own terminal, if there is one.
    assert_eq!(bundle.oci(&["run", &id]).stdout, b"hi\n");
    bundle.change(|config| config["process"]["terminal"] = json!(false));
    bundle.change(|config| config["process"]["args"] = json!(["/nosuch"]));
    bundle.fails(&["create", &id], 1, "no such file or directory");
    assert_eq!(std::fs::read_dir(bundle.state()).unwrap().count(), 0);
    bundle.fails(&["run", "../x"], 1, "container id");
}

/// Gives a bundle's root filesystem to the IDs from this one on.
fn own_rootfs(bundle: &support::Bundle, id: u32) {
    let mut chown = std::process::Command::new("chown");
    chown.args(["-hR", &format!("{id}:{id}")]).arg(bundle.path().join("rootfs"));
    assert!(chown.status().unwrap().success());
}

/// As in a pod: the second container is in the first one's user namespace and shares more of its namespaces.
#[test]
fn a_container_is_made_inside_a_user_namespace_that_is_joined() {
    let Some(bundle) = bundle(&["sleep", "1000"]) else { return };
    let map = json!([{"containerID": 0, "hostID": 300_000, "size": 65_536}]);
    bundle.change(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "user");
        namespaces.push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        // The host's instance, which not every host has.
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/mqueue");
    });
    own_rootfs(&bundle, 300_000);
    let (first, second) =
        (format!("onggi-pod-a-{}", std::process::id()), format!("onggi-pod-b-{}", std::process::id()));
    bundle.succeeds(&["run", "-d", &first]);
    let state: Value = serde_json::from_str(&bundle.succeeds(&["state", &first])).unwrap();
    let link = |kind: &str| {
        std::fs::read_link(format!("/proc/{}/ns/{kind}", state["pid"])).unwrap().display().to_string()
    };
    let script = "for kind in user pid ipc net uts mnt cgroup time; do readlink /proc/self/ns/$kind; done; id -u; \
                  hostname other && hostname; ps -o args | grep -c '[s]leep 1000'; cat /proc/self/timens_offsets";
    bundle.change(|config| {
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", state["pid"]);
        config["linux"]["namespaces"] = json!([
            {"type": "network", "path": path("net")}, {"type": "user", "path": path("user")},
            {"type": "pid", "path": path("pid")}, {"type": "ipc", "path": path("ipc")},
            {"type": "mount"}, {"type": "uts"}, {"type": "cgroup"}, {"type": "time"},
        ]);
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1234}});
        config["linux"].as_object_mut().unwrap().remove("uidMappings");
        config["linux"].as_object_mut().unwrap().remove("gidMappings");
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["process"]["capabilities"]["effective"] = json!(["CAP_SYS_ADMIN"]);
        config["process"]["capabilities"]["permitted"] = json!(["CAP_SYS_ADMIN"]);
        config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
    });
    let said = bundle.succeeds(&["run", &second]);
    let lines: Vec<&str> = said.lines().collect();
    for (at, kind) in ["user", "pid", "ipc", "net"].into_iter().enumerate() {
        assert_eq!(lines[at], link(kind), "{said}");
    }
    for (at, kind) in ["uts", "mnt", "cgroup", "time"].into_iter().enumerate() {
        assert_ne!(lines[4 + at], link(kind), "{said}");
    }
    // Root of what is shared and of what is its own.
    assert_eq!(lines[8..11], ["0", "other", "1"], "{said}");
    assert!(said.contains("1234"), "{said}");
    bundle.change(|config| config["process"]["args"] = json!(["/nosuch"]));
    bundle.fails(&["run", &second], 127, "no such file");
    bundle.succeeds(&["delete", "-f", &first]);
    bundle.fails(&["run", &second], 1, "open the namespace");
    assert_eq!(std::fs::read_dir(bundle.state()).unwrap().count(), 0);
}

/// The namespace of the host's network, say, is joined before the new user namespace has taken the authority away.
#[test]
fn a_new_user_namespace_goes_with_namespaces_of_the_host_that_are_joined() {
    let Some(bundle) = bundle(&["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; id -u"])
    else {
        return;
    };
    let map = json!([{"containerID": 0, "hostID": 300_000, "size": 65_536}]);
    bundle.change(|config| {
        config["linux"]["namespaces"] = json!([
            {"type": "network", "path": "/proc/self/ns/net"}, {"type": "user"}, {"type": "mount"},
            {"type": "pid"}, {"type": "ipc", "path": "/proc/self/ns/ipc"}, {"type": "uts"},
        ]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        // The host's instance, which not every host has.
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/mqueue");
    });
    own_rootfs(&bundle, 300_000);
    let said = bundle.succeeds(&["run", &format!("onggi-joined-{}", std::process::id())]);
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    assert_eq!(said, format!("{}\n{}\n0\n", own("net"), own("ipc")));
}

#[test]
fn hooks_read_the_state_in_their_order() {
    let Some(bundle) = bundle(&["true"]) else { return };
    let log = bundle.path().join("hooks.log");
    let script = bundle.path().join("hook");
    // The caller's hooks see the host's files; that of startContainer sees the container's.
    std::fs::write(&script, format!("#!/bin/sh\necho \"$1 $(cat)\" >> {}\n", log.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let hook = |name: &str| json!([{"path": script, "args": ["hook", name], "env": ["PATH=/usr/bin:/bin"]}]);
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat > /started"]}]);
    bundle.change(|config| {
        config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "createContainer": hook("createContainer"), "startContainer": inside,
            "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
    });
    let id = format!("onggi-hooks-{}", std::process::id());
    bundle.succeeds(&["run", &id]);
    let lines = std::fs::read_to_string(&log).unwrap();
    let names: Vec<&str> = lines.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    for line in lines.lines() {
        let state: Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
        assert_eq!(state["id"], json!(id));
    }
    let started = std::fs::read_to_string(bundle.path().join("rootfs/started")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&started).unwrap()["status"], json!("created"));
    bundle.change(|config| config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}));
    bundle.fails(&["run", &id], 1, "error running createRuntime hook #0: /bin/false");
    let slow = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 1}]});
    bundle.change(|config| config["hooks"] = slow);
    bundle.fails(&["run", &id], 1, "time-out");
    assert_eq!(std::fs::read_dir(bundle.state()).unwrap().count(), 0);
}
