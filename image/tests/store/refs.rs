//! Names, listings, removal.

use std::process::Command;

use onggi_image::Error;
use onggi_image::store::{PruneOptions, Ref, RemoveOptions, Removed};
use onggi_oci::{Descriptor, ImageIndex, Manifest, MediaType};

use crate::fixture::{Made, fetch, home, made, made_for, name, needs_root, needs_tool, pull, tar};

fn small(n: u8) -> Made {
    made(&[tar(&[("f", &[n])])])
}

fn options(force: bool) -> RemoveOptions<'static> {
    RemoveOptions { force, is_running: &|id| id == "running" }
}

#[test]
fn names_that_begin_alike_do_not_clash() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let image = small(1);
    let names =
        ["localhost:5000/a:b", "localhost:5000/a/b:c", "localhost:5000/a/b/c:latest", "a/b", "[::1]:5000/a"];
    for one in names {
        pull(store, &image, one).unwrap();
    }
    for one in names {
        assert_eq!(store.resolve(one, None).unwrap().id, image.config.0.digest, "{one}");
    }
    assert_eq!(store.refs().unwrap().len(), names.len());
    assert!(matches!(store.resolve("a", None), Err(Error::NoSuchImage { .. })));
    let removed = store.remove("localhost:5000/a:b", &options(false)).unwrap();
    assert_eq!(removed, [Removed::Untagged(name("localhost:5000/a:b"))]);
    assert!(store.resolve("localhost:5000/a/b:c", None).is_ok());
}

#[test]
fn images_are_found_by_name_id_and_digest() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let images: Vec<Made> = (0..20).map(small).collect();
    for (n, image) in images.iter().enumerate() {
        pull(store, image, &format!("name:{n}")).unwrap();
    }
    let wanted = &images[7];
    let id = &wanted.config.0.digest;
    let manifest = &wanted.manifest.0.digest;
    for text in [
        "name:7".to_owned(),
        "docker.io/library/name:7".to_owned(),
        id.to_string(),
        id.hex().to_owned(),
        id.short().to_owned(),
        format!("sha256:{}", id.short()),
        manifest.to_string(),
        format!("name@{manifest}"),
        format!("name:7@{manifest}"),
    ] {
        assert_eq!(store.resolve(&text, None).unwrap().id, *id, "{text}");
    }
    // Twenty IDs have 16 beginnings, so one of these means several.
    let ambiguous = "0123456789abcdef".chars().filter(|c| {
        matches!(store.resolve(&c.to_string(), None), Err(Error::AmbiguousId { candidates, .. }) if candidates.len() > 1)
    });
    assert!(ambiguous.count() > 0);
    for text in ["nope", "", "sha256:", "UPPER", "name:99", "../x", &"0".repeat(64)] {
        assert!(matches!(store.resolve(text, None), Err(Error::NoSuchImage { .. })), "{text}");
    }
}

#[test]
fn a_ref_needs_everything_that_it_reaches() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let image = small(1);
    assert!(matches!(store.tag(&image.manifest.0, &name("a")), Err(Error::Incomplete { .. })));
    pull(store, &image, "a").unwrap();
    let (source, _) = &image.layers[0];
    let blob = store.root().join("blobs/sha256").join(source.blob.digest.hex());
    std::fs::remove_file(blob).unwrap();
    store.tag(&image.manifest.0, &name("b")).unwrap();
    std::fs::remove_dir_all(store.root().join("layers").join(source.diff_id.0.hex())).unwrap();
    let error = store.tag(&image.manifest.0, &name("c")).unwrap_err();
    assert!(error.to_string().contains(&source.blob.digest.to_string()), "{error}");
}

