//! Layers coming in: verified, once for all processes, and nothing left of what fails.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onggi_image::store::{CheckOptions, Claim, Depth};
use onggi_image::{Error, Store};
use onggi_oci::{DiffId, Digest};

use crate::fixture::{Made, child, child_argument, home, made, needs_root, noise, open, pull, tar};

fn assert_clean(store: &Store) {
    let report = store.check(CheckOptions { depth: Depth::Deep, repair: false }).unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn a_pulled_image_is_there() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let first = tar(&[("etc/", b""), ("etc/hostname", b"jar\n")]);
    let second = tar(&[("bin/", b""), ("bin/sh", &noise(1, 3_000_000))]);
    let made = made(&[first, second]);
    assert_eq!(pull(store, &made, "example.org:5000/a/b:1").unwrap(), 2);
    assert_eq!(pull(store, &made, "example.org:5000/a/b:2").unwrap(), 0, "nothing is fetched twice");

    let image = store.resolve("example.org:5000/a/b:1", None).unwrap();
    assert_eq!(image.id, made.config.0.digest);
    let layers = store.ready_layers(&image).unwrap();
    assert_eq!(std::fs::read(layers[0].path.join("etc/hostname")).unwrap(), b"jar\n");
    let root = std::fs::symlink_metadata(&layers[0].path).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid()), (0o755, 0), "an archive without an entry for the root");
    let sh = std::fs::symlink_metadata(layers[1].path.join("bin/sh")).unwrap();
    assert_eq!((sh.len(), sh.mtime()), (3_000_000, 1_700_000_000));
    assert_eq!(layers[1].record.blobs[0].digest, made.layers[1].0.blob.digest);
    assert_eq!(store.content_size(&image).unwrap(), 3_000_004);
    assert!(is_empty(&store.root().join("ingest")) && is_empty(&store.runroot().join("locks")));
    assert_clean(store);
}

#[test]
fn a_layer_is_made_from_a_blob_that_is_here() {
    if !needs_root() {
        return;
    }
    let home = home();
    let made = made(&[tar(&[("f", b"x")])]);
    pull(&home.store, &made, "a").unwrap();
    let (source, _) = &made.layers[0];
    std::fs::remove_dir_all(home.store.root().join("layers").join(source.diff_id.0.hex())).unwrap();
    let lease = home.store.lease("test").unwrap();
    let Claim::Unpack(permit) = lease.claim_layer(&source.blob, &source.diff_id).unwrap() else {
        panic!("the blob is here, the layer is not");
    };
    home.store.publish(vec![lease.unpack(source.clone(), permit).unwrap()]).unwrap();
    assert!(home.store.layer(&source.diff_id).unwrap().is_some());
    assert_clean(&home.store);
}

#[test]
fn wrong_bytes_leave_nothing() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let good = made(&[tar(&[("f", &noise(3, 900_000))])]);
    let (source, bytes) = &good.layers[0];
    let other = made(&[tar(&[("f", b"other")])]);

    let mut cases: Vec<(&str, Made)> = Vec::new();
    let mut with = |expected, change: &dyn Fn(&mut Made)| {
        let mut case = made(&[tar(&[("f", &noise(3, 900_000))])]);
        change(&mut case);
        cases.push((expected, case));
    };
    with("is not what was promised", &|m| m.layers[0].1[500_000] ^= 1);
    with("bytes, got", &|m| m.layers[0].1.truncate(500_000));
    with("got more", &|m| m.layers[0].1.push(0));
    with("diff ID", &|m| m.layers[0].0.diff_id = DiffId(Digest::sha256(b"something else")));
    with("is not what was promised", &|m| m.layers[0].1.clone_from(&other.layers[0].1));
    for (expected, case) in cases {
        let error = pull(store, &case, "a").unwrap_err();
        assert!(error.to_string().contains(expected), "{error} lacks {expected}");
    }
    // A hostile layer whose digests are right.
    let hostile = made(&[{
        let mut bytes = tar(&[("aa/escape", b"x")]);
        bytes[..9].copy_from_slice(b"../escape");
        let sum: u32 =
            bytes[..148].iter().chain(&bytes[156..512]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    }]);
    assert!(matches!(pull(store, &hostile, "a"), Err(Error::Entry { .. })));

    assert!(is_empty(&store.root().join("ingest")));
    assert!(is_empty(&store.root().join("layers")) && is_empty(&store.root().join("blobs/sha256")));
    assert!(is_empty(&store.root().join("refs")));
    assert_clean(store);
    // And the right bytes still come in.
    let lease = store.lease("test").unwrap();
    let Claim::Fetch(permit) = lease.claim_layer(&source.blob, &source.diff_id).unwrap() else {
        panic!("it is not here yet")
    };
    let mut ingest = lease.ingest(source.clone(), permit).unwrap();
    ingest.put(bytes).unwrap();
    store.publish(vec![ingest.finish().unwrap()]).unwrap();
}

