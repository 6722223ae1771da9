//! The life of a container: made, started, stopped, started again; attached, waited for, restarted by its
//! policy; and what is left when any of the processes around it is killed.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use onggi_testkit::needs;
use support::{Done, Onggi, WAIT, busybox_archive, until};

const IMAGE: &str = "busybox:test";
/// A program that ends when it is asked to.
const OBEDIENT: &str = "trap 'echo asked; exit 7' TERM; echo ready; while :; do sleep 0.05; done";

/// A store with busybox, and root's authority; `None` is a counted skip. What still runs is removed at the end.
struct Store(Onggi);

impl Store {
    fn new() -> Option<Self> {
        Onggi::with_busybox(IMAGE).map(Self)
    }

    /// `run -d --name NAME FLAGS IMAGE sh -c SCRIPT`; its ID.
    #[track_caller]
    fn detached(&self, name: &str, flags: &[&str], script: &str) -> String {
        self.0.ok([&["run", "-d", "--name", name], flags, &[IMAGE, "sh", "-c", script]].concat())
    }

    #[track_caller]
    fn state(&self, name: &str) -> String {
        let filter = format!("name={name}");
        self.0.ok(["ps", "-a", "--filter", &filter, "--format", "{{.State}}"])
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.0.root().join("containers").join(id)
    }

    /// The whole log of a container, as it lies on disk.
    fn log(&self, id: &str) -> String {
        fs::read_to_string(self.dir(id).join(format!("{id}-json.log"))).unwrap_or_default()
    }

    fn state_file(&self, id: &str) -> String {
        fs::read_to_string(self.dir(id).join("state.json")).unwrap_or_default()
    }

    /// The program's and the supervisor's process.
    #[track_caller]
    fn processes(&self, id: &str) -> (String, String) {
        let mark = fs::read_to_string(self.0.runroot().join("containers").join(id)).expect("a mark");
        let words: Vec<&str> = mark.split_whitespace().collect();
        (words[0].to_owned(), words[2].to_owned())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for id in self.0.output(["ps", "-aq", "--no-trunc"]).stdout.lines() {
            self.0.output(["rm", "-f", "-v", id]);
        }
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().expect("a number")).expect("a process");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Directories of control groups whose path has this in it.
fn groups_of(id: &str) -> Vec<String> {
    let found =
        Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{id}*")]).output();
    let found = String::from_utf8_lossy(&found.expect("find").stdout).into_owned();
    found.lines().map(str::to_owned).collect()
}

#[test]
fn made_started_stopped_and_started_again() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    let id = onggi.ok(["create", "--name", "web", IMAGE, "sh", "-c", "echo run >>/file; cat /file; exit 3"]);
    assert_eq!((id.len(), store.state("web").as_str()), (64, "created"));
    let first = onggi.output(["start", "-a", "web"]);
    assert_eq!((first.code, first.stdout.as_str()), (Some(3), "run\n"), "{}", first.stderr);
    assert_eq!(store.state("web"), "exited");
    // Its files are as it left them.
    let second = onggi.output(["start", "-a", &id[..12]]);
    assert_eq!((second.code, second.stdout.as_str()), (Some(3), "run\nrun\n"));
    assert_eq!(onggi.ok(["start", "web"]), "web");
    assert_eq!(onggi.ok(["wait", "web"]), "3");
    assert_eq!(store.log(&id).matches("run").count(), 6);
    // Names are claims.
    let taken = onggi.fails(["create", "--name", "web", IMAGE]);
    assert_eq!(taken.code, Some(1));
    assert!(taken.stderr.contains(&id), "{}", taken.stderr);
    onggi.ok(["rename", "web", "shop"]);
    onggi.fails(["start", "web"]);
    onggi.ok(["create", "--name", "web", IMAGE]);
    assert!(onggi.fails(["rename", "web", "shop"]).stderr.contains("already in use"));
    assert_eq!(onggi.ok(["rm", "web", "shop"]), "web\nshop");
    assert_eq!(fs::read_dir(onggi.root().join("names")).expect("names").count(), 0);
    // One that nobody named has a name of two words.
    onggi.ok(["create", IMAGE]);
    let name = onggi.ok(["ps", "-a", "--format", "{{.Names}}"]);
    assert!(name.split('_').count() == 2, "{name}");
    assert_eq!(onggi.ok(["container", "prune", "-f"]).lines().next(), Some("Deleted Containers:"));
    assert_eq!(onggi.ok(["ps", "-aq"]), "");
}

