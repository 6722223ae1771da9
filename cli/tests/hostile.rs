//! Archives that attack whoever loads them. Each is refused in words that name the entry, or does within the tree what
//! it says; nothing outside the store changes, no image appears from a refused one, and the store has no fault.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};

use onggi_testkit::{Digest, ImageMaker, TestImage};
use support::hostile::{Archive, Outside};
use support::{Done, Onggi, archive_of};
use tar::EntryType;

/// What must come of an archive.
enum End {
    /// An error with these words.
    Refused(Vec<String>),
    /// An image.
    Loaded,
}
use End::{Loaded, Refused};

fn refused(words: &[&str]) -> End {
    Refused(words.iter().map(|&word| word.to_owned()).collect())
}

/// Runs every case, so that one run shows all that fail.
fn each<T>(cases: Vec<(&str, T, End)>, run: impl Fn(&str, T, End)) {
    let names = cases.into_iter().filter_map(|(name, what, end)| {
        let run = AssertUnwindSafe(|| run(name, what, end));
        catch_unwind(run).is_err().then(|| name.to_owned())
    });
    let failed: Vec<String> = names.collect();
    assert!(failed.is_empty(), "these failed: {failed:?}");
}

fn load(onggi: &Onggi, archive: &[u8]) -> Done {
    let file = onggi.folder().join("archive.tar");
    fs::write(&file, archive).expect("an archive");
    onggi.output(["load".as_ref(), "-i".as_ref(), file.as_os_str()])
}

#[track_caller]
fn assert_end(onggi: &Onggi, outside: &Outside, name: &str, done: &Done, end: &End) {
    match end {
        Refused(words) => {
            assert_eq!(done.code, Some(1), "{name}: {}{}", done.stdout, done.stderr);
            done.assert_failed_in_words();
            for word in words {
                assert!(done.stderr.contains(word.as_str()), "{name}: {word:?} is not in: {}", done.stderr);
            }
            assert!(!done.stderr.contains('\u{1b}'), "{name} steers the terminal: {:?}", done.stderr);
            assert_eq!(onggi.images(), "", "{name}: an image is visible");
        }
        Loaded => {
            assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
            onggi.ok(["rmi", "-f", "evil:1"]);
        }
    }
    outside.assert_untouched(name);
    onggi.assert_store_is_clean();
    assert_eq!(onggi.unfinished(), [""; 0], "{name}");
}

fn evil(layer: Vec<u8>) -> TestImage {
    ImageMaker::new().tar(layer).cmd(&["/x"]).build()
}

/// Loads an image for each layer, and then one that is in order.
fn each_layer(cases: Vec<(&str, Vec<u8>, End)>, onggi: &Onggi, outside: &Outside) {
    each(cases, |name, layer, end| {
        let done = load(onggi, &archive_of(evil(layer).layout("evil:1")));
        assert_end(onggi, outside, name, &done, &end);
    });
    let good = evil(Archive::new().file("x", b"1").finish());
    assert_end(onggi, outside, "a good one", &load(onggi, &archive_of(good.layout("evil:1"))), &Loaded);
}

