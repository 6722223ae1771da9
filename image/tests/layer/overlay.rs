//! Whiteouts and opaque marks, read by the kernel's overlayfs and written back.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use onggi_image::Error;
use onggi_image::layer::{OverlayXattr, PackOptions, Source};
use onggi_testkit::needs;

use crate::archive::{Archive, header};
use crate::tree::{exact, look, names, pack_at, temporary, unpack_at, xattrs};

fn is_whiteout(path: &Path) -> bool {
    let meta = path.symlink_metadata().unwrap();
    meta.mode() & 0o170_000 == 0o020_000 && meta.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    xattrs(path).get(std::ffi::OsStr::new("trusted.overlay.opaque")).is_some_and(|value| value == b"y")
}

#[test]
fn marks_take_overlay_form_and_come_back() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let archive = Archive::new()
        .file("a/.wh.gone", "")
        .dir("b")
        .file("b/.wh..wh..opq", "")
        .file("b/kept", "x")
        .file(".wh..wh.plnk/1.2", "of AUFS")
        .file(".wh..wh.aufs", "of AUFS")
        .hard("c/.wh.linked", ".wh..wh.aufs")
        .end();
    let (root, report) = unpack_at(home.path(), "root", &archive).unwrap();
    assert_eq!(names(&root), ["a/", "a/gone", "b/", "b/kept", "c/", "c/linked"]);
    assert!(is_whiteout(&root.join("a/gone")) && is_whiteout(&root.join("c/linked")));
    assert!(is_opaque(&root.join("b")) && !is_opaque(&root.join("a")));
    assert_eq!((report.implicit_directories, report.opaque_root, report.root_entry), (2, false, false));

    let upper = exact(Source::OverlayUpper(OverlayXattr::Trusted));
    let (packed, _) = pack_at(&root, &upper).unwrap();
    let listed: Vec<_> = tar::Archive::new(&packed[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(listed, ["./", "a/", "a/.wh.gone", "b/", "b/.wh..wh..opq", "b/kept", "c/", "c/.wh.linked"]);
    let (again, _) = unpack_at(home.path(), "again", &packed).unwrap();
    assert_eq!(look(&root), look(&again));
    // As a plain tree it can't be written.
    assert!(matches!(pack_at(&root, &PackOptions::new(Source::Tree)), Err(Error::File { .. })));
}

#[test]
fn whiteouts_spare_entries_of_their_own_layer() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let orders = [
        Archive::new()
            .file(".wh.f", "")
            .file("f", "1")
            .file("d/.wh.x", "")
            .file(".wh.d", "")
            .file("d/y", "2"),
        Archive::new()
            .file("f", "1")
            .file("d/y", "2")
            .file("d/.wh.x", "")
            .file(".wh.d", "")
            .file(".wh.f", ""),
        Archive::new()
            .file("d/.wh.x", "")
            .file("d/y", "2")
            .file("d/.wh..wh..opq", "")
            .file("f", "1")
            .file(".wh.f", ""),
    ];
    for (case, archive) in orders.into_iter().enumerate() {
        let (root, _) = unpack_at(home.path(), &case.to_string(), &archive.end()).unwrap();
        // No device in what is opaque: overlayfs would list it.
        assert_eq!(names(&root), ["d/", "d/y", "f"], "{case}");
        assert!(is_opaque(&root.join("d")), "{case}");
    }
}

#[test]
fn what_is_replaced_stays_hidden() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let archive =
        Archive::new().file("x", "").dir("x").file("x/new", "").file("y/.wh.z", "").file("y", "file").end();
    let (root, _) = unpack_at(home.path(), "root", &archive).unwrap();
    assert_eq!(names(&root), ["x/", "x/new", "y"]);
    assert!(is_opaque(&root.join("x")));
    let opaque = Archive::new().file(".wh.x", "").file(".wh..wh..opq", "").file("y", "").end();
    let (root, report) = unpack_at(home.path(), "opaque", &opaque).unwrap();
    assert!(report.opaque_root);
    assert_eq!(names(&root), ["y"]);
}

#[test]
fn marks_that_a_layer_cannot_express_are_refused() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let upper = PackOptions::new(Source::OverlayUpper(OverlayXattr::Trusted));
    for (name, value, is_fine) in [
        ("trusted.overlay.origin", &b"\0\xfb"[..], true),
        ("trusted.overlay.impure", b"y", true),
        ("trusted.overlay.redirect", b"/etc", false),
        ("trusted.overlay.metacopy", b"", false),
        ("trusted.overlay.opaque", b"x", false),
        ("user.overlay.opaque", b"y", false),
    ] {
        let dir = home.path().join(name);
        std::fs::create_dir_all(dir.join("d")).unwrap();
        rustix::fs::setxattr(dir.join("d"), name, value, rustix::fs::XattrFlags::empty()).unwrap();
        let result = pack_at(&dir, &upper);
        assert_eq!(result.is_ok(), is_fine, "{name}: {result:?}");
        if is_fine {
            assert!(!result.unwrap().0.windows(8).any(|w| w == b"overlay."), "{name}");
        }
    }
    let dir = home.path().join("named");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join(".wh.a"), "").unwrap();
    assert!(pack_at(&dir, &upper).unwrap_err().to_string().contains(".wh."));
}

/// The kernel's view of two layers and of an upper directory written over them.
#[test]
fn the_kernel_shows_what_the_layers_say() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let lower = Archive::new()
        .file("etc/passwd", "root")
        .file("etc/shadow", "secret")
        .file("var/log/a", "a")
        .file("var/log/b", "b")
        .file("opt/tool", "t")
        .end();
    let upper = Archive::new()
        .file("etc/.wh.shadow", "")
        .file("var/log/.wh..wh..opq", "")
        .file("var/log/c", "c")
        .file(".wh.opt", "")
        .entry(&header(b'6', "run/pipe"), b"")
        .end();
    let (lower, _) = unpack_at(home.path(), "lower", &lower).unwrap();
    let (upper, _) = unpack_at(home.path(), "upper", &upper).unwrap();
    let merged = home.path().join("merged");
    std::fs::create_dir(&merged).unwrap();
    let _mounted = Mounted::overlay(&merged, &format!("lowerdir={}:{}", upper.display(), lower.display()));
    assert_eq!(names(&merged), ["etc/", "etc/passwd", "run/", "run/pipe", "var/", "var/log/", "var/log/c"]);
}

/// An overlay that is unmounted at the end, also of a failing test.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn overlay(at: &'a Path, options: &str) -> Self {
        let status = std::process::Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", options])
            .arg(at)
            .status()
            .unwrap();
        assert!(status.success());
        Self(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}
