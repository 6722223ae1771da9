//! Layers mounted on the real kernel, by every way that some kernel needs.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use onggi_image::Error;
use onggi_image::layer::OverlayXattr;
use onggi_image::snapshot::{Found, Snapshot, Way};
use onggi_image::store::Layer;

use crate::fixture::{Home, Made, home, made, needs_root, pull, tar};

const WAYS: [Way; 2] = [Way::Descriptors, Way::Namespace];

fn layers(home: &Home, made: &Made) -> Vec<Layer> {
    pull(&home.store, made, "a").unwrap();
    home.store.ready_layers(&home.store.resolve("a", None).unwrap()).unwrap()
}

fn snapshot(layers: &[Layer], way: Way) -> Snapshot {
    Snapshot::new(layers, OverlayXattr::Trusted).by(way)
}

/// A path into a detached mount.
fn inside(mount: &OwnedFd, path: &str) -> PathBuf {
    use std::os::fd::AsRawFd;
    Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())).join(path)
}

fn read(mount: &OwnedFd, path: &str) -> String {
    std::fs::read_to_string(inside(mount, path)).unwrap()
}

#[test]
fn upper_layers_hide_lower_ones() {
    if !needs_root() {
        return;
    }
    let home = home();
    let made = made(&[
        tar(&[("a", b"1"), ("b", b"1"), ("d/", b""), ("d/x", b"1"), ("d/y", b"1"), ("gone", b"1")]),
        tar(&[("b", b"2"), (".wh.gone", b""), ("d/", b""), ("d/.wh..wh..opq", b""), ("d/z", b"2")]),
        tar(&[("c", b"3")]),
    ]);
    let layers = layers(&home, &made);
    for way in WAYS {
        let mount = snapshot(&layers, way).mount(None).unwrap();
        assert_eq!([read(&mount, "a"), read(&mount, "b"), read(&mount, "c")], ["1", "2", "3"]);
        assert!(!inside(&mount, "gone").exists());
        let names: Vec<_> =
            std::fs::read_dir(inside(&mount, "d")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["z"]);
        let error = std::fs::write(inside(&mount, "new"), b"x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
}

#[test]
fn changes_go_to_the_upper_directory() {
    if !needs_root() {
        return;
    }
    let home = home();
    let layers = layers(&home, &made(&[tar(&[("a", b"1"), ("b", b"1")])]));
    std::fs::set_permissions(&layers[0].path, std::fs::Permissions::from_mode(0o711)).unwrap();
    for (n, way) in WAYS.into_iter().enumerate() {
        let dir = home.dir.path().join(format!("c{n}"));
        std::fs::create_dir(&dir).unwrap();
        let snapshot = snapshot(&layers, way).writable(&dir).volatile();
        snapshot.prepare().unwrap();
        let mount = snapshot.mount(None).unwrap();
        std::fs::write(inside(&mount, "a"), b"2").unwrap();
        std::fs::remove_file(inside(&mount, "b")).unwrap();
        assert_eq!(std::fs::metadata(inside(&mount, "")).unwrap().mode() & 0o7777, 0o711);
        drop(mount);
        assert_eq!(std::fs::read(dir.join("upper/a")).unwrap(), b"2");
        assert_eq!(std::fs::symlink_metadata(dir.join("upper/b")).unwrap().rdev(), 0);
        assert_eq!(std::fs::read(layers[0].path.join("a")).unwrap(), b"1");
    }
}

#[test]
fn two_hundred_layers() {
    if !needs_root() {
        return;
    }
    let home = home();
    let tars: Vec<_> = (0..200)
        .map(|n| tar(&[(format!("f{n}").as_str(), b"x"), ("top", n.to_string().as_bytes())]))
        .collect();
    let layers = layers(&home, &made(&tars));
    for way in WAYS {
        let mount = snapshot(&layers, way).mount(None).unwrap();
        assert_eq!(read(&mount, "top"), "199");
        assert_eq!(std::fs::read_dir(inside(&mount, "")).unwrap().count(), 201);
    }
}

#[test]
fn few_and_repeated_layers() {
    if !needs_root() {
        return;
    }
    let home = home();
    let base = tar(&[("a", b"1"), (".wh.hidden", b"")]);
    let layers = layers(&home, &made(&[base.clone(), tar(&[("a", b"2"), ("b", b"2")]), base]));
    assert_eq!(layers.len(), 3);
    for way in WAYS {
        // One layer: its whiteouts are not seen.
        let mount = snapshot(&layers[..1], way).mount(None).unwrap();
        assert_eq!(std::fs::read_dir(inside(&mount, "")).unwrap().count(), 1);
        // The same layer twice.
        let mount = snapshot(&layers, way).mount(None).unwrap();
        assert_eq!([read(&mount, "a"), read(&mount, "b")], ["1", "2"]);
        // None at all.
        let dir = home.dir.path().join(format!("{way:?}"));
        std::fs::create_dir(&dir).unwrap();
        let empty = snapshot(&[], way).writable(&dir);
        empty.prepare().unwrap();
        let mount = empty.mount(None).unwrap();
        std::fs::write(inside(&mount, "f"), b"x").unwrap();
    }
}

#[test]
fn files_are_found_without_a_mount_as_with_one() {
    if !needs_root() {
        return;
    }
    // (layers, what `etc/one` and `etc/two` are)
    /// Layers of files, and what two paths say in the end.
    type Case<'a> = (&'a [&'a [(&'a str, &'a [u8])]], [Option<&'a str>; 2]);
    let cases: [Case<'_>; 9] = [
        (&[&[("etc/", b""), ("etc/one", b"1")]], [Some("1"), None]),
        (&[&[("other", b"1")]], [None, None]),
        (&[&[("etc/one", b"1"), ("etc/two", b"1")], &[("etc/two", b"2")]], [Some("1"), Some("2")]),
        (&[&[("etc/one", b"1"), ("etc/two", b"1")], &[("etc/.wh.one", b"")]], [None, Some("1")]),
        (&[&[("etc/one", b"1")], &[("etc/.wh..wh..opq", b""), ("etc/two", b"2")]], [None, Some("2")]),
        (&[&[("etc/one", b"1")], &[(".wh.etc", b"")]], [None, None]),
        (&[&[("etc/one", b"1")], &[(".wh.etc", b"")], &[("etc/two", b"3")]], [None, Some("3")]),
        (&[&[("etc/one", b"1")], &[("etc", b"a file")], &[("etc/two", b"3")]], [None, Some("3")]),
        (&[&[("etc/one", b"1")], &[(".wh..wh..opq", b""), ("etc/two", b"2")]], [None, Some("2")]),
    ];
    for (tars, expected) in cases {
        let home = home();
        let layers = layers(&home, &made(&tars.iter().map(|entries| tar(entries)).collect::<Vec<_>>()));
        let snapshot = snapshot(&layers, Way::Best);
        let mount = snapshot.mount(None).unwrap();
        let mounted = ["etc/one", "etc/two"].map(|path| std::fs::read_to_string(inside(&mount, path)).ok());
        assert_eq!(mounted.each_ref().map(Option::as_deref), expected, "{tars:?}");
        let found = snapshot.files("etc", ["one", "two"]).unwrap().expect("plain files");
        let found = found.map(|found| match found {
            Found::File(file) => Some(std::io::read_to_string(std::fs::File::from(file)).unwrap()),
            Found::Nothing => None,
        });
        assert_eq!(found, mounted, "{tars:?}");
    }
    // What an empty file is only overlayfs knows.
    let home = home();
    let layers = layers(&home, &made(&[tar(&[("etc/one", b"")])]));
    assert!(snapshot(&layers, Way::Best).files("etc", ["one"]).unwrap().is_none());
}

/// A user namespace in which 0 is `outside`.
fn user_namespace(outside: u32) -> OwnedFd {
    let mut child = std::process::Command::new("unshare")
        .args(["--user", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let namespace = format!("/proc/{}/ns/user", child.id());
    let ours = std::fs::read_link("/proc/self/ns/user").unwrap();
    while std::fs::read_link(&namespace).is_ok_and(|theirs| theirs == ours) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", child.id()), format!("0 {outside} 65536")).unwrap();
    }
    let descriptor = std::fs::File::open(namespace).unwrap().into();
    drop(child.stdin.take());
    child.wait().unwrap();
    descriptor
}

#[test]
fn ids_are_shifted() {
    if !needs_root() {
        return;
    }
    let home = home();
    let layers = layers(&home, &made(&[tar(&[("a", b"1")]), tar(&[("b", b"1")])]));
    let namespace = user_namespace(300_000);
    for way in WAYS {
        let dir = home.dir.path().join(format!("{way:?}"));
        std::fs::create_dir(&dir).unwrap();
        let snapshot = snapshot(&layers, way).writable(&dir);
        snapshot.prepare().unwrap();
        let mount = match snapshot.mount(Some(namespace.as_fd())) {
            // tmpfs took id maps later than other filesystems.
            Err(Error::Io { op, source, .. }) if op.starts_with("map the ids") => {
                assert!(!crate::fixture::needs("a filesystem with id-mapped mounts", false), "{source}");
                return;
            }
            other => other.unwrap(),
        };
        let owner = |path: &str| std::fs::metadata(inside(&mount, path)).unwrap().uid();
        assert_eq!([owner(""), owner("a"), owner("b")], [300_000; 3]);
        std::os::unix::fs::chown(inside(&mount, "a"), Some(300_007), Some(300_008)).unwrap();
        let changed = std::fs::metadata(dir.join("upper/a")).unwrap();
        assert_eq!((changed.uid(), changed.gid()), (7, 8));
    }
}

#[test]
fn a_missing_layer_is_named() {
    if !needs_root() {
        return;
    }
    let home = home();
    let layers = layers(&home, &made(&[tar(&[("a", b"1")])]));
    std::fs::remove_dir_all(&layers[0].path).unwrap();
    let error = snapshot(&layers, Way::Best).mount(None).unwrap_err().to_string();
    assert!(error.contains(&*layers[0].path.to_string_lossy()), "{error}");
}

/// Not a benchmark, but a mount that takes a millisecond would be a fault of another kind.
#[test]
fn mounting_is_quick() {
    if !needs_root() {
        return;
    }
    let home = home();
    let tars: Vec<_> = (0..5).map(|n| tar(&[(format!("f{n}").as_str(), b"x")])).collect();
    let layers = layers(&home, &made(&tars));
    let dir = home.dir.path().join("c");
    std::fs::create_dir(&dir).unwrap();
    let writable = snapshot(&layers, Way::Best).writable(&dir);
    writable.prepare().unwrap();
    for (what, snapshot) in [("read-only", snapshot(&layers, Way::Best)), ("writable", writable)] {
        let mut times: Vec<_> = (0..50)
            .map(|_| {
                let begun = Instant::now();
                let mount = snapshot.mount(None).unwrap();
                let time = begun.elapsed();
                drop(mount);
                time
            })
            .collect();
        times.sort_unstable();
        println!("{what}: median {:?}, fastest {:?}", times[25], times[0]);
        assert!(times[0].as_millis() < 5);
    }
}

/// Inside a user namespace: marks are `user.overlay.*`, owners are squashed, and it mounts.
#[test]
fn rootless() {
    if let Some(dir) = crate::fixture::child_argument() {
        let options =
            onggi_image::layer::UnpackOptions::user_namespace(onggi_image::layer::Ownership::Squash);
        let store = onggi_image::Store::open(&dir.join("root"), &dir.join("run"), options).unwrap();
        let made = made(&[
            tar(&[("a", b"1"), ("d/", b""), ("d/x", b"1"), ("gone", b"1")]),
            tar(&[(".wh.gone", b""), ("d/", b""), ("d/.wh..wh..opq", b""), ("d/y", b"2")]),
        ]);
        pull(&store, &made, "a").unwrap();
        let layers = store.ready_layers(&store.resolve("a", None).unwrap()).unwrap();
        assert!(layers[1].record.user_xattr);
        for way in WAYS {
            let upper = dir.join(format!("{way:?}"));
            std::fs::create_dir(&upper).unwrap();
            let snapshot = Snapshot::new(&layers, OverlayXattr::User).by(way).writable(&upper);
            snapshot.prepare().unwrap();
            let mount = snapshot.mount(None).unwrap();
            assert_eq!(read(&mount, "d/y"), "2");
            assert!(!inside(&mount, "gone").exists() && !inside(&mount, "d/x").exists());
            std::fs::write(inside(&mount, "a"), b"2").unwrap();
            assert_eq!(std::fs::read(upper.join("upper/a")).unwrap(), b"2");
        }
        let report = store.check(onggi_image::store::CheckOptions::default()).unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        return;
    }
    let there = std::process::Command::new("unshare").args(["-Urm", "true"]).status();
    if !crate::fixture::needs("user namespaces", there.is_ok_and(|s| s.success())) {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let output = std::process::Command::new("unshare")
        .arg("-Urm")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "snapshot::rootless", "--nocapture"])
        .env("ONGGI_TEST_CHILD", dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
