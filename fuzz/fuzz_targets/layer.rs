//! Layers of any kind, decompressed and unpacked into a fresh directory: nothing may change outside it.
//!
//! Run as root this writes devices and owners for real, in a temporary folder; `make fuzz` runs it in a user
//! namespace where there is one, so that a mistake costs nothing.
#![no_main]

use std::os::fd::AsFd;

use libfuzzer_sys::fuzz_target;
use onggi_image::layer::{Ownership, UnpackOptions, decoder, unpack};

fuzz_target!(|bytes: &[u8]| {
    let outside = tempfile::tempdir().expect("a temporary directory");
    let inside = outside.path().join("inside");
    std::fs::create_dir(&inside).expect("a directory");
    let directory = std::fs::File::open(&inside).expect("the directory");
    if let Ok(stream) = decoder(bytes, None) {
        let _ = unpack(stream, directory.as_fd(), &UnpackOptions::user_namespace(Ownership::Squash));
    }
    let names: Vec<_> = std::fs::read_dir(outside.path())
        .expect("the directory around")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["inside"], "something was written outside");
});
