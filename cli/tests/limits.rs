//! What a container may use and do: limits and permissions, each seen from inside and, where that says
//! more, from outside; and that nothing of it is left afterwards.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use onggi_testkit::needs;
use support::user::User;
use support::{Done, Onggi, busybox_archive};

const IMAGE: &str = "busybox:test";

/// A store with busybox, and root's authority; `None` is a counted skip.
fn setup() -> Option<Onggi> {
    Onggi::with_busybox(IMAGE)
}

/// `run --rm FLAGS IMAGE sh -c SCRIPT`.
fn run(onggi: &Onggi, flags: &[&str], script: &str) -> Done {
    onggi.output([&["run", "--rm"], flags, &[IMAGE, "sh", "-c", script]].concat())
}

/// What the script prints; it must succeed.
#[track_caller]
fn says(onggi: &Onggi, flags: &[&str], script: &str) -> String {
    run(onggi, flags, script).ok()
}

/// Flags that must be refused before anything runs, with these words.
#[track_caller]
fn refuses(onggi: &Onggi, flags: &[&str], words: &str) {
    let done = run(onggi, flags, "echo ran");
    done.assert_failed_in_words();
    assert_eq!((done.code, done.stdout.as_str()), (Some(125), ""), "{flags:?}: {}", done.stderr);
    assert!(done.stderr.contains(words), "{flags:?}: {words:?} is not in {}", done.stderr);
}

/// Directories of control groups whose path has this in it.
fn groups_of(id: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, id: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if path.to_string_lossy().contains(id) {
                    found.push(path.clone());
                }
                walk(&path, id, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), id, &mut found);
    found
}

/// No container's files, locks or mounts are left in the store.
#[track_caller]
fn assert_nothing_left(onggi: &Onggi) {
    for dir in [onggi.root().join("containers"), onggi.runroot().join("containers")] {
        let left: Vec<_> = std::fs::read_dir(&dir).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "left in {}: {left:?}", dir.display());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let folder = onggi.folder().to_string_lossy();
    assert!(!mounts.contains(&*folder), "a mount is left: {mounts}");
}

/// A container that runs until it is dropped.
struct Running<'a> {
    onggi: &'a Onggi,
    name: &'static str,
    child: Child,
}

impl<'a> Running<'a> {
    fn start(onggi: &'a Onggi, name: &'static str, flags: &[&str], command: &[&str]) -> Self {
        let args = [&["run", "--name", name], flags, &[IMAGE], command].concat();
        let child = onggi.command(args).stdout(Stdio::null()).spawn().expect("it starts");
        let running = Self { onggi, name, child };
        running.wait_until(|| onggi.output(["exec", name, "true"]).code == Some(0));
        running
    }

