//! Layers that are files: made, mounted once, shared, checked, removed, converted, and mixed with directories.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use onggi_image::Store;
use onggi_image::layer::OverlayXattr;
use onggi_image::layer::UnpackOptions;
use onggi_image::snapshot::Snapshot;
use onggi_image::store::{
    CheckOptions, Depth, Format, Layer, LayerRecord, Lease, Pending, PruneOptions, RemoveOptions, Storage,
};
use rustix::fs::{Access, AtFlags};

use crate::fixture::{Made, child, child_argument, made, name, needs, needs_root, pull, tar};

/// A store whose layers are files, on a filesystem that can carry them.
struct Home {
    store: Store,
    dir: tempfile::TempDir,
}

impl Home {
    fn open(&self, storage: Storage) -> Store {
        open(self.dir.path(), storage)
    }

    fn mounts(&self) -> Vec<String> {
        let place = self.dir.path().join("run/mounts/").to_string_lossy().into_owned();
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        text.lines().filter(|line| line.contains(&place)).map(str::to_owned).collect()
    }

    fn layers(&self) -> PathBuf {
        self.dir.path().join("root/layers")
    }
}

fn open(dir: &Path, storage: Storage) -> Store {
    Store::open_with(&dir.join("root"), &dir.join("run"), UnpackOptions::privileged(), storage).unwrap()
}

/// `None` (counted) without root or where the kernel can't mount files from a disk.
fn home() -> Option<Home> {
    if !needs_root() {
        return None;
    }
    let dir = tempfile::Builder::new().prefix("onggi-test-").tempdir_in("/var/tmp").unwrap();
    let store = open(dir.path(), Storage::Auto);
    needs("EROFS files mounted from /var/tmp", store.new_layers().unwrap().format == Format::Erofs)
        .then(|| Home { store, dir })
}

fn image() -> Made {
    made(&[
        tar(&[("etc/", b""), ("etc/hostname", b"jar\n"), ("gone", b"x")]),
        tar(&[("bin/", b""), ("bin/sh", &[7; 9000]), (".wh.gone", b"")]),
    ])
}

/// What a file says in a snapshot of the image.
fn read(store: &Store, made: &Made, path: &str) -> std::io::Result<Vec<u8>> {
    let image = store.image(&made.manifest.0, None).unwrap();
    let layers = store.ready_layers(&image).unwrap();
    let mount = Snapshot::new(&layers, OverlayXattr::Trusted).mount(None).unwrap();
    fs::read(format!("/proc/self/fd/{}/{path}", mount.as_raw_fd()))
}

fn formats(store: &Store) -> Vec<Format> {
    let ids = store.layer_ids().unwrap();
    ids.iter().map(|id| store.layer(id).unwrap().unwrap().record.format).collect()
}

#[test]
fn pulled_mounted_once_and_removed() {
    let Some(home) = home() else { return };
    let made = image();
    pull(&home.store, &made, "app:1").unwrap();
    assert_eq!(formats(&home.store), [Format::Erofs; 2]);
    assert!(home.mounts().is_empty(), "what nobody runs is not mounted");
    assert_eq!(read(&home.store, &made, "etc/hostname").unwrap(), b"jar\n");
    assert_eq!(read(&home.store, &made, "bin/sh").unwrap(), [7; 9000]);
    assert_eq!(read(&home.store, &made, "gone").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    let mounts = home.mounts();
    assert_eq!(mounts.len(), 2, "each layer once: {mounts:?}");
    assert!(mounts.iter().all(|line| line.contains("- erofs") && !line.contains("shared:")), "{mounts:?}");

    // Another process, or another store in this one, uses the same mounts and leaves them while we are there.
    let other = home.open(Storage::Auto);
    read(&other, &made, "etc/hostname").unwrap();
    drop(other);
    assert_eq!(home.mounts(), mounts);

    let usage = home.store.usage().unwrap();
    assert_eq!((usage.layers.count, usage.images.count), (2, 1));
    assert!((8 << 10..64 << 10).contains(&usage.layers.bytes), "{} bytes of layers", usage.layers.bytes);
    let options = RemoveOptions { force: false, is_running: &|_| false };
    home.store.remove("app:1", &options).unwrap();
    assert_eq!(fs::read_dir(home.layers()).unwrap().count(), 0);
    assert!(home.mounts().is_empty(), "a mount would keep the file's blocks: {:?}", home.mounts());
}

#[test]
fn the_last_user_takes_the_mounts_away() {
    let Some(home) = home() else { return };
    let made = image();
    pull(&home.store, &made, "app:1").unwrap();
    let one = home.open(Storage::Auto);
    let image = one.image(&made.manifest.0, None).unwrap();
    let layers = one.ready_layers(&image).unwrap();
    let snapshot = Snapshot::new(&layers, OverlayXattr::Trusted).mount(None).unwrap();
    assert_eq!(home.mounts().len(), 2);
    drop(layers);
    drop(one);
    let place = home.dir.path().join("run/mounts");
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&*place.to_string_lossy()));
    // What runs goes on, and the next one mounts again.
    let hostname = format!("/proc/self/fd/{}/etc/hostname", snapshot.as_raw_fd());
    assert_eq!(fs::read(hostname).unwrap(), b"jar\n");
    assert_eq!(read(&home.store, &made, "etc/hostname").unwrap(), b"jar\n");
}