#[test]
fn detached_and_asked_to_end() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    let id = store.detached("svc", &[], OBEDIENT);
    assert_eq!((id.len(), store.state("svc").as_str()), (64, "running"));
    until("it is ready", || store.log(&id).contains("ready"));
    assert_eq!(onggi.ok(["exec", "svc", "echo", "inside"]), "inside");
    assert!(onggi.fails(["rm", "svc"]).stderr.contains("running"));
    assert_eq!(onggi.ok(["stop", "svc"]), "svc");
    assert_eq!(store.state("svc"), "exited");
    assert!(store.log(&id).contains("asked"));
    assert!(store.state_file(&id).contains("\"exitCode\":7"));
    // Stopped already; started; killed; killed already.
    assert_eq!(onggi.ok(["stop", "svc"]), "svc");
    assert_eq!(onggi.ok(["start", "svc"]), "svc");
    assert_eq!(onggi.ok(["start", "svc"]), "svc");
    assert_eq!(onggi.ok(["kill", "svc"]), "svc");
    assert_eq!(onggi.ok(["wait", "svc"]), "137");
    assert!(onggi.fails(["kill", "svc"]).stderr.contains("is not running"));
    // A program that doesn't listen is killed after the time that it has.
    store.detached("deaf", &["--stop-timeout", "1"], "while :; do sleep 1; done");
    let start = Instant::now();
    onggi.ok(["stop", "deaf"]);
    assert!(start.elapsed() >= Duration::from_secs(1) && start.elapsed() < Duration::from_secs(8));
    assert!(onggi.ok(["ps", "-a", "-f", "name=deaf", "--format", "{{.Status}}"]).starts_with("Exited (137)"));
    // The image's and the caller's signal.
    let id = store.detached(
        "usr",
        &["--stop-signal", "USR1"],
        "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done",
    );
    until("it is ready", || store.log(&id).contains("ready"));
    onggi.ok(["stop", "usr"]);
    assert!(store.state_file(&id).contains("\"exitCode\":9"));
    let gone = store.detached("once", &["--rm"], "sleep 0.2");
    until("it removes itself", || !store.dir(&gone).exists());
    assert_eq!(groups_of(&gone), [""; 0]);
}

#[test]
fn what_cannot_start_says_why_with_dockers_status() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    for (program, code) in [("/no/such", 127), ("/etc", 126)] {
        for flags in [&["run", "-d"][..], &["run", "-d", "--rm"], &["run"], &["run", "--rm"]] {
            let done = onggi.output([flags, &[IMAGE, program]].concat());
            assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "{flags:?}: {}", done.stderr);
            assert!(done.stderr.contains(program), "{}", done.stderr);
        }
    }
    until("their supervisors have gone", || onggi.ok(["ps", "-aq"]).lines().count() == 4);
    let id_file = onggi.folder().join("cid");
    let id_path = id_file.to_string_lossy().into_owned();
    let id = onggi.ok(["run", "-d", "--cidfile", &id_path, IMAGE, "true"]);
    assert_eq!(fs::read_to_string(&id_file).expect("the file"), id);
    assert_eq!(onggi.fails(["run", "-d", "--cidfile", &id_path, IMAGE, "true"]).code, Some(125));
}

