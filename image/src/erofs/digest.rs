//! The checksum of a layer's file: XXH3 of 128 bits over everything from block 1 on, then block 0,
//! in the order of writing.
//!
//! It finds what a disk did to the file, at the speed of memory. It is no proof against someone who
//! can write to the store, who could as well change the record; what proves a layer is its diff ID,
//! and `system check --deep` makes the layer again from its blob.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::format::BLOCK;

/// The checksum of a layer's file, as text `xxh3:` and 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileDigest(u128);

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xxh3:{:032x}", self.0)
    }
}

impl From<FileDigest> for String {
    fn from(digest: FileDigest) -> Self {
        digest.to_string()
    }
}

impl FromStr for FileDigest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("xxh3:").filter(|hex| hex.len() == 32);
        let value = hex.and_then(|hex| u128::from_str_radix(hex, 16).ok());
        value.map(Self).ok_or("a checksum of a layer's file is `xxh3:` and 32 hexadecimal digits")
    }
}

impl TryFrom<String> for FileDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Takes the bytes from block 1 on.
#[derive(Clone, Default)]
pub(super) struct Digester(XxHash3_128);

impl Digester {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// With block 0, at the end.
    pub(super) fn finish(mut self, first: &[u8]) -> FileDigest {
        self.0.write(first);
        FileDigest(self.0.finish_128())
    }
}

/// Reads a whole file and tells its checksum and size.
///
/// # Errors
/// What reading answers; a file without a whole first block ends unexpectedly.
pub fn digest_of(file: &mut File) -> io::Result<(FileDigest, u64)> {
    let mut first = [0; BLOCK];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut first)?;
    let mut digester = Digester::default();
    let mut buffer = vec![0; 1 << 20];
    let mut size = BLOCK as u64;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((digester.finish(&first), size)),
            count => {
                digester.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let digest = Digester::default().finish(&[1; BLOCK]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["", "xxh3:", "sha256:00", "xxh3:0000000000000000000000000000000g"] {
            assert!(bad.parse::<FileDigest>().is_err(), "{bad}");
        }
    }
}