#[test]
fn removal_follows_docker() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let image = small(1);
    let id = image.config.0.digest.to_string();
    pull(store, &image, "a:1").unwrap();
    let by_digest = name("a").with_digest(image.manifest.0.digest.clone());
    store.set_refs(&[Ref::new(by_digest, &image.manifest.0)]).unwrap();
    store.tag(&image.manifest.0, &name("b:2")).unwrap();

    let error = store.remove(&id, &options(false)).unwrap_err();
    assert!(matches!(&error, Error::SeveralNames { names, .. } if names.len() == 2), "{error}");
    let container = store.containers_dir().join("stopped");
    std::fs::create_dir(&container).unwrap();
    std::fs::write(container.join("config.json"), &id).unwrap();
    // A name goes although a container uses the image, as long as another name stays.
    let removed = store.remove("b:2", &options(false)).unwrap();
    assert_eq!(removed, [Removed::Untagged(name("b:2"))]);
    let error = store.remove("a:1", &options(false)).unwrap_err();
    assert!(
        matches!(&error, Error::ImageInUse { user, .. } if user.id == "stopped" && !user.running),
        "{error}"
    );
    let running = store.containers_dir().join("running");
    std::fs::rename(&container, &running).unwrap();
    assert!(matches!(store.remove("a:1", &options(true)), Err(Error::ImageInUse { .. })));
    std::fs::rename(&running, &container).unwrap();

    let removed = store.remove("a:1", &options(true)).unwrap();
    assert_eq!(removed[0], Removed::Untagged(name("a:1")));
    assert!(removed.contains(&Removed::Deleted(image.config.0.digest.clone())));
    assert!(store.refs().unwrap().is_empty());
    // The forced removal left what the container needs.
    assert!(store.layer(&image.layers[0].0.diff_id).unwrap().is_some());
    std::fs::remove_dir_all(&container).unwrap();
    store.prune(&PruneOptions::default()).unwrap();
    assert!(store.layer(&image.layers[0].0.diff_id).unwrap().is_none());
    assert!(std::fs::read_dir(store.root().join("refs")).unwrap().next().is_none(), "empty folders go too");
}

#[test]
fn of_an_index_only_some_platforms_may_be_here() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let amd = made_for("linux/amd64", &[tar(&[("f", b"amd")])]);
    let arm = made_for("linux/arm64", &[tar(&[("f", b"arm")])]);
    let absent = made_for("linux/s390x", &[tar(&[("f", b"z")])]);
    let platforms = [(&amd, "linux/amd64"), (&arm, "linux/arm64"), (&absent, "linux/s390x")];
    let entries = platforms.map(|(made, platform)| Descriptor {
        platform: Some(platform.parse().unwrap()),
        ..made.manifest.0.clone()
    });
    let index = Manifest::Index(ImageIndex::new(MediaType::OciIndex, entries.to_vec())).to_bytes();
    let target = Descriptor::of(MediaType::OciIndex, &index);
    let lease = store.lease("test").unwrap();
    store.publish(vec![lease.stage(&target, &index).unwrap()]).unwrap();
    assert!(matches!(store.tag(&target, &name("a")), Err(Error::Incomplete { .. })));
    fetch(&lease, &amd).unwrap();
    store.tag(&target, &name("a")).unwrap();
    fetch(&lease, &arm).unwrap();
    drop(lease);
    let of = |platform: &str| store.resolve("a", Some(&platform.parse().unwrap()));
    assert_eq!(of("linux/amd64").unwrap().id, amd.config.0.digest);
    assert_eq!(of("linux/arm64").unwrap().id, arm.config.0.digest);
    let error = of("linux/s390x").unwrap_err().to_string();
    assert!(
        error.contains("a is not in the store for linux/s390x") && error.contains("linux/arm64"),
        "{error}"
    );
    assert_eq!(store.resolve(arm.config.0.digest.short(), None).unwrap().id, arm.config.0.digest);
    store.prune(&PruneOptions { dangling: true, ..Default::default() }).unwrap();
    assert!(of("linux/arm64").is_ok());
    assert_eq!(store.images().unwrap().images.len(), 1);
}

#[test]
fn other_tools_read_the_store_as_a_layout() {
    if !needs_root() || !needs_tool("skopeo") {
        return;
    }
    let home = home();
    let image = small(1);
    pull(&home.store, &image, "example.org:5000/a/b:1").unwrap();
    pull(&home.store, &small(2), "busybox").unwrap();
    let copy = home.dir.path().join("copy");
    let from = |name: &str| format!("oci:{}:{name}", home.store.root().display());
    for name in ["example.org:5000/a/b:1", "docker.io/library/busybox:latest"] {
        let status = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "-q"])
            .args([from(name), format!("oci:{}:{name}", copy.display())])
            .status();
        assert!(status.unwrap().success(), "{name}");
    }
    let blob = copy.join("blobs/sha256").join(image.manifest.0.digest.hex());
    assert_eq!(std::fs::read(blob).unwrap(), image.manifest.1);
}