#[test]
fn attached_to_what_it_reads_and_writes() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    // Everything comes through, in both directions, also much of it.
    let many = vec![b'x'; 3 << 20];
    let mut command = onggi.command(["run", "-i", IMAGE, "sh", "-c", "cat; echo end >&2; exit 5"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("a pipe");
    let sent = many.clone();
    let writer = thread::spawn(move || input.write_all(&sent));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("all was taken");
    assert_eq!(output.status.code(), Some(5));
    assert!(output.stdout == many, "{} bytes came back", output.stdout.len());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "end\n");

    // Attached later; the end of what is typed ends the program's input.
    onggi.ok(["create", "-i", "--name", "cat", IMAGE, "cat"]);
    onggi.ok(["start", "cat"]);
    let mut attached = attach(onggi, &["attach", "cat"]);
    let mut input = attached.stdin.take().expect("a pipe");
    input.write_all(b"hello\n").expect("it is taken");
    drop(input);
    let output = attached.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"hello\n"[..]));
    assert_eq!(onggi.ok(["wait", "cat"]), "0");
    assert!(onggi.fails(["attach", "cat"]).stderr.contains("is not running"));

    // Signals go on to the program; without --sig-proxy they don't.
    let id = store.detached("svc", &[], OBEDIENT);
    until("it is ready", || store.log(&id).contains("ready"));
    let attached = attach(onggi, &["attach", "--no-stdin", "svc"]);
    thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_child(&attached);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is ours");
    let output = attached.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"asked\n"[..]));
}