#[test]
fn layers_that_lead_out_of_their_tree() {
    let onggi = Onggi::new();
    let outside = Outside::new(onggi.folder());
    let (victim, folder) =
        (outside.name("victim"), outside.path().to_str().expect("a path of ours").to_owned());
    let new = Archive::new;
    // From ingest/<random>/<layer>/ and anything near it.
    let climb = |name: &str| format!("{}outside/{name}", "../".repeat(6));
    let cases = vec![
        ("'..'", new().file("../victim", b"!").finish(), refused(&["\"../victim\"", "leads out"])),
        (
            "'..' later",
            new().file("a/../../../outside/victim", b"!").finish(),
            refused(&["a/../../../outside/victim", "leads out"]),
        ),
        (
            "'..' by PAX",
            new().pax(&[("path", b"../../victim")]).file("x", b"!").finish(),
            refused(&["../../victim"]),
        ),
        ("a directory '..'", new().directory("..").finish(), refused(&["\"..\""])),
        ("an absolute name", new().file(&victim, b"!").finish(), Loaded),
        ("below an absolute link", new().symlink("a", &folder).file("a/victim", b"!").finish(), Loaded),
        (
            "below a link with '..'",
            new().symlink("a", &climb("")).file("a/victim", b"!").file("a/new", b"!").finish(),
            Loaded,
        ),
        (
            "'..' behind a link",
            new().directory("d").symlink("a", "d").file("a/../../outside/victim", b"!").finish(),
            refused(&["a/../../outside/victim"]),
        ),
        ("a file over a link", new().symlink("f", &victim).file("f", b"!").finish(), Loaded),
        (
            "a directory over a link",
            new()
                .symlink("d", &folder)
                .entry("d", b"", |header| {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o777);
                    header.set_uid(12345);
                })
                .finish(),
            Loaded,
        ),
        (
            "a file through a hard link of a link",
            new().symlink("f", &victim).hard_link("h", "f").file("h", b"!").finish(),
            Loaded,
        ),
        (
            "a hard link out",
            new().hard_link("h", &victim).finish(),
            refused(&["\"h\"", "hard link to", "victim"]),
        ),
        (
            "a hard link with '..'",
            new().hard_link("h", &climb("victim")).finish(),
            refused(&["\"h\"", "hard link to", "outside/victim"]),
        ),
        (
            "a hard link behind a link",
            new().symlink("a", &folder).hard_link("h", "a/victim").finish(),
            refused(&["\"h\"", "hard link to \"a/victim\""]),
        ),
        (
            "links in a circle",
            new().symlink("a", "b").symlink("b", "a").file("a/x", b"").finish(),
            refused(&["a/x", "symbolic links"]),
        ),
        (
            "below a file",
            new().file("a", b"").file("a/x", b"").finish(),
            refused(&["\"a/x\"", "not a directory"]),
        ),
        ("a file for the root", new().file(".", b"!").finish(), refused(&["root directory"])),
        ("a whiteout of nothing", new().file(".wh.", b"").finish(), refused(&["\".wh.\"", "whiteout"])),
        ("a whiteout of '..'", new().file("a/.wh...", b"").finish(), refused(&["a/.wh...", "whiteout"])),
        ("a whiteout behind a link", new().symlink("a", &folder).file("a/.wh.victim", b"").finish(), Loaded),
        (
            "an opaque mark behind a link",
            new().symlink("a", &folder).file("a/.wh..wh..opq", b"").finish(),
            Loaded,
        ),
        ("a zero byte", new().pax(&[("path", b"a\0b")]).file("x", b"!").finish(), refused(&["zero byte"])),
        (
            "a name for a terminal",
            new().file("../\u{1b}[2J\u{1b}]0;owned\u{7}", b"!").finish(),
            refused(&["leads out"]),
        ),
    ];
    each_layer(cases, &onggi, &outside);
}

