//! Names of images, digests and platforms: what parses, prints, and parses again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onggi_oci::{Digest, Platform, Reference};

fuzz_target!(|text: &str| {
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
});
