//! A tree packed and unpacked is the same tree, whatever is in it; and the same tree gives the
//! same archive.

use std::collections::BTreeMap;
use std::path::Path;

use onggi_image::layer::{PackOptions, Source};
use onggi_testkit::needs;
use proptest::prelude::*;

use crate::archive::{Archive, Header, header};
use crate::tree::{exact, look, names, pack_at, temporary, unpack_at};

/// A `security.capability` value: version 2, `cap_net_raw` permitted. It has a newline in it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, b'\n', 0, 0, 0, 0, 0, 0, 0];

/// An archive with one of everything.
pub(crate) fn everything() -> Vec<u8> {
    let long = format!("long/{}/{}", "d".repeat(120), "f".repeat(200));
    let ids = [("uid", &b"3000000000"[..]), ("gid", b"3000000001")];
    let device = |kind, name, device| Header { device, mode: 0o600, gid: 6, ..header(kind, name) };
    let sparse = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.realsize", b"1000000"),
    ];
    let map = format!("{:\0<512}{}", "2\n4096\n5\n999990\n10\n", "hello0123456789");
    Archive::new()
        .entry(&Header { mode: 0o1755, ..header(b'5', "./") }, b"")
        .entry(&Header { mode: 0o2770, gid: 50, ..header(b'5', "set-gid/") }, b"")
        .file("set-gid/inside", "its group is its own")
        .pax(&[("SCHILY.xattr.user.on-dir", b"1"), ("mtime", b"1500000000.123456789")])
        .entry(&Header { mode: 0o500, uid: 7, ..header(b'5', "read-only/") }, b"")
        .file("read-only/file", "")
        .entry(&Header { mode: 0o6755, uid: 1, gid: 2, ..header(b'0', "set-id") }, b"#!")
        .pax(&[("SCHILY.xattr.security.capability", &CAPABILITY), ("SCHILY.xattr.user.x", b"a\n=\0b")])
        .entry(&Header { mode: 0o755, uid: 5, ..header(b'0', "ping") }, b"ping")
        .pax(&[("SCHILY.xattr.trusted.t", b"t"), ("mtime", b"1.000000001")])
        .link(b'2', "link", "read-only/../ping")
        .hard("again", "/ping")
        .hard("link-again", "link")
        .pax(&ids)
        .file("high-ids", "x")
        .entry(&device(b'3', "null", (1, 3)), b"")
        .entry(&device(b'4', "disk", (259, 1_048_575)), b"")
        .entry(&header(b'6', "pipe"), b"")
        .entry(&Header { mtime: 0, ..header(b'0', b"not-utf-8-\xff\xfe") }, b"")
        .pax(&[("path", "é/ü".as_bytes())])
        .file("e", "")
        .pax(&[("path", long.as_bytes()), ("mtime", b"-1.5")])
        .file("long", "far down")
        .pax(&[("linkpath", "x".repeat(3000).as_bytes())])
        .symlink("long-link", "")
        .pax(&sparse)
        .file("GNUSparseFile.0/sparse", &map)
        .file("empty", "")
        .end()
}

#[test]
fn everything_arrives_and_returns() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let (root, report) = unpack_at(home.path(), "root", &everything()).unwrap();
    assert_eq!((report.max_id, report.root_entry), (3_000_000_001, true));
    assert_eq!((report.xattrs_skipped, report.devices_skipped, report.squashed), (0, 0, 0));
    let seen = look(&root);
    let at = |path: &str| &seen[Path::new(path)];
    assert_eq!((at("").mode, at("set-gid").mode, at("set-id").mode), (0o041_755, 0o042_770, 0o106_755));
    assert_eq!((at("set-gid/inside").owner, at("high-ids").owner), ((0, 0), (3_000_000_000, 3_000_000_001)));
    assert_eq!(at("read-only").mtime, (1_500_000_000, 123_456_789));
    assert_eq!((at("link").mtime, at("long").mtime), ((1, 1), (0, 0)));
    assert_eq!(at("ping").xattrs[std::ffi::OsStr::new("security.capability")], CAPABILITY);
    assert_eq!(
        (at("ping").same_as.as_path(), at("link-again").same_as.as_path()),
        (Path::new("again"), Path::new("link"))
    );
    assert_eq!(at("disk").device, rustix::fs::makedev(259, 1_048_575));
    let sparse = at("sparse");
    assert_eq!((sparse.content.len(), &sparse.content[4096..4101]), (1_000_000, &b"hello"[..]));
    assert_eq!(&sparse.content[999_990..], b"0123456789");
    assert_eq!(sparse.content.iter().filter(|b| **b != 0).count(), 15);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&root.join("sparse").metadata().unwrap());
    assert!(blocks * 512 < 100_000, "the holes take {blocks} blocks");

    let (packed, _) = pack_at(&root, &exact(Source::Tree)).unwrap();
    let (again, _) = unpack_at(home.path(), "again", &packed).unwrap();
    assert_eq!(seen, look(&again));
    let (repacked, _) = pack_at(&again, &exact(Source::Tree)).unwrap();
    assert!(packed == repacked, "the same tree gave another archive");
}

