//! The tree that a container sees is the one that another tool unpacks: names, types, modes, owners,
//! times, links, attributes and contents, as root and as an ordinary user.

#![allow(clippy::unwrap_used, reason = "what fails here is the test's own preparation")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use onggi_testkit::needs;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use support::user::User;
use support::{Onggi, fixture, tool};

const WALK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/walk.py");
const IMAGE: &str = "localhost/tree:1";

/// A copy of the fixture, which a test may add layers to.
fn layout(onggi: &Onggi) -> Option<PathBuf> {
    let layout = onggi.folder().join("layout");
    tool("cp", [OsStr::new("-a"), fixture("debian-small")?.as_os_str(), layout.as_os_str()]);
    Some(layout)
}

/// What umoci unpacks, a line a file.
fn by_umoci(onggi: &Onggi, layout: &Path) -> Vec<String> {
    let bundle = onggi.folder().join("bundle");
    let image = format!("{}:latest", layout.display());
    tool("umoci", ["unpack", "--image", &image, &bundle.display().to_string()]);
    let root = bundle.join("rootfs");
    tool("python3", [WALK.as_ref(), root.as_os_str()]).lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_same(expected: &[String], seen: &str) {
    let seen: Vec<&str> = seen.lines().collect();
    for (theirs, ours) in expected.iter().zip(&seen) {
        assert_eq!(theirs, ours, "umoci's file and the container's differ");
    }
    assert_eq!(expected.len(), seen.len(), "one of the trees has more files");
    assert!(expected.len() > 3000, "the fixture is a whole Debian, not {} files", expected.len());
}

/// Files of every kind, with everything that a tar can say of them.
fn specials(dir: &Path) {
    let path = |name: &str| dir.join(name);
    fs::create_dir(dir).unwrap();
    fs::write(path("plain"), "content").unwrap();
    fs::hard_link(path("plain"), path("linked")).unwrap();
    symlink("/no/where", path("symlink")).unwrap();
    lchown(path("symlink"), Some(7), Some(8)).unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"not\xff utf-8")), "x").unwrap();
    fs::write(path(&"long".repeat(50)), "x").unwrap();
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, path(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    make("fifo", FileType::Fifo, 0);
    make("device", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    make("disk", FileType::BlockDevice, rustix::fs::makedev(7, 200));
    // Above 2²¹, where the header's octal field ends.
    fs::write(path("high"), "x").unwrap();
    chown(path("high"), Some(3_000_000), Some(2_500_000)).unwrap();
    fs::write(path("setuid"), "x").unwrap();
    fs::set_permissions(path("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::create_dir(path("sticky")).unwrap();
    fs::set_permissions(path("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    // A capability: revision 2, permitted NET_BIND_SERVICE.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(path("capable"), "x").unwrap();
    rustix::fs::setxattr(path("capable"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(path("plain"), "user.note", b"\0=\n", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(path("sticky"), "user.note", b"of a directory", XattrFlags::empty()).unwrap();
    let sparse = fs::File::create(path("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    let time = Timespec { tv_sec: 1_234_567_890, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    for name in ["plain", "symlink", "fifo", "sticky"] {
        rustix::fs::utimensat(CWD, path(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

#[test]
fn a_container_sees_what_umoci_unpacks() {
    if needs::programs(&["umoci", "python3"]).is_missing() || needs::root().is_missing() {
        return;
    }
    let onggi = Onggi::new();
    let Some(layout) = layout(&onggi) else { return };
    let added = onggi.folder().join("specials");
    specials(&added);
    let image = format!("{}:latest", layout.display());
    tool("umoci", ["insert", "--image", &image, &added.display().to_string(), "/specials"]);
    let expected = by_umoci(&onggi, &layout);
    assert!(expected.iter().any(|line| line.contains("/specials/high") && line.contains("3000000")));

    onggi.ok(["load".as_ref(), "-i".as_ref(), layout.as_os_str()]);
    let loaded = onggi.ok(["images", "-q", "--no-trunc"]);
    onggi.ok(["tag", &loaded, IMAGE]);
    let walk = format!("{WALK}:/walk.py:ro");
    assert_same(&expected, &onggi.ok(["run", "--rm", "-v", &walk, IMAGE, "python3", "/walk.py", "/"]));
    // The same with the host's IDs.
    let host = ["run", "--rm", "--userns", "host", "-v", &walk, IMAGE, "python3", "/walk.py", "/"];
    assert_same(&expected, &onggi.ok(host));
    onggi.assert_store_is_clean();
}

#[test]
fn an_ordinary_user_sees_the_same() {
    if needs::programs(&["umoci", "python3"]).is_missing() {
        return;
    }
    let Some(user) = User::new(true) else { return };
    let onggi = Onggi::new();
    let Some(layout) = layout(&onggi) else { return };
    let expected = by_umoci(&onggi, &layout);
    fs::set_permissions(onggi.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    tool("chmod", ["-R".as_ref(), "a+rX".as_ref(), layout.as_os_str()]);

    let walk = format!("{}:/walk.py:ro", user.copy(Path::new(WALK), "walk.py").display());
    user.output(["load".as_ref(), "-q".as_ref(), "-i".as_ref(), layout.as_os_str()]).ok();
    let id = user.output(["images", "-q"]).ok();
    user.output(["tag", &id, IMAGE]).ok();
    let seen = user.output(["run", "--rm", "-v", &walk, IMAGE, "python3", "/walk.py", "/"]);
    assert_same(&expected, &seen.ok());
    user.output(["system", "check"]).ok();
}