fn attach(onggi: &Onggi, args: &[&str]) -> Child {
    let mut command = onggi.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

#[test]
fn a_terminal_that_is_left_and_found_again() {
    let Some(store) = Store::new() else { return };
    if needs::programs(&["script"]).is_missing() {
        return;
    }
    let onggi = &store.0;
    // `script` gives the command a terminal, and types what it reads.
    let typed = |words: &[&str], keys: &[&[u8]]| -> (Option<i32>, String) {
        let mut shell = vec![env!("CARGO_BIN_EXE_onggi").to_owned()];
        shell.extend(words.iter().map(|word| format!("'{word}'")));
        let plain = onggi.command([""; 0]);
        let mut command = Command::new("script");
        command.args(["-qec", &shell.join(" "), "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let mut child = command.spawn().expect("script starts");
        let mut input = child.stdin.take().expect("a pipe");
        for key in keys {
            thread::sleep(Duration::from_millis(400));
            input.write_all(key).expect("it is typed");
        }
        let output = child.wait_with_output().expect("it ends");
        drop(input);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let run = ["run", "-it", "--name", "tty", IMAGE, "sh"];
    let (code, seen) = typed(&run, &[b"stty size; x=kept\n", b"\x10", b"\x11"]);
    assert_eq!(code, Some(0), "{seen}");
    assert_eq!(store.state("tty"), "running", "{seen}");
    let keys: [&[u8]; 3] = [b"echo $x\n", b"\x01", b"d"];
    let (code, seen) = typed(&["attach", "--detach-keys", "ctrl-a,d", "tty"], &keys);
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("kept") && seen.contains("read escape sequence"), "{seen}");
    let (code, seen) = typed(&["attach", "tty"], &[b"exit 4\n"]);
    assert_eq!(code, Some(4), "{seen}");
    assert_eq!(store.state("tty"), "exited");
}

#[test]
fn policies_start_it_again() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    let id = store.detached("fails", &["--restart", "on-failure:2"], "echo turn; exit 1");
    until("it gave up", || store.state("fails") == "exited");
    assert_eq!(store.log(&id).matches("turn").count(), 3);
    assert!(store.state_file(&id).contains("\"restartCount\":2"));
    let id = store.detached("well", &["--restart", "on-failure"], "exit 0");
    until("it ended", || store.state("well") == "exited");
    assert!(store.state_file(&id).contains("\"restartCount\":0"));
    // Killed from within, it comes back; stopped, it doesn't.
    let id = store.detached("always", &["--restart", "always"], "echo turn; sleep 0.3");
    until("it came back", || store.log(&id).matches("turn").count() >= 3);
    onggi.ok(["stop", "-t", "0", "always"]);
    assert_eq!(store.state("always"), "exited");
    let turns = store.log(&id).matches("turn").count();
    thread::sleep(Duration::from_millis(900));
    assert_eq!(store.log(&id).matches("turn").count(), turns);
    // A pause between two starts can be ended by stop and by rm.
    store.detached("pausing", &["--restart=always"], "exit 1");
    until("it pauses", || store.state("pausing") == "restarting");
    onggi.ok(["update", "--restart", "no", "pausing"]);
    onggi.ok(["stop", "pausing"]);
    assert_eq!(store.state("pausing"), "exited");
    store.detached("gone", &["--restart=always"], "exit 1");
    onggi.ok(["rm", "-f", "gone"]);
    assert_eq!(store.state("gone"), "");
    assert!(onggi.fails(["run", "-d", "--rm", "--restart=always", IMAGE]).stderr.contains("--restart"));
    // restart: another program, the same container.
    let id = store.detached("svc", &[], OBEDIENT);
    until("it is ready", || store.log(&id).contains("ready"));
    let (before, supervisor) = store.processes(&id);
    assert_eq!(onggi.ok(["restart", "svc"]), "svc");
    let (after, same) = store.processes(&id);
    assert!(before != after && supervisor == same);
    until("it is ready again", || store.log(&id).matches("ready").count() == 2);
    onggi.ok(["stop", "svc"]);
    onggi.ok(["restart", "svc"]);
    assert_eq!(store.state("svc"), "running");
}

#[test]
fn frozen_and_thawed() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    let id = store.detached("svc", &[], "while :; do echo tick; sleep 0.05; done");
    until("it ticks", || store.log(&id).contains("tick"));
    assert_eq!(onggi.ok(["pause", "svc"]), "svc");
    assert_eq!(store.state("svc"), "paused");
    let ticks = store.log(&id).len();
    thread::sleep(Duration::from_millis(400));
    assert_eq!(store.log(&id).len(), ticks);
    for words in [&["exec", "svc", "true"][..], &["pause", "svc"], &["start", "svc"], &["attach", "svc"]] {
        assert!(onggi.fails(words).stderr.contains("paused"), "{words:?}");
    }
    assert_eq!(onggi.ok(["unpause", "svc"]), "svc");
    until("it ticks again", || store.log(&id).len() > ticks);
    assert!(onggi.fails(["unpause", "svc"]).stderr.contains("is not paused"));
    onggi.ok(["pause", "svc"]);
    onggi.ok(["stop", "-t", "0", "svc"]);
    assert_eq!(store.state("svc"), "exited");
    onggi.ok(["start", "svc"]);
    onggi.ok(["pause", "svc"]);
    onggi.ok(["rm", "-f", "svc"]);
    assert_eq!(groups_of(&id), [""; 0]);
}

/// In a mount namespace without version 2 of control groups, where there is version 1 too.
#[test]
fn frozen_by_the_freezer_of_version_1() {
    let Some(store) = Store::new() else { return };
    if !PathBuf::from("/sys/fs/cgroup/unified/cgroup.procs").exists()
        && needs::missing("a host with both versions of control groups").is_missing()
    {
        return;
    }
    let script = r#"set -e; o() { BINARY "$@"; }; umount /sys/fs/cgroup/unified
        id=$(o run -d --name v1 busybox:test sh -c 'while :; do echo tick; sleep 0.05; done'); log=$ONGGI_ROOT/containers/$id/$id-json.log
        until grep -q tick $log; do sleep 0.05; done
        o pause v1; o ps --format '{{.State}}'; before=$(wc -c <$log); sleep 0.4; [ $before = $(wc -c <$log) ] && echo stands
        o unpause v1; until [ $before -lt $(wc -c <$log) ]; do sleep 0.05; done
        o pause v1; o stop -t 0 v1; o start v1; o pause v1; o rm -f v1; find /sys/fs/cgroup -name $id"#;
    let script = script.replace("BINARY", env!("CARGO_BIN_EXE_onggi"));
    let plain = store.0.command([""; 0]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(Done::of(&mut command).ok(), "v1\npaused\nstands\nv1\nv1\nv1\nv1\nv1\nv1");
}

#[test]
fn limits_change_while_it_runs() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    let id = store.detached("svc", &["--memory", "64m"], "while :; do sleep 1; done");
    let limit = |file: [&str; 2]| {
        groups_of(&id).iter().find_map(|dir| {
            file.iter().find_map(|name| fs::read_to_string(PathBuf::from(dir).join(name)).ok())
        })
    };
    let memory = || limit(["memory.limit_in_bytes", "memory.max"]).unwrap_or_default();
    assert_eq!(memory().trim(), (64 << 20).to_string());
    assert_eq!(onggi.ok(["update", "-m", "256m", "--memory-swap", "512m", "svc"]), "svc");
    assert_eq!(memory().trim(), (256 << 20).to_string());
    onggi.ok(["update", "-m", "32m", "--memory-swap", "-1", "svc"]);
    assert_eq!(memory().trim(), (32 << 20).to_string());
    onggi.ok(["update", "--pids-limit", "77", "--cpus", "0.5", "svc"]);
    assert_eq!(limit(["pids.max", "pids.max"]).unwrap_or_default().trim(), "77");
    // Not limited when it started, so its processes had to be moved.
    let quota = limit(["cpu.cfs_quota_us", "cpu.max"]).unwrap_or_default();
    assert!(quota.starts_with("50000"), "{quota}");
    let (program, _) = store.processes(&id);
    let inside = fs::read_to_string(format!("/proc/{program}/cgroup")).expect("its groups");
    let of_cpu =
        |line: &&str| line.split(':').nth(1).is_some_and(|list| list.split(',').any(|one| one == "cpu"));
    let of_cpu = inside.lines().find(of_cpu).or_else(|| inside.lines().find(|line| line.starts_with("0::")));
    assert!(of_cpu.is_some_and(|line| line.contains(&id)), "{inside}");
    assert!(onggi.fails(["update", "-m", "1m", "svc"]).stderr.contains("6MB"));
    assert!(onggi.fails(["update", "svc"]).stderr.contains("flags"));
    // Kept for the next start.
    onggi.ok(["restart", "-t", "0", "svc"]);
    assert_eq!(memory().trim(), (32 << 20).to_string());
}

#[test]
fn health_is_looked_after() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    let flags =
        ["--health-cmd", "cat /well && test -e /well", "--health-interval", "100ms", "--health-retries", "2"];
    let id = store.detached("svc", &flags, "sleep 0.5; echo fine >/well; while :; do sleep 1; done");
    let health = || store.state_file(&id);
    assert!(health().contains("\"status\":\"starting\"") || health().contains("unhealthy"), "{}", health());
    until("it is healthy", || health().contains("\"status\":\"healthy\""));
    until("its words are kept", || health().contains("fine"));
    onggi.ok(["exec", "svc", "rm", "/well"]);
    until("it is unhealthy", || health().contains("\"status\":\"unhealthy\""));
    // What follows, if it is wished.
    let id = store.detached(
        "mortal",
        &["--health-cmd=false", "--health-interval=50ms", "--health-retries=1", "--health-on-failure=kill"],
        "while :; do sleep 1; done",
    );
    until("it was killed", || store.state("mortal") == "exited");
    assert!(store.state_file(&id).contains("137"));
    let id = store.detached(
        "again",
        &["--health-cmd=test -e /second", "--health-interval=50ms", "--health-retries=1", "--health-on-failure=restart"],
        "if test -e /first; then touch /second; fi; touch /first; echo turn; trap 'exit 0' TERM; while :; do sleep 0.05; done",
    );
    until("it was restarted", || store.log(&id).matches("turn").count() == 2);
    until("it is healthy", || store.state_file(&id).contains("\"status\":\"healthy\""));
    // A probe that hangs has failed.
    let flags =
        ["--health-cmd=sleep 100", "--health-interval=50ms", "--health-timeout=200ms", "--health-retries=1"];
    let id = store.detached("slow", &flags, "while :; do sleep 1; done");
    until("it is unhealthy", || store.state_file(&id).contains("exceeded timeout"));
}