#[test]
fn gnu_sparse_files_with_many_pieces() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let mut block = Header { gnu: true, size: Some(25), ..header(b'S', "x") }.block(b"");
    let slot = |block: &mut [u8], at: usize, offset: u64| {
        block[at..at + 24].copy_from_slice(format!("{offset:011o}\0{:011o}\0", 1).as_bytes());
    };
    for piece in 0..4 {
        slot(&mut block, 386 + 24 * piece, 1000 * piece as u64);
    }
    block[482] = 1;
    block[483..495].copy_from_slice(format!("{:011o}\0", 25_000).as_bytes());
    crate::archive::sum(&mut block);
    let mut more = [0; 512];
    for piece in 0..21 {
        slot(&mut more, 24 * piece, 1000 * (piece as u64 + 4));
    }
    let content = "abcdefghijklmnopqrstuvwxy";
    let archive = Archive::new().raw(&block).raw(&more).raw(content.as_bytes()).file("next", "n").end();
    let (root, _) = unpack_at(home.path(), "root", &archive).unwrap();
    let file = std::fs::read(root.join("x")).unwrap();
    assert_eq!(file.len(), 25_000);
    assert!((0..25).all(|piece| file[1000 * piece] == content.as_bytes()[piece]));
    assert_eq!(std::fs::read(root.join("next")).unwrap(), b"n");
}

#[test]
fn later_entries_replace_earlier_ones() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let archive = Archive::new()
        .file("file", "one")
        .hard("other", "file")
        .file("file", "two")
        .file("tree/deep/er/file", "")
        .file("tree", "a file now")
        .symlink("link", "file")
        .file("link", "no link now")
        .dir("dir")
        .file("dir/stays", "")
        .entry(&Header { mode: 0o700, uid: 9, ..header(b'5', "dir") }, b"")
        .file("a/../dir/climbs", "")
        .end();
    let (root, _) = unpack_at(home.path(), "root", &archive).unwrap();
    let seen = look(&root);
    let content = |path: &str| std::str::from_utf8(&seen[Path::new(path)].content).unwrap();
    // "a" is never made: its name is left again before it is needed.
    assert_eq!(names(&root), ["dir/", "dir/climbs", "dir/stays", "file", "link", "other", "tree"]);
    assert_eq!(
        (content("file"), content("other"), content("tree"), content("link")),
        ("two", "one", "a file now", "no link now")
    );
    assert_eq!((seen[Path::new("dir")].mode, seen[Path::new("dir")].owner), (0o040_700, (9, 0)));
}

#[test]
fn times_are_whole_and_clamped_when_packed() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let archive = Archive::new()
        .pax(&[("mtime", b"100.9")])
        .file("old", "")
        .pax(&[("mtime", b"900.1")])
        .file("new", "")
        .end();
    let (root, _) = unpack_at(home.path(), "root", &archive).unwrap();
    let options = PackOptions { clamp_mtime: Some(500), ..PackOptions::new(Source::Tree) };
    let (packed, _) = pack_at(&root, &options).unwrap();
    // Two headers and the end; no extended ones.
    assert_eq!(packed.len(), 4 * 512);
    let (again, _) = unpack_at(home.path(), "again", &packed).unwrap();
    let seen = look(&again);
    assert_eq!((seen[Path::new("old")].mtime, seen[Path::new("new")].mtime), ((100, 0), (500, 0)));
}

#[test]
fn sockets_are_left_out_and_counted() {
    let home = temporary();
    let _socket = std::os::unix::net::UnixListener::bind(home.path().join("socket")).unwrap();
    let (packed, report) = pack_at(home.path(), &PackOptions::new(Source::Tree)).unwrap();
    assert_eq!((report.sockets_skipped, report.entries, packed.len()), (1, 0, 1024));
}

