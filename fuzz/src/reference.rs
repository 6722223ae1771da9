//! Names of images, digests and platforms: what parses, prints, and parses again to the same.

use onggi_oci::{Digest, Platform, Reference};

/// One text; what is none is nothing here.
pub fn feed(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let again: Reference = reference.to_string().parse().expect("the canonical form is a reference");
        assert_eq!(reference, again);
        let familiar: Reference = reference.familiar().parse().expect("the familiar form is a reference");
        assert_eq!(reference, familiar);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let again: Platform = platform.to_string().parse().expect("a printed platform is a platform");
        assert_eq!(platform.to_string(), again.to_string());
    }
}

/// Names as people type them, digests and platforms.
pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        "alpine",
        "alpine:3.20",
        "library/alpine",
        "localhost:5000/team/app:v1",
        "docker.io/library/alpine@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "registry.example.org:443/a/b/c:tag@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "[::1]:5000/a__b/c-d.e:_x",
        "index.docker.io/ubuntu",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "linux/arm64/v8",
        "linux(1.2)/amd64",
        "windows/amd64:10.0",
        "arm/v7",
    ])
}
