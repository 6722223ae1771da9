//! Image archives: loaded or refused, and the store is whole afterwards.

use onggi_image::Store;
use onggi_image::layer::{Ownership, UnpackOptions};
use onggi_image::store::{CheckOptions, Storage};
use onggi_testkit::ImageMaker;

use crate::archive::{Archive, header};

/// One input.
pub fn feed(bytes: &[u8]) {
    let home = crate::home();
    let options = UnpackOptions::user_namespace(Ownership::Squash);
    let store = Store::open_with(&home.path().join("root"), &home.path().join("run"), options, Storage::Dir);
    let store = store.expect("a store");
    let _ = store.load(&crate::sealed::sealed(bytes)[..]);
    let report = store.check(CheckOptions::default()).expect("a check");
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let names: Vec<_> =
        std::fs::read_dir(home.path()).expect("a directory").flatten().map(|e| e.file_name()).collect();
    assert!(names.iter().all(|name| name == "root" || name == "run"), "{names:?}");
}

/// An OCI layout, and what `docker save` wrote before there were layouts.
pub fn seeds() -> Vec<Vec<u8>> {
    let image = ImageMaker::new().layer(&[("a", b"1")]).layer(&[("b", b"2")]).cmd(&["sh"]).build();
    let archive = |members: Vec<(String, Vec<u8>)>| {
        let add = |archive: Archive, (name, content): &(String, Vec<u8>)| {
            archive.entry(&header(b'0', name), content)
        };
        members.iter().fold(Archive::new(), add).end()
    };
    let layout = image.layout("fuzz:1").into_iter().map(|(name, content)| (name, content.to_vec())).collect();
    let list =
        r#"[{"Config":"config.json","RepoTags":["fuzz:2"],"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let saved = vec![
        ("one/layer.tar".to_owned(), image.layers[0].to_vec()),
        ("two/layer.tar".to_owned(), image.layers[1].to_vec()),
        ("config.json".to_owned(), image.config.to_vec()),
        ("manifest.json".to_owned(), list.as_bytes().to_vec()),
    ];
    vec![archive(layout), archive(saved)]
}
