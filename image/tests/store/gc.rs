//! Garbage collection against everybody else.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use onggi_image::store::{CheckOptions, PruneOptions, Removed};
use onggi_oci::MediaType;

use crate::fixture::{
    Made, child, child_argument, fetch, home, made, name, needs_root, noise, open, pull, tar,
};

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn counts(root: &Path) -> (usize, usize) {
    (count(&root.join("layers")), count(&root.join("blobs/sha256")))
}

#[test]
fn what_nothing_reaches_goes_and_the_rest_stays() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let shared = tar(&[("base", b"b")]);
    let one = made(&[shared.clone(), tar(&[("one", b"1")])]);
    let two = made(&[shared, tar(&[("two", b"2")])]);
    pull(store, &one, "one").unwrap();
    pull(store, &two, "two").unwrap();
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().bytes, 0);
    assert_eq!(counts(store.root()), (3, 7));

    // The tag moves: the old image keeps a place without a name, until a prune of dangling images.
    store.tag(&two.manifest.0, &name("one")).unwrap();
    assert_eq!(store.images().unwrap().images.len(), 2);
    assert!(store.resolve(one.config.0.digest.short(), None).is_ok());
    let pruned = store.prune(&PruneOptions { dangling: true, ..Default::default() }).unwrap();
    assert_eq!(pruned.removed, [Removed::Deleted(one.config.0.digest.clone())]);
    assert!(pruned.bytes > 0);
    assert_eq!(counts(store.root()), (2, 4));
    assert!(store.check(CheckOptions::default()).unwrap().faults.is_empty());

    // A container keeps its image from `prune -a`.
    let container = store.containers_dir().join("c1");
    std::fs::create_dir(&container).unwrap();
    std::fs::write(container.join("config.json"), format!("{{\"Image\":\"{}\"}}", two.config.0.digest))
        .unwrap();
    let all = PruneOptions { all: true, ..Default::default() };
    assert_eq!(store.prune(&all).unwrap().removed, []);
    std::fs::remove_dir_all(&container).unwrap();
    assert_eq!(store.prune(&all).unwrap().removed.len(), 3);
    assert_eq!(counts(store.root()), (0, 0));
}

#[test]
fn a_lease_protects_what_it_names() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let image = made(&[tar(&[("f", b"x")])]);
    let lease = store.lease("test").unwrap();
    fetch(&lease, &image).unwrap();
    open(home.dir.path()).prune(&PruneOptions { all: true, ..Default::default() }).unwrap();
    assert!(store.missing(&image.manifest.0).unwrap().is_empty());
    drop(lease);
    store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(counts(store.root()), (0, 0));
}

#[test]
fn blobs_that_a_registry_holds_can_be_dropped() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let image = made(&[tar(&[("f", b"x")]), tar(&[("g", b"y")])]);
    pull(store, &image, "a").unwrap();
    let known = &image.layers[0].0.blob;
    store.add_origin(&known.digest, &name("example.org/a:1")).unwrap();
    store.prune(&PruneOptions { blobs: true, ..Default::default() }).unwrap();
    assert!(!store.has_blob(known).unwrap());
    assert!(store.has_blob(&image.layers[1].0.blob).unwrap(), "no registry is known to hold this one");
    assert!(store.missing(&image.manifest.0).unwrap().is_empty());
    assert_eq!(store.origins(&known.digest).unwrap(), [name("example.org/a")]);
    assert_eq!(pull(store, &image, "a").unwrap(), 0, "the layer is ready, nothing is fetched");
    assert!(store.check(CheckOptions::default()).unwrap().faults.is_empty());
}

/// Image n shares a layer with its neighbour.
fn image(n: u64) -> Made {
    made(&[tar(&[("shared", &noise(n / 2, 50_000))]), tar(&[("own", &noise(1_000 + n, 30_000))])])
}

/// Pulls against prunes, in threads and processes: a pull that succeeded is complete.
#[test]
fn prune_never_takes_what_a_pull_uses() {
    if let Some(dir) = child_argument() {
        let store = open(&dir);
        for _ in 0..150 {
            store.prune(&PruneOptions { dangling: true, ..Default::default() }).unwrap();
        }
        return;
    }
    if !needs_root() {
        return;
    }
    let home = home();
    let pruner = child("gc::prune_never_takes_what_a_pull_uses", home.dir.path());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (dir, stop) = (home.dir.path(), &stop);
        scope.spawn(move || {
            let store = open(dir);
            while !stop.load(Ordering::Relaxed) {
                store.prune(&PruneOptions { all: true, ..Default::default() }).unwrap();
            }
        });
        let pullers: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    let store = open(dir);
                    for round in 0..40_u64 {
                        let image = image((thread + round) % 5);
                        let lease = store.lease("test").unwrap();
                        fetch(&lease, &image).unwrap();
                        assert_eq!(store.missing(&image.manifest.0).unwrap(), Vec::<String>::new());
                        pull(&store, &image, &format!("a:{thread}")).unwrap();
                    }
                })
            })
            .collect();
        let results: Vec<_> = pullers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    assert!(pruner.wait_with_output().unwrap().status.success());
    let report = home.store.check(CheckOptions::default()).unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

#[test]
fn usage_is_what_du_says() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    pull(store, &made(&[tar(&[("d/", b""), ("d/f", &noise(1, 1_234_567)), ("g", b"small")])]), "a").unwrap();
    pull(store, &image(3), "b").unwrap();
    // Names so deep that no path reaches them, and a hard link.
    let volume = store.root().join("volumes/v");
    let script = "mkdir -p $0 && cd $0 && echo x > one && ln one two && \
         for i in $(seq 40); do mkdir $1 && cd ./$1 || exit 1; done && echo deep > f";
    let status = Command::new("bash").args(["-c", script]).arg(&volume).arg("n".repeat(200)).status();
    assert!(status.unwrap().success());
    let usage = store.usage().unwrap();
    let du = Command::new("du").args(["-s", "-B1"]).arg(store.root()).output().unwrap();
    let du: u64 = String::from_utf8(du.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(usage.total, du);
    assert_eq!((usage.images.count, usage.layers.count, usage.volumes.count), (2, 3, 1));
    assert_eq!(usage.images.reclaimable, usage.images.bytes, "no container uses them");
}

#[test]
fn the_media_type_of_a_ref_must_be_right() {
    if !needs_root() {
        return;
    }
    let home = home();
    let image = made(&[tar(&[("f", b"x")])]);
    let lease = home.store.lease("test").unwrap();
    fetch(&lease, &image).unwrap();
    let mut wrong = image.manifest.0.clone();
    wrong.media_type = MediaType::OciIndex;
    assert!(home.store.tag(&wrong, &name("a")).is_err());
    assert!(home.store.refs().unwrap().is_empty());
}
