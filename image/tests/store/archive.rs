//! Archives: ours read by other tools, theirs by us, and hostile ones by nobody.

use std::path::Path;
use std::process::{Command, Stdio};

use onggi_image::archive::{Format, SaveItem};
use onggi_image::store::CheckOptions;
use onggi_image::{Error, Store};
use onggi_oci::{ErrorKind, Reference};

use crate::fixture::{Home, Made, gzip, home, made, name, needs_root, needs_tool, noise, pull, tar};

fn image(n: u64) -> Made {
    made(&[tar(&[("etc/", b""), ("etc/os", b"jar")]), tar(&[("data", &noise(n, 70_000))])])
}

fn save(store: &Store, names: &[&str], format: Format) -> Vec<u8> {
    let items: Vec<_> =
        names.iter().map(|n| SaveItem::new(store.resolve(n, None).unwrap(), vec![name(n)])).collect();
    let mut bytes = Vec::new();
    store.save(&items, format, &mut bytes).unwrap();
    bytes
}

fn names(store: &Store) -> Vec<String> {
    store.refs().unwrap().into_iter().filter_map(|r| r.name).map(|n| n.familiar()).collect()
}

fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// podman with everything below `dir`.
fn podman(dir: &Path) -> Command {
    let mut command = Command::new("podman");
    command.arg("--root").arg(dir.join("podman")).arg("--runroot").arg(dir.join("podman-run"));
    command.args(["--storage-driver", "vfs"]);
    command
}

#[test]
fn what_is_saved_loads_with_the_same_digests() {
    if !needs_root() {
        return;
    }
    let home = home();
    for (n, tag) in ["example.org:5000/a/b:1", "busybox:latest"].iter().enumerate() {
        pull(&home.store, &image(n as u64), tag).unwrap();
    }
    let both = ["busybox:latest", "example.org:5000/a/b:1"];
    for format in [Format::Docker, Format::Oci] {
        let archive = save(&home.store, &both, format);
        assert_eq!(archive, save(&home.store, &both, format), "the same bytes each time");
        for bytes in [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()] {
            let other = self::home();
            let loaded = other.store.load(&bytes[..]).unwrap();
            assert_eq!(loaded.len(), 2);
            assert_eq!(other.store.refs().unwrap(), home.store.refs().unwrap());
            let image = other.store.resolve("busybox", None).unwrap();
            assert_eq!(other.store.ready_layers(&image).unwrap().len(), 2);
            assert!(other.store.check(CheckOptions::default()).unwrap().faults.is_empty());
        }
    }
    let dir = home.dir.path().join("layout");
    let items = [SaveItem::new(home.store.resolve("busybox", None).unwrap(), vec![name("busybox")])];
    home.store.save_layout(&items, &dir).unwrap();
    assert!(matches!(home.store.save_layout(&items, &dir), Err(Error::NotEmpty { .. })));
    let other = self::home();
    assert_eq!(
        other.store.load_layout(&dir).unwrap()[0].name.as_ref().map(Reference::familiar).unwrap(),
        "busybox:latest"
    );
}

#[test]
fn podman_and_skopeo_read_ours() {
    if !needs_root() || !needs_tool("podman") || !needs_tool("skopeo") {
        return;
    }
    let home = home();
    let dir = home.dir.path();
    let made = image(1);
    pull(&home.store, &made, "example.org:5000/a/b:1").unwrap();
    pull(&home.store, &image(2), "busybox").unwrap();
    for (format, kind) in [(Format::Docker, "docker-archive"), (Format::Oci, "oci-archive")] {
        let file = dir.join(kind);
        std::fs::write(&file, save(&home.store, &["example.org:5000/a/b:1"], format)).unwrap();
        let from = match format {
            Format::Docker => format!("{kind}:{}", file.display()),
            Format::Oci => format!("{kind}:{}:example.org:5000/a/b:1", file.display()),
        };
        let config = run(Command::new("skopeo").args(["inspect", "--config", "--raw", &from]));
        assert_eq!(config.as_bytes(), made.config.1);
        run(podman(dir).args(["load", "-q", "-i"]).arg(&file));
        let id = run(podman(dir).args(["images", "-q", "--no-trunc", "example.org:5000/a/b:1"]));
        assert_eq!(id.trim(), made.config.0.digest.to_string());
        run(podman(dir).args(["rmi", "-f", "example.org:5000/a/b:1"]));
    }
    // Several at once.
    let file = dir.join("several");
    std::fs::write(&file, save(&home.store, &["busybox", "example.org:5000/a/b:1"], Format::Docker)).unwrap();
    run(podman(dir).args(["load", "-q", "-i"]).arg(&file));
    assert_eq!(run(podman(dir).args(["images", "-q"])).lines().count(), 2);
}

