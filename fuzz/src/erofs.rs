//! Layers as EROFS files: `fsck.erofs` accepts what is written, and what unpacking takes the writer takes.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use onggi_image::erofs::{digest_of, write};
use onggi_image::layer::{Limits, Ownership, UnpackOptions, unpack};

/// One input.
pub fn feed(bytes: &[u8]) {
    let archive = crate::sealed::sealed(bytes);
    let home = crate::home();
    let path = home.path().join("layer.erofs");
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
    let tree = home.path().join("tree");
    std::fs::create_dir(&tree).expect("a directory");
    let directory = File::open(&tree).expect("the directory");
    let options = UnpackOptions::user_namespace(Ownership::Squash);
    let unpacked = unpack(&archive[..], directory.as_fd(), &options);
    let Ok(written) = write(&archive[..], file, || [7; 16], &Limits::default()) else {
        return;
    };
    if let Ok(unpacked) = unpacked {
        assert_eq!((unpacked.entries, unpacked.bytes), (written.unpacked.entries, written.unpacked.bytes));
    }
    let found = digest_of(&mut File::open(&path).expect("the file")).expect("a digest");
    assert_eq!(found, (written.digest, written.size));
    let checked = Command::new("fsck.erofs").arg(&path).output().expect("fsck.erofs runs");
    let said =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}

/// Archives of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    crate::sealed::seeds()
}
