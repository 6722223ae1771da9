//! The other format of a layer shows the same tree: `fsck.erofs` and `dump.erofs` accept every file, the kernel mounts
//! it, and everything that can be seen is what unpacking gives.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use onggi_image::erofs::{Written, digest_of, write};
use onggi_image::layer::{Limits, PackOptions, Source, decoder};
use onggi_sys::loop_device::LoopDevice;
use onggi_sys::mount::{Attributes, make};
use onggi_testkit::needs;
use proptest::prelude::*;

use crate::archive::{Archive, Header, header};
use crate::round_trip::everything;
use crate::tree::{Seen, exact, look, pack_at, temporary, unpack_at};

/// Writes the archive's file.
pub(crate) fn written(path: &Path, archive: &[u8]) -> onggi_image::Result<Written> {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    write(decoder(archive, None)?, file, || [7; 16], &Limits::default())
}

/// A mount of the file, and its root.
pub(crate) fn mounted(file: &Path) -> (OwnedFd, PathBuf) {
    let mount = make("erofs", &[("source", file.to_str())], Attributes::READ_ONLY).unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()));
    (mount, root)
}

fn accepted_by(tool: &str, arguments: &[&str], file: &Path) {
    if needs::programs(&[tool]).is_missing() {
        return;
    }
    let program = needs::find_program(tool).unwrap();
    let output = Command::new(program).args(arguments).arg(file).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = said(&output.stdout) + &said(&output.stderr);
    assert!(output.status.success() && !said.contains("rror"), "{tool} of {}: {said}", file.display());
}

/// Whether the kernel has the filesystem; counted if not.
fn has_erofs() -> bool {
    let known = fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\terofs\n"));
    known || !needs::missing("erofs in the kernel").is_missing()
}

/// The archive's file shows what unpacking it has shown, or is refused as that was.
pub(crate) fn assert_agrees(archive: &[u8], unpacked: Result<&Path, String>) {
    if !has_erofs() {
        return;
    }
    let home = temporary();
    let file = home.path().join("layer.erofs");
    let written = written(&file, archive);
    let unpacked = match unpacked {
        Ok(unpacked) => unpacked,
        Err(why) => {
            assert!(written.is_err(), "the EROFS writer takes what unpacking refuses: {why}");
            return;
        }
    };
    let written = written.unwrap();
    let found = digest_of(&mut File::open(&file).unwrap()).unwrap();
    assert_eq!(found, (written.digest, written.size));
    accepted_by("fsck.erofs", &["-d1"], &file);
    accepted_by("dump.erofs", &["-s"], &file);
    let (_mount, root) = mounted(&file);
    let (expected, seen) = (look(unpacked), look(&root));
    for (path, expected) in &expected {
        let seen = seen.get(path).unwrap_or_else(|| panic!("{} is missing", path.display()));
        assert!(same(expected, seen), "{}:\n{expected:?}\n{seen:?}", path.display());
    }
    assert_eq!(expected.keys().collect::<Vec<_>>(), seen.keys().collect::<Vec<_>>());
}

fn same(expected: &Seen, seen: &Seen) -> bool {
    let is_whiteout = |seen: &Seen| seen.mode & 0o170_000 == 0o020_000 && seen.device == 0;
    expected == seen || (is_whiteout(expected) && is_whiteout(seen))
}

#[test]
fn everything_is_the_same() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    // `unpack_at` compares.
    let (root, report) = unpack_at(home.path(), "root", &everything()).unwrap();
    let again = written(&home.path().join("again"), &everything()).unwrap();
    assert_eq!(again.unpacked, report);
    // And packed again it is the same archive.
    if has_erofs() {
        let (_mount, mounted) = mounted(&home.path().join("again"));
        let (one, two) =
            (pack_at(&root, &exact(Source::Tree)).unwrap(), pack_at(&mounted, &exact(Source::Tree)));
        assert!(one.0 == two.unwrap().0, "packed from the mount it is another archive");
    }
}

#[test]
fn the_same_archive_gives_the_same_file() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let digests = [&one, &two].map(|path| written(path, &everything()).unwrap().digest);
    assert_eq!(digests[0], digests[1]);
    assert!(fs::read(one).unwrap() == fs::read(two).unwrap());
}