/// A runtime directory on a tmpfs, apart from the store, as `/run/onggi` is.
#[test]
fn where_a_boot_clears_the_runtime_directory_mounts_stay_until_they_are_swept() {
    let Some(home) = home() else { return };
    if !needs("a tmpfs at /dev/shm", Path::new("/dev/shm").is_dir()) {
        return;
    }
    let run = tempfile::Builder::new().prefix("onggi-test-").tempdir_in("/dev/shm").unwrap();
    let open = || {
        let root = home.dir.path().join("root");
        Store::open_with(&root, run.path(), UnpackOptions::privileged(), Storage::Auto).unwrap()
    };
    let mounts = || {
        let place = run.path().join("mounts/").to_string_lossy().into_owned();
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        text.lines().filter(|line| line.contains(&place)).map(str::to_owned).collect::<Vec<_>>()
    };
    let made = image();
    pull(&open(), &made, "app:1").unwrap();
    assert_eq!(read(&open(), &made, "etc/hostname").unwrap(), b"jar\n");
    let kept = mounts();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(read(&open(), &made, "etc/hostname").unwrap(), b"jar\n");
    assert_eq!(mounts(), kept, "mounted once");

    // While somebody makes an overlay a sweep waits for better times; a store that merely lives keeps nothing.
    let idle = open();
    read(&idle, &made, "etc/hostname").unwrap();
    let lock = fs::File::open(run.path().join("mounts.lock")).unwrap();
    lock.lock_shared().unwrap();
    open().prune(&PruneOptions::default()).unwrap();
    assert_eq!(mounts(), kept);
    lock.unlock().unwrap();
    open().prune(&PruneOptions::default()).unwrap();
    assert_eq!(mounts(), [""; 0]);
    assert_eq!(read(&idle, &made, "etc/hostname").unwrap(), b"jar\n");
    assert_eq!(mounts().len(), 2);

    // With the image its mounts go; and those of a store that was removed by hand, when there is one again.
    let options = RemoveOptions { force: false, is_running: &|_| false };
    open().remove("app:1", &options).unwrap();
    assert_eq!(mounts(), [""; 0]);
    pull(&open(), &made, "app:1").unwrap();
    read(&idle, &made, "etc/hostname").unwrap();
    assert_eq!(mounts().len(), 2);
    fs::remove_dir_all(home.dir.path().join("root")).unwrap();
    open();
    assert_eq!(mounts(), [""; 0]);
}

/// What reads a layer goes on when its mount is swept; what begins meanwhile mounts it again.
#[test]
fn sweeps_and_mounts_at_once() {
    let Some(home) = home() else { return };
    if !needs("a tmpfs at /dev/shm", Path::new("/dev/shm").is_dir()) {
        return;
    }
    let run = tempfile::Builder::new().prefix("onggi-test-").tempdir_in("/dev/shm").unwrap();
    let root = home.dir.path().join("root");
    let open = || Store::open_with(&root, run.path(), UnpackOptions::privileged(), Storage::Auto).unwrap();
    let made = image();
    pull(&open(), &made, "app:1").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..60 {
                    assert_eq!(read(&open(), &made, "etc/hostname").unwrap(), b"jar\n");
                }
            });
        }
        scope.spawn(|| (0..60).for_each(|_| drop(open().prune(&PruneOptions::default()).unwrap())));
    });
    open().prune(&PruneOptions::default()).unwrap();
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&*run.path().to_string_lossy()));
}

