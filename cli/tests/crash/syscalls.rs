//! Killed at a system call: every command that changes the store, alone and in pairs, at a call that a seed chooses.
//!
//! strace counts the calls that write, name, remove, lock or mount something, and kills the process that comes to
//! call number N; the rest of the process group is killed with it. A round that fails names its seed, and
//! `ONGGI_SEED` runs from there. `ONGGI_KILLS` (2,000 by `make test-crash`) sets how many rounds there are.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use onggi_testkit::{Auth, ImageMaker, Registry, needs};
use rustix::process::{Pid, Signal, kill_process_group};

use super::support::{Done, Onggi, archive_of, busybox_archive};
use super::{Random, kills};

/// Rounds of a run of the suite.
const ROUNDS: u64 = 24;

/// The calls that are counted: those after which the disk, or what others see, is another than before.
const CALLS: &str = "openat,write,pwrite64,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,fsync,\
                     fdatasync,syncfs,sync_file_range,ftruncate,fallocate,link,linkat,symlink,symlinkat,fchmod,\
                     fchmodat,fchown,fchownat,utimensat,setxattr,fsetxattr,flock,mount,move_mount,umount2,clone3";

/// A command, and what has to be true of the store before and after.
pub(crate) struct Deed {
    pub(crate) name: &'static str,
    words: Vec<String>,
    /// Run before, whatever it answers.
    before: Vec<Vec<String>>,
    /// What the command makes or removes, if it is an image.
    pub(crate) image: Option<String>,
    /// Whether a second time may find nothing left to do.
    once: bool,
    /// Whether each time makes another image: its ID tells when it was made.
    varies: bool,
}

impl Deed {
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    /// What has to come before, and the command.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Vec<String>> {
        self.before.iter().chain([&self.words])
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

pub(crate) struct Ground {
    pub(crate) onggi: Onggi,
    /// Kept, so that pulls have something to pull.
    _registry: Registry,
    pub(crate) deeds: Vec<Deed>,
}

impl Ground {
    pub(crate) fn new() -> Option<Self> {
        if needs::programs(&["strace"]).is_missing() { None } else { Self::over(Onggi::new()) }
    }

    /// The same over a store that is perhaps on a disk of its own.
    pub(crate) fn over(onggi: Onggi) -> Option<Self> {
        if needs::root().is_missing() {
            return None;
        }
        let archive = busybox_archive(onggi.folder(), "busybox:1")?;
        onggi.ok(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]);
        let registry = Registry::start(Auth::Open);
        let pulled = ImageMaker::new()
            .layer(&[("etc/one", b"1"), ("usr/two", &[7; 9000])])
            .layer(&[("etc/three", b"3")])
            .big_layer(5, 200_000)
            .build();
        registry.put_image("team/app", "v1", &pulled);
        let loaded = ImageMaker::new().layer(&[("l/one", b"1")]).big_layer(6, 100_000).build();
        let file = onggi.folder().join("loaded.tar");
        fs::write(&file, archive_of(loaded.layout("loaded:1"))).expect("an archive");
        let context = onggi.folder().join("context");
        fs::create_dir(&context).expect("a folder");
        fs::write(context.join("file"), "content").expect("a file");
        fs::write(context.join("Dockerfile"), "FROM busybox:1\nCOPY file /\nRUN echo x > /y\n")
            .expect("a file");
        onggi.ok(["create", "--name", "kept", "busybox:1", "true"]);

        let pull = format!("{}/team/app:v1", registry.address());
        let remove = |image: &str| words(&format!("rmi -f {image}"));
        let deed = |name, text: &str| {
            let (words, before) = (words(text), Vec::new());
            Deed { name, words, before, image: None, once: false, varies: false }
        };
        let (file, context) = (file.display(), context.display());
        let deeds = vec![
            Deed {
                before: vec![remove(&pull)],
                image: Some(pull.clone()),
                ..deed("pull", &format!("pull -q {pull}"))
            },
            Deed {
                before: vec![remove("loaded:1")],
                image: Some("loaded:1".into()),
                ..deed("load", &format!("load -q -i {file}"))
            },
            Deed {
                before: vec![remove("built:1"), words("builder prune -af")],
                image: Some("built:1".into()),
                ..deed("build", &format!("build -q --network none -t built:1 {context}"))
            },
            Deed {
                before: vec![remove("committed:1")],
                image: Some("committed:1".into()),
                varies: true,
                ..deed("commit", "commit kept committed:1")
            },
            Deed {
                before: vec![words(&format!("load -q -i {file}"))],
                image: Some("loaded:1".into()),
                once: true,
                ..deed("rmi", "rmi loaded:1")
            },
            Deed {
                before: vec![words(&format!("pull -q {pull}")), words(&format!("rmi --no-prune {pull}"))],
                ..deed("prune", "image prune -f")
            },
            deed("run", "run --rm --network none busybox:1 true"),
            Deed {
                before: vec![remove("tagged:1")],
                image: Some("tagged:1".into()),
                ..deed("tag", "tag busybox:1 tagged:1")
            },
        ];
        Some(Self { onggi, _registry: registry, deeds })
    }

    /// The ID of an image, if there is one by this name.
    pub(crate) fn id(&self, image: &str) -> Option<String> {
        let done = self.onggi.output(["image", "inspect", "--format", "{{.Id}}", image]);
        (done.code == Some(0)).then_some(done.stdout)
    }

    /// Does what has to come before the command.
    pub(crate) fn ready(&self, deed: &Deed) {
        for words in &deed.before {
            self.onggi.output(words);
        }
    }

