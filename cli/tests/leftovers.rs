//! What is left of many containers: no control group, mount, process, namespace, lock or file.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FlockOperation, flock};
use support::Onggi;

const IMAGE: &str = "localhost/busybox:test";
/// So many containers if `ONGGI_CONTAINERS` says nothing else.
const USUAL: usize = 100;
/// So many at once.
const AT_ONCE: usize = 6;

/// One container from its start to its end, of one of six kinds.
fn live_and_die(onggi: &Onggi, parent: &str, number: usize) {
    let name = format!("box{number}");
    let run = |flags: &[&str], command: &[&str]| {
        let start = ["run", "--cgroup-parent", parent, "--name", &name];
        onggi.output([&start, flags, &[IMAGE], command].concat())
    };
    let status = |flags: &[&str], script: &str| run(flags, &["sh", "-c", script]).code;
    match number % 6 {
        0 => assert_eq!(status(&["--rm"], "true"), Some(0)),
        1 => {
            // Children that outlive their parent, memory, a volume without a name.
            let flags = ["--rm", "-m", "64m", "--tmpfs", "/t", "-v", "/v", "--shm-size", "1m"];
            assert_eq!(status(&flags, "sleep 100 & sleep 100 & echo x > /v/x; exit 3"), Some(3));
        }
        2 => assert_eq!(status(&["--rm", "--init"], "kill -9 $$"), Some(137)),
        3 => assert_eq!(run(&["--rm"], &["/no/such"]).code, Some(127)),
        4 => {
            run(&["-d", "--ipc=shareable"], &["sleep", "1000"]).ok();
            onggi.ok(["exec", &name, "sh", "-c", "sleep 1000 >/dev/null 2>&1 & true"]);
            let shared = format!("container:{name}");
            let guest = ["run", "--rm", "--cgroup-parent", parent, "--pid", &shared, "--ipc", &shared];
            onggi.ok([&guest[..], &[IMAGE, "true"]].concat());
            onggi.ok(["rm", "-f", &name]);
        }
        _ => {
            run(&["-d", "--init", "-v", "/v"], &["sleep", "1000"]).ok();
            onggi.ok(["stop", "-t", "0", &name]);
            onggi.ok(["start", &name]);
            onggi.ok(["kill", &name]);
            onggi.ok(["wait", &name]);
            onggi.ok(["rm", "-v", &name]);
        }
    }
}

#[test]
fn nothing_is_left_of_many_containers() {
    let Some(onggi) = Onggi::with_busybox(IMAGE) else { return };
    let count = std::env::var("ONGGI_CONTAINERS").ok().and_then(|text| text.parse().ok()).unwrap_or(USUAL);
    let parent = format!("onggi-leftovers-{}", std::process::id());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    live_and_die(&onggi, &parent, number);
                }
            });
        }
    });
    // What two ends at the same time leave to each other the next one takes.
    live_and_die(&onggi, &parent, 0);
    assert_eq!(onggi.ok(["ps", "-aq"]), "");
    // Files: no container, no volume, nothing unfinished, no name, no lock that somebody holds.
    let (root, run) = (onggi.root(), onggi.runroot());
    let places = [
        root.join("containers"),
        root.join("volumes"),
        root.join("ingest"),
        root.join("names"),
        run.join("containers"),
        run.join("attach"),
    ];
    for place in places {
        let entries = fs::read_dir(&place).into_iter().flatten().flatten();
        // A lock for all of them stays.
        let left: Vec<_> = entries.filter(|entry| entry.file_name() != ".lock").collect();
        assert!(left.is_empty(), "left in {}: {left:?}", place.display());
    }
    for entry in fs::read_dir(run.join("ids")).unwrap() {
        let path = entry.unwrap().path();
        let file = fs::File::open(&path).unwrap();
        assert!(
            flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
            "{} is locked",
            path.display()
        );
    }
    // Mounts and, with the processes that could be in them, namespaces.
    let folder = onggi.folder().to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&folder), "a mount is left: {mounts}");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let about = read("cmdline") + &read("environ") + &read("cgroup");
        let own = entry.file_name().to_str() == Some(&std::process::id().to_string());
        assert!(
            own || !about.contains(&folder) && !about.contains(&parent),
            "process {:?}: {about}",
            entry.file_name()
        );
    }
    // Control groups: the caller's own parent stays, and is empty.
    for tree in fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .flatten()
        .map(|tree| tree.path())
        .chain([Path::new("/sys/fs/cgroup").into()])
    {
        let group = tree.join(&parent);
        if group.exists() {
            fs::remove_dir(&group)
                .unwrap_or_else(|error| panic!("{} is not empty: {error}", group.display()));
        }
    }
    onggi.assert_store_is_clean();
}
