//! Sources of `COPY` with wildcards, as Go's `filepath.Match`: `*`, `?` and `[…]` never match a slash.

use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Source;
use crate::error::{Error, Result};
use crate::tree::{is_dir, list};

/// How many sources one wildcard may give.
const MAX_MATCHES: usize = 1_000_000;

/// Whether a path has a wildcard that is not escaped.
pub(super) fn is_wild_path(path: &str) -> bool {
    path.split('/').any(is_wild)
}

/// Whether a component has a wildcard that is not escaped.
fn is_wild(part: &str) -> bool {
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// The paths that the pattern means, each as it is found below the last directory without wildcard,
/// in the order of a walk. A pattern without wildcard is itself.
pub(super) fn resolve(source: &Source<'_>, pattern: &str, follow: bool) -> Result<Vec<PathBuf>> {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let Some(first) = parts.iter().position(|part| is_wild(part)) else {
        return Ok(vec![PathBuf::from(parts.join("/"))]);
    };
    let base = source.tree.real_path(Path::new(&parts[..first].join("/")), follow)?;
    let mut found = Vec::new();
    walk(source, &base, &parts[first..], &mut found)?;
    Ok(found)
}

fn walk(source: &Source<'_>, dir: &Path, parts: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    let fd = match source.tree.lstat(dir)? {
        Some(stat) if is_dir(&stat) => source.tree.open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?,
        _ => return Ok(()),
    };
    for name in list(std::os::fd::AsFd::as_fd(&fd)).map_err(Error::io("list the directory", dir))? {
        if !fits(part, &name.to_string_lossy())? {
            continue;
        }
        let path = dir.join(&name);
        if rest.is_empty() {
            if source.is_visible(&path)? {
                found.push(path);
            }
        } else {
            walk(source, &path, rest, found)?;
        }
        if found.len() > MAX_MATCHES {
            return Err(Error::Limit {
                what: "the number of files of a wildcard",
                limit: MAX_MATCHES as u64,
            });
        }
    }
    Ok(())
}

/// Whether one component matches.
fn fits(pattern: &str, name: &str) -> Result<bool> {
    matches(pattern, name).ok_or_else(|| Error::Invalid {
        what: "wildcard",
        text: pattern.into(),
        problem: "a character class is not closed, or nothing follows a backslash".into(),
    })
}

fn matches(pattern: &str, name: &str) -> Option<bool> {
    let mut chars = pattern.chars().peekable();
    let mut rest = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => {
                let tail: String = chars.collect();
                let mut from = rest.as_str();
                loop {
                    if matches(&tail, from)? {
                        return Some(true);
                    }
                    let mut next = from.chars();
                    if next.next().is_none() {
                        return Some(false);
                    }
                    from = next.as_str();
                }
            }
            '[' => {
                let (ranges, negated) = class_ranges(&mut chars)?;
                let Some(c) = rest.next() else { return Some(false) };
                if ranges.iter().any(|(low, high)| *low <= c && c <= *high) == negated {
                    return Some(false);
                }
            }
            '?' => {
                if rest.next().is_none() {
                    return Some(false);
                }
            }
            '\\' => {
                let c = chars.next()?;
                if rest.next() != Some(c) {
                    return Some(false);
                }
            }
            c => {
                if rest.next() != Some(c) {
                    return Some(false);
                }
            }
        }
    }
    Some(rest.as_str().is_empty())
}

/// A class after its `[`.
fn class_ranges(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<(Vec<(char, char)>, bool)> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match chars.next()? {
            ']' if !ranges.is_empty() => return Some((ranges, negated)),
            '\\' => chars.next()?,
            '-' | ']' if ranges.is_empty() => return None,
            other => other,
        };
        let mut last = first;
        if chars.next_if_eq(&'-').is_some() {
            last = match chars.next()? {
                '\\' => chars.next()?,
                ']' => return None,
                other => other,
            };
        }
        ranges.push((first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn as_go_s_match() {
        for (pattern, name, expected) in [
            ("*", "", Some(true)),
            ("*.go", "a.go", Some(true)),
            ("a*b?c", "axxbyc", Some(true)),
            ("[a-c]*", "beta", Some(true)),
            ("[^a]", "a", Some(false)),
            ("\\*", "*", Some(true)),
            ("[", "x", None),
            ("ab", "abc", Some(false)),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
