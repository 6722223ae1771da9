//! Bytes of the fuzzer as an archive whose checksums are right: else every reader stops at the first header, and
//! nothing behind it is tried.

use crate::archive::{Archive, Header, header};

const BLOCK: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// The bytes in whole blocks, the checksum of each header set, and an end.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut archive = bytes.to_vec();
    archive.resize(bytes.len().next_multiple_of(BLOCK), 0);
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + BLOCK) {
        header[CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size: u64 = header[124..136]
            .iter()
            .filter(|byte| (b'0'..=b'7').contains(byte))
            .fold(0, |size, digit| (size << 3 | u64::from(digit - b'0')) & 0xff_ffff);
        at += BLOCK + usize::try_from(size).unwrap_or(0).next_multiple_of(BLOCK);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

/// Archives with each kind of entry and of extended header.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let plain = Archive::new()
        .dir("./")
        .dir("usr/")
        .file("usr/file", "content")
        .file("usr/large", &"x".repeat(5000))
        .symlink("usr/link", "file")
        .hard("usr/hard", "usr/file")
        .file("usr/.wh.gone", "")
        .file("opaque/.wh..wh..opq", "")
        .end();
    let device = Header { device: (1, 3), mode: 0o666, ..header(b'3', "dev/null") };
    let special =
        Archive::new().entry(&device, b"").entry(&header(b'6', "pipe"), b"").entry(&header(b'4', "b"), b"");
    let long = "d/".repeat(60) + "name";
    let extended = Archive::new()
        .pax(&[
            ("path", long.as_bytes()),
            ("mtime", b"1700000000.123456789"),
            ("uid", b"4294967294"),
            ("SCHILY.xattr.user.a", b"v\n=\0w"),
        ])
        .file("x", "y")
        .pax(&[("linkpath", b"usr/file"), ("atime", b"-1.5"), ("size", b"0")])
        .symlink("l", "")
        .entry(&header(b'g', "g"), b"18 comment=global\n")
        .dir("after");
    let gnu = |kind, text: &str| {
        Archive::new().entry(&Header { gnu: true, ..header(kind, "././@LongLink") }, text.as_bytes())
    };
    let gnu_names = Archive(
        [gnu(b'L', &(long.clone() + "\0")).file("short", "1").0, gnu(b'K', "target\0").symlink("s", "t").0]
            .concat(),
    );
    let map = "2\n0\n3\n1000\n2\n";
    let sparse = Archive::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", b"2000"),
        ])
        .file("GNUSparseFile.0/sparse", &format!("{map:\0<512}abcde"));
    vec![plain, special.end(), extended.end(), gnu_names.end(), sparse.end()]
}
