//! Archives that must be refused by name, and must change nothing outside.

use onggi_image::Error;
use onggi_image::layer::MAX_EXTENDED_HEADER;
use onggi_testkit::needs;

use crate::archive::{Archive, Header, header, sum};
use crate::tree::{look, temporary, unpack_at};

/// Unpacks beside a directory whose content must not change. Gives the error.
fn refused(case: &str, archive: &[u8]) -> Error {
    let home = temporary();
    let victim = home.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("hello"), "hello").unwrap();
    let before = look(&victim);
    let result = unpack_at(home.path(), "root", archive);
    assert_eq!(before, look(&victim), "{case}: changed something outside");
    let mut names: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["root", "victim"], "{case}: made something outside");
    match result {
        Ok((_, report)) => panic!("{case}: was accepted: {report:?}"),
        Err(error) => error,
    }
}

#[track_caller]
fn names_entry(case: &str, entry: &str, says: &str, archive: &[u8]) {
    let error = refused(case, archive);
    let Error::Entry { name, .. } = &error else { panic!("{case}: names no entry: {error}") };
    assert_eq!(name, entry, "{case}: {error}");
    assert!(error.to_string().contains(says), "{case}: {error}");
}

#[test]
fn names_that_lead_out() {
    if needs::root().is_missing() {
        return;
    }
    let a = Archive::new;
    names_entry("parent", "../x", "out of the tree", &a().file("../x", "").end());
    names_entry("rooted parent", "/../x", "out of the tree", &a().file("/../x", "").end());
    names_entry("deep parent", "a/../../x", "out of the tree", &a().file("a/../../x", "").end());
    names_entry("link at the parent", "..", "out of the tree", &a().symlink("..", "/etc").end());
    names_entry("ends in parent", "a/b/..", "'..'", &a().dir("a/b/..").end());
    names_entry("root is a file", "./", "root directory", &a().file("./", "").end());
    names_entry("no name", "", "root directory", &a().symlink("", "/etc").end());
    names_entry("hard link out", "x", "not in this layer", &a().hard("x", "../victim/hello").end());
    names_entry("hard link to a directory", "x", "directory", &a().dir("d").hard("x", "../d").end());
    names_entry("hard link to the root", "x", "directory", &a().hard("x", "/..").end());
    names_entry("hard link to itself", "x", "its own name", &a().file("x", "").hard("x", "./x").end());
    names_entry(
        "hard link before its target",
        "x",
        "not in this layer",
        &a().hard("x", "y").file("y", "").end(),
    );
    names_entry(
        "hard link through a link",
        "x",
        "not in this layer",
        &a().symlink("out", "../victim").hard("x", "out/hello").end(),
    );
    let zero = a().pax(&[("path", b"a\0b")]).file("a", "").end();
    names_entry("zero in a name", "PaxHeaders/x", "zero byte", &zero);
}

#[test]
fn links_lead_to_places_inside_only() {
    if needs::root().is_missing() {
        return;
    }
    let home = temporary();
    let archive = Archive::new().symlink("out", "../../victim").file("out/file", "x").end();
    let (root, _) = unpack_at(home.path(), "root", &archive).unwrap();
    assert_eq!(std::fs::read(root.join("victim/file")).unwrap(), b"x");
    assert!(!home.path().join("victim").exists());

    let loops = Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "").end();
    names_entry("circle", "a/x", "40 symbolic links", &loops);
    let file = Archive::new().file("a", "").file("a/x", "").end();
    names_entry("below a file", "a/x", "not a directory", &file);
    let file = Archive::new().file("b", "").symlink("a", "b").file("a/x", "").end();
    names_entry("below a link to a file", "a/x", "not a directory", &file);
}

