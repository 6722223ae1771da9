//! Manifests and indexes: an answer or an error, and what was accepted stays accepted.

use onggi_oci::Manifest;
use onggi_testkit::ImageMaker;

/// One document.
pub fn feed(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes, None) {
        let written = manifest.to_bytes();
        Manifest::parse(&written, None).expect("what onggi writes it also reads");
    }
}

/// Both kinds of manifests, and an index.
pub fn seeds() -> Vec<Vec<u8>> {
    let image = ImageMaker::new().layer(&[("a", b"1")]).layer(&[("b", b"2")]);
    let docker = image.clone().docker().build();
    let image = image.build();
    let index = String::from_utf8(image.layout("a:1")[1].1.to_vec()).expect("JSON");
    let platforms = index.replace(
        "\"annotations\"",
        r#""platform":{"architecture":"arm","os":"linux","variant":"v7","os.features":["x"]},"annotations""#,
    );
    vec![image.manifest.to_vec(), docker.manifest.to_vec(), index.into_bytes(), platforms.into_bytes()]
}
