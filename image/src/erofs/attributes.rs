//! Extended attributes behind an inode.
//!
//! ```text
//! [0 0 0 0][shared: 0][7 zeros]   then for each   [name's length][prefix][value's size: 2] name value, to 4
//! ```
//!
//! What ext4 would refuse or keep elsewhere is treated as ext4 does, so that both formats of a layer
//! show the same: `user.*` only on files and directories, an access list also in the mode.

use super::format::Type;
use crate::EntryProblem;
use crate::layer::Xattr;

/// Prefixes of names and their numbers. An access list has no name behind its prefix.
const PREFIXES: [(&[u8], u8); 5] =
    [(b"user.", 1), (ACCESS, 2), (DEFAULT, 3), (b"trusted.", 4), (b"security.", 6)];
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
/// The most that an inode can say it has behind it: 16 bits, in fours.
const MAX_TOTAL: usize = 12 + 4 * (u16::MAX as usize - 1);

/// Attributes as they stand behind an inode.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) bytes: Vec<u8>,
    /// How many can't be had on an inode of this type, or have a name of no known kind; the first.
    pub(super) skipped: u64,
    pub(super) first_skipped: Option<Vec<u8>>,
    /// The permissions that an access list asks for (0o777).
    pub(super) mode: Option<u32>,
}

impl Attributes {
    pub(super) fn new(kind: Type, attributes: &[Xattr]) -> Result<Self, EntryProblem> {
        let mut encoded = Self::default();
        for (name, value) in attributes {
            encoded.add(kind, name, value)?;
        }
        Ok(encoded)
    }

    pub(super) fn add(&mut self, kind: Type, name: &[u8], value: &[u8]) -> Result<(), EntryProblem> {
        let prefix = PREFIXES.into_iter().find_map(|(prefix, number)| {
            let rest = name.strip_prefix(prefix)?;
            (rest.is_empty() == (number == 2 || number == 3)).then_some((rest, number))
        });
        let allowed = match prefix {
            None => None,
            Some((_, 1)) if !matches!(kind, Type::File | Type::Directory) => None,
            Some((_, 2 | 3)) if kind == Type::Symlink => None,
            other => other,
        };
        let Some((rest, number)) = allowed else {
            self.skipped += 1;
            self.first_skipped.get_or_insert_with(|| name.to_vec());
            return Ok(());
        };
        let refuse = |errno: rustix::io::Errno| EntryProblem::Xattr {
            name: String::from_utf8_lossy(name).into_owned(),
            source: errno.into(),
        };
        if number == 2 || number == 3 {
            let list = AccessList::parse(value).ok_or_else(|| refuse(rustix::io::Errno::INVAL))?;
            if number == 3 && kind != Type::Directory {
                return if list.entries == 0 { Ok(()) } else { Err(refuse(rustix::io::Errno::ACCESS)) };
            }
            if number == 2 && list.entries > 0 {
                self.mode = Some(list.mode);
            }
            if list.entries == 0 || (number == 2 && list.is_minimal) {
                return Ok(());
            }
        }
        let size = u16::try_from(value.len()).map_err(|_| refuse(rustix::io::Errno::TOOBIG))?;
        let name_length = u8::try_from(rest.len()).map_err(|_| refuse(rustix::io::Errno::RANGE))?;
        if self.bytes.is_empty() {
            self.bytes.resize(12, 0);
        }
        self.bytes.extend_from_slice(&[name_length, number]);
        self.bytes.extend_from_slice(&size.to_le_bytes());
        self.bytes.extend_from_slice(rest);
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        if self.bytes.len() > MAX_TOTAL {
            return Err(too_large(MAX_TOTAL));
        }
        Ok(())
    }
}

pub(super) fn too_large(limit: usize) -> EntryProblem {
    EntryProblem::Limit { what: "size of its extended attributes in bytes", limit: limit as u64 }
}

/// What has to be known of an access control list (acl(5), in the form of its attribute: version 2,
/// then tag, permissions and id of each entry).
struct AccessList {
    entries: usize,
    /// Owner, mask or group, others.
    mode: u32,
    /// It says what a mode can say.
    is_minimal: bool,
}

impl AccessList {
    fn parse(value: &[u8]) -> Option<Self> {
        if value.is_empty() {
            return Some(Self { entries: 0, mode: 0, is_minimal: true });
        }
        let (entries, rest) = value.strip_prefix(&[2, 0, 0, 0])?.as_chunks::<8>();
        if !rest.is_empty() {
            return None;
        }
        let (mut owner, mut group, mut mask, mut other) = (0, 0, None, 0);
        let mut last = 0;
        for entry in entries {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let permissions = u32::from(u16::from_le_bytes([entry[2], entry[3]]));
            if permissions > 7 || tag < last {
                return None;
            }
            last = tag;
            match tag {
                0x01 => owner = permissions,
                0x04 => group = permissions,
                0x10 => mask = Some(permissions),
                0x20 => other = permissions,
                0x02 | 0x08 => {}
                _ => return None,
            }
        }
        let mode = owner << 6 | mask.unwrap_or(group) << 3 | other;
        Some(Self { entries: entries.len(), mode, is_minimal: entries.len() == 3 && mask.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &[u8]) -> Xattr {
        (name.into(), value.into())
    }

    #[test]
    fn encoded() {
        let one = Attributes::new(Type::File, &[pair("user.ab", b"xyz")]).unwrap();
        assert_eq!(one.bytes, b"\0\0\0\0\0\0\0\0\0\0\0\0\x02\x01\x03\0abxyz\0\0\0");
        assert_eq!(one.skipped, 0);
    }

    #[test]
    fn what_ext4_would_not_take_is_counted() {
        let pairs = [pair("user.a", b""), pair("other", b""), pair("user.", b"")];
        let none = Attributes::new(Type::Symlink, &pairs).unwrap();
        assert_eq!((none.bytes.len(), none.skipped), (0, 3));
        assert_eq!(none.first_skipped.as_deref(), Some(&b"user.a"[..]));
    }

    #[test]
    fn access_lists_change_the_mode() {
        let entry = |tag: u8, permissions: u8| [tag, 0, permissions, 0, 0xff, 0xff, 0xff, 0xff];
        let list = |entries: &[[u8; 8]]| [&[2, 0, 0, 0][..], entries.as_flattened()].concat();
        let name = "system.posix_acl_access";
        let minimal = list(&[entry(1, 7), entry(4, 5), entry(0x20, 4)]);
        let minimal = Attributes::new(Type::File, &[pair(name, &minimal)]).unwrap();
        assert_eq!((minimal.mode, minimal.bytes.len()), (Some(0o754), 0));
        let full = list(&[entry(1, 6), entry(2, 7), entry(4, 5), entry(0x10, 7), entry(0x20, 0)]);
        let full = Attributes::new(Type::File, &[pair(name, &full)]).unwrap();
        assert_eq!((full.mode, full.bytes.is_empty()), (Some(0o670), false));
        for bad in [&b"\x01\0\0\0"[..], b"\x02\0\0\0x"] {
            assert!(Attributes::new(Type::File, &[pair(name, bad)]).is_err());
        }
        assert!(Attributes::new(Type::File, &[pair("user.a", &vec![0; 65536])]).is_err());
    }
}
