//! Names of archive entries, taken apart without asking the file system.

use super::limits::MAX_DEPTH;
use crate::EntryProblem;

/// A name relative to the root: components joined by single slashes, no `.`,
/// no leading or trailing slash. `..` only where `climbs` says so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clean {
    pub(crate) path: Vec<u8>,
    pub(crate) climbs: bool,
}

/// Cleans the name of an entry. A name that climbs above the root is refused.
pub(crate) fn clean(raw: &[u8]) -> Result<Clean, EntryProblem> {
    let clean = clean_link(raw)?;
    if clean.climbs {
        let mut depth = 0_usize;
        for component in clean.path.split(|&b| b == b'/') {
            depth = match component {
                b".." => depth.checked_sub(1).ok_or(EntryProblem::Name("leads out of the tree"))?,
                _ => depth + 1,
            };
        }
    }
    Ok(clean)
}

/// Cleans the target of a hard link. Climbing above the root stays at the root,
/// as for a process in the container.
pub(crate) fn clean_link(raw: &[u8]) -> Result<Clean, EntryProblem> {
    if raw.contains(&0) {
        return Err(EntryProblem::Name("has a zero byte"));
    }
    let mut path = Vec::with_capacity(raw.len());
    let (mut climbs, mut depth) = (false, 0);
    for component in raw.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".") {
        climbs |= component == b"..";
        depth += 1;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    if depth > MAX_DEPTH {
        return Err(EntryProblem::Limit { what: "depth in directories", limit: MAX_DEPTH as u64 });
    }
    Ok(Clean { path, climbs })
}

/// The directory and the last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// The path of a name in a directory.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Whether `path` is `directory` or lies in it; the rest after the slash.
pub(crate) fn below<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    if directory.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(directory)? {
        b"" => Some(b""),
        rest => rest.strip_prefix(b"/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        for (raw, want, climbs) in [
            ("./usr//lib/./x/", "usr/lib/x", false),
            ("/", "", false),
            ("", "", false),
            ("a/../b", "a/../b", true),
            ("...", "...", false),
        ] {
            assert_eq!(clean(raw.as_bytes()).unwrap(), Clean { path: want.into(), climbs });
        }
        for bad in ["..", "../a", "/../a", "a/../../b"] {
            assert!(clean(bad.as_bytes()).is_err(), "{bad}");
            assert!(clean_link(bad.as_bytes()).is_ok(), "{bad}");
        }
        assert!(clean(b"a\0b").is_err());
        assert!(clean(&b"a/".repeat(MAX_DEPTH + 1)).is_err());
    }

    #[test]
    fn below_is_by_component() {
        assert_eq!(below(b"a/b/c", b"a/b"), Some(&b"c"[..]));
        assert_eq!(below(b"a/b", b"a/b"), Some(&b""[..]));
        assert_eq!(below(b"a/bc", b"a/b"), None);
        assert_eq!(below(b"a", b""), Some(&b"a"[..]));
    }
}
