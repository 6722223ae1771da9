//! Layers of any kind, decompressed and unpacked into a fresh directory: nothing may change outside it.
//!
//! Unpacked as for an ordinary user: root's devices and owners are no part of this.

use std::io::Write;
use std::os::fd::AsFd;

use onggi_image::layer::{Ownership, UnpackOptions, decoder, unpack};

/// One input.
pub fn feed(bytes: &[u8]) {
    let outside = crate::home();
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
}

/// Archives of each kind, compressed and not.
pub fn seeds() -> Vec<Vec<u8>> {
    let plain = crate::sealed::seeds();
    let gzip = |archive: &Vec<u8>| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(archive).and_then(|()| gzip.finish()).expect("memory")
    };
    let mut seeds: Vec<Vec<u8>> = plain.iter().map(gzip).collect();
    // Two members, as parallel compressors write them.
    seeds.push([gzip(&plain[0][..1024].to_vec()), gzip(&plain[0][1024..].to_vec())].concat());
    seeds.extend(plain);
    seeds
}