#[test]
fn what_readers_disagree_about() {
    if needs::root().is_missing() {
        return;
    }
    let a = Archive::new;
    let smuggled = a().pax(&[("size", b"1024")]).file("x", "").file("inner", "1").raw(&[0; 512]).end();
    names_entry("pax size, header 0", "x", "says 1024 bytes", &smuggled);
    let smuggled = a().pax(&[("size", b"0")]).file("x", "hidden").end();
    names_entry("pax size 0", "x", "says 0 bytes", &smuggled);
    for (kind, what) in
        [(b'1', "hard link"), (b'2', "symbolic link"), (b'3', "device"), (b'5', "directory"), (b'6', "pipe")]
    {
        let entry = Header { link: b"y".to_vec(), size: Some(512), ..header(kind, "x") };
        names_entry("size without content", "x", what, &a().entry(&entry, b"").file("inner", "").end());
    }
    let twice = a().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("x", "").end();
    names_entry("two extended headers", "PaxHeaders/x", "twice", &twice);
    let global = header(b'g', "pax_global_header");
    names_entry(
        "global path",
        "pax_global_header",
        "every entry",
        &a().entry(&global, b"10 path=a\n").file("x", "").end(),
    );
    names_entry("type", "x", "'Z'", &a().entry(&header(b'Z', "x"), b"").end());
    for (long, short) in [(&b"x"[..], "x/"), (b"x/", "x")] {
        names_entry(
            "an old directory by one of its names",
            std::str::from_utf8(long).unwrap(),
            "disagree whether it is a directory",
            &a().pax(&[("path", long)]).entry(&header(0, short), b"").end(),
        );
    }
    let short = Header { size: Some(9), ..header(b'x', "PaxHeaders/x") };
    let more = a().entry(&short, b"9 path=a\n9 path=b\n").file("x", "").end();
    names_entry("records behind the end", "PaxHeaders/x", "goes on behind its end", &more);
    let gnu_name = Header { gnu: true, ..header(b'L', "././@LongLink") };
    let two = |name: &[u8]| a().entry(&gnu_name, b"one\0").pax(&[("path", name)]).file("x", "").end();
    names_entry("two long names", "two", "with another name", &two(b"two"));
    let gnu_link = Header { gnu: true, ..header(b'K', "././@LongLink") };
    let links = a().pax(&[("linkpath", b"two")]).entry(&gnu_link, b"one\0").symlink("x", "").end();
    names_entry("two long links", "two", "with another name", &links);
    let long = Header { gnu: true, size: Some(3), ..header(b'L', "././@LongLink") };
    names_entry(
        "a long name longer than it says",
        "././@LongLink",
        "goes on behind its end",
        &a().entry(&long, b"name\0").file("x", "").end(),
    );
    names_entry("octal", "x", "uid", &{
        let mut block = header(b'0', "x").block(b"");
        block[108..116].copy_from_slice(b"00-1\0\0\0\0");
        sum(&mut block);
        a().raw(&block).end()
    });
    names_entry("size above 63 bits", "x", "size", &{
        let mut block = header(b'0', "x").block(b"");
        block[124..136].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        sum(&mut block);
        a().raw(&block).end()
    });

    for (case, says, archive) in [
        ("checksum", "checksum", {
            let mut bytes = a().file("x", "").end();
            bytes[0] = b'y';
            bytes
        }),
        ("lone zero block", "lone zero block", a().raw(&[0; 512]).file("x", "").end()),
        ("cut header", "within a header", a().file("x", "").0[..100].to_vec()),
        ("cut content", "within an entry", a().file("x", "content").0[..600].to_vec()),
        ("dangling extended header", "after an extended header", a().pax(&[("path", b"a")]).end()),
    ] {
        let error = refused(case, &archive);
        assert!(matches!(error, Error::Corrupt { .. }), "{case}: {error}");
        assert!(error.to_string().contains(says), "{case}: {error}");
    }
}

