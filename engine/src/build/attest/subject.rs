//! What attestations are about: images by their package URL, or files.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use onggi_oci::{Algorithm, Digest, Hasher, Platform, Reference};

use crate::error::{Error, Result};

/// The package URL of an image: `pkg:docker/busybox@1.36?platform=linux%2Famd64`.
pub(in crate::build) fn purl(name: &Reference, platform: &Platform) -> String {
    let tagged = name.clone().with_default_tag();
    let mut url = String::from("pkg:docker/");
    url += &tagged.familiar_name().split('/').map(encoded).collect::<Vec<_>>().join("/");
    if let Some(tag) = tagged.tag() {
        url += &format!("@{}", encoded(tag));
    }
    let mut qualifiers = Vec::new();
    if let Some(digest) = tagged.digest() {
        qualifiers.push(format!("digest={digest}"));
    }
    qualifiers.push(format!("platform={}", encoded(&platform.to_string())));
    format!("{url}?{}", qualifiers.join("&"))
}

/// Percent-encoded as package URLs want it.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// All regular files below a mounted tree, by their path in it, with their digests.
pub(super) fn files(tree: BorrowedFd<'_>) -> Result<Vec<(String, Digest)>> {
    // The mount is nobody else's, so nothing in it is changed for something else meanwhile.
    let root = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    let mut all = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        let failed = |source| Error::Read { path: Path::new("/").join(&dir), source };
        for entry in std::fs::read_dir(root.join(&dir)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let path = dir.join(entry.file_name());
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                let mut hasher = Hasher::new(Algorithm::Sha256);
                let mut file = File::open(root.join(&path)).map_err(failed)?;
                std::io::copy(&mut file, &mut hasher).map_err(failed)?;
                all.push((path.to_string_lossy().into_owned(), hasher.finish()));
            }
        }
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_package_urls() {
        let url = |name: &str| purl(&name.parse().unwrap(), &"linux/arm64/v8".parse().unwrap());
        assert_eq!(url("busybox"), "pkg:docker/busybox@latest?platform=linux%2Farm64");
        assert_eq!(url("me/app:1"), "pkg:docker/me/app@1?platform=linux%2Farm64");
        assert_eq!(url("reg.example:5000/a/b:1"), "pkg:docker/reg.example:5000/a/b@1?platform=linux%2Farm64");
    }
}