#[test]
fn prune_takes_away_what_a_killed_process_left() {
    let Some(home) = home() else { return };
    let made = image();
    pull(&home.store, &made, "app:1").unwrap();
    let killed = home.open(Storage::Auto);
    read(&killed, &made, "etc/hostname").unwrap();
    // As if it had died: its lock is gone, its mounts are not. (Dropped without its destructor, the lock stays, so
    // a mount is made by hand where that process would have left it.)
    drop(killed);
    let table = home.dir.path().join("run/mounts");
    let status =
        std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&table).status().unwrap();
    assert!(status.success());
    home.store.prune(&PruneOptions::default()).unwrap();
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&*table.to_string_lossy()));
    assert_eq!(formats(&home.store), [Format::Erofs; 2], "the image has a name");
}

#[test]
fn a_changed_file_is_found_and_made_again() {
    let Some(home) = home() else { return };
    let made = image();
    pull(&home.store, &made, "app:1").unwrap();
    for depth in [Depth::Quick, Depth::Full, Depth::Deep] {
        let report = home.store.check(CheckOptions { depth, repair: false }).unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }
    let files: Vec<PathBuf> =
        fs::read_dir(home.layers()).unwrap().map(|e| e.unwrap().path().join("layer.erofs")).collect();
    // One bit in the last block of one, the end of the other.
    let mut bytes = fs::read(&files[0]).unwrap();
    let at = bytes.len() - 4096;
    bytes[at] ^= 0x10;
    fs::write(&files[0], bytes).unwrap();
    fs::File::options().write(true).open(&files[1]).unwrap().set_len(4096).unwrap();
    let quick = home.store.check(CheckOptions { depth: Depth::Quick, repair: false }).unwrap();
    assert_eq!(quick.faults.len(), 1, "{:?}", quick.faults);
    let full = home.store.check(CheckOptions::default()).unwrap();
    assert_eq!(full.faults.len(), 2, "{:?}", full.faults);
    assert!(full.faults.iter().any(|fault| fault.detail.contains("xxh3:")), "{:?}", full.faults);
    let repaired = home.store.check(CheckOptions { depth: Depth::Full, repair: true }).unwrap();
    assert!(repaired.is_clean(), "{:?}", repaired.faults);
    assert!(home.store.check(CheckOptions { depth: Depth::Deep, repair: false }).unwrap().faults.is_empty());
    assert_eq!(read(&home.store, &made, "bin/sh").unwrap(), [7; 9000]);
    fs::remove_file(&files[0]).unwrap();
    assert_eq!(home.store.check(CheckOptions::default()).unwrap().faults.len(), 1);
}