/// Fifty at once in this process: each blob is fetched once, all succeed.
#[test]
fn fifty_threads_fetch_each_blob_once() {
    if !needs_root() {
        return;
    }
    let home = home();
    let made = shared_image();
    let fetched = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..50 {
            let (made, fetched, dir) = (&made, &fetched, home.dir.path());
            scope.spawn(move || {
                let store = open(dir);
                fetched.fetch_add(pull(&store, made, &format!("a:{n}")).unwrap(), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(fetched.into_inner(), made.layers.len());
    assert_eq!(home.store.refs().unwrap().len(), 50);
    assert_clean(&home.store);
}

fn shared_image() -> Made {
    made(&[
        tar(&[("a", &noise(7, 400_000))]),
        tar(&[("b", &noise(8, 200_000))]),
        tar(&[("c/", b""), ("c/d", b"e")]),
    ])
}

/// The same with fifty processes.
#[test]
fn fifty_processes_fetch_each_blob_once() {
    if let Some(dir) = child_argument() {
        let fetched = pull(&open(&dir), &shared_image(), "a").unwrap();
        println!("fetched={fetched}");
        return;
    }
    if !needs_root() {
        return;
    }
    let home = home();
    let test = "ingest::fifty_processes_fetch_each_blob_once";
    let children: Vec<_> = (0..50).map(|_| child(test, home.dir.path())).collect();
    let mut fetched = 0;
    for mut child in children {
        let mut output = String::new();
        child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        assert!(child.wait().unwrap().success(), "{output}");
        let number = output.split("fetched=").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        fetched += number.parse::<usize>().unwrap();
    }
    assert_eq!(fetched, 3);
    assert!(is_empty(&home.store.root().join("ingest")));
    assert_clean(&home.store);
}

fn large_image() -> Made {
    let names: Vec<String> = (0..400).map(|n| format!("dir/file{n}")).collect();
    let content = noise(9, 6_000);
    let many: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &content[..])).collect();
    made(&[tar(&many), tar(&[("big", &noise(10, 2_000_000))]), tar(&[("small", b"s")])])
}

/// Killed at forty moments spread over a whole pull: the check is clean each time, the next command
/// sweeps, the next pull succeeds.
#[test]
fn a_killed_pull_does_no_harm() {
    const ROUNDS: u32 = 40;
    if let Some(dir) = child_argument() {
        let made = large_image();
        println!("ready");
        pull(&open(&dir), &made, "a").unwrap();
        return;
    }
    if !needs_root() {
        return;
    }
    let made = large_image();
    let start = |dir: &Path| {
        let mut child = child("ingest::a_killed_pull_does_no_harm", dir);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "the child died early");
        }
        (child, output)
    };
    let whole = {
        let home = home();
        let (mut child, _output) = start(home.dir.path());
        let begun = Instant::now();
        assert!(child.wait().unwrap().success());
        begun.elapsed()
    };
    let mut unfinished = 0;
    for round in 0..ROUNDS {
        let home = home();
        let (mut child, _output) = start(home.dir.path());
        std::thread::sleep(whole * round / ROUNDS);
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(home.dir.path());
        unfinished += u32::from(!is_empty(&store.root().join("ingest")));
        assert_clean(&store);
        assert!(is_empty(&store.root().join("ingest")), "the check sweeps");
        pull(&store, &made, "a").unwrap();
        assert!(store.resolve("a", None).is_ok());
        assert_clean(&store);
    }
    println!("{unfinished} of {ROUNDS} were killed in the middle");
    assert!(unfinished > ROUNDS / 4);
}

/// A layer of 600 MB goes in with a few megabytes of memory.
#[test]
fn memory_stays_bounded() {
    if let Some(dir) = child_argument() {
        pull_600_megabytes(&open(&dir));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        println!("{}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap());
        return;
    }
    if !needs_root() {
        return;
    }
    let home = home();
    let mut child = child("ingest::memory_stays_bounded", home.dir.path());
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success(), "{output}");
    let peak = output.split("VmHWM:").nth(1).unwrap().split_whitespace().next().unwrap();
    let peak: u64 = peak.parse().unwrap();
    println!("peak resident memory: {peak} kB");
    assert!(peak < 40_000, "{peak} kB");
}

/// Zeros: 600 MB of tar in 3 MB of gzip, made without holding it.
fn pull_600_megabytes(store: &Store) {
    let lease = store.lease("test").unwrap();
    let mut hasher = onggi_oci::Hasher::new(onggi_oci::Algorithm::Sha256);
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_mode(0o644);
    header.set_size(600 << 20);
    header.set_cksum();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut add = |bytes: &[u8]| {
        hasher.update(bytes);
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
    };
    add(header.as_bytes());
    let block = vec![0; 1 << 20];
    (0..600).for_each(|_| add(&block));
    add(&[0; 1024]);
    let bytes = encoder.finish().unwrap();
    let blob = onggi_oci::Descriptor::of(onggi_oci::MediaType::OciLayerGzip, &bytes);
    let source = onggi_image::store::LayerSource { blob, diff_id: DiffId(hasher.finish()) };
    let Claim::Fetch(permit) = lease.claim_layer(&source.blob, &source.diff_id).unwrap() else {
        panic!("it is not here yet")
    };
    let mut ingest = lease.ingest(source, permit).unwrap();
    ingest.put(&bytes).unwrap();
    store.publish(vec![ingest.finish().unwrap()]).unwrap();
}

/// Nobody waits for a fetch that will never end.
#[test]
fn who_gives_up_lets_the_next_one_try() {
    if !needs_root() {
        return;
    }
    let home = home();
    let made = shared_image();
    let (source, _) = &made.layers[0];
    let first = home.store.lease("first").unwrap();
    let second = open(home.dir.path()).lease("second").unwrap();
    let claim = first.claim_layer(&source.blob, &source.diff_id).unwrap();
    assert!(second.try_claim_layer(&source.blob, &source.diff_id).unwrap().is_none());
    let waiter = {
        let source = source.clone();
        std::thread::spawn(move || second.claim_layer(&source.blob, &source.diff_id).unwrap())
    };
    std::thread::sleep(Duration::from_millis(30));
    assert!(!waiter.is_finished());
    drop(claim);
    assert!(matches!(waiter.join().unwrap(), Claim::Fetch(_)));
}
