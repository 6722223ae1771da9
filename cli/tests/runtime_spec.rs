//! Fields of the runtime specification, each seen from inside the container; docs/runtime-spec.md names
//! the test of each section.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

#[path = "support/bundle.rs"]
mod support;

use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onggi_testkit::needs;
use serde_json::{Value, json};
use support::{Bundle, bundle};

fn id(name: &str) -> String {
    format!("onggi-spec-{name}-{}", std::process::id())
}

/// What a script prints in the container.
#[track_caller]
fn says(bundle: &Bundle, name: &str, script: &str) -> String {
    bundle.change(|config| config["process"]["args"] = json!(["sh", "-c", script]));
    bundle.succeeds(&["run", &id(name)]).trim().to_owned()
}

fn wait_for(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "it takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A program in Python that listens on a socket in the bundle; it is waited for at the end.
struct Listener(Child);

impl Listener {
    /// `None`: a counted skip.
    fn start(bundle: &Bundle, socket: &str, kind: &str, script: &str) -> Option<Self> {
        if needs::programs(&["python3"]).is_missing() {
            return None;
        }
        let path = bundle.path().join(socket);
        let script = format!(
            "import socket, sys, json, os, fcntl, struct\n\
             listener = socket.socket(socket.AF_UNIX, socket.{kind})\n\
             listener.bind('{}')\n{script}",
            path.display()
        );
        let child = Command::new("python3").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        wait_for(|| path.exists());
        // It listens a moment after the file is there.
        std::thread::sleep(Duration::from_millis(100));
        Some(Self(child))
    }

    fn says(mut self) -> String {
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(self.0.wait().unwrap().success());
        text.trim().to_owned()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_empty_directory_in_memory_can_begin_as_the_images() {
    let Some(bundle) = bundle(&[]) else { return };
    let data = bundle.path().join("rootfs/data");
    std::fs::create_dir_all(data.join("deep")).unwrap();
    std::fs::write(data.join("deep/file"), "image").unwrap();
    symlink("deep/file", data.join("link")).unwrap();
    bundle.change(|config| {
        let mount =
            json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    let said = says(&bundle, "copyup", "cat /data/link; stat -f -c %T /data; echo changed > /data/deep/file");
    assert_eq!(said, "imagetmpfs");
    assert_eq!(std::fs::read_to_string(data.join("deep/file")).unwrap(), "image");
}

#[test]
fn attributes_reach_the_mounts_below() {
    let Some(bundle) = bundle(&["sh", "-c", "touch /data/x; touch /data/below/x; cat /data/below/y"]) else {
        return;
    };
    let data = bundle.path().join("data");
    std::fs::create_dir_all(data.join("below")).unwrap();
    let mount = json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "rro"]});
    bundle.change(|config| config["mounts"].as_array_mut().unwrap().push(mount));
    let script = format!(
        "mount -t tmpfs tmpfs {below} && echo lower > {below}/y && exec {onggi} oci --root {state} run -b {bundle} {id}",
        below = data.join("below").display(),
        onggi = env!("CARGO_BIN_EXE_onggi"),
        state = bundle.state().display(),
        bundle = bundle.path().display(),
        id = id("rro"),
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "lower");
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches("Read-only").count(), 2, "{output:?}");
}

#[test]
fn clocks_begin_where_they_are_said_to() {
    let Some(bundle) = bundle(&[]) else { return };
    bundle.change(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 500_000_000}, "monotonic": {"secs": 7}});
    });
    let uptime = says(&bundle, "time", "cut -d. -f1 /proc/uptime");
    assert!(uptime.parse::<u64>().unwrap() > 500_000_000, "{uptime}");
    bundle.change(|config| config["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}}));
    bundle.fails(&["run", &id("time")], 1, "linux.timeOffsets");
}

#[test]
fn scheduling_and_personality_are_the_programs() {
    let Some(bundle) = bundle(&[]) else { return };
    bundle.change(|config| {
        config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
    });
    // Policy and nice value are fields 41 and 19.
    let script = "cut -d' ' -f19,41 /proc/self/stat; ionice -p $$; uname -m";
    assert_eq!(says(&bundle, "sched", script), "5 3\nbest-effort: prio 6\ni686");
    bundle.change(|config| config["process"]["ioPriority"]["priority"] = json!(9));
    bundle.fails(&["run", &id("sched")], 1, "process.ioPriority");
}

#[test]
fn sysctls_are_the_containers_own() {
    let Some(bundle) = bundle(&[]) else { return };
    bundle.change(|config| {
        config["linux"]["sysctl"] =
            json!({"kernel.msgmax": "9001", "net.ipv4.ip_local_port_range": "2000 2001"});
    });
    let before = std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let said = says(&bundle, "sysctl", "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_local_port_range");
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["9001", "2000", "2001"]);
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before);
    bundle.change(|config| config["linux"]["sysctl"] = json!({"kernel.core_pattern": "|/bin/sh"}));
    bundle.fails(&["run", &id("sysctl")], 1, "kernel.core_pattern");
}