#[test]
fn layers_that_steer_the_overlay_or_the_reader() {
    let onggi = Onggi::new();
    let outside = Outside::new(onggi.folder());
    let new = Archive::new;
    let long = |length: usize| "a".repeat(length).into_bytes();
    let many: Vec<(String, Vec<u8>)> =
        (0..1100).map(|number| (format!("SCHILY.xattr.user.n{number}"), b"v".to_vec())).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    let size = |size: u64| move |header: &mut tar::Header| header.set_size(size);
    let kind = |kind: u8| move |header: &mut tar::Header| header.as_old_mut().linkflag = [kind];
    let deep = "d/".repeat(600) + "x";
    let cases = vec![
        (
            "the device of whiteouts",
            new().device("dev/w", EntryType::Char, 0, 0).finish(),
            refused(&["\"dev/w\"", "whiteout"]),
        ),
        (
            "an overlay attribute",
            new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).directory("r").finish(),
            refused(&["\"r\"", "trusted.overlay.redirect"]),
        ),
        (
            "an overlay attribute of users",
            new().pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")]).directory("r").finish(),
            refused(&["\"r\"", "user.overlay.opaque"]),
        ),
        (
            "an overlay attribute as libarchive writes it",
            new().pax(&[("LIBARCHIVE.xattr.trusted.overlay.metacopy", b"eA==")]).file("m", b"").finish(),
            refused(&["\"m\"", "trusted.overlay.metacopy"]),
        ),
        (
            "a size in PAX below the header's",
            new().pax(&[("size", b"0")]).file("s", &[0; 512]).finish(),
            refused(&["\"s\"", "says 0 bytes and its header 512"]),
        ),
        (
            "a size in PAX above the header's",
            new().pax(&[("size", b"1536")]).file("s", b"").file("smuggled", b"").finish(),
            refused(&["\"s\"", "says 1536 bytes and its header 0"]),
        ),
        (
            "a link with content",
            new().entry("l", &[0; 512], |header| header.set_entry_type(EntryType::Symlink)).finish(),
            refused(&["\"l\"", "symbolic link", "512 bytes"]),
        ),
        ("an unknown type", new().entry("t", b"", kind(b'Z')).finish(), refused(&["\"t\"", "'Z'"])),
        (
            "a size that is none",
            new().entry("n", b"", |header| header.as_old_mut().size = *b"9999999999z\0").finish(),
            refused(&["\"n\"", "size"]),
        ),
        (
            "an owner beyond all",
            new().pax(&[("uid", b"4294967296")]).file("u", b"").finish(),
            refused(&["\"u\"", "uid"]),
        ),
        (
            "two terabytes",
            new().entry("b", b"", size(2 << 40)).broken_off(),
            refused(&["limit of 1099511627776"]),
        ),
        (
            "a sparse file of a petabyte",
            new()
                .pax(&[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.name", b"p"),
                    ("GNU.sparse.size", b"1125899906842624"),
                    ("GNU.sparse.numblocks", b"1"),
                    ("GNU.sparse.map", b"0,0"),
                ])
                .file("p", b"")
                .finish(),
            refused(&["limit of 1099511627776"]),
        ),
        (
            "a sparse map that goes back",
            new()
                .pax(&[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.name", b"q"),
                    ("GNU.sparse.size", b"1024"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.map", b"512,512,0,512"),
                ])
                .file("q", &[1; 1024])
                .finish(),
            refused(&["\"q\"", "sparse map"]),
        ),
        (
            "a long path",
            new().pax(&[("path", &long(5000))]).file("x", b"").finish(),
            refused(&["aaaa", "limit of 4096"]),
        ),
        (
            "a deep path",
            new().pax(&[("path", deep.as_bytes())]).file("x", b"").finish(),
            refused(&["d/d/d", "limit of 512"]),
        ),
        (
            "a large extended header",
            new().pax(&[("comment", &long(2 << 20))]).file("x", b"").finish(),
            refused(&["limit of 1048576"]),
        ),
        (
            "many attributes",
            new().pax(&many).file("x", b"").finish(),
            refused(&["PaxHeaders/x", "limit of 1024"]),
        ),
        (
            "a large attribute",
            new().pax(&[("SCHILY.xattr.user.big", &long(70_000))]).file("x", b"").finish(),
            refused(&["PaxHeaders/x", "limit of 65536"]),
        ),
        ("broken off", new().entry("b", b"", size(100_000)).broken_off(), refused(&["ends within"])),
        ("a wrong checksum", [b"x".repeat(512), vec![0; 1024]].concat(), refused(&["is damaged"])),
    ];
    each_layer(cases, &onggi, &outside);
}

