//! Images that attack the host when they are run: what they say of themselves (`USER`, `WORKDIR`, `VOLUME`), what they
//! put in the place of files that the runtime opens or mounts over, and what a program in them tries.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use onggi_testkit::{ImageMaker, needs};
use serde_json::Value;
use support::hostile::{Archive, Outside};
use support::{Done, Onggi};
use tar::EntryType;

/// A store, what lies outside of it, and the layer with busybox.
struct Host {
    onggi: Onggi,
    outside: Outside,
    busybox: Vec<u8>,
}

impl Host {
    /// `None` (and a counted skip) without root or busybox-static.
    fn new() -> Option<Self> {
        if needs::root().is_missing() || needs::programs(&["busybox"]).is_missing() {
            return None;
        }
        let busybox = fs::read(needs::find_program("busybox")?).expect("busybox");
        let onggi = Onggi::new();
        let outside = Outside::new(onggi.folder());
        let mut layer = Archive::new().directory("bin").file("bin/busybox", &busybox);
        for applet in ["sh", "cat", "ls", "echo", "id", "grep", "mount", "pwd", "readlink", "sleep"] {
            layer = layer.symlink(&format!("bin/{applet}"), "busybox");
        }
        Some(Self { onggi, outside, busybox: layer.finish() })
    }

    /// Loads busybox with this layer on top and these fields in its config, as `evil:1`.
    fn load(&self, layer: Archive, settings: &[(&str, Value)]) {
        let mut maker = ImageMaker::new().tar(self.busybox.clone()).tar(layer.finish());
        for (field, value) in settings {
            maker = maker.set(field, value.clone());
        }
        self.onggi.load(&maker.build(), "evil:1");
    }

    /// Runs `evil:1`.
    fn run(&self, words: &[&str]) -> Done {
        self.onggi.output(["run", "--rm", "--network", "none"].iter().chain(words))
    }

    #[track_caller]
    fn assert_whole(&self, what: &str) {
        self.outside.assert_untouched(what);
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(self.outside.path().to_str().expect("a path of ours")), "{what}: {mounts}");
    }

    /// Neither the output nor the errors show what only the host may see.
    #[track_caller]
    fn assert_nothing_leaked(&self, what: &str, done: &Done) {
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(!said.contains("only the host may see this"), "{what}: {said}");
        self.assert_whole(what);
    }
}