/// The attack of CVE-2025-52881: a mount makes the write of a sysctl land in a file of the attacker's choice.
#[test]
fn a_sysctl_cannot_be_sent_elsewhere() {
    let Some(bundle) = bundle(&["true"]) else { return };
    let trap = bundle.path().join("trap");
    std::fs::create_dir(&trap).unwrap();
    std::fs::write(bundle.path().join("target"), "untouched").unwrap();
    let unchanged = || {
        for file in [trap.join("msgmax"), bundle.path().join("target")] {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            assert_eq!(text, "untouched", "{}", file.display());
        }
    };
    bundle.change(|config| {
        config["linux"]["sysctl"] = json!({"kernel.msgmax": "9001"});
        let over =
            json!({"destination": "/proc/sys/kernel", "type": "bind", "source": trap, "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(over);
    });
    // A file, a link to a file of the host, a link to another kernel file.
    std::fs::write(trap.join("msgmax"), "untouched").unwrap();
    bundle.fails(&["run", &id("52881")], 1, "set the sysctl");
    unchanged();
    for target in [bundle.path().join("target"), "/proc/sysrq-trigger".into()] {
        std::fs::remove_file(trap.join("msgmax")).unwrap();
        symlink(target, trap.join("msgmax")).unwrap();
        bundle.fails(&["run", &id("52881")], 1, "set the sysctl");
        unchanged();
    }
    // A tree of the image in the place of the kernel's.
    let fake = bundle.path().join("rootfs/proc/sys/kernel");
    std::fs::create_dir_all(&fake).unwrap();
    symlink(bundle.path().join("target"), fake.join("msgmax")).unwrap();
    bundle.change(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/proc"));
    });
    bundle.fails(&["run", &id("52881")], 1, "set the sysctl");
    unchanged();
}

/// The attack of CVE-2024-23652: what a container puts in the place of a mount point is followed when that is
/// cleared away.
#[test]
fn mount_points_that_became_links_are_not_followed() {
    let Some(bundle) = bundle(&[]) else { return };
    let host = bundle.path().join("host");
    let source = bundle.path().join("source");
    std::fs::create_dir_all(host.join("deep")).unwrap();
    std::fs::create_dir(&source).unwrap();
    for file in [host.join("deep/file"), source.join("file")] {
        std::fs::write(file, "kept").unwrap();
    }
    bundle.change(|config| {
        let mount = json!({"destination": "/a/b/c", "type": "bind", "source": source, "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    // The container moves the directories above its mount away and puts links to the host there.
    let script = format!(
        "cat /a/b/c/file; mv /a /moved; ln -s {} /a; ln -s {} /b; echo",
        host.display(),
        host.display()
    );
    assert_eq!(says(&bundle, "23652", &script), "kept");
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "kept");
    // The link stands where the next container's mount point is to be.
    std::fs::create_dir_all(host.join("b")).unwrap();
    let _ = bundle.oci(&["run", &id("23652")]);
    assert_eq!(std::fs::read_to_string(host.join("deep/file")).unwrap(), "kept");
    assert!(!host.join("b/c").exists(), "a mount point was made outside of the root");
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "kept");
}

#[test]
fn notifications_of_system_calls_go_to_the_listener() {
    let Some(bundle) = bundle(&[]) else { return };
    // Answers the first question by "another device" (EXDEV, 18).
    let agent = "listener.listen(1)\n\
        connection, _ = listener.accept()\n\
        text, fds, _, _ = socket.recv_fds(connection, 65536, 4)\n\
        state = json.loads(text)\n\
        print(state['fds'], state['metadata'], state['state']['status'], len(fds))\n\
        question = bytearray(80)\n\
        fcntl.ioctl(fds[0], 0xc0502100, question)\n\
        (number,) = struct.unpack_from('Q', question)\n\
        fcntl.ioctl(fds[0], 0xc0182101, bytearray(struct.pack('QqiI', number, 0, -18, 0)))\n";
    let Some(listener) = Listener::start(&bundle, "agent.sock", "SOCK_STREAM", agent) else { return };
    bundle.change(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": bundle.path().join("agent.sock"),
            "listenerMetadata": "hello", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        });
    });
    assert!(says(&bundle, "notify", "mkdir /new 2>&1 || true").contains("ross-device"));
    assert_eq!(listener.says(), "['seccompFd'] hello creating 1");
    // A further process has its own.
    let id = id("notify-exec");
    std::fs::remove_file(bundle.path().join("agent.sock")).unwrap();
    let twice = format!("{agent}listener.setblocking(True)\n{}", agent.replace("listener.listen(1)\n", ""));
    let Some(listener) = Listener::start(&bundle, "agent.sock", "SOCK_STREAM", &twice) else { return };
    bundle
        .change(|config| config["process"]["args"] = json!(["sh", "-c", "mkdir /new 2>/dev/null; sleep 60"]));
    bundle.succeeds(&["run", "-d", &id]);
    let refused = bundle.oci(&["exec", &id, "mkdir", "/new"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ross-device"), "{refused:?}");
    bundle.succeeds(&["delete", "-f", &id]);
    assert_eq!(listener.says(), "['seccompFd'] hello creating 1\n['seccompFd'] hello running 1");
    bundle.change(|config| {
        config["linux"]["seccomp"].as_object_mut().unwrap().remove("listenerPath");
    });
    bundle.fails(&["run", &id], 1, "linux.seccomp.listenerPath");
}

/// A filter may forbid whatever the runtime itself needs up to the exec.
#[test]
fn a_filter_binds_the_program_and_not_the_runtime() {
    let Some(bundle) = bundle(&[]) else { return };
    for no_new_privileges in [true, false] {
        bundle.change(|config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"action": "SCMP_ACT_ERRNO", "names": [
                    "close_range", "chdir", "fchdir", "getcwd", "setsid", "umask", "poll", "setresuid", "setgroups",
                    "prlimit64", "accept4", "recvmsg", "pivot_root", "open_tree", "move_mount", "mount_setattr",
                ]}],
            });
        });
        assert_eq!(says(&bundle, "filter", "cd /bin 2>&1 | grep -c permitted"), "1");
    }
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let Some(bundle) = bundle(&["sh", "-c", "stty size; test -t 1 && echo terminal"]) else { return };
    let receive = "listener.listen(1)\n\
        connection, _ = listener.accept()\n\
        name, fds, _, _ = socket.recv_fds(connection, 4096, 4)\n\
        text = b''\n\
        while True:\n\
        \x20   try: part = os.read(fds[0], 4096)\n\
        \x20   except OSError: break\n\
        \x20   if not part: break\n\
        \x20   text += part\n\
        print(name.decode(), text.decode().split())\n";
    let Some(listener) = Listener::start(&bundle, "console.sock", "SOCK_STREAM", receive) else { return };
    bundle.change(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    });
    let socket = bundle.path().join("console.sock");
    bundle.fails(&["create", &id("console")], 1, "--console-socket");
    bundle.succeeds(&["run", "-d", "--console-socket", socket.to_str().unwrap(), &id("console")]);
    assert_eq!(listener.says(), "/dev/ptmx ['33', '77', 'terminal']");
    bundle.succeeds(&["delete", "--force", &id("console")]);
}