/// Kills the processes around a container in every combination: the next command tells the truth and leaves nothing.
#[test]
fn whoever_is_killed_nothing_is_left() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    // The supervisor alone: the program goes on, and can be stopped.
    let id = store.detached("svc", &[], "exec sleep 100007");
    let (program, supervisor) = store.processes(&id);
    kill(&supervisor);
    until("it is dead", || !is_alive(&supervisor));
    assert_eq!(store.state("svc"), "running");
    assert_eq!(onggi.ok(["exec", "svc", "echo", "inside"]), "inside");
    assert!(onggi.fails(["attach", "svc"]).stderr.contains("supervisor"));
    onggi.ok(["stop", "-t", "0", "svc"]);
    assert!(!is_alive(&program));
    assert_eq!(store.state("svc"), "exited");
    assert_eq!(groups_of(&id), [""; 0]);
    // It starts again under a new one, which is killed with its program.
    onggi.ok(["start", "svc"]);
    let (program, supervisor) = store.processes(&id);
    kill(&supervisor);
    kill(&program);
    until("both are dead", || !is_alive(&supervisor) && !is_alive(&program));
    assert_eq!(store.state("svc"), "exited");
    assert!(onggi.ok(["ps", "-a", "--format", "{{.Status}}"]).starts_with("Exited (255)"));
    onggi.ok(["start", "svc"]);
    let (_, supervisor) = store.processes(&id);
    kill(&supervisor);
    onggi.ok(["rm", "-f", "svc"]);
    assert_eq!(groups_of(&id), [""; 0]);
    // Of one that was to go with its program, nothing stays.
    let id = store.detached("once", &["--rm"], "exec sleep 100008");
    let (program, supervisor) = store.processes(&id);
    kill(&supervisor);
    kill(&program);
    until("both are dead", || !is_alive(&supervisor) && !is_alive(&program));
    assert_eq!(onggi.ok(["ps", "-aq"]), "");
    assert!(!store.dir(&id).exists() && groups_of(&id).is_empty());
    // The host restarted: what is in the runroot is gone, and so are all processes.
    let id = store.detached("boot", &["--restart", "unless-stopped"], "echo turn; exec sleep 100009");
    let stopped = store.detached("stopped", &["--restart", "unless-stopped"], "exec sleep 100009");
    onggi.ok(["stop", "-t", "0", "stopped"]);
    let (program, supervisor) = store.processes(&id);
    kill(&supervisor);
    kill(&program);
    until("both are dead", || !is_alive(&supervisor) && !is_alive(&program));
    fs::remove_dir_all(onggi.runroot()).expect("it is ours");
    assert_eq!(store.state("boot"), "exited");
    assert_eq!(onggi.ok(["system", "boot"]), "boot");
    assert_eq!((store.state("boot").as_str(), store.state("stopped").as_str()), ("running", "exited"));
    assert_eq!(store.log(&id).matches("turn").count(), 2);
    assert!(onggi.ok(["system", "unit"]).contains("system boot"));
    assert!(store.dir(&stopped).exists());
    onggi.assert_store_is_clean();
}