#[test]
fn marks_of_lower_layers_are_kept() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let archive = Archive::new()
        .dir("gone-dir")
        .file("gone-dir/stays", "x")
        .file(".wh.gone-dir", "")
        .file("a/.wh.hidden", "")
        .file("a/.wh.kept", "")
        .file("a/kept", "kept")
        .file("b/.wh..wh..opq", "")
        .file("b/.wh.nothing-left", "")
        .file("b/c/.wh.neither", "")
        .file("file", "becomes a directory")
        .dir("file")
        .file("file/in", "")
        .file(".wh..wh.plnk/x", "")
        .end();
    unpack_at(home.path(), "root", &archive).unwrap();
    let root_is_opaque = Archive::new().file(".wh..wh..opq", "").file("a", "").file(".wh.b", "").end();
    let (_, report) = unpack_at(home.path(), "opaque", &root_is_opaque).unwrap();
    assert!(report.opaque_root);
}

#[test]
fn sizes_around_blocks() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let text: String = (0..20_000).map(|n| char::from(b'a' + u8::try_from(n % 23).unwrap())).collect();
    let mut archive = Archive::new();
    for size in
        [0, 1, 31, 32, 33, 4031, 4032, 4033, 4095, 4096, 4097, 8127, 8128, 8129, 8191, 8192, 12_289, 20_000]
    {
        archive = archive.file(&format!("size-{size}"), &text[..size]);
        archive = archive.pax(&[("SCHILY.xattr.user.note", &text.as_bytes()[..100])]);
        archive = archive
            .file(&format!("noted-{size}"), &text[..size])
            .hard(&format!("again-{size}"), &format!("noted-{size}"));
    }
    for size in [1, 4030, 4032, 4033, 4095] {
        archive = archive.pax(&[("linkpath", &text.as_bytes()[..size])]).symlink(&format!("link-{size}"), "");
    }
    unpack_at(home.path(), "root", &archive.end()).unwrap();
}

#[test]
fn directories_of_any_size() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let mut archive = Archive::new();
    // Around the borders of a block: 12 bytes and the name for each, and 27 for the two dots.
    for (name, count, length) in
        [("one", 1, 1), ("full", 15, 254), ("over", 16, 255), ("many", 5000, 20), ("tight", 36, 101)]
    {
        archive = archive.dir(name);
        for number in 0..count {
            let path = format!("{name}/{number:0length$}");
            archive = archive.pax(&[("path", path.as_bytes())]).file("long", "x");
        }
    }
    // Names on both sides of the dots.
    for name in ["!", "-", "+x", "...", "..a", ".a", "/x", "~", "0", "é"] {
        archive = archive.file(&format!("dots/{name}"), name);
    }
    archive = archive.dir("empty");
    let deep = "d/".repeat(500);
    archive = archive.pax(&[("path", format!("{deep}file").as_bytes())]).file("long", "deep");
    unpack_at(home.path(), "root", &archive.end()).unwrap();
}

#[test]
fn large_attributes() {
    if needs::root().is_missing() || !has_erofs() {
        return;
    }
    // More than ext4 takes, so that there is nothing to compare with.
    let home = temporary();
    let value = |size: usize| vec![b'v'; size];
    let mut archive = Archive::new();
    for size in [3000, 4000, 4020, 5000, 40_000, 65_535] {
        archive = archive
            .pax(&[("SCHILY.xattr.trusted.a", &value(size)), ("SCHILY.xattr.trusted.b", b"after")])
            .file(&format!("file-{size}"), &"x".repeat(size % 5000))
            .hard(&format!("again-{size}"), &format!("file-{size}"))
            .pax(&[("SCHILY.xattr.trusted.a", &value(size))])
            .dir(&format!("dir-{size}"))
            .file(&format!("dir-{size}/in"), "");
    }
    let archive = archive.end();
    let file = home.path().join("layer.erofs");
    written(&file, &archive).unwrap();
    accepted_by("fsck.erofs", &["-d1"], &file);
    let (_mount, root) = mounted(&file);
    let seen = look(&root);
    for size in [3000, 4000, 4020, 5000, 40_000, 65_535] {
        for name in ["file", "dir", "again"] {
            let seen = &seen[Path::new(&format!("{name}-{size}"))];
            assert_eq!(seen.xattrs[std::ffi::OsStr::new("trusted.a")].len(), size, "{name}");
        }
    }
    let too_large = Archive::new().pax(&[("SCHILY.xattr.user.x", &value(65_536))]).file("x", "").end();
    assert!(written(&home.path().join("too-large"), &too_large).is_err());
    let root = Archive::new().pax(&[("SCHILY.xattr.trusted.a", &value(4000))]).dir("./").end();
    let error = written(&home.path().join("root"), &root).err().map(|error| error.to_string());
    assert!(error.is_some_and(|text| text.contains("attributes")), "the root has its place");
}

