//! Faults are found, named and mended.

use std::path::{Path, PathBuf};

use onggi_image::Store;
use onggi_image::store::{CheckOptions, Depth, Fault, Mend, Problem};
use onggi_oci::Digest;

use crate::fixture::{Made, home, made, name, needs_root, noise, pull, tar};

fn check(store: &Store, depth: Depth, repair: bool) -> Vec<Fault> {
    store.check(CheckOptions { depth, repair }).unwrap().faults
}

fn image() -> Made {
    made(&[tar(&[("d/", b""), ("d/f", &noise(1, 100_000)), ("g", b"content")])])
}

fn blob_path(store: &Store, digest: &Digest) -> PathBuf {
    store.root().join("blobs/sha256").join(digest.hex())
}

#[test]
fn a_damaged_blob_is_removed_and_fetched_again() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let image = image();
    pull(store, &image, "a").unwrap();
    let manifest = &image.manifest.0.digest;
    let path = blob_path(store, manifest);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let error = store.resolve("a", None).unwrap_err().to_string();
    assert!(error.contains("system check --repair"), "{error}");
    let faults = check(store, Depth::Full, false);
    assert!(faults.iter().any(|f| f.problem == Problem::Blob(manifest.clone())), "{faults:?}");
    assert!(faults.iter().any(|f| matches!(f.problem, Problem::Ref(_))), "{faults:?}");
    let faults = check(store, Depth::Full, true);
    assert!(matches!(&faults[0].mend, Mend::Fetch(digest, _) if digest == manifest), "{faults:?}");
    assert_eq!(pull(store, &image, "a").unwrap(), 0, "only the manifest was missing");
    assert!(check(store, Depth::Deep, false).is_empty());
}

type Damage = (&'static str, Depth, fn(&Path));

#[test]
fn a_damaged_layer_is_made_again() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    let image = image();
    pull(store, &image, "a").unwrap();
    let dir = store.root().join("layers").join(image.layers[0].0.diff_id.0.hex());
    let damages: [Damage; 6] = [
        ("fs/ is missing", Depth::Quick, |dir| std::fs::remove_dir_all(dir.join("fs")).unwrap()),
        ("layer.json is missing", Depth::Quick, |dir| std::fs::remove_file(dir.join("layer.json")).unwrap()),
        ("is damaged", Depth::Quick, |dir| std::fs::write(dir.join("layer.json"), b"{").unwrap()),
        ("not what its blob", Depth::Full, |dir| std::fs::remove_file(dir.join("fs/g")).unwrap()),
        ("its record says", Depth::Full, |dir| std::fs::write(dir.join("fs/new"), b"new").unwrap()),
        ("not what its blob", Depth::Deep, |dir| std::fs::write(dir.join("fs/g"), b"CONTENT").unwrap()),
    ];
    for (expected, depth, damage) in damages {
        damage(&dir);
        let faults = check(store, depth, false);
        assert_eq!(faults.len(), 1, "{expected}: {faults:?}");
        assert!(faults[0].detail.contains(expected), "{} lacks {expected}", faults[0].detail);
        let faults = check(store, depth, true);
        assert!(matches!(faults[0].mend, Mend::Done(_)), "{faults:?}");
        assert!(check(store, Depth::Deep, false).is_empty(), "{expected}");
        assert_eq!(std::fs::read(dir.join("fs/g")).unwrap(), b"content");
    }
}

#[test]
fn what_does_not_belong_is_named() {
    if !needs_root() {
        return;
    }
    let home = home();
    let store = &home.store;
    pull(store, &image(), "a").unwrap();
    let root = store.root();
    for stray in ["blobs/sha256/tmp", "layers/x", "refs/docker.io/library/a/junk"] {
        std::fs::write(root.join(stray), b"x").unwrap();
    }
    std::fs::write(root.join("refs/docker.io/library/a/:bad"), b"{}").unwrap();
    assert!(store.refs().unwrap_err().to_string().contains("damaged"));
    let faults = check(store, Depth::Quick, true);
    assert_eq!(faults.iter().filter(|f| matches!(f.problem, Problem::Stray(_))).count(), 3, "{faults:?}");
    assert!(check(store, Depth::Full, false).is_empty());
    // A layer that is gone for good is said to be.
    std::fs::remove_dir_all(root.join("layers")).unwrap();
    std::fs::create_dir(root.join("layers")).unwrap();
    let layer = &store.resolve("a", None).unwrap().manifest.layers[0].digest.clone();
    std::fs::remove_file(blob_path(store, layer)).unwrap();
    let faults = check(store, Depth::Quick, false);
    assert!(faults[0].detail.contains(&layer.to_string()), "{faults:?}");
    assert_eq!(faults[0].problem, Problem::Ref(name("a:latest").familiar()));
}

#[test]
fn a_directory_of_something_else_is_no_store() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), b"x").unwrap();
    let options = onggi_image::layer::UnpackOptions::privileged();
    let error = Store::open(dir.path(), dir.path(), options).unwrap_err().to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