#[test]
fn we_read_podman_and_skopeo() {
    if !needs_root() || !needs_tool("podman") || !needs_tool("skopeo") {
        return;
    }
    let home = home();
    let dir = home.dir.path();
    let made = image(1);
    pull(&home.store, &made, "example.org/a:1").unwrap();
    let ours = dir.join("ours");
    std::fs::write(&ours, save(&home.store, &["example.org/a:1"], Format::Docker)).unwrap();
    run(podman(dir).args(["load", "-q", "-i"]).arg(&ours));
    run(podman(dir).args(["tag", "example.org/a:1", "example.org/b:2"]));

    let load = |home: &Home, file: &Path| home.store.load(std::fs::File::open(file).unwrap()).unwrap();
    for kind in ["docker-archive", "oci-archive"] {
        let file = dir.join(format!("podman-{kind}"));
        run(podman(dir).args(["save", "-q", "--format", kind, "-o"]).arg(&file).arg("example.org/a:1"));
        let other = self::home();
        let loaded = load(&other, &file);
        assert_eq!(loaded[0].id, made.config.0.digest, "{kind}");
        assert_eq!(names(&other.store), ["example.org/a:1"], "{kind}");
        assert!(other.store.check(CheckOptions::default()).unwrap().faults.is_empty());
        assert_eq!(load(&other, &file), loaded, "a second time");
    }
    let file = dir.join("podman-several");
    let tags = ["example.org/a:1", "example.org/b:2"];
    run(podman(dir).args(["save", "-q", "-m", "-o"]).arg(&file).args(tags));
    let other = self::home();
    load(&other, &file);
    assert_eq!(names(&other.store), tags);

    let from = format!("docker-archive:{}", ours.display());
    for (kind, to) in [("docker-archive", "docker-archive"), ("oci-archive", "oci-archive"), ("oci", "oci")] {
        let file = dir.join(format!("skopeo-{kind}"));
        let to = format!("{to}:{}:example.org/c:3", file.display());
        run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", &from, &to]));
        let other = self::home();
        let loaded =
            if kind == "oci" { other.store.load_layout(&file).unwrap() } else { load(&other, &file) };
        assert_eq!(loaded[0].id, made.config.0.digest, "{kind}");
        assert_eq!(names(&other.store), ["example.org/c:3"], "{kind}");
    }
}

fn entry(kind: tar::EntryType, link: &str) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    header
}

/// The form that Docker wrote before 1.25: a layer that occurs twice is a symbolic link.
#[test]
fn links_inside_an_archive() {
    if !needs_root() {
        return;
    }
    let home = home();
    let layer = tar(&[("f", b"x")]);
    let made = made(&[layer.clone(), layer.clone()]);
    let manifest = br#"[{"Config":"c.json","RepoTags":null,"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let files: [(&str, &[u8]); 4] = [
        ("c.json", &made.config.1),
        ("one/VERSION", b"1.0"),
        ("one/layer.tar", &layer),
        ("manifest.json", manifest),
    ];
    let archive = |link: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = entry(tar::EntryType::Regular, "");
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content).unwrap();
        }
        let mut header = entry(tar::EntryType::Symlink, link);
        builder.append_data(&mut header, "two/layer.tar", std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    };
    let loaded = home.store.load(&archive("../one/layer.tar")[..]).unwrap();
    assert_eq!((loaded[0].id.clone(), loaded[0].name.clone()), (made.config.0.digest.clone(), None));
    assert!(home.store.resolve(made.config.0.digest.short(), None).is_ok());
    for (link, expected) in [
        ("../../etc/passwd", "leads out of it"),
        ("/etc/passwd", "leads out of it"),
        ("../two/layer.tar", "circle"),
        ("../none", "is not in it"),
    ] {
        let error = home.store.load(&archive(link)[..]).unwrap_err().to_string();
        assert!(error.contains(expected), "{link}: {error}");
    }
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let made = image(1);
    let layers: Vec<Vec<u8>> = made.layers.iter().map(|(_, bytes)| bytes.clone()).collect();
    let config = &made.config.1;
    let docker = |manifest: &str| {
        tar(&[("c", config), ("l1", &layers[0]), ("l2", &layers[1]), ("manifest.json", manifest.as_bytes())])
    };
    let fifo = {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut entry(tar::EntryType::Fifo, ""), "f", std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    };
    let good = r#"[{"Config":"c","RepoTags":["a:1"],"Layers":["l1","l2"]}]"#;
    let digest = made.manifest.0.digest.to_string();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("neither manifest.json nor index.json", tar(&[("etc/passwd", b"x")])),
        ("neither", Vec::new()),
        ("is compressed with xz", b"\xfd7zXZ\0rest".to_vec()),
        ("lists no image", docker("[]")),
        ("damaged", docker("{")),
        ("is not in it", docker(&good.replace("l2", "l3"))),
        ("leads out of it", docker(&good.replace("l2", "../../../etc/passwd"))),
        ("lists 1 layers for a config that has 2", docker(&good.replace(",\"l2\"", ""))),
        ("diff ID", docker(&good.replace("\"l1\",\"l2\"", "\"l2\",\"l1\""))),
        ("must be lowercase", docker(&good.replace("a:1", "UPPER:1"))),
        ("has the digest", tar(&[(&format!("blobs/sha256/{}", "0".repeat(64)), b"x"), ("index.json", b"{}")])),
        ("occurs twice", tar(&[("a", b"1"), ("a", b"2")])),
        ("neither a file nor", fifo),
        (
            "is not complete",
            tar(&[(
                "index.json",
                format!(
                    r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":7}}]}}"#
                )
                .as_bytes(),
            )]),
        ),
    ];
    for (expected, bytes) in cases {
        let error = store.load(&bytes[..]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} lacks {expected}");
        assert!(!matches!(error.kind(), ErrorKind::Io), "{error}");
        assert!(names(store).is_empty());
        assert!(std::fs::read_dir(store.root().join("ingest")).unwrap().next().is_none());
        assert!(store.check(CheckOptions::default()).unwrap().faults.is_empty());
    }
    store.load(&docker(good)[..]).unwrap();
    assert_eq!(names(store), ["a:1"]);
}