/// CVE-2024-40635.
#[test]
fn a_user_that_overflows_is_an_error() {
    let Some(host) = Host::new() else { return };
    for user in
        ["4294967296", "4294967295", "18446744073709551616", "0:4294967296", "99999999999999999999999"]
    {
        host.load(Archive::new(), &[("User", user.into())]);
        for done in [host.run(&["evil:1", "id"]), host.run(&["-u", user, "evil:1", "id"])] {
            assert_eq!(done.code, Some(125), "{user}: {}{}", done.stdout, done.stderr);
            done.assert_failed_in_words();
            assert!(done.stderr.contains("is out of range (0 to 4294967294)"), "{user}: {}", done.stderr);
            assert!(!done.stdout.contains("uid=0"), "{user}");
        }
    }
    // A minus, a sign, a hexadecimal: names that nobody has.
    for user in ["-1", "+0", "0x0"] {
        host.load(Archive::new(), &[("User", user.into())]);
        let done = host.run(&["evil:1", "id"]);
        assert_eq!(done.code, Some(125), "{user}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains(&format!("unable to find user {user}")), "{}", done.stderr);
    }
}

/// CVE-2024-9676, CVE-2022-1227: what the runtime reads of the image.
#[test]
fn a_passwd_that_is_no_file_of_the_image() {
    let Some(host) = Host::new() else { return };
    let passwd = || Archive::new().directory("etc");
    let outside = host.outside.name("passwd");
    let climb = format!("{}{}", "../".repeat(16), outside.trim_start_matches('/'));
    let line = b"far:x:7:7::/:/bin/sh\n".repeat(300_000);
    let cases: [(&str, Archive, &str, &str); 7] = [
        (
            "an absolute link out",
            passwd().symlink("etc/passwd", &outside),
            "outsider",
            "unable to find user outsider",
        ),
        ("a link out", passwd().symlink("etc/passwd", &climb), "outsider", "unable to find user outsider"),
        (
            "a directory that is a link out",
            Archive::new().symlink("etc", host.outside.path().to_str().expect("a path of ours")),
            "outsider",
            "unable to find user outsider",
        ),
        (
            "a pipe",
            passwd().entry("etc/passwd", b"", |header| header.set_entry_type(EntryType::Fifo)),
            "root",
            "/etc/passwd of the image is no regular file",
        ),
        (
            "a device without end",
            passwd().device("etc/passwd", EntryType::Char, 1, 5),
            "root",
            "/etc/passwd of the image is no regular file",
        ),
        (
            "a link to a process",
            passwd().symlink("etc/passwd", "/proc/self/environ"),
            "root",
            "unable to find user",
        ),
        ("6 MB", passwd().file("etc/passwd", &line), "root", "larger than the limit of 4194304 bytes"),
    ];
    for (name, layer, user, words) in cases {
        host.load(layer, &[]);
        let done = host.run(&["-u", user, "evil:1", "id"]);
        assert_eq!(done.code, Some(125), "{name}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains(words), "{name}: {}", done.stderr);
        host.assert_whole(name);
    }
}

/// CVE-2024-21626: a working directory that is a descriptor of ours, by name or by a link of the image.
#[test]
fn a_working_directory_is_never_one_of_the_host() {
    let Some(host) = Host::new() else { return };
    let secret = host.outside.name("secret");
    let climb = format!("{}{}", "../".repeat(16), secret.trim_start_matches('/'));
    let script = format!("cat {climb}; cat {secret}; ls -l /proc/self/fd; true");
    for number in 0..12 {
        let dir = format!("/proc/self/fd/{number}");
        host.load(Archive::new().symlink("work", &dir), &[("WorkingDir", dir.clone().into())]);
        let words = ["evil:1", "sh", "-c", &script];
        let done = host.run(&words);
        host.assert_nothing_leaked(&dir, &done);
        let done = host.run(&[&["-w", "/work"][..], &words].concat());
        host.assert_nothing_leaked(&dir, &done);
    }
    // And no descriptor is left open in the program (the one above 2 is of `ls` itself).
    host.load(Archive::new(), &[]);
    let done = host.run(&["evil:1", "ls", "/proc/self/fd"]);
    assert_eq!(done.ok().split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

/// CVE-2025-31133 and its kin: links of the image where the runtime mounts.
#[test]
fn what_is_mounted_does_not_follow_links_of_the_image() {
    let Some(host) = Host::new() else { return };
    let outside = host.outside.path().to_str().expect("a path of ours").to_owned();
    let victim = host.outside.name("victim");
    let climb = format!("{}{}", "../".repeat(16), outside.trim_start_matches('/'));
    let mut cases: Vec<(String, Archive)> = Vec::new();
    for target in [outside.as_str(), climb.as_str(), "/bin", "/proc/self/root"] {
        for place in ["dev", "proc", "sys"] {
            cases.push((format!("/{place} is a link to {target}"), Archive::new().symlink(place, target)));
        }
        for place in ["dev/pts", "dev/shm", "dev/mqueue"] {
            let layer = Archive::new().directory("dev").symlink(place, target);
            cases.push((format!("/{place} is a link to {target}"), layer));
        }
    }
    for place in ["dev/null", "dev/ptmx", "dev/console", "etc/hosts", "etc/resolv.conf", "etc/hostname"] {
        let layer = Archive::new().directory("dev").directory("etc").symlink(place, &victim);
        cases.push((format!("/{place} is a link to a file outside"), layer));
    }
    let script = "echo x >/dev/null; cat /etc/hosts /etc/resolv.conf /etc/hostname; ls /dev /proc/1; \
                  echo evil >/dev/shm/new; echo evil >/etc/hosts; echo ran";
    let mut ran = 0;
    for (name, layer) in cases {
        host.load(layer, &[]);
        let done = host.run(&["evil:1", "sh", "-c", script]);
        // Either it is refused, in words, or it runs and all that it did stayed inside.
        if done.code == Some(0) {
            assert!(done.stdout.contains("ran"), "{name}");
            ran += 1;
        } else {
            done.assert_failed_in_words();
            assert!(done.stderr.contains("onggi: "), "{name}: {}", done.stderr);
        }
        host.assert_nothing_leaked(&name, &done);
    }
    assert!(ran > 0, "none of them ran: something else is wrong");
    // A volume of the caller's onto a link of the image.
    host.load(Archive::new().symlink("data", &outside), &[]);
    let shared = host.onggi.folder().join("shared");
    fs::create_dir(&shared).expect("a folder");
    let volume = format!("{}:/data", shared.display());
    let done = host.run(&["-v", &volume, "evil:1", "sh", "-c", "ls /data; echo ran"]);
    host.assert_nothing_leaked("a volume", &done);
    host.onggi.assert_store_is_clean();
}

/// CVE-2019-5736: the container runs our own file and writes to it. CVE-2022-27649, CVE-2020-15257: what else a program
/// finds in its place.
#[test]
fn a_program_cannot_write_ours_and_has_no_more_than_it_should() {
    let Some(host) = Host::new() else { return };
    // A copy of ours, which may be lost.
    let program: PathBuf = host.onggi.folder().join("onggi");
    fs::copy(env!("CARGO_BIN_EXE_onggi"), &program).expect("a copy");
    let before = state(&program);
    host.load(Archive::new().symlink("self", "/proc/self/exe"), &[]);
    let attack = "for i in 1 2 3; do for p in /proc/[0-9]*; do (echo pwned >$p/exe) 2>/dev/null; \
                  (echo pwned >/proc/self/exe) 2>/dev/null; done; done; readlink /proc/1/exe; true";
    for mode in ["private", "host"] {
        let with = |words: &[&str]| {
            let mut command = Command::new(&program);
            let template = host.onggi.command([""; 0]);
            command.env_clear().envs(template.get_envs().filter_map(|(key, value)| Some((key, value?))));
            command.args(["run", "--rm", "--network", "none", "--userns", mode]).args(words);
            Done::of(command.stdin(std::process::Stdio::null()))
        };
        // Our own file as the program of the container, by the name that the kernel gives it.
        for entry in ["/proc/self/exe", "/self"] {
            let done = with(&["--entrypoint", entry, "evil:1", "sh", "-c", attack]);
            assert!(!done.stdout.contains("ran"), "{mode}: {}", done.stdout);
            assert_eq!(state(&program), before, "{mode}: onggi was overwritten by {entry}");
        }
        with(&["evil:1", "sh", "-c", attack]).ok();
        assert_eq!(state(&program), before, "{mode}: onggi was overwritten");
        let status = with(&["evil:1", "cat", "/proc/self/status", "/proc/net/unix"]).ok();
        for none in ["CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(none), "{mode}: {none:?} is not in {status}");
        }
        assert!(!status.contains(" @"), "{mode}: abstract sockets: {status}");
    }
}

fn state(path: &Path) -> (u64, std::time::SystemTime, Vec<u8>) {
    let meta = fs::metadata(path).expect("the program");
    (meta.len(), meta.modified().expect("a time"), fs::read(path).expect("the program"))
}

/// CVE-2022-23648: what an image says of volumes and labels is nothing to the host.
#[test]
fn volumes_and_labels_of_an_image_do_not_steer_the_host() {
    let Some(host) = Host::new() else { return };
    let climb =
        format!("{}{}", "../".repeat(16), host.outside.path().display().to_string().trim_start_matches('/'));
    let volumes = serde_json::json!({ &climb: {}, "/": {}, "/proc": {}, host.outside.name("secret"): {} });
    let labels = serde_json::json!({ "io.onggi.mount": "/:/host", "\u{1b}[2J": "\u{1b}]0;x\u{7}" });
    let env = serde_json::json!(["LD_PRELOAD=/evil.so", "ONGGI_ROOT=/", "HOME=/../..", "=x", "novalue"]);
    host.load(Archive::new(), &[("Volumes", volumes), ("Labels", labels), ("Env", env)]);
    let script = format!("cat {climb}/secret /secret; ls /host; true");
    let done = host.run(&["evil:1", "sh", "-c", &script]);
    host.assert_nothing_leaked("volumes", &done);
    host.onggi.assert_store_is_clean();
}
