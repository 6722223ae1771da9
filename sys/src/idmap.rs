//! User and group id maps of user namespaces.
//!
//! A map is written once, as lines `INSIDE OUTSIDE COUNT`, to
//! `/proc/PID/uid_map` and `gid_map` by somebody with authority over the parent
//! namespace: the parent itself, or the set-uid programs `newuidmap` and
//! `newgidmap` which consult `/etc/subuid` and `/etc/subgid`.

use std::fmt;

/// One range of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id outside (in the parent namespace).
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// A whole map: ranges that don't overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(Vec<Range>);

/// The kernel takes at most this many ranges (`UID_GID_MAP_MAX_EXTENTS`).
pub const MAX_RANGES: usize = 340;

/// Why ranges don't make a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMap {
    /// More ranges than the kernel takes.
    #[error("an id map has at most {MAX_RANGES} ranges")]
    TooMany,
    /// A range is empty or runs past 2³²−2.
    #[error("the id range {0} is empty or runs past the highest id")]
    Range(Range),
    /// Two ranges share ids on one side.
    #[error("the id ranges {0} and {1} overlap")]
    Overlap(Range, Range),
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inside, self.outside, self.count)
    }
}

impl IdMap {
    /// A map of these ranges.
    ///
    /// # Errors
    /// [`InvalidMap`], the same cases that the kernel refuses with `EINVAL`.
    pub fn new(ranges: Vec<Range>) -> Result<Self, InvalidMap> {
        if ranges.len() > MAX_RANGES {
            return Err(InvalidMap::TooMany);
        }
        let overlap = |a: u32, b: u32, x: &Range, y: &Range| {
            u64::from(a) < u64::from(b) + u64::from(y.count)
                && u64::from(b) < u64::from(a) + u64::from(x.count)
        };
        for (position, range) in ranges.iter().enumerate() {
            let last = u64::from(range.inside.max(range.outside)) + u64::from(range.count);
            if range.count == 0 || last > u64::from(u32::MAX) {
                return Err(InvalidMap::Range(*range));
            }
            for other in ranges.iter().take(position) {
                if overlap(range.inside, other.inside, range, other)
                    || overlap(range.outside, other.outside, range, other)
                {
                    return Err(InvalidMap::Overlap(*other, *range));
                }
            }
        }
        Ok(Self(ranges))
    }

    /// One range.
    ///
    /// # Errors
    /// [`InvalidMap::Range`].
    pub fn single(inside: u32, outside: u32, count: u32) -> Result<Self, InvalidMap> {
        Self::new(vec![Range { inside, outside, count }])
    }

    /// The ranges, in the order given.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// Whether there is no range.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The outside id of an inside one.
    pub fn to_outside(&self, id: u32) -> Option<u32> {
        let range = self.0.iter().find(|r| id >= r.inside && id - r.inside < r.count)?;
        Some(range.outside + (id - range.inside))
    }

    /// The inside id of an outside one.
    pub fn to_inside(&self, id: u32) -> Option<u32> {
        let range = self.0.iter().find(|r| id >= r.outside && id - r.outside < r.count)?;
        Some(range.inside + (id - range.outside))
    }

    /// The text that `/proc/PID/uid_map` takes.
    pub fn to_kernel(&self) -> String {
        use fmt::Write;
        let mut text = String::with_capacity(self.0.len() * 24);
        for range in &self.0 {
            let _ = writeln!(text, "{} {} {}", range.inside, range.outside, range.count);
        }
        text
    }

    /// Reads the text of `/proc/PID/uid_map` (or of `gid_map`); lines that are
    /// not three numbers are left out.
    pub fn from_kernel(text: &str) -> Self {
        let line = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count))) => {
                    Some(Range { inside, outside, count })
                }
                _ => None,
            }
        };
        Self(text.lines().filter_map(line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translates_both_ways() {
        let map = IdMap::new(vec![
            Range { inside: 0, outside: 1000, count: 1 },
            Range { inside: 1, outside: 100_000, count: 65535 },
        ])
        .unwrap();
        assert_eq!(map.to_outside(0), Some(1000));
        assert_eq!(map.to_outside(33), Some(100_032));
        assert_eq!(map.to_outside(65536), None);
        assert_eq!(map.to_inside(100_032), Some(33));
        assert_eq!(map.to_inside(0), None);
        assert_eq!(map.to_kernel(), "0 1000 1\n1 100000 65535\n");
        assert_eq!(IdMap::from_kernel(&map.to_kernel()), map);
    }

    #[test]
    fn refuses_what_the_kernel_refuses() {
        assert!(matches!(IdMap::single(0, 0, 0), Err(InvalidMap::Range(_))));
        assert!(matches!(IdMap::single(1, u32::MAX, 2), Err(InvalidMap::Range(_))));
        let inside =
            vec![Range { inside: 0, outside: 10, count: 5 }, Range { inside: 4, outside: 100, count: 1 }];
        assert!(matches!(IdMap::new(inside), Err(InvalidMap::Overlap(..))));
        let outside =
            vec![Range { inside: 0, outside: 10, count: 5 }, Range { inside: 9, outside: 14, count: 1 }];
        assert!(matches!(IdMap::new(outside), Err(InvalidMap::Overlap(..))));
    }
}