/// An image may not claim for a blob the tree that another image brought: it would run as one thing here and as
/// another wherever the blob is unpacked.
#[test]
fn a_blob_stands_for_a_layer_only_if_it_unpacks_to_it() {
    let onggi = Onggi::new();
    let tar = Archive::new().file("x", b"1").finish();
    let (good, other) = (evil(tar.clone()), evil(Archive::new().file("x", b"2").finish()));
    let paired_with = |blob: &[u8], media_type: &str| {
        let (old, new) = (&good.descriptors[1], Digest::sha256(blob));
        let manifest = String::from_utf8(good.manifest.to_vec()).expect("JSON");
        let mut image = good.clone();
        let manifest = manifest
            .replace(&old.digest.to_string(), &new.to_string())
            .replace(&format!("\"size\":{}", old.size), &format!("\"size\":{}", blob.len()))
            .replace(&old.media_type.to_string(), media_type);
        image.manifest = manifest.into();
        let mut members = image.layout("second:1");
        members.push((format!("blobs/sha256/{}", new.hex()), blob.to_vec().into()));
        archive_of(members)
    };
    load(&onggi, &archive_of(good.layout("first:1"))).ok();
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let refused = load(&onggi, &paired_with(&other.layers[0], gzip));
    refused.assert_failed_in_words();
    let promised = Digest::sha256(&tar);
    assert!(refused.stderr.contains(&promised.to_string()), "{}", refused.stderr);
    assert_eq!(onggi.images(), "first:1");
    // The same archive, not compressed: another form of the layer, and remembered as one.
    load(&onggi, &paired_with(&tar, "application/vnd.oci.image.layer.v1.tar")).ok();
    let record = onggi.root().join("layers").join(promised.hex()).join("layer.json");
    let record = fs::read_to_string(record).expect("the layer's record");
    for form in [&good.descriptors[1].digest, &promised] {
        assert!(record.contains(&format!("\"digest\":\"{form}\"")), "{form} is not in {record}");
    }
    onggi.assert_store_is_clean();
    assert_eq!(onggi.unfinished(), [""; 0]);
}