/// What a generated file is.
#[derive(Debug, Clone)]
enum Made {
    File(Vec<u8>),
    Symlink(String),
    Directory,
    Fifo,
}

#[derive(Debug, Clone)]
struct Node {
    made: Made,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattr: Option<Vec<u8>>,
}

fn node() -> impl Strategy<Value = Node> {
    let made = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Made::File),
        1 => "[a-z./]{1,150}".prop_map(Made::Symlink),
        2 => Just(Made::Directory),
        1 => Just(Made::Fifo),
    ];
    let owner = (prop_oneof![0..10_u32, 2_097_150..2_097_155_u32], 0..70_000_u32);
    let mtime = (-5..4_000_000_000_i64, prop_oneof![Just(0), 0..1_000_000_000_u32]);
    let xattr = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100));
    (made, 0..0o10000_u32, owner, mtime, xattr).prop_map(|(made, mode, owner, mtime, xattr)| Node {
        made,
        mode,
        owner,
        mtime,
        xattr,
    })
}

fn path() -> impl Strategy<Value = String> {
    // Few names, so that entries meet; long ones, and some that are no ASCII.
    let name = prop_oneof![4 => "[ab]", 1 => "[a-zé]{1,80}", 1 => "-[ab]"];
    proptest::collection::vec(name, 1..6).prop_map(|names| names.join("/"))
}

fn make(root: &Path, nodes: &BTreeMap<String, Node>) {
    use std::os::unix::fs::{PermissionsExt, lchown};
    let mut made = Vec::new();
    for (name, node) in nodes {
        let at = root.join(name);
        // A name below something that is no directory is left out.
        if std::fs::create_dir_all(at.parent().unwrap()).is_err() {
            continue;
        }
        let result = match &node.made {
            Made::File(content) if at.symlink_metadata().is_err() => std::fs::write(&at, content),
            Made::Symlink(target) => std::os::unix::fs::symlink(target, &at),
            Made::Directory => std::fs::create_dir(&at),
            Made::Fifo => {
                rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, 0o600.into(), 0)
                    .map_err(Into::into)
            }
            Made::File(_) => continue,
        };
        if result.is_ok() {
            made.push((at, node));
        }
    }
    for (at, node) in made.into_iter().rev() {
        lchown(&at, Some(node.owner.0), Some(node.owner.1)).unwrap();
        if !matches!(node.made, Made::Symlink(_)) {
            std::fs::set_permissions(&at, std::fs::Permissions::from_mode(node.mode)).unwrap();
        }
        if let (Some(value), Made::File(_) | Made::Directory) = (&node.xattr, &node.made) {
            rustix::fs::lsetxattr(&at, "user.x", value, rustix::fs::XattrFlags::empty()).unwrap();
        }
        let time = rustix::fs::Timespec { tv_sec: node.mtime.0, tv_nsec: node.mtime.1.into() };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &at, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back(nodes in proptest::collection::btree_map(path(), node(), 0..30)) {
        if needs::root().is_missing() {
            return Ok(());
        }
        let home = temporary();
        let tree = home.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        make(&tree, &nodes);
        let (packed, _) = pack_at(&tree, &exact(Source::Tree)).unwrap();
        let (again, _) = unpack_at(home.path(), "again", &packed).unwrap();
        prop_assert_eq!(look(&tree), look(&again));
        let (repacked, _) = pack_at(&again, &exact(Source::Tree)).unwrap();
        prop_assert!(packed == repacked);
    }

    /// Whatever the bytes are: no panic, nothing outside, and what is accepted can be packed again.
    #[test]
    fn any_damage_is_an_answer(at in 0..20_000_usize, byte in any::<u8>(), cut in 0..25_000_usize) {
        if needs::root().is_missing() {
            return Ok(());
        }
        let mut bytes = everything();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut.max(1024));
        // A header's checksum would catch it; here what lies behind is tested.
        let block = at / 512 * 512;
        if let Some(header) = bytes.get_mut(block..block + 512).and_then(|b| <&mut [u8; 512]>::try_from(b).ok())
            && &header[257..262] == b"ustar"
        {
            crate::archive::sum(header);
        }
        let home = temporary();
        if let Ok((root, _)) = unpack_at(home.path(), "root", &bytes) {
            let _ = pack_at(&root, &exact(Source::OverlayUpper(onggi_image::layer::OverlayXattr::Trusted)));
        }
        prop_assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