/// Random moments: the caller, the supervisor or the program is killed while a container starts or runs.
#[test]
fn kills_at_random_leave_nothing() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    let marker = format!("{}.{}", 200_000, std::process::id());
    let script = format!("sleep {marker} & sleep {marker}");
    let rounds = std::env::var("ONGGI_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let mut seed = 12_345_u64;
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis(seed >> 33 & 127);
        let victim = (seed >> 40) % 3;
        let mut command =
            onggi.command(["run", "-d", "--rm", "--name", "victim", IMAGE, "sh", "-c", &script]);
        let mut caller =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        thread::sleep(moment);
        if victim == 0 {
            let _ = caller.kill();
        } else {
            for entry in fs::read_dir(onggi.runroot().join("containers")).into_iter().flatten().flatten() {
                let mark = fs::read_to_string(entry.path()).unwrap_or_default();
                let words: Vec<&str> = mark.split_whitespace().collect();
                let pid = if victim == 1 { words.get(2) } else { words.first() };
                if let Some(pid) = pid.filter(|pid| **pid != "0" && **pid != "exit") {
                    kill(pid);
                }
            }
        }
        let _ = caller.wait();
        // The next command finds whatever goes on, and removes it.
        let done = onggi.output(["rm", "-f", "victim"]);
        assert!(!done.stderr.contains("panicked"), "round {round}: {}", done.stderr);
        let start = Instant::now();
        loop {
            let said = onggi.output(["rm", "-f", "victim"]).stderr;
            let running =
                Command::new("pgrep").args(["-fa", &format!("sleep {marker}")]).output().expect("pgrep");
            let running = String::from_utf8_lossy(&running.stdout).into_owned();
            let listed = onggi.ok(["ps", "-aq"]);
            let files = [onggi.root(), onggi.runroot()].map(|place| {
                let entries = fs::read_dir(place.join("containers")).into_iter().flatten().flatten();
                entries.map(|entry| entry.path()).collect::<Vec<_>>()
            });
            if running.is_empty() && listed.is_empty() && files.iter().all(Vec::is_empty) {
                break;
            }
            assert!(
                start.elapsed() < WAIT,
                "round {round}, victim {victim}, after {moment:?}: {said} {running} {listed} {files:?}"
            );
        }
    }
    let folder = onggi.folder().to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&folder), "a mount was left: {mounts}");
    onggi.assert_store_is_clean();
}