#[test]
fn the_service_managers_socket_is_handed_on() {
    let Some(bundle) = bundle(&["sh", "-c", "test -S $NOTIFY_SOCKET && echo $NOTIFY_SOCKET"]) else { return };
    let Some(_listener) = Listener::start(&bundle, "notify.sock", "SOCK_DGRAM", "listener.recv(100)\n")
    else {
        return;
    };
    let socket = bundle.path().join("notify.sock");
    let output = bundle.oci_with(&["run", &id("sd")], &[("NOTIFY_SOCKET", socket.to_str().unwrap())]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "/run/notify/notify.sock", "{output:?}");
    let output = bundle.oci_with(&["run", &id("sd")], &[("NOTIFY_SOCKET", "@abstract")]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("NOTIFY_SOCKET"), "{output:?}");
}

#[test]
fn a_further_process_can_have_its_own_cpus_and_group() {
    let Some(bundle) = bundle(&["sleep", "60"]) else { return };
    bundle.change(|config| config["linux"]["resources"] = json!({"pids": {"limit": 50}}));
    let id = id("exec");
    bundle.succeeds(&["run", "-d", &id]);
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(bundle.path().join("config.json")).unwrap()).unwrap();
    let process = &mut config["process"];
    process["args"] = json!(["grep", "Cpus_allowed_list", "/proc/self/status"]);
    process["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    let file = bundle.path().join("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    let said = bundle.succeeds(&["exec", "-p", file.to_str().unwrap(), &id]);
    assert_eq!(said.split_whitespace().last(), Some("0"));
    let groups: Vec<_> = std::fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .flatten()
        .map(|tree| tree.path())
        .chain([Path::new("/sys/fs/cgroup").to_owned()])
        .map(|tree| tree.join("onggi").join(&id))
        .filter(|group| group.is_dir())
        .collect();
    assert!(!groups.is_empty());
    for group in &groups {
        std::fs::create_dir(group.join("below")).unwrap();
    }
    let said = bundle.succeeds(&["exec", "--cgroup", "below", &id, "cat", "/proc/self/cgroup"]);
    assert_eq!(said.lines().filter(|line| line.ends_with("/below")).count(), groups.len(), "{said}");
    bundle.fails(&["exec", "--cgroup", "nosuch", &id, "true"], 255, "nosuch");
    bundle.fails(&["exec", "--cgroup", "../other", &id, "true"], 255, "bad sub cgroup path");
    bundle.succeeds(&["delete", "--force", &id]);
    assert!(groups.iter().all(|group| !group.exists()));
}