/// `manifest.json` of a docker-archive.
fn docker_manifest(config: &str, layers: &[&str]) -> String {
    let layers: Vec<String> = layers.iter().map(|layer| format!("{layer:?}")).collect();
    format!(r#"[{{"Config":{config:?},"RepoTags":["evil:1"],"Layers":[{}]}}]"#, layers.join(","))
}

#[test]
fn archives_that_lie_about_their_members() {
    let onggi = Onggi::new();
    let outside = Outside::new(onggi.folder());
    let new = Archive::new;
    let layer = Archive::new().file("x", b"1").finish();
    let image = evil(layer.clone());
    let config = image.config.clone();
    let victim = outside.name("victim");
    let whole = |layers: &[&str]| {
        let manifest = docker_manifest("config.json", layers);
        new().file("manifest.json", manifest.as_bytes()).file("config.json", &config)
    };
    let climb = "../../../outside/victim";
    let blob = format!("blobs/sha256/{}", "0".repeat(64));
    let renamed = |config: &str, name: &str| config.replace("evil:1", name);
    let many = format!("[{}]", "{},".repeat(3 << 20));
    let nested = "[".repeat(200_000);
    let cases = vec![
        ("good", whole(&["l.tar"]).file("l.tar", &layer).finish(), Loaded),
        (
            "a link within",
            whole(&["a/l.tar"]).file("l.tar", &layer).symlink("a/l.tar", "../l.tar").finish(),
            Loaded,
        ),
        (
            "a member '..'",
            whole(&["l.tar"]).file("../victim", b"!").finish(),
            refused(&["\"../victim\" leads out"]),
        ),
        (
            "an absolute member",
            whole(&["l.tar"]).file(&victim, b"!").finish(),
            refused(&[&victim, "leads out"]),
        ),
        ("a layer outside", whole(&[climb]).finish(), refused(&[climb, "leads out"])),
        ("an absolute layer", whole(&[&victim]).finish(), refused(&[&victim, "leads out"])),
        (
            "a layer that is a link out",
            whole(&["l.tar"]).symlink("l.tar", climb).finish(),
            refused(&["\"l.tar\" is a link that leads out"]),
        ),
        (
            "a layer that is an absolute link",
            whole(&["l.tar"]).symlink("l.tar", &victim).finish(),
            refused(&["\"l.tar\" is a link that leads out"]),
        ),
        (
            "a layer that is a hard link out",
            whole(&["l.tar"]).hard_link("l.tar", climb).finish(),
            refused(&["\"l.tar\" is a link that leads out"]),
        ),
        (
            "links in a circle",
            whole(&["a"]).symlink("a", "b").symlink("b", "a").finish(),
            refused(&["\"a\" is a link in a circle"]),
        ),
        (
            "a device",
            whole(&["l.tar"]).device("l.tar", EntryType::Block, 8, 0).finish(),
            refused(&["\"l.tar\" is neither a file"]),
        ),
        ("a missing layer", whole(&["l.tar"]).finish(), refused(&["\"l.tar\"", "is not in it"])),
        (
            "a missing config",
            new().file("manifest.json", docker_manifest("c", &[]).as_bytes()).finish(),
            refused(&["\"c\"", "is not in it"]),
        ),
        (
            "a config outside",
            new().file("manifest.json", docker_manifest(climb, &[]).as_bytes()).finish(),
            refused(&[climb, "leads out"]),
        ),
        (
            "a member twice",
            whole(&["l.tar"]).file("l.tar", &layer).file("l.tar", b"other").finish(),
            refused(&["\"l.tar\" occurs twice"]),
        ),
        (
            "two manifests",
            whole(&["l.tar"]).file("l.tar", &layer).file("./manifest.json", b"[]").finish(),
            refused(&["manifest.json\" occurs twice"]),
        ),
        (
            "one layer too many",
            whole(&["l.tar", "l.tar"]).file("l.tar", &layer).finish(),
            refused(&["lists 2 layers for a config that has 1"]),
        ),
        (
            "another layer",
            whole(&["l.tar"]).file("l.tar", &new().file("x", b"2").finish()).finish(),
            refused(&["not what was promised", &Digest::sha256(&layer).to_string()]),
        ),
        (
            "a blob with a wrong name",
            whole(&["l.tar"]).file(&blob, b"!").finish(),
            refused(&[&blob, "has the digest"]),
        ),
        (
            "a name that is none",
            new()
                .file(
                    "manifest.json",
                    renamed(&docker_manifest("config.json", &[]), "../../etc\\u001b[2J").as_bytes(),
                )
                .finish(),
            refused(&["../../etc"]),
        ),
        (
            "no JSON",
            new().file("manifest.json", b"[{\"Config\":").finish(),
            refused(&["manifest.json is damaged"]),
        ),
        (
            "nested JSON",
            new().file("manifest.json", nested.as_bytes()).finish(),
            refused(&["manifest.json is damaged"]),
        ),
        ("a large document", new().file("manifest.json", many.as_bytes()).finish(), refused(&["limit of"])),
        (
            "nothing",
            new().file("README", b"hello").finish(),
            refused(&["neither manifest.json nor index.json"]),
        ),
        ("empty", Vec::new(), refused(&["neither manifest.json nor index.json"])),
        ("no archive", b"MZ".repeat(5000), refused(&["is damaged"])),
        ("xz", b"\xfd7zXZ\0\0\0".repeat(100), refused(&["compressed with xz"])),
    ];
    each(cases, |name, archive, end| assert_end(&onggi, &outside, name, &load(&onggi, &archive), &end));
}

/// CVE-2021-41190 and what an OCI layout can lie about.
#[test]
fn layouts_that_contradict_themselves() {
    let onggi = Onggi::new();
    let outside = Outside::new(onggi.folder());
    let image = evil(Archive::new().file("x", b"1").finish());
    let other = evil(Archive::new().file("x", b"2").finish());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("JSON");
    let manifest = text(&image.manifest);
    // The same image under a manifest that was changed.
    let with_manifest = |manifest: String| {
        let mut changed = image.clone();
        changed.manifest = manifest.into();
        changed.layout("evil:1")
    };
    let index = text(&image.layout("evil:1")[1].1);
    let with_index = |index: String| {
        let mut members = image.layout("evil:1");
        members[1].1 = index.into();
        members
    };
    let layer = image.descriptors[1].digest.to_string();
    let without = |digest: &str| {
        let mut members = image.layout("evil:1");
        members.retain(|(name, _)| !name.ends_with(digest.trim_start_matches("sha256:")));
        members
    };
    let target = image.digest().to_string();
    let index_type = "application/vnd.oci.image.index.v1+json";
    let manifest_type = image.media_type.to_string();
    let cases: Vec<(&str, Vec<(String, _)>, End)> = vec![
        (
            "two documents in one",
            with_manifest(manifest.replace("\"layers\":", "\"manifests\":[],\"layers\":")),
            refused(&["manifest"]),
        ),
        (
            "a manifest called an index",
            with_index(index.replace(
                &format!("\"mediaType\":\"{manifest_type}\""),
                &format!("\"mediaType\":\"{index_type}\""),
            )),
            refused(&["index"]),
        ),
        (
            "an index that is a manifest as well",
            with_index(index.replace("\"manifests\":", "\"layers\":[],\"manifests\":")),
            refused(&["index.json"]),
        ),
        ("no layer", without(&layer), refused(&[&layer, "not in the store"])),
        ("no manifest", without(&target), refused(&[&target, "not in the store"])),
        (
            "a path for a digest",
            with_index(index.replace(&target, "sha256:../../../outside/victim")),
            refused(&["index.json", "outside/victim"]),
        ),
        (
            "a size that is wrong",
            with_manifest(manifest.replace(
                &format!("\"size\":{}", image.descriptors[1].size),
                &format!("\"size\":{}", image.descriptors[1].size + 1),
            )),
            refused(&[&layer, "bytes"]),
        ),
        (
            "another layer than the config promises",
            {
                let (from, to) = (&image.descriptors[1], &other.descriptors[1]);
                let manifest = manifest
                    .replace(&from.digest.to_string(), &to.digest.to_string())
                    .replace(&format!("\"size\":{}", from.size), &format!("\"size\":{}", to.size));
                let mut members = with_manifest(manifest);
                members.extend(other.layout("evil:1").split_off(4));
                members
            },
            refused(&["not what was promised"]),
        ),
        (
            "a name for a terminal",
            with_index(index.replace("evil:1", "evil\\u001b]0;owned\\u0007:1")),
            refused(&["name"]),
        ),
    ];
    each(cases, |name, members, end| {
        // A store of its own: what one archive lacks, another may have left.
        let onggi = Onggi::new();
        assert_end(&onggi, &outside, name, &load(&onggi, &archive_of(members)), &end);
    });

    // A layout in a directory, whose blobs are not what they should be.
    let secret = outside.name("secret");
    let blob = Digest::sha256(&fs::read(&secret).expect("the secret"));
    let stealing = manifest
        .replace(&layer, &blob.to_string())
        .replace(&format!("\"size\":{}", image.descriptors[1].size), "\"size\":26");
    type Change<'a> = &'a dyn Fn(&std::path::Path);
    let to_link: Change<'_> = &|path| symlink(&secret, path).expect("a link");
    let to_fifo: Change<'_> = &|path| {
        support::tool("mkfifo", [path]);
    };
    for (name, manifest, digest, change) in [
        ("a blob that is a link out", stealing, blob.to_string(), to_link),
        ("a blob that is a pipe", manifest.clone(), layer.clone(), to_fifo),
    ] {
        let dir = onggi.folder().join(name.replace(' ', "-"));
        fs::create_dir_all(dir.join("blobs/sha256")).expect("a folder");
        for (member, bytes) in with_manifest(manifest) {
            fs::write(dir.join(member), bytes).expect("a file");
        }
        let path = dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        let _ = fs::remove_file(&path);
        change(&path);
        let done = onggi.output(["load".as_ref(), "-i".as_ref(), dir.as_os_str()]);
        assert_end(&onggi, &outside, name, &done, &refused(&[digest.trim_start_matches("sha256:")]));
    }
}