#[test]
fn sparse_maps() {
    if needs::root().is_missing() {
        return;
    }
    let sparse =
        |records: &[(&str, &[u8])], content: &str| Archive::new().pax(records).file("x", content).end();
    let map = |map: &'static str| -> Vec<(&'static str, &'static [u8])> {
        vec![("GNU.sparse.size", b"100"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", map.as_bytes())]
    };
    for (case, bad) in [
        ("overlap", "0,2,1,2"),
        ("backwards", "10,2,0,2"),
        ("outside", "0,2,99,2"),
        ("content", "0,2,10,3"),
        ("overflow", "0,2,18446744073709551615,2"),
    ] {
        names_entry(case, "x", "sparse map", &sparse(&map(bad), "abcd"));
    }
    names_entry(
        "form",
        "x",
        "unknown form",
        &sparse(&[("GNU.sparse.major", b"2"), ("GNU.sparse.realsize", b"9")], ""),
    );
    let v1 = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")];
    names_entry("cut map", "x", "ends within a line", &sparse(&v1, ""));
    names_entry("many pieces", "x", "limit", &sparse(&v1, &format!("99999999\n{}", "0\n".repeat(300))));
    let gnu = Header { gnu: true, ..header(b'S', "x") };
    names_entry("GNU without a map", "x", "cover", &Archive::new().entry(&gnu, b"abc").end());
}

#[test]
fn what_would_steer_overlayfs() {
    if needs::root().is_missing() {
        return;
    }
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.metacopy"] {
        let keyword = format!("SCHILY.xattr.{name}");
        let archive = Archive::new().pax(&[(&keyword, b"y")]).dir("x").end();
        names_entry("attribute", "x", name, &archive);
    }
    let encoded = Archive::new().pax(&[("LIBARCHIVE.xattr.trusted%2Eoverlay.opaque", b"eQ")]).dir("x").end();
    names_entry("encoded attribute", "x", "trusted.overlay.opaque", &encoded);
    names_entry("whiteout device", "x", "0/0", &Archive::new().entry(&header(b'3', "x"), b"").end());
    for bad in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh.."] {
        names_entry("whiteout of nothing", bad, "whiteout for no name", &Archive::new().file(bad, "").end());
    }
}

#[test]
fn limits() {
    if needs::root().is_missing() {
        return;
    }
    let a = Archive::new;
    let long = "x/".repeat(600);
    names_entry("depth", &long, "depth", &a().pax(&[("path", long.as_bytes())]).dir("x").end());
    let long = "x".repeat(5000);
    names_entry("path", &long, "path in bytes", &a().pax(&[("path", long.as_bytes())]).dir("x").end());
    let long = "x".repeat(300);
    names_entry("component", &long, "too long", &a().pax(&[("path", long.as_bytes())]).file("x", "").end());
    let huge = Header { size: Some(MAX_EXTENDED_HEADER + 1), ..header(b'x', "p") };
    names_entry("extended header", "p", "extended header in bytes", &a().entry(&huge, b"").end());
    let huge = Header { size: Some(1 << 40), ..header(b'L', "p") };
    names_entry("long name", "p", "extended header in bytes", &a().entry(&huge, b"").end());
    let value = vec![0; 65537];
    names_entry(
        "attribute",
        "PaxHeaders/x",
        "65536",
        &a().pax(&[("SCHILY.xattr.user.a", &value)]).file("x", "").end(),
    );
    let many: Vec<_> = (0..1025).map(|i| format!("SCHILY.xattr.user.{i}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    names_entry("attributes", "PaxHeaders/x", "1024", &a().pax(&many).file("x", "").end());
    let owner = Header { uid: u64::from(u32::MAX), ..header(b'0', "x") };
    names_entry("owner", "x", "uid", &a().entry(&owner, b"").end());
    // Nothing is read or kept for a size that is only claimed.
    let error =
        refused("content", &a().entry(&Header { size: Some(1 << 50), ..header(b'0', "x") }, b"").end());
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    let sparse = [("GNU.sparse.size", &b"9000000000000000"[..]), ("GNU.sparse.map", b"")];
    let error = refused("holes", &a().pax(&sparse).file("x", "").end());
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}