    fn wait_until(&self, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(30), "{} takes too long", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn id(&self) -> String {
        self.onggi.ok(["ps", "-q", "--no-trunc", "-f", &format!("name={}", self.name)])
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.onggi.output(["rm", "-f", self.name]);
        let _ = self.child.wait();
    }
}

#[test]
fn memory_that_is_used_up_kills_and_is_recorded() {
    let Some(onggi) = setup() else { return };
    let eat = "x=$(head -c 200m /dev/zero | tr '\\0' x); echo survived";
    let done = run(&onggi, &["-m", "16m"], eat);
    assert_eq!((done.code, done.stdout.as_str()), (Some(137), ""), "{}", done.stderr);
    let id_file = onggi.folder().join("id");
    let id_path = id_file.to_string_lossy().into_owned();
    let kept = ["run", "--cidfile", &id_path, "--memory", "16m", IMAGE, "sh", "-c", eat];
    assert_eq!(onggi.output(kept).code, Some(137));
    let id = std::fs::read_to_string(&id_file).expect("the ID");
    let record = std::fs::read_to_string(onggi.root().join("containers").join(&id).join("state.json"));
    assert!(record.expect("the record").contains("\"oomKilled\":true"));
    assert_eq!(onggi.ok(["ps", "-a", "--format", "{{.State}}", "-f", "exited=137"]), "exited");
    assert_eq!(groups_of(&id), Vec::<PathBuf>::new());
    onggi.ok(["rm", &id[..12]]);
    assert_nothing_left(&onggi);
}

#[test]
fn processes_are_limited_by_default_and_on_request() {
    let Some(onggi) = setup() else { return };
    let show = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; true";
    assert_eq!(says(&onggi, &[], show), "2048");
    assert_eq!(says(&onggi, &["--pids-limit", "77"], show), "77");
    assert_ne!(run(&onggi, &["--pids-limit=-1"], &format!("({show}) | grep 2048")).code, Some(0));
    let bomb = "for i in $(seq 40); do sleep 5 & done; echo bombed";
    let done = run(&onggi, &["--pids-limit", "20"], bomb);
    assert!(!done.stdout.contains("bombed") && done.stderr.contains("fork"), "{}", done.stderr);
    assert_nothing_left(&onggi);
}

#[test]
fn a_quota_of_cpu_time_holds() {
    let Some(onggi) = setup() else { return };
    // The program's own account of user and system time; a busy machine gives less, never more.
    let spin = "i=0; end=$(($(date +%s) + 3)); while [ $(date +%s) -lt $end ]; do \
                i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; done; cat /proc/self/stat /proc/1/stat; times";
    let usage = |flags: &[&str]| -> f64 {
        let text = says(&onggi, flags, spin);
        let times: Vec<&str> = text.lines().rev().take(2).collect();
        let seconds = |word: &str| {
            let (minutes, rest) = word.split_once('m').expect("minutes");
            minutes.parse::<f64>().expect("a number") * 60.0
                + rest.trim_end_matches('s').parse::<f64>().expect("a number")
        };
        times.iter().flat_map(|line| line.split_whitespace()).map(seconds).sum()
    };
    let used = usage(&["--cpus", "0.2"]);
    assert!(used < 3.0 * 0.2 * 1.8, "{used} s of CPU in 3 s with --cpus 0.2");
    let limits = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null \
                  || cat /sys/fs/cgroup/cpu.max";
    let told = says(&onggi, &["--cpus", "0.2", "-c", "512"], limits);
    assert!(told.starts_with("20000"), "{told}");
    assert_nothing_left(&onggi);
}

#[test]
fn limits_that_make_no_sense_are_refused_in_dockers_words() {
    let Some(onggi) = setup() else { return };
    for (flags, words) in [
        (&["-m", "5m"][..], "Minimum memory limit allowed is 6MB"),
        (&["-m", "lots"], "invalid size: 'lots'"),
        (&["--memory-swap", "64m"], "always set the Memory limit"),
        (&["-m", "64m", "--memory-swap", "32m"], "larger than memory limit"),
        (&["--cpus", "0.5", "--cpu-quota", "5000"], "Conflicting options"),
        (&["--cpus", "9999"], "Range of CPUs"),
        (&["--cpuset-cpus", "4000"], "not available"),
        (&["--ulimit", "nofile=20:10"], "soft limit must be less"),
        (&["--ulimit", "nothing=1"], "invalid ulimit type"),
        (&["--device-read-bps", "/dev/null:1mb"], "no block device"),
        (&["--cap-add", "NOTHING"], "unknown capability"),
        (&["--security-opt", "nothing"], "invalid --security-opt"),
        (&["--security-opt", "seccomp=/no/such/file"], "/no/such/file"),
        (&["--device", "/etc/passwd"], "no device"),
        (&["--sysctl", "kernel.panic=1"], "kernel.panic"),
        (&["--tmpfs", "/t:nothing"], "nothing"),
        (&["--mount", "type=npipe,target=/x"], "npipe"),
        (&["-v", "/tmp:/proc/sys"], "/proc/sys"),
        (&["-v", "/tmp:/x", "--tmpfs", "/x"], "Duplicate mount point: /x"),
        (&["--uts", "host", "--hostname", "x"], "UTS mode"),
        (&["--cgroup-parent", "../x"], "--cgroup-parent"),
    ] {
        refuses(&onggi, flags, words);
    }
    for flag in [
        "--publish=80:80",
        "--publish-all",
        "--runtime=runc",
        "--isolation=hyperv",
        "--kernel-memory=64m",
        "--log-driver=journald",
        "--ip=10.0.0.2",
        "--userns=keep-id",
    ] {
        refuses(&onggi, &[flag], flag.split('=').next().unwrap_or(flag));
    }
    assert_nothing_left(&onggi);
}

#[test]
fn a_rate_of_writes_holds() {
    let Some(onggi) = setup() else { return };
    let Some(disk) = disk_of(onggi.folder()) else {
        let _ = needs::missing("a folder on a whole disk, whose rate can be limited");
        return;
    };
    let volume = format!("{}:/v", onggi.folder().display());
    let write = "dd if=/dev/zero of=/v/data bs=64k count=16 oflag=direct";
    says(&onggi, &["-v", &volume], write);
    let start = Instant::now();
    says(&onggi, &["-v", &volume, "--device-write-bps", &format!("{disk}:512k")], write);
    // 1 MiB at 512 KiB a second.
    assert!(start.elapsed() > Duration::from_millis(1500), "{:?}", start.elapsed());
    assert_nothing_left(&onggi);
}

/// The block device below a folder, unless it is a part of one.
fn disk_of(folder: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(folder).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let events = std::fs::read_to_string(block.join("uevent")).ok()?;
    let name = events.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    (!block.join("partition").exists()).then(|| format!("/dev/{name}"))
}

#[test]
fn a_parent_of_control_groups_is_the_callers() {
    let Some(onggi) = setup() else { return };
    let parent = format!("onggi-test-{}", std::process::id());
    let mine = Path::new("/sys/fs/cgroup/pids").join(&parent);
    if std::fs::create_dir(&mine).is_err() {
        let _ = needs::missing("control groups of version 1");
        return;
    }
    let told =
        says(&onggi, &["--cgroup-parent", &format!("/{parent}"), "--cgroupns=host"], "cat /proc/self/cgroup");
    assert!(told.contains(&format!("pids:/{parent}/")), "{told}");
    assert!(mine.exists(), "the caller's own group is gone");
    // Whatever goes wrong after the group was made.
    let parent_flag = format!("--cgroup-parent={parent}");
    for (flags, code) in [
        (&["--sysctl", "kernel.panic=1"][..], 125),
        (&["-w", "/etc/passwd"], 125),
        (&["--rm", "--entrypoint", "/no/such"], 127),
    ] {
        assert_eq!(run(&onggi, &[flags, &[&parent_flag]].concat(), "true").code, Some(code), "{flags:?}");
    }
    let left: Vec<_> = groups_of(&parent).into_iter().filter(|path| !path.ends_with(&parent)).collect();
    assert!(left.is_empty(), "{left:?}");
    for path in groups_of(&parent) {
        std::fs::remove_dir(path).expect("an empty group");
    }
    assert_nothing_left(&onggi);
}

#[test]
fn many_at_once_leave_nothing() {
    let Some(onggi) = setup() else { return };
    let command = || onggi.command(["run", "--rm", IMAGE, "true"]).spawn().expect("it starts");
    for mut child in (0..24).map(|_| command()).collect::<Vec<_>>() {
        assert!(child.wait().expect("its end").success());
    }
    assert_nothing_left(&onggi);
}

#[test]
fn capabilities_come_and_go() {
    let Some(onggi) = setup() else { return };
    let show = "grep -e CapEff -e NoNewPrivs /proc/self/status | tr -d '\\n\\t'";
    assert_eq!(says(&onggi, &[], show), "CapEff:00000000a80425fbNoNewPrivs:1");
    assert_eq!(says(&onggi, &["--cap-drop", "ALL"], show), "CapEff:0000000000000000NoNewPrivs:1");
    assert_eq!(
        says(&onggi, &["--cap-drop=all", "--cap-add=net_admin"], show),
        "CapEff:0000000000001000NoNewPrivs:1"
    );
    assert_eq!(
        says(&onggi, &["--cap-drop=CAP_MKNOD", "--security-opt=no-new-privileges=false"], show),
        "CapEff:00000000a00425fbNoNewPrivs:0"
    );
    assert_ne!(run(&onggi, &["--cap-drop", "CHOWN"], "chown 1 /tmp").code, Some(0));
    assert_eq!(run(&onggi, &["--cap-add", "NET_ADMIN"], "ip link set lo mtu 9000").code, Some(0));
    assert_ne!(run(&onggi, &[], "ip link set lo mtu 9000").code, Some(0));
    assert_nothing_left(&onggi);
}

#[test]
fn the_filter_is_the_default_and_can_be_changed() {
    let Some(onggi) = setup() else { return };
    let unshare = "unshare -U true 2>/dev/null; echo $?";
    let filter = "grep Seccomp: /proc/self/status | tr -d '\\t'";
    assert_eq!(says(&onggi, &[], unshare), "1");
    assert_eq!(says(&onggi, &[], filter), "Seccomp:2");
    assert_eq!(says(&onggi, &["--security-opt", "seccomp=unconfined"], unshare), "0");
    assert_eq!(says(&onggi, &["--security-opt", "seccomp=unconfined"], filter), "Seccomp:0");
    assert_eq!(says(&onggi, &["--security-opt", "seccomp=builtin"], unshare), "1");
    // Even the capability to mount is of no use outside of the container's own namespaces.
    assert_ne!(run(&onggi, &[], "mount -t tmpfs none /tmp").code, Some(0));
    assert_eq!(run(&onggi, &["--cap-add", "SYS_ADMIN"], "mount -t tmpfs none /tmp").code, Some(0));
    let profile = onggi.folder().join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
    std::fs::write(&profile, text).expect("a file");
    let option = format!("seccomp={}", profile.display());
    let done = run(&onggi, &["--security-opt", &option], "mkdir /tmp/x");
    assert!(done.stderr.contains("No space left"), "{}", done.stderr);
    assert_nothing_left(&onggi);
}

#[test]
fn privileged_means_the_hosts_ids_and_is_recorded() {
    let Some(onggi) = setup() else { return };
    let told = says(
        &onggi,
        &["--privileged"],
        "cat /proc/self/uid_map; ls /dev | wc -l; grep CapEff /proc/self/status",
    );
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    let own = own.lines().find(|line| line.starts_with("CapEff")).expect("capabilities");
    assert!(told.contains("4294967295") && told.contains(own), "{told} and {own}");
    assert_eq!(
        run(&onggi, &["--privileged"], "mount -t tmpfs none /tmp && echo 1 > /proc/sys/net/ipv4/ip_forward")
            .code,
        Some(0)
    );
    onggi.ok(["run", "--privileged", "--name", "mighty", IMAGE, "true"]);
    let id = onggi.ok(["ps", "-aq", "--no-trunc"]);
    let record = std::fs::read_to_string(onggi.root().join("containers").join(id).join("config.json"));
    assert!(record.expect("the record").contains("\"hostIdsBecause\":\"--privileged\""));
    onggi.ok(["rm", "mighty"]);
    // With IDs of its own it is not the host's root.
    let told = says(&onggi, &["--privileged", "--userns=private"], "cat /proc/self/uid_map");
    assert!(!told.contains("4294967295"), "{told}");
    assert_nothing_left(&onggi);
}

#[test]
fn devices_are_given_one_by_one() {
    let Some(onggi) = setup() else { return };
    let told = says(
        &onggi,
        &["--device", "/dev/full:/dev/mine"],
        "ls -ln /dev/mine; echo x > /dev/mine 2>/dev/null || echo full",
    );
    assert!(told.starts_with('c') && told.contains("1,   7") && told.ends_with("full"), "{told}");
    if std::fs::File::open("/dev/fuse").is_err() {
        let _ = needs::missing("a device that anybody may open and no container has: /dev/fuse");
        return;
    }
    // Nor is one that an image brings along.
    assert!(says(&onggi, &[], "grep ' / ' /proc/mounts").contains("nodev"));
    // A node that the container makes itself is of no use: the group of devices says no.
    let made = run(&onggi, &["--userns=host"], "mknod /tmp/fuse c 10 229 && sh -c ': < /tmp/fuse'");
    assert!(made.stderr.contains("not permitted"), "{}", made.stderr);
    let allowed = run(
        &onggi,
        &["--userns=host", "--device-cgroup-rule=c 10:229 rm"],
        "mknod /tmp/fuse c 10 229 && sh -c ': < /tmp/fuse' && echo opened",
    );
    assert_eq!(allowed.ok(), "opened");
    assert_nothing_left(&onggi);
}

#[test]
fn the_small_flags_do_what_they_say() {
    let Some(onggi) = setup() else { return };
    assert_eq!(says(&onggi, &["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn"), "100\n200");
    assert_eq!(says(&onggi, &["--shm-size", "1m"], "df /dev/shm | awk 'END{print $2}'"), "1024");
    assert_eq!(
        says(&onggi, &["--sysctl", "net.ipv4.ip_default_ttl=42"], "cat /proc/sys/net/ipv4/ip_default_ttl"),
        "42"
    );
    assert_eq!(
        says(&onggi, &["--tmpfs", "/scratch:size=1m,mode=700"], "stat -c %a /scratch; touch /scratch/x"),
        "700"
    );
    let ids =
        says(&onggi, &["--userns", "auto:size=100000"], "awk '{print ($3 >= 100000)}' /proc/self/uid_map");
    assert_eq!(ids, "1");
    refuses(&onggi, &["--userns=auto:size=0"], "size=0 is no number of IDs");
    refuses(&onggi, &["--userns=auto:uidmapping=0:1:2"], "auto takes size=N");
    assert_eq!(says(&onggi, &["--domainname", "lan"], "cat /proc/sys/kernel/domainname"), "lan");
    assert_eq!(says(&onggi, &["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500");
    let names = says(
        &onggi,
        &["--dns=1.2.3.4", "--dns-search=a.b", "--add-host=db:10.0.0.9"],
        "cat /etc/resolv.conf /etc/hosts",
    );
    assert!(names.contains("nameserver 1.2.3.4\nsearch a.b") && names.contains("10.0.0.9\tdb"), "{names}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    assert_eq!(says(&onggi, &["--uts=host"], "hostname"), host.trim());
    let own = std::process::id().to_string();
    assert_eq!(says(&onggi, &["--pid=host"], &format!("test -d /proc/{own} && echo seen")), "seen");
    assert_eq!(says(&onggi, &["--ipc=none"], "mount | grep -c /dev/shm || true"), "0");
    std::fs::write(onggi.folder().join("file"), "text").expect("a file");
    let mount = format!("type=bind,source={},target=/seen,readonly", onggi.folder().display());
    assert_eq!(
        says(&onggi, &["--mount", &mount], "cat /seen/file; touch /seen/x 2>/dev/null || echo ' kept'"),
        "text kept"
    );
    let done = run(&onggi, &["-a", "stdout"], "echo out; echo err >&2");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", ""));
    let onggi_id = onggi.folder().join("id");
    std::fs::write(&onggi_id, "").expect("a file");
    refuses(&onggi, &["--cidfile", &onggi_id.to_string_lossy()], "container ID file found");
    assert_eq!(run(&onggi, &["-w", "/etc/passwd"], "true").code, Some(125));
    assert_eq!(says(&onggi, &["-w", "/made/here"], "pwd"), "/made/here");
    assert_nothing_left(&onggi);
}

#[test]
fn exec_joins_a_running_container() {
    let Some(onggi) = setup() else { return };
    let running = Running::start(
        &onggi,
        "web",
        &["-e", "A=1", "--label", "tier=front", "-m", "64m"],
        &["sleep", "600"],
    );
    let id = running.id();
    let exec = |args: &[&str]| onggi.ok([&["exec"], args].concat());
    assert_eq!(exec(&["web", "sh", "-c", "echo $A; tr '\\0' ' ' < /proc/1/cmdline"]), "1\nsleep 600 ");
    assert_eq!(exec(&[&id[..12], "grep", "-c", "NoNewPrivs:.1", "/proc/self/status"]), "1");
    assert_eq!(
        exec(&["-e", "A=2", "-w", "/tmp", "-u", "guest", "web", "sh", "-c", "echo $A $PWD $HOME; id -u"]),
        "2 /tmp /tmp\n1000"
    );
    assert_eq!(exec(&["--privileged", "web", "grep", "Seccomp:", "/proc/self/status"]), "Seccomp:\t0");
    assert_eq!(onggi.output(["exec", "web", "sh", "-c", "exit 9"]).code, Some(9));
    assert_eq!(onggi.output(["exec", "web", "/no/such"]).code, Some(127));
    assert_eq!(onggi.output(["exec", "-w", "relative", "web", "true"]).code, Some(1));
    // It counts against the container's limits, in the container's groups.
    exec(&["-d", "web", "sleep", "601"]);
    let groups = groups_of(&id);
    assert!(!groups.is_empty());
    running.wait_until(|| {
        let text = std::fs::read_to_string(groups[0].join("cgroup.procs")).unwrap_or_default();
        text.lines().count() == 2
    });
    let missing = onggi.fails(["exec", "nothing", "true"]);
    assert!(missing.stderr.contains("No such container: nothing"), "{}", missing.stderr);
    assert_eq!(
        onggi.ok(["ps", "--format", "{{.Names}} {{.State}} {{.Labels}}", "-f", "label=tier=front"]),
        "web running tier=front"
    );
    let refused = onggi.fails(["rm", "web"]);
    assert!(refused.stderr.contains("container is running"), "{}", refused.stderr);
    onggi.ok(["rm", "-f", "web"]);
    drop(running);
    assert_eq!(groups_of(&id), Vec::<PathBuf>::new());
    assert_nothing_left(&onggi);
}

#[test]
fn ps_shows_and_rm_removes_what_ended() {
    let Some(onggi) = setup() else { return };
    assert_eq!(onggi.output(["run", "--name", "one", IMAGE, "sh", "-c", "exit 3"]).code, Some(3));
    assert_eq!(onggi.ok(["ps"]), "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES");
    let row = onggi.ok(["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.Status}}"]);
    assert!(row.starts_with(&format!("one {IMAGE} \"sh -c 'exit 3'\" Exited (3) ")), "{row}");
    assert_eq!(onggi.ok(["ps", "-aq", "--filter", "exited=0"]), "");
    assert_eq!(onggi.ok(["ps", "-q", "--latest"]).len(), 12);
    assert!(onggi.fails(["ps", "--filter", "nothing=1"]).stderr.contains("nothing"));
    assert!(onggi.fails(["exec", "one", "true"]).stderr.contains("is not running"));
    assert_eq!(onggi.ok(["rm", "one"]), "one");
    assert!(onggi.fails(["rm", "one"]).stderr.contains("No such container"));
    onggi.ok(["rm", "-f", "one"]);
    assert_nothing_left(&onggi);
}

#[test]
fn what_a_killed_command_leaves_is_swept() {
    let Some(onggi) = setup() else { return };
    // Without a name it is the command's own, and ends with it.
    let mut command = onggi.command(["run", "--rm", IMAGE, "sh", "-c", "echo runs; exec sleep 600"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut first = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("a line");
    let id = onggi.ok(["ps", "-q", "--no-trunc"]);
    assert!(!groups_of(&id).is_empty());
    child.kill().expect("a signal");
    child.wait().expect("its end");
    says(&onggi, &[], "true");
    assert_eq!(groups_of(&id), Vec::<PathBuf>::new());
    assert_nothing_left(&onggi);
}

#[test]
fn an_ordinary_user_gets_an_error_for_limits_that_he_cannot_set() {
    let Some(onggi) = setup() else { return };
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // With version 2 a user may have been delegated groups.
        return;
    }
    let Some(nobody) = User::new(false) else { return };
    let archive = busybox_archive(onggi.folder(), IMAGE).expect("made before");
    let copy = nobody.copy(&archive, "busybox.tar");
    let user = |args: &[&str]| nobody.output(args);
    user(&["load", "-i", &copy.to_string_lossy()]).ok();
    // The default limit is left out, what was asked for is not.
    assert_eq!(user(&["run", "--rm", IMAGE, "echo", "ran"]).ok(), "ran");
    let refused = user(&["run", "--rm", "--pids-limit", "5", IMAGE, "echo", "ran"]);
    assert_eq!(refused.code, Some(125));
    assert!(refused.stderr.contains("--pids-limit"), "{}", refused.stderr);
    assert!(user(&["run", "--rm", "-m", "64m", IMAGE, "true"]).stderr.contains("--memory"));
    assert_eq!(
        user(&["run", "--rm", "--privileged", IMAGE, "mount", "-t", "tmpfs", "none", "/tmp"]).code,
        Some(0)
    );
    assert_eq!(user(&["ps", "-aq"]).ok(), "");
}
