//! Whiteouts: how a layer says that something below it is gone.
//!
//! | in an archive (image specification) | in a tree (overlayfs) |
//! |---|---|
//! | `dir/.wh.NAME`, empty file | `dir/NAME`, character device 0/0 |
//! | `dir/.wh..wh..opq`, empty file | attribute `trusted.overlay.opaque=y` (or `user.overlay.opaque`) of `dir` |
//! | `.wh..wh.*`, what AUFS kept for itself | nothing |

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::EntryProblem;

/// Begins the name of a whiteout.
pub const PREFIX: &[u8] = b".wh.";
/// Marks its directory as opaque.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
/// Begins the names that AUFS used for itself.
const AUFS: &[u8] = b".wh..wh.";

/// What the last component of a name says.
#[derive(Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// Nothing: an ordinary name.
    None,
    /// This name in lower layers is gone.
    Whiteout(&'a [u8]),
    /// Everything in this directory in lower layers is gone.
    Opaque,
    /// Bookkeeping of AUFS, of no meaning in an image.
    Aufs,
}

/// Reads the last component of a name.
pub fn read(base: &[u8]) -> Result<Mark<'_>, EntryProblem> {
    match base.strip_prefix(PREFIX) {
        None => Ok(Mark::None),
        Some(_) if base == OPAQUE => Ok(Mark::Opaque),
        Some(_) if base.starts_with(AUFS) => Ok(Mark::Aufs),
        Some(b"" | b"." | b"..") => Err(EntryProblem::WhiteoutName),
        Some(name) => Ok(Mark::Whiteout(name)),
    }
}

/// Whether a name at the root of a tree is one that AUFS used for itself.
pub(crate) fn is_aufs(first: &[u8]) -> bool {
    first.starts_with(AUFS) && first != OPAQUE
}

/// Where overlayfs reads its attributes: `trusted.overlay.` needs privilege in
/// the first user namespace, `user.overlay.` goes with the `userxattr` option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayXattr {
    /// For mounts made by root.
    Trusted,
    /// For mounts made inside a user namespace.
    User,
}

impl OverlayXattr {
    /// The name of the attribute that makes a directory opaque (value `y`).
    pub fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    /// Whether a directory, open for reading, hides the same one in lower layers.
    ///
    /// # Errors
    /// What `fgetxattr(2)` says, but that there is no mark or can be none.
    pub fn is_opaque(self, directory: BorrowedFd<'_>) -> std::io::Result<bool> {
        let mut value = [0; 8];
        match rustix::fs::fgetxattr(directory, self.opaque(), &mut value[..]) {
            // `x` says only that something inside is marked.
            Ok(length) => Ok(value.get(..length) == Some(b"y")),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether an attribute is one that overlayfs reads, under either prefix.
    pub fn owns(name: &[u8]) -> bool {
        name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(read(b"a").unwrap(), Mark::None);
        assert_eq!(read(b".wha").unwrap(), Mark::None);
        assert_eq!(read(b".wh.a").unwrap(), Mark::Whiteout(b"a"));
        assert_eq!(read(b".wh..a").unwrap(), Mark::Whiteout(b".a"));
        assert_eq!(read(b".wh..wh..opq").unwrap(), Mark::Opaque);
        assert_eq!(read(b".wh..wh.plnk").unwrap(), Mark::Aufs);
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(read(bad).is_err());
        }
    }
}