#[test]
fn a_created_container_tells_nothing_of_its_caller() {
    let Some(bundle) = bundle(&["true"]) else { return };
    bundle.succeeds(&["create", &id("title")]);
    let state: Value = serde_json::from_str(&bundle.succeeds(&["state", &id("title")])).unwrap();
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", state["pid"])).unwrap();
    assert_eq!(line.trim_end_matches('\0'), "onggi-init");
    bundle.succeeds(&["delete", &id("title")]);
}

#[test]
fn the_old_root_can_be_covered_instead_of_left() {
    let Some(bundle) = bundle(&["sh", "-c", "ls /; cd ..; ls | wc -l"]) else { return };
    let usual = bundle.succeeds(&["run", &id("pivot")]);
    assert_eq!(bundle.succeeds(&["run", "--no-pivot", &id("pivot")]), usual);
    assert!(!usual.contains("home") && !usual.contains("boot"));
    // Not even out of a second root.
    let escape = "mkdir -p /x && chroot /x /bin/true 2>/dev/null; cd /; i=0; while [ $i -lt 20 ]; do cd ..; i=$((i+1)); done; ls";
    bundle.change(|config| config["process"]["args"] = json!(["sh", "-c", escape]));
    assert!(!bundle.succeeds(&["run", "--no-pivot", &id("pivot")]).contains("boot"));
}

#[test]
fn what_this_host_or_program_cannot_do_is_refused_by_name() {
    let Some(bundle) = bundle(&["true"]) else { return };
    let original = std::fs::read(bundle.path().join("config.json")).unwrap();
    let refuses = |words: &str, change: &dyn Fn(&mut Value)| {
        std::fs::write(bundle.path().join("config.json"), &original).unwrap();
        bundle.change(change);
        bundle.fails(&["run", &id("refused")], 1, words);
        for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
            let left = tree.unwrap().path().join("onggi").join(id("refused"));
            assert!(!left.exists(), "{}", left.display());
        }
    };
    refuses("linux.intelRdt", &|config| config["linux"]["intelRdt"] = json!({"closID": "x"}));
    refuses("linux.mountLabel", &|config| config["linux"]["mountLabel"] = json!("x"));
    if !Path::new("/sys/module/apparmor").exists() {
        refuses("AppArmor", &|config| config["process"]["apparmorProfile"] = json!("x"));
    }
    if !Path::new("/sys/fs/selinux").exists() {
        refuses("SELinux", &|config| config["process"]["selinuxLabel"] = json!("x"));
    }
    if !std::fs::read_to_string("/proc/cgroups").unwrap().contains("rdma") {
        refuses("rdma", &|config| {
            config["linux"]["resources"] = json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}});
        });
    }
    refuses("mount", &|config| config["linux"]["namespaces"] = json!([]));
}