/// The seal itself needs a kernel with fs-verity and a filesystem that has it on: `make test-vm` has both.
#[test]
fn a_file_that_lost_its_seal_is_not_mounted() {
    let Some(home) = home() else { return };
    let made = image();
    pull(&home.store, &made, "app:1").unwrap();
    let record = fs::read_dir(home.layers()).unwrap().next().unwrap().unwrap().path().join("layer.json");
    let text = fs::read_to_string(&record).unwrap();
    assert!(
        !text.contains("verity"),
        "{text}: this filesystem has fs-verity, and the rest of this test assumes that not"
    );
    let seal = format!(r#","verity":"sha256:{}"}}"#, "ab".repeat(32));
    let sealed = text.replacen(r#""file":{"#, "\u{1}", 1);
    let (head, tail) = sealed.split_once('\u{1}').unwrap();
    let (file, rest) = tail.split_once('}').unwrap();
    fs::write(&record, format!(r#"{head}"file":{{{file}{seal}{rest}"#)).unwrap();
    let quick = home.store.check(CheckOptions { depth: Depth::Quick, repair: false }).unwrap();
    assert_eq!(quick.faults.len(), 1, "{:?}", quick.faults);
    assert!(quick.faults[0].detail.contains("fs-verity"), "{:?}", quick.faults);
    let layers = home.store.ready_layers(&home.store.image(&made.manifest.0, None).unwrap()).unwrap();
    let error = Snapshot::new(&layers, OverlayXattr::Trusted).mount(None).unwrap_err();
    assert!(error.to_string().contains("fs-verity"), "{error}");
    assert!(home.store.check(CheckOptions { depth: Depth::Full, repair: true }).unwrap().is_clean());
    assert_eq!(read(&home.store, &made, "bin/sh").unwrap(), [7; 9000]);
}

#[test]
fn both_formats_mix_in_one_image() {
    let Some(home) = home() else { return };
    let made = image();
    let dir = home.open(Storage::Dir);
    let below = crate::fixture::made(&[tar(&[("etc/", b""), ("etc/hostname", b"jar\n"), ("gone", b"x")])]);
    pull(&dir, &below, "below:1").unwrap();
    pull(&home.store, &made, "app:1").unwrap();
    let mut formats = formats(&home.store);
    formats.sort_by_key(Format::to_string);
    assert_eq!(formats, [Format::Dir, Format::Erofs]);
    assert_eq!(read(&home.store, &made, "etc/hostname").unwrap(), b"jar\n");
    assert_eq!(read(&home.store, &made, "gone").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(home.store.check(CheckOptions { depth: Depth::Deep, repair: false }).unwrap().faults.is_empty());
    assert_eq!(home.store.images().unwrap().images.len(), 2);
    assert!(home.store.get_ref(&name("app:1")).unwrap().is_some());
}

#[test]
fn where_files_cannot_be_mounted_layers_are_directories() {
    if !needs_root() || !needs("a tmpfs at /dev/shm", Path::new("/dev/shm").is_dir()) {
        return;
    }
    let dir = tempfile::Builder::new().prefix("onggi-test-").tempdir_in("/dev/shm").unwrap();
    let auto = open(dir.path(), Storage::Auto);
    let found = auto.new_layers().unwrap();
    if found.format == Format::Dir {
        assert!(found.because.contains("can't"), "{}", found.because);
        let error = open(dir.path(), Storage::Erofs).new_layers().unwrap_err();
        assert!(error.to_string().contains("format dir"), "{error}");
    }
    let made = image();
    pull(&auto, &made, "app:1").unwrap();
    assert_eq!(formats(&auto), [found.format; 2]);
    assert_eq!(open(dir.path(), Storage::Dir).new_layers().unwrap().format, Format::Dir);
}

#[test]
fn converted_either_way_while_mounted() {
    let Some(home) = home() else { return };
    let made = image();
    let dir = home.open(Storage::Dir);
    pull(&dir, &made, "app:1").unwrap();
    let image = dir.image(&made.manifest.0, None).unwrap();
    let lookup = dir.ready_layers(&image).unwrap();
    let mount = Snapshot::new(&lookup, OverlayXattr::Trusted).mount(None).unwrap();
    let hostname = format!("/proc/self/fd/{}/etc/hostname", mount.as_raw_fd());
    // A container's record says that somebody may have the layers mounted.
    let container = home.dir.path().join("root/containers/c1");
    fs::create_dir(&container).unwrap();
    fs::write(container.join("config.json"), format!("{{\"image\":\"{}\"}}", made.config.0.digest)).unwrap();

    let converted = home.store.convert(Format::Erofs).unwrap();
    assert_eq!((converted.layers, converted.already, converted.kept), (2, 0, 2));
    assert_eq!(formats(&home.store), [Format::Erofs; 2]);
    assert_eq!(fs::read(&hostname).unwrap(), b"jar\n", "what was mounted before goes on");
    let deep = CheckOptions { depth: Depth::Deep, repair: false };
    assert!(home.store.check(deep).unwrap().faults.is_empty());
    home.store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(fs::read(&hostname).unwrap(), b"jar\n", "a prune leaves what a container uses");
    // Looked up before, opened after: it finds the other form.
    drop(mount);
    fs::remove_dir_all(&container).unwrap();
    home.store.prune(&PruneOptions::default()).unwrap();
    let forms = |name: &str| {
        fs::read_dir(home.layers())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().join(name).exists())
            .count()
    };
    assert_eq!((forms("fs"), forms("layer.erofs")), (0, 2));
    let mount = Snapshot::new(&lookup, OverlayXattr::Trusted).mount(None).unwrap();
    assert_eq!(home.store.convert(Format::Erofs).unwrap().already, 2);

    // Back, without the blobs: from the tree itself.
    for (source, _) in &made.layers {
        fs::remove_file(home.dir.path().join("root/blobs/sha256").join(source.blob.digest.hex())).unwrap();
    }
    let converted = home.store.convert(Format::Dir).unwrap();
    assert_eq!((converted.layers, converted.kept), (2, 0));
    assert_eq!((forms("fs"), forms("layer.erofs")), (2, 0));
    let hostname = format!("/proc/self/fd/{}/etc/hostname", mount.as_raw_fd());
    assert_eq!(fs::read(hostname).unwrap(), b"jar\n", "a file that is mounted lives on");
    assert_eq!(read(&home.store, &made, "bin/sh").unwrap(), [7; 9000]);
    assert_eq!(read(&home.store, &made, "gone").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(home.store.check(CheckOptions::default()).unwrap().faults.is_empty());
}

/// As on a kernel that mounts no files: the probe's record says so.
#[test]
fn mounted_by_loop_devices() {
    let Some(home) = home() else { return };
    if !needs("loop devices", Path::new("/dev/loop-control").exists()) {
        return;
    }
    let made = image();
    pull(&home.store, &made, "app:1").unwrap();
    let record = home.dir.path().join("run/storage.json");
    let found = fs::read_to_string(&record).unwrap();
    fs::write(&record, found.replace("\"file\"", "\"loop\"")).unwrap();
    let store = home.open(Storage::Erofs);
    assert!(store.new_layers().unwrap().because.contains("loop"));
    assert_eq!(read(&store, &made, "etc/hostname").unwrap(), b"jar\n");
    assert!(home.mounts().iter().all(|line| line.contains("/dev/loop")), "{:?}", home.mounts());
}

/// A build uses what it made before it is in its place. Killed then, it leaves a mount to the next sweep.
#[test]
fn a_file_that_is_pending_is_used_and_leaves_nothing() {
    if let Some(dir) = child_argument() {
        let store = open(&dir, Storage::Erofs);
        let lease = store.lease("test").unwrap();
        let (layer, _pending) = pending(&lease, &dir.join("killed"), "a");
        layer.open().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
    let Some(home) = home() else { return };
    let lease = home.store.lease("test").unwrap();
    let (layer, pending_layer) = pending(&lease, &home.dir.path().join("given up"), "b");
    let tree = layer.open_directory().unwrap();
    assert_eq!(rustix::fs::accessat(&tree, "b", Access::EXISTS, AtFlags::empty()), Ok(()));
    assert_eq!(home.mounts().len(), 1);
    drop((tree, pending_layer));
    assert_eq!(home.mounts().len(), 0);
    // Published, it is what it was.
    let (layer, pending_layer) = pending(&lease, &home.dir.path().join("kept"), "c");
    layer.open().unwrap();
    home.store.publish(vec![pending_layer]).unwrap();
    layer.open().unwrap();
    let mut status = child("erofs::a_file_that_is_pending_is_used_and_leaves_nothing", home.dir.path());
    assert_eq!(status.wait().unwrap().code(), None);
    assert_eq!(home.mounts().len(), 2, "the killed one's too");
    home.store.lease("another").unwrap();
    assert_eq!(home.mounts().len(), 1);
}

/// A layer with one file of this name, not in its place.
fn pending(lease: &Lease, at: &Path, name: &str) -> (Layer, Pending) {
    let upper = tempfile::tempdir().unwrap();
    fs::write(upper.path().join(name), name).unwrap();
    let tree = fs::File::open(upper.path()).unwrap();
    let made = lease.store().remake(tree.as_fd(), at, Format::Erofs).unwrap();
    let directory = LayerRecord::directory(made.diff_id.clone(), OverlayXattr::Trusted);
    let record = LayerRecord { format: Format::Erofs, file: made.file, ..directory };
    lease.protect([&made.diff_id.0]).unwrap();
    let pending = lease.adopt_layer(at, &record).unwrap();
    (lease.store().pending_file(&pending, record).unwrap(), pending)
}
