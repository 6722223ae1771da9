//! Power cuts: what a command has reported as done is there, whatever the disk had not been told to flush.
//!
//! The store lies on a file system on a disk that records its writes and flushes (`onggi_testkit::RecordedDisk`). Commands
//! run one after the other; then the power is cut again and again, in the record: at a moment just after a command, just
//! before or after a flush, or at any, with the writes since the last flush lost, kept, or some of each, as a seed says.
//! What is left is mounted, as after a boot.
//!
//! `ONGGI_CUTS` (400 by `make test-crash`) sets how many cuts there are, `ONGGI_SEED` with which seed they begin,
//! `ONGGI_CUT_ON` on which file system (ext4).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use onggi_testkit::{RecordedDisk, needs};
use rustix::mount::{UnmountFlags, unmount};

use super::support::{Done, Onggi};
use super::syscalls::{Deed, Ground};
use super::{Random, number};

/// Cuts of a run of the suite, for each format of layers.
const CUTS: u64 = 8;
const SIZE: u64 = 96 << 20;

/// A mounted file system, away when it is dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn new(image: &Path, point: &Path) -> Self {
        fs::create_dir_all(point).expect("a folder");
        Done::of(Command::new("mount").args(["-o", "loop"]).arg(image).arg(point)).ok();
        Self(point.to_owned())
    }

    /// Unmounts it, and waits until the device is free.
    pub(crate) fn end(self) {
        Done::of(Command::new("umount").arg(&self.0)).ok();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A new file system on a recorded disk, at the place of the store. `None` is a counted skip.
pub(crate) fn recorded(onggi: &Onggi) -> Option<(Mounted, RecordedDisk)> {
    let kind = std::env::var("ONGGI_CUT_ON").unwrap_or_else(|_| "ext4".to_owned());
    let program = format!("mkfs.{kind}");
    if needs::root().is_missing() || needs::programs(&[&program, "mount"]).is_missing() {
        return None;
    }
    let disk = match RecordedDisk::new(SIZE * if kind == "ext4" { 1 } else { 4 }) {
        Ok(disk) => disk,
        Err(error) => {
            let _ = needs::missing(&format!("a file system of its own (FUSE): {error}"));
            return None;
        }
    };
    let options: &[&str] = if kind == "ext4" { &["-q", "-E", "nodiscard", "-J", "size=4"] } else { &["-q"] };
    let program = needs::find_program(&program).expect("it was found");
    Done::of(Command::new(program).args(options).arg(disk.path())).ok();
    let mounted = Mounted::new(disk.path(), &onggi.root());
    let _ = fs::remove_dir(onggi.root().join("lost+found"));
    Some((mounted, disk))
}

/// What one sees of the store.
pub(crate) fn look(onggi: &Onggi) -> [String; 3] {
    [
        onggi.ok(["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]),
        onggi.ok(["ps", "-a", "--format", "{{.Names}}"]),
        onggi.ok(["volume", "ls", "-q"]),
    ]
}

/// A command of the record.
struct Step {
    words: Vec<String>,
    begin: usize,
    end: usize,
    after: [String; 3],
}

/// The runtime directory is lost with the power, and all mounts.
pub(crate) fn boot(onggi: &Onggi) {
    let _ = unmount(onggi.mounts(), UnmountFlags::DETACH);
    let _ = fs::remove_dir_all(onggi.runroot());
}

/// Tells what was done; nothing if it was skipped.
fn cut_the_power(storage: &str) -> Option<String> {
    let mut onggi = Onggi::new();
    onggi.storage(storage);
    let (live, disk) = recorded(&onggi)?;
    let ground = Ground::over(onggi)?;
    let onggi = &ground.onggi;
    Done::of(Command::new("sync").arg("-f").arg(onggi.root())).ok();
    disk.begin();

    let mut steps = vec![Step { words: Vec::new(), begin: 0, end: 0, after: look(onggi) }];
    let more =
        ["volume create kept", "create --name new -v kept:/v busybox:1 true", "rm new", "rmi tagged:1"];
    let more: Vec<Vec<String>> =
        more.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect();
    for words in ground.deeds.iter().flat_map(Deed::all).chain(&more) {
        let begin = disk.moment();
        let done = onggi.output(words);
        let end = disk.moment();
        // What has to come before may find nothing to remove.
        assert!(done.code == Some(0) || words[0].starts_with("rm"), "{words:?}: {}", done.stderr);
        steps.push(Step { words: words.clone(), begin, end, after: look(onggi) });
    }
    drop(live);
    boot(onggi);

    let flushes = disk.flushes();
    let last = steps.last().expect("steps").end;
    let image = onggi.folder().join("after");
    let first = number("ONGGI_SEED", 1);
    let cuts = number("ONGGI_CUTS", CUTS);
    for seed in first..first + cuts {
        let mut random = Random(seed);
        let any = |random: &mut Random, list: &[usize]| {
            let chosen = random.below(list.len() as u64);
            list[usize::try_from(chosen).expect("an index")]
        };
        let ends: Vec<usize> = steps.iter().map(|step| step.end).collect();
        let moment = match random.below(4) {
            0 => any(&mut random, &ends),
            1 => any(&mut random, &flushes),
            2 => any(&mut random, &flushes) - 1,
            _ => usize::try_from(random.below(last as u64)).expect("an index"),
        }
        .min(last);
        let (kept, of) =
            [(0, 1), (1, 1), (1, 2), (9, 10)][usize::try_from(random.below(4)).expect("an index")];
        disk.cut(moment, &image, || random.below(of) < kept).expect("an image");
        let done = steps.iter().rposition(|step| step.end <= moment).unwrap_or(0);
        let under_way = steps.get(done + 1).filter(|step| step.begin < moment);
        let round = format!(
            "ONGGI_SEED={seed}, {storage}: cut at {moment} of {last}, {kept} of {of} kept, after {:?}, in {:?}",
            steps[done].words,
            under_way.map(|step| &step.words),
        );
        let mounted = Mounted::new(&image, &onggi.root());
        let now = look(onggi);
        let known = now == steps[done].after || under_way.is_some_and(|step| now == step.after);
        let check = onggi.output(["system", "check"]);
        assert_eq!(check.code, Some(0), "{round}: {}{}", check.stdout, check.stderr);
        assert!(known, "{round}: {now:?}\nafter the last: {:?}", steps[done].after);
        assert_eq!(onggi.unfinished(), [""; 0], "{round}");
        if let Some(step) = under_way {
            let again = onggi.output(&step.words);
            let nothing_left = step.words[0].starts_with("rm");
            assert!(again.code == Some(0) || nothing_left, "{round}: again: {}", again.stderr);
        }
        let run = onggi.output(["run", "--rm", "--network", "none", "busybox:1", "true"]);
        assert_eq!(run.code, Some(0), "{round}: {}", run.stderr);
        boot(onggi);
        drop(mounted);
    }
    Some(format!(
        "{storage}: {cuts} cuts in a record of {last} events, {} flushes, {} commands",
        flushes.len(),
        steps.len() - 1
    ))
}

#[test]
fn after_a_power_cut_everything_that_was_reported_is_there() {
    eprintln!("{:?}", cut_the_power("auto"));
}

#[test]
fn after_a_power_cut_layers_that_are_directories_are_there() {
    eprintln!("{:?}", cut_the_power("dir"));
}
