//! `kill -9` at any moment, and many processes at once: the store stays whole, the next command sweeps what was left,
//! and nothing is fetched twice.

#[path = "crash/device.rs"]
mod device;
#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/mixed.rs"]
mod mixed;
#[path = "crash/power.rs"]
mod power;
mod support;
#[path = "crash/syscalls.rs"]
mod syscalls;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use onggi_testkit::{Auth, ImageMaker, Registry, TestImage, needs};
use rustix::process::{Pid, Signal, kill_process};
use support::{Onggi, busybox_archive};

/// How often a pull is killed. `ONGGI_KILLS` sets another number for both: 200 take one to four minutes, which the disk
/// decides.
const KILLS: u64 = 40;
/// How often a run is killed.
const RUN_KILLS: u64 = 40;

/// Random numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }

    /// A moment in the time that the command takes, and a little after it.
    fn moment(&mut self, of: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(of.as_micros()).expect("a short time") * 11 / 10))
    }
}

/// A number that the environment may set.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn kills(default: u64) -> u64 {
    number("ONGGI_KILLS", default)
}

/// Starts the command, kills it after a while, and tells whether it was still at work.
fn kill_after(command: &mut Command, moment: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    thread::sleep(moment);
    child.kill().expect("it is ours to kill");
    child.wait().expect("it has ended").code().is_none()
}

/// Four layers of a few hundred files each, some of them in one directory with the layers below.
fn image() -> TestImage {
    let mut maker = ImageMaker::new();
    for layer in 0..4 {
        let files: Vec<(String, Vec<u8>)> = (0..120)
            .map(|file| (format!("dir{}/layer{layer}/file{file}", file % 7), vec![b'a' + layer; 50 + file]))
            .collect();
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        maker = maker.layer(&files);
    }
    maker.big_layer(11, 300_000).cmd(&["/x"]).build()
}

#[test]
fn a_pull_that_is_killed_leaves_a_store_without_fault() {
    let (onggi, registry, image) = (Onggi::new(), Registry::start(Auth::Open), image());
    registry.put_image("team/app", "v1", &image);
    let reference = format!("{}/team/app:v1", registry.address());
    let start = Instant::now();
    onggi.ok(["pull", &reference]);
    let mut whole = start.elapsed();

    let (mut random, mut at_work, kills) = (Random(42), 0, kills(KILLS));
    for round in 1..=kills {
        // Every second kill hits a pull that starts with nothing, the others go on where the last was killed.
        if round % 2 == 1 {
            onggi.ok(["image", "prune", "-a", "-f"]);
            let _ = onggi.output(["rmi", "-f", &reference]);
        }
        let moment = random.moment(whole);
        at_work += u64::from(kill_after(&mut onggi.command(["pull", &reference]), moment));
        onggi.assert_store_is_clean();
        assert_eq!(onggi.unfinished(), [""; 0], "round {round}, killed after {moment:?}");
        if round % 10 == 0 || round == kills {
            onggi.ok(["pull", &reference]);
            onggi.assert_store_is_clean();
            assert_eq!(onggi.images(), reference, "round {round}");
            // The machine's load changes; the kills shall stay within the time that a pull takes.
            onggi.ok(["rmi", "-f", &reference]);
            let start = Instant::now();
            onggi.ok(["pull", &reference]);
            whole = start.elapsed();
        }
    }
    eprintln!("{at_work} of {kills} pulls were killed at work");
    assert!(at_work * 3 >= kills, "only {at_work} of {kills} pulls were killed at work");
}

#[test]
fn fifty_pulls_at_once_fetch_each_blob_once() {
    let (onggi, registry, image) = (Onggi::new(), Registry::start(Auth::Open), image());
    registry.put_image("team/app", "v1", &image);
    let reference = format!("{}/team/app:v1", registry.address());
    let pulls: Vec<_> = (0..50)
        .map(|_| {
            let mut command = onggi.command(["pull", "-q", &reference]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
        })
        .collect();
    for pull in pulls {
        let output = pull.wait_with_output().expect("the program ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {said}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), image.digest().to_string());
    }
    for (descriptor, _) in image.blobs() {
        let path = format!("/blobs/{}", descriptor.digest);
        assert_eq!(registry.count("GET", &path), 1, "{path}");
    }
    onggi.assert_store_is_clean();
    assert_eq!(onggi.unfinished(), [""; 0]);
}

/// Kills the command after a while, and waits until the process that it had made for its container, with which all
/// others of the container end, has ended as well.
fn kill_with_container(command: &mut Command, moment: Duration) {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("the program starts");
    thread::sleep(moment);
    // Stopped, it makes no more processes while we look.
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).expect("it is ours to stop");
    let list = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
    let children = fs::read_to_string(list).unwrap_or_default();
    child.kill().expect("it is ours to kill");
    child.wait().expect("it has ended");
    for child in children.split_whitespace() {
        let start = Instant::now();
        while is_alive(child) {
            assert!(start.elapsed() < Duration::from_secs(60), "the container outlives onggi");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether there is such a process and it is no zombie.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Processes whose command line contains the text.
fn processes(marker: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = entries.filter_map(|entry| {
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&words).replace('\0', " ");
        line.contains(marker).then_some(line)
    });
    lines.collect()
}

#[test]
fn a_run_that_is_killed_leaves_nothing() {
    let onggi = Onggi::new();
    if needs::root().is_missing() {
        return;
    }
    let Some(archive) = busybox_archive(onggi.folder(), "busybox:1") else { return };
    onggi.ok(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]);
    // A time to sleep that nobody else sleeps marks the container's processes.
    let marker = format!("{}.{}", 100_000, std::process::id());
    let script = format!("sleep {marker} & echo x >/file; sleep {marker}");
    let start = Instant::now();
    onggi.ok(["run", "--rm", "--network", "none", "busybox:1", "true"]);
    let whole = start.elapsed();

    let (mut random, rounds) = (Random(7), kills(RUN_KILLS));
    for round in 1..=rounds {
        // The container does not end by itself: after the time to start it, it is hit at its work.
        let moment = random.moment(whole * 2);
        let command = ["run", "--rm", "--network", "none", "busybox:1", "sh", "-c", &script];
        kill_with_container(&mut onggi.command(command), moment);
        assert_eq!(processes(&marker), [""; 0], "round {round}, killed after {moment:?}");
        // The next command sweeps.
        assert_eq!(onggi.ok(["run", "--rm", "--network", "none", "busybox:1", "echo", "swept"]), "swept");
        for place in [onggi.root(), onggi.runroot()] {
            let left: Vec<_> = fs::read_dir(place.join("containers"))
                .expect("a folder")
                .flatten()
                .map(|e| e.path())
                .collect();
            assert!(left.is_empty(), "round {round}, killed after {moment:?}: {left:?}");
        }
        let folder = onggi.folder().to_str().expect("a path of ours").to_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(&folder), "round {round}: a mount was left: {mounts}");
    }
    onggi.assert_store_is_clean();
    assert_eq!(onggi.unfinished(), [""; 0]);
}