    /// The command below strace, in a process group of its own.
    pub(crate) fn traced(&self, deed: &Deed, arguments: &[String]) -> Command {
        let plain = self.onggi.command(&deed.words);
        let mut command = Command::new(needs::find_program("strace").expect("it was looked for"));
        command.args(["-f", "-qq", "-e", "signal=none"]).args(arguments);
        command.arg(plain.get_program()).args(plain.get_args()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("SOURCE_DATE_EPOCH", "1700000000").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// How many of the calls the process makes that makes most of them.
    fn calls(&self, deed: &Deed) -> u64 {
        let trace = self.onggi.folder().join("trace");
        let arguments = ["-o", trace.to_str().expect("a path of ours"), "-e"].map(str::to_owned);
        let mut arguments = arguments.to_vec();
        arguments.push(format!("trace={CALLS}"));
        let done = Done::of(&mut self.traced(deed, &arguments));
        assert_eq!(done.code, Some(0), "{} below strace", deed.name);
        let mut counts = std::collections::HashMap::<String, u64>::new();
        for line in fs::read_to_string(&trace).expect("a trace").lines() {
            let pid = line.split(' ').next().unwrap_or_default();
            *counts.entry(pid.to_owned()).or_default() += u64::from(!line.contains("resumed>"));
        }
        counts.into_values().max().unwrap_or(1)
    }

    fn start(&self, deed: &Deed, call: u64) -> Child {
        let inject = format!("inject={CALLS}:signal=SIGKILL:when={call}");
        let log = PathBuf::from("/dev/null").display().to_string();
        let arguments =
            ["-o".to_owned(), log, "-e".to_owned(), format!("trace={CALLS}"), "-e".to_owned(), inject];
        self.traced(deed, &arguments).spawn().expect("strace starts")
    }

    /// What has to be true whoever was killed at whatever moment.
    fn check(&self, deeds: &[&Deed], old: &[Option<String>], new: &[Option<String>], round: &str) {
        let done = self.onggi.output(["system", "check"]);
        assert_eq!(done.code, Some(0), "{round}: {}{}", done.stdout, done.stderr);
        assert_eq!(self.onggi.unfinished(), [""; 0], "{round}");
        for ((deed, old), new) in deeds.iter().zip(old).zip(new) {
            let Some(image) = &deed.image else { continue };
            let now = self.id(image);
            let other = deed.varies && now.is_some();
            assert!(other || now == *old || now == *new, "{round}: {} left {image} as {now:?}", deed.name);
        }
        for deed in deeds {
            let mut command = self.onggi.command(&deed.words);
            let again = Done::of(command.env("SOURCE_DATE_EPOCH", "1700000000"));
            let nothing_left = deed.once && again.stderr.contains("no such image");
            assert!(again.code == Some(0) || nothing_left, "{round}: {} again: {}", deed.name, again.stderr);
        }
        assert!(self.id("busybox:1").is_some(), "{round}: an image that nobody touched is gone");
    }
}

/// Waits until it ended, and kills what is left of its group. Tells whether it was killed at work.
fn end(mut child: Child) -> bool {
    let (pid, start) = (Pid::from_child(&child), Instant::now());
    let status = loop {
        match child.try_wait().expect("it is ours") {
            Some(status) => break status,
            None if start.elapsed() > Duration::from_secs(120) => {
                let _ = kill_process_group(pid, Signal::KILL);
                panic!("it hangs");
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let _ = kill_process_group(pid, Signal::KILL);
    !status.success()
}

#[test]
fn killed_at_a_system_call_nothing_is_lost() {
    let Some(ground) = Ground::new() else { return };
    let ready = |deed: &Deed| ground.ready(deed);
    // What each makes, and how many calls it takes to.
    let mut known = Vec::new();
    for deed in &ground.deeds {
        ready(deed);
        let before = deed.image.as_deref().and_then(|image| ground.id(image));
        let calls = ground.calls(deed);
        known.push((calls, before, deed.image.as_deref().and_then(|image| ground.id(image))));
    }
    let first = std::env::var("ONGGI_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let rounds = kills(ROUNDS);
    let mut killed = 0;
    for seed in first..first + rounds {
        let mut random = Random(seed);
        let count = ground.deeds.len() as u64;
        let mut chosen = vec![usize::try_from(random.below(count)).expect("a few")];
        // Every second round two at once; of two that touch the same image nobody can say what it is afterwards.
        if seed % 2 == 0 {
            let other = usize::try_from(random.below(count)).expect("a few");
            let image = |one: usize| &ground.deeds[one].image;
            if other != chosen[0] && (image(other).is_none() || image(other) != image(chosen[0])) {
                chosen.push(other);
            }
        }
        let deeds: Vec<&Deed> = chosen.iter().map(|&one| &ground.deeds[one]).collect();
        for deed in &deeds {
            ready(deed);
        }
        let calls: Vec<u64> = chosen.iter().map(|&one| 1 + random.below(known[one].0)).collect();
        let names: Vec<_> =
            deeds.iter().zip(&calls).map(|(d, n)| format!("{} at call {n}", d.name)).collect();
        let round = format!("ONGGI_SEED={seed}, killed {}", names.join(" and "));
        let children: Vec<Child> =
            deeds.iter().zip(&calls).map(|(deed, call)| ground.start(deed, *call)).collect();
        killed += children.into_iter().map(end).filter(|was| *was).count();
        let old: Vec<_> = chosen.iter().map(|&one| known[one].1.clone()).collect();
        let new: Vec<_> = chosen.iter().map(|&one| known[one].2.clone()).collect();
        ground.check(&deeds, &old, &new, &round);
    }
    eprintln!("{killed} commands were killed in {rounds} rounds");
    assert!(killed as u64 * 4 >= rounds, "only {killed} commands of {rounds} rounds were killed at work");
}
