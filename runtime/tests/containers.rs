//! Real containers on the real kernel, through the example `run_bundle` (a
//! process with one thread, which a test of the harness is not). Need root and
//! busybox-static.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onggi_testkit::needs;

struct Rootfs(tempfile::TempDir);

/// A root filesystem of busybox; `None` (a skip) where that can't be.
fn rootfs() -> Option<Rootfs> {
    if needs::root().is_missing() || needs::programs(&["busybox"]).is_missing() {
        return None;
    }
    let busybox = needs::find_program("busybox").unwrap();
    let dir = tempfile::Builder::new().prefix("onggi-runtime-").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    std::fs::copy(busybox, dir.path().join("bin/busybox")).unwrap();
    for name in
        ["sh", "true", "cat", "id", "ls", "touch", "kill", "sleep", "stat", "tty", "grep", "mount", "pwd"]
    {
        symlink("busybox", dir.path().join("bin").join(name)).unwrap();
    }
    Some(Rootfs(dir))
}

impl Rootfs {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, text: &[u8], mode: u32) {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Output {
        Command::new(example())
            .args(options)
            .arg("--rootfs")
            .arg(self.path())
            .args(command)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }

    /// What a shell command prints; it must succeed.
    fn shell(&self, options: &[&str], script: &str) -> String {
        let output = self.run(options, &["sh", "-c", script]);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn example() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().join("examples/run_bundle")
}

fn fails(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "{words:?} not in {text}");
}