/// What an ordinary user with subordinate IDs does: the same.
#[test]
fn an_ordinary_user_has_the_same() {
    if needs::root().is_missing() || needs::programs(&["newuidmap", "setpriv", "unshare"]).is_missing() {
        return;
    }
    let onggi = Onggi::new();
    let Some(archive) = busybox_archive(onggi.folder(), IMAGE) else { return };
    let home = onggi.folder().join("user");
    fs::create_dir(&home).expect("a folder");
    fs::copy(env!("CARGO_BIN_EXE_onggi"), home.join("onggi")).expect("a copy");
    fs::copy(&archive, home.join("image.tar")).expect("a copy");
    fs::write(home.join("ids"), "nobody:200000:65536\n").expect("a file");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(onggi.folder(), fs::Permissions::from_mode(0o755)).expect("a mode");
    for path in [&home, &home.join("onggi"), &home.join("image.tar")] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("an owner");
    }
    let script = r#"
        set -e
        mount --bind "$HOME/ids" /etc/subuid
        mount --bind "$HOME/ids" /etc/subgid
        onggi() { setpriv --reuid 65534 --regid 65534 --clear-groups -- "$HOME/onggi" "$@"; }
        onggi load -q -i "$HOME/image.tar" >&2
        onggi run -d --name svc busybox:test sh -c 'trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done' >&2
        onggi ps --format '{{.State}}'
        onggi exec -u 65534 svc id -u
        sleep 0.5
        onggi stop svc
        onggi wait svc
        onggi start svc >&2
        onggi restart -t 0 svc
        echo hi | onggi run -i busybox:test cat
        onggi run -d --name other busybox:test sleep 1000 >&2
        onggi kill other
        onggi wait other
        onggi rm -f svc other
        onggi container prune -f >&2
        onggi ps -aq
        onggi system check >&2
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script]).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &home);
    let said = Done::of(command.stdin(Stdio::null())).ok();
    assert_eq!(said, "running\n65534\nsvc\n7\nsvc\nhi\nother\n137\nsvc\nother");
}

/// The log and every attached reader get all of it, also from a program that writes faster than they read.
#[test]
fn a_slow_reader_loses_nothing_and_holds_back_no_log() {
    let Some(store) = Store::new() else { return };
    let onggi = &store.0;
    let id = onggi.ok([
        "create",
        IMAGE,
        "sh",
        "-c",
        "i=0; while test $i -lt 20000; do echo line $i; i=$((i+1)); done",
    ]);
    let mut slow = attach(onggi, &["start", "-a", &id]);
    let mut first = [0; 1];
    slow.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("a byte");
    thread::sleep(Duration::from_millis(500));
    let output = slow.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 20_000);
    assert_eq!(store.log(&id).lines().count(), 20_000);
}

#[test]
fn a_detached_container_leaves_the_hosts_devices_alone() {
    use std::os::unix::fs::MetadataExt;
    let Some(store) = Store::new() else { return };
    let look = || {
        let null = fs::metadata("/dev/null").expect("/dev/null");
        (null.uid(), null.gid(), null.mode())
    };
    let before = look();
    let id = store.detached("one", &["--user", "1000"], "echo to >/dev/stdout");
    store.0.ok(["wait", "one"]);
    assert_eq!(look(), before, "its standard input is the host's /dev/null");
    assert!(store.log(&id).contains("to"), "{}", store.log(&id));
}
