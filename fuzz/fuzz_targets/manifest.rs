//! Manifests, indexes and image configs: an answer or an error, and bytes that were accepted stay accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onggi_oci::{ImageConfig, Manifest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes, None) {
        let written = manifest.to_bytes();
        Manifest::parse(&written, None).expect("what onggi writes it also reads");
    }
    let _ = ImageConfig::parse(bytes);
});