#[test]
fn exit_statuses_are_the_programs() {
    let Some(root) = rootfs() else { return };
    assert_eq!(root.run(&[], &["true"]).status.code(), Some(0));
    assert_eq!(root.run(&[], &["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(root.run(&["--init"], &["sh", "-c", "exit 9"]).status.code(), Some(9));
    assert_eq!(root.run(&["--init"], &["sh", "-c", "kill -TERM $$"]).status.code(), Some(143));
    // Nothing of the caller's command line shows.
    let title = root.shell(&["--init"], "cat /proc/1/cmdline");
    assert_eq!(title.trim_end_matches('\0'), "init");
}

#[test]
fn each_exec_problem_has_its_sentence() {
    let Some(root) = rootfs() else { return };
    root.file("nointerp", b"#!/bin/nosh\n", 0o755);
    root.file("crlf", b"#!/bin/sh\r\necho\r\n", 0o755);
    root.file("junk", b"junk", 0o755);
    root.file("plain", b"#!/bin/sh\n", 0o644);
    let mut arm = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    arm.extend(if cfg!(target_arch = "aarch64") { [62, 0] } else { [183, 0] });
    arm.resize(200, 0);
    root.file("foreign", &arm, 0o755);
    fails(&root.run(&[], &["nosuch"]), 127, "not found in PATH");
    fails(&root.run(&[], &["/nosuch"]), 127, "no such file");
    fails(&root.run(&[], &["/etc"]), 126, "directory");
    fails(&root.run(&[], &["/nointerp"]), 127, "interpreter /bin/nosh");
    fails(&root.run(&[], &["/crlf"]), 127, "CR LF");
    fails(&root.run(&[], &["/junk"]), 126, "not a program");
    fails(&root.run(&[], &["/plain"]), 126, "no execute permission");
    fails(&root.run(&[], &["/foreign"]), 126, "built for");
    let bind = format!("{}:/mnt:noexec", root.path().join("bin").display());
    fails(&root.run(&["--bind", &bind], &["/mnt/true"]), 126, "noexec");
}

#[test]
fn isolation_is_the_default() {
    let Some(root) = rootfs() else { return };
    let status = root.shell(&[], "cat /proc/self/status");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    assert!(status.contains("CapEff:\t00000000a80425fb"), "{status}");
    assert!(status.contains("CapInh:\t0000000000000000") && status.contains("CapAmb:\t0000000000000000"));
    assert!(root.shell(&[], "cat /proc/self/uid_map").contains("1000000      65536"));
    assert_eq!(root.shell(&[], "cat /proc/kcore /proc/keys | head -c 1 | wc -c || true").trim(), "0");
    assert_eq!(root.run(&[], &["touch", "/sys/x"]).status.code(), Some(1));
    assert_ne!(root.run(&[], &["sh", "-c", "echo 1 > /proc/sys/kernel/panic"]).status.code(), Some(0));
    assert_ne!(root.run(&[], &["mount", "-t", "tmpfs", "none", "/tmp"]).status.code(), Some(0));
    // The own host's processes are not there, nor are its descriptors.
    assert_eq!(
        root.shell(&[], "ls /proc/self/fd").split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
}

#[test]
fn the_working_directory_stays_inside() {
    let Some(root) = rootfs() else { return };
    for fd in 3..12 {
        let path = format!("/proc/self/fd/{fd}");
        let output = root.run(&["--cwd", &path], &["pwd"]);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
    }
    symlink("/proc/self/fd/3", root.path().join("trick")).unwrap();
    fails(&root.run(&["--cwd", "/trick"], &["pwd"]), 125, "working directory");
    let made = root.run(&["--cwd", "/srv/new"], &["pwd"]);
    assert_eq!(String::from_utf8_lossy(&made.stdout), "/srv/new\n");
}

#[test]
fn an_image_cannot_redirect_kernel_filesystems() {
    for name in ["proc", "sys", "dev"] {
        let Some(root) = rootfs() else { return };
        std::fs::remove_dir(root.path().join(name)).unwrap();
        symlink("/etc", root.path().join(name)).unwrap();
        fails(&root.run(&[], &["true"]), 125, "symbolic link");
    }
    // A link out of the root is one inside the root.
    let Some(root) = rootfs() else { return };
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    let bind = format!("{}:/out/made", root.path().join("etc").display());
    let _ = root.run(&["--bind", &bind], &["true"]);
    assert!(!outside.path().join("made").exists());
}

#[test]
fn bind_mounts_are_id_mapped_on_request() {
    let Some(root) = rootfs() else { return };
    let outside = tempfile::tempdir().unwrap();
    let bind = format!("{}:/mnt:idmap", outside.path().display());
    assert_eq!(root.shell(&["--bind", &bind], "touch /mnt/new; stat -c %u /mnt/new").trim(), "0");
    let made = std::fs::metadata(outside.path().join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 0);
    let read_only = format!("{}:/mnt:ro", outside.path().display());
    assert_eq!(root.run(&["--bind", &read_only], &["touch", "/mnt/x"]).status.code(), Some(1));
    fails(&root.run(&["--bind", "/nosuch:/mnt"], &["true"]), 125, "/nosuch");
    let unknown = format!("{}:/mnt:size=1m", outside.path().display());
    fails(&root.run(&["--bind", &unknown], &["true"]), 125, "size=1m");
}

#[test]
fn a_terminal_is_the_containers_own() {
    let Some(root) = rootfs() else { return };
    let output = root.shell(&["--tty"], "tty; stat -c %t:%T /dev/console");
    assert!(output.contains("/dev/pts/0") && output.contains("88:0"), "{output}");
}

#[test]
fn limits_hold_and_leave_nothing() {
    let Some(root) = rootfs() else { return };
    let name = format!("onggi-test-{}/limits", std::process::id());
    let limits = r#"{"pids":{"limit":4}}"#;
    let output = root.run(
        &["--cgroup", &name, "--resources", limits],
        &["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 1 & done"],
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't fork"), "{output:?}");
    for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(!tree.unwrap().path().join(&name).exists());
    }
    let unknown = r#"{"hugepageLimits":[{"pageSize":"3KB","limit":1}]}"#;
    fails(&root.run(&["--cgroup", &name, "--resources", unknown], &["true"]), 125, "hugetlb");
}

#[test]
fn the_hosts_user_namespace_is_shielded() {
    let Some(root) = rootfs() else { return };
    // What CVE-2019-5736 does: make the runtime execute itself in the container,
    // then write to that file.
    root.file("evil", b"#!/proc/self/exe\n", 0o755);
    let before = std::fs::read(example()).unwrap();
    let _ = root.run(&["--host-ids"], &["/evil"]);
    let script = "echo x > /proc/self/exe; exit 0";
    let _ = root.run(&["--host-ids"], &["sh", "-c", script]);
    assert!(before == std::fs::read(example()).unwrap());
    let init = root.run(&["--host-ids", "--init"], &["sh", "-c", "echo x > /proc/1/exe"]);
    assert_ne!(init.status.code(), Some(0), "{init:?}");
}