/// Content beyond 4 GiB in the layer's file, and a file that is larger, without that much disk: holes.
#[test]
fn beyond_four_gibibytes() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let sparse = |name: &str, size: u64, pieces: &[(u64, &str)]| {
        let size = size.to_string();
        let records = [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", name.as_bytes()),
            ("GNU.sparse.realsize", size.as_bytes()),
        ];
        let mut map = format!("{}\n", pieces.len());
        for (at, text) in pieces {
            map += &format!("{at}\n{}\n", text.len());
        }
        let content: String = pieces.iter().map(|(_, text)| *text).collect();
        Archive::new().pax(&records).file("GNUSparseFile.0/x", &format!("{map:\0<512}{content}")).end()
    };
    let last = (5_u64 << 30) - 3;
    let archive = sparse("huge", 5 << 30, &[(0, "first"), (1 << 32, "middle"), (last, "end")]);
    let file = home.path().join("layer.erofs");
    let written = written(&file, &archive).unwrap();
    assert!(written.size < 8 << 20, "{} bytes for three blocks of content", written.size);
    accepted_by("dump.erofs", &["-s"], &file);
    if has_erofs() {
        use std::os::unix::fs::FileExt;
        let (_mount, root) = mounted(&file);
        let huge = File::open(root.join("huge")).unwrap();
        assert_eq!(huge.metadata().unwrap().len(), 5 << 30);
        for (at, text) in [(0, "first"), (1 << 32, "middle"), (last, "end"), (1 << 31, "\0\0\0")] {
            let mut bytes = vec![0; text.len()];
            huge.read_exact_at(&mut bytes, at).unwrap();
            assert_eq!(bytes, text.as_bytes());
        }
    }
    // Pieces within and across blocks and chunks, compared byte by byte.
    for (number, pieces) in [
        vec![],
        vec![(0, "a")],
        vec![(999_999, "z")],
        vec![(4090, "across a border"), (4105, "adjacent"), (8192, "next")],
        vec![(0, "a"), (4096, "b"), (300_000, "c"), (999_000, "d")],
    ]
    .into_iter()
    .enumerate()
    {
        unpack_at(home.path(), &format!("sparse-{number}"), &sparse("s", 1_000_000, &pieces)).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Made {
    Dir,
    File(usize),
    Link(String),
    Hard(usize),
    Device(u32, u32),
    Fifo,
    Whiteout,
    Opaque,
}

/// Name, kind, mode, owner, attribute.
type Entry = (String, Made, u32, u64, Option<Vec<u8>>);

fn trees() -> impl Strategy<Value = Vec<Entry>> {
    // Few names, so that entries meet, replace each other and lead through links.
    let name = prop_oneof![12 => "[a-f](/[a-f]){0,3}", 1 => "[a-f]/\\.\\./[a-f](/[a-f])?"];
    let made = prop_oneof![
        3 => Just(Made::Dir),
        5 => prop_oneof![0_usize..100, 3900_usize..4300, 0_usize..20_000].prop_map(Made::File),
        2 => "(/|\\.\\./)?[a-d](/[a-d])?".prop_map(Made::Link),
        1 => (0_usize..20).prop_map(Made::Hard),
        1 => (1_u32..4000, 0_u32..1_000_000).prop_map(|(major, minor)| Made::Device(major, minor)),
        1 => Just(Made::Fifo),
        2 => Just(Made::Whiteout),
        1 => Just(Made::Opaque),
    ];
    let xattr = proptest::option::weighted(0.3, proptest::collection::vec(any::<u8>(), 0..200));
    let one = (name, made, 0_u32..0o10000, 0_u64..1_000_000, xattr);
    proptest::collection::vec(one, 0..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Entries in any order, through links, over each other: both formats agree about the tree, or both refuse.
    #[test]
    fn random_archives_give_the_same_trees(entries in trees()) {
        if needs::root().is_missing() {
            return Ok(());
        }
        let home = temporary();
        let mut archive = Archive::new();
        let mut files: Vec<String> = Vec::new();
        for (name, made, mode, id, xattr) in entries {
            if let Some(value) = &xattr {
                archive = archive.pax(&[("SCHILY.xattr.user.x", value), ("mtime", b"12345.678900000")]);
            }
            let with = |kind| Header { mode, uid: id, gid: id / 3, ..header(kind, name.as_bytes()) };
            if let Made::File(_) = made {
                files.push(name.clone());
            }
            archive = match made {
                Made::Dir => archive.entry(&with(b'5'), b""),
                Made::File(size) => archive.entry(&with(b'0'), &vec![b'x'; size]),
                Made::Link(target) => archive.link(b'2', &name, &target),
                Made::Hard(_) if files.is_empty() => archive,
                Made::Hard(number) => archive.hard(&name, &files[number % files.len()]),
                Made::Device(major, minor) => archive.entry(&Header { device: (major, minor), ..with(b'3') }, b""),
                Made::Fifo => archive.entry(&with(b'6'), b""),
                Made::Whiteout => archive.file(&format!("{name}/.wh.{}", &name[..1]), ""),
                Made::Opaque => archive.file(&format!("{name}/.wh..wh..opq"), ""),
            };
        }
        // `unpack_at` compares.
        let _ = unpack_at(home.path(), "root", &archive.end());
    }
}

/// Kernels before 6.12 mount no files: there a loop device stands between.
#[test]
fn a_loop_device_shows_the_same() {
    if needs::root().is_missing() || !has_erofs() {
        return;
    }
    if !Path::new("/dev/loop-control").exists() {
        let _ = needs::missing("loop devices");
        return;
    }
    let home = temporary();
    let file = home.path().join("layer.erofs");
    written(&file, &everything()).unwrap();
    let device = LoopDevice::attach(std::os::fd::AsFd::as_fd(&File::open(&file).unwrap())).unwrap();
    let parameters = [("source", device.path().to_str()), ("ro", None)];
    let by_device = make("erofs", &parameters, Attributes::READ_ONLY).unwrap();
    let number = device.path().file_name().unwrap().to_owned();
    drop(device);
    let root = PathBuf::from(format!("/proc/self/fd/{}/.", by_device.as_raw_fd()));
    let (_mount, expected) = mounted(&file);
    assert_eq!(look(&expected), look(&root));
    let backing = Path::new("/sys/block").join(number).join("loop/backing_file");
    let ours =
        || fs::read_to_string(&backing).is_ok_and(|text| text.contains(&*home.path().to_string_lossy()));
    assert!(ours());
    drop(by_device);
    // The kernel takes the device apart after its last user; that may take a moment.
    let start = std::time::Instant::now();
    while ours() && start.elapsed() < std::time::Duration::from_secs(20) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(!ours(), "the device stays with its file");
}

/// What a whole tree of this machine is: names, kinds and sizes that nobody thought of.
#[test]
fn a_tree_of_this_machine() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    for place in ["/etc", "/usr/share/doc"] {
        let mut archive = Vec::new();
        let root = File::open(place).unwrap();
        let options = PackOptions { nanoseconds: true, ..PackOptions::new(Source::Tree) };
        onggi_image::layer::pack(std::os::fd::AsFd::as_fd(&root), &mut archive, &options).unwrap();
        unpack_at(home.path(), place.rsplit('/').next().unwrap(), &archive).unwrap();
    }
}
