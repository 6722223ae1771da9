//! PAX extended headers: records in and out.
//!
//! ```text
//! 30 mtime=1350244992.023960108\n      LENGTH SP KEYWORD = VALUE NL
//! ```
//!
//! LENGTH counts the whole record in decimal. A value may hold any byte, also
//! NL, which is why splitting at NL (as the `tar` crate does) is not enough:
//! the binary value of `security.capability` may contain one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::limits::{MAX_SPARSE_PIECES, MAX_XATTR_NAME, MAX_XATTR_VALUE, MAX_XATTRS};
use super::sparse::Piece;
use crate::EntryProblem;

/// Prefix of attributes with raw values, written by star, GNU tar, Go, libarchive.
const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
/// Prefix of attributes with URL-encoded names and base64 values.
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";

/// libarchive writes base64 without padding; accept both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Name and value of an extended attribute.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// A point in time of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 10⁹.
    pub nanoseconds: u32,
}

/// Decimal seconds, the way extended headers have it, without trailing zeros.
impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seconds, nanoseconds } = *self;
        // Before 1970 the fraction counts away from zero.
        let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
            (true, 0) => ("-", seconds.unsigned_abs(), 0),
            (true, _) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
            (false, _) => ("", seconds.unsigned_abs(), nanoseconds),
        };
        write!(f, "{sign}{seconds}")?;
        if nanoseconds > 0 {
            write!(f, ".{}", format!("{nanoseconds:09}").trim_end_matches('0'))?;
        }
        Ok(())
    }
}

/// What an extended header says about the entry that follows it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: PaxSparse,
}

/// The `GNU.sparse.*` records of versions 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) count: Option<u64>,
    pub(super) pieces: Vec<Piece>,
    pending_offset: Option<u64>,
}

impl PaxSparse {
    pub(super) fn is_present(&self) -> bool {
        self.major.is_some() || self.real_size.is_some() || self.count.is_some() || !self.pieces.is_empty()
    }
}

fn malformed(problem: &'static str) -> EntryProblem {
    EntryProblem::ExtendedHeader(problem)
}

/// Takes a record off the front: keyword and value.
fn record<'a>(data: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), EntryProblem> {
    let space =
        data.iter().take(20).position(|&b| b == b' ').ok_or(malformed("has a record without a length"))?;
    let length = decimal(&data[..space]).ok_or(malformed("has a record without a length"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > data.len() || length < space + 3 {
        return Err(malformed("has a record of a wrong length"));
    }
    let body = &data[space + 1..length];
    *data = &data[length..];
    let body = body.strip_suffix(b"\n").ok_or(malformed("has a record of a wrong length"))?;
    let equals = body.iter().position(|&b| b == b'=').ok_or(malformed("has a record without '='"))?;
    let (keyword, value) = (&body[..equals], &body[equals + 1..]);
    if keyword.is_empty() || keyword.contains(&0) {
        return Err(malformed("has a record without a keyword"));
    }
    Ok((keyword, value))
}

/// Reads the records of a header for one entry.
pub(super) fn parse(mut data: &[u8]) -> Result<Pax, EntryProblem> {
    let mut pax = Pax::default();
    while !data.is_empty() {
        let (keyword, value) = record(&mut data)?;
        match keyword {
            // An empty value takes the record back; the header's field is used.
            b"path" => pax.path = name(value)?,
            b"linkpath" => pax.linkpath = name(value)?,
            b"size" => pax.size = number(value, "size")?,
            b"uid" => pax.uid = number(value, "uid")?,
            b"gid" => pax.gid = number(value, "gid")?,
            b"mtime" if value.is_empty() => pax.mtime = None,
            b"mtime" => pax.mtime = Some(time(value).ok_or(EntryProblem::Number("mtime"))?),
            _ => {
                if let Some(rest) = keyword.strip_prefix(b"GNU.sparse.") {
                    sparse(&mut pax.sparse, rest, value)?;
                } else if let Some(name) = keyword.strip_prefix(SCHILY_XATTR) {
                    xattr(&mut pax.xattrs, name.to_vec(), value.to_vec())?;
                } else if let Some(name) = keyword.strip_prefix(LIBARCHIVE_XATTR) {
                    let name: Vec<u8> = percent_encoding::percent_decode(name).collect();
                    // The raw form of the same attribute is the better one.
                    if !pax.xattrs.contains_key(&name) {
                        let value = BASE64
                            .decode(value)
                            .map_err(|_| malformed("has an attribute that is not base64"))?;
                        xattr(&mut pax.xattrs, name, value)?;
                    }
                }
                // POSIX: keywords that a reader doesn't know are ignored.
            }
        }
    }
    if pax.sparse.pending_offset.is_some() {
        return Err(EntryProblem::Sparse("has an offset without a length"));
    }
    Ok(pax)
}

/// Checks a header for all following entries. Readers differ in whether they
/// honour it (Go's ignores it), so only what changes no entry is accepted.
pub(super) fn check_global(mut data: &[u8]) -> Result<(), EntryProblem> {
    while !data.is_empty() {
        let (keyword, _) = record(&mut data)?;
        let steers = matches!(keyword, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime")
            || keyword.starts_with(b"GNU.sparse.")
            || keyword.starts_with(SCHILY_XATTR)
            || keyword.starts_with(LIBARCHIVE_XATTR);
        if steers {
            return Err(malformed("is global and would change every entry after it"));
        }
    }
    Ok(())
}

fn xattr(into: &mut BTreeMap<Vec<u8>, Vec<u8>>, name: Vec<u8>, value: Vec<u8>) -> Result<(), EntryProblem> {
    if name.is_empty() || name.contains(&0) {
        return Err(malformed("has an attribute without a name"));
    }
    let limit = |what, limit: usize| EntryProblem::Limit { what, limit: limit as u64 };
    if name.len() > MAX_XATTR_NAME {
        return Err(limit("attribute's name in bytes", MAX_XATTR_NAME));
    }
    if value.len() > MAX_XATTR_VALUE {
        return Err(limit("attribute's value in bytes", MAX_XATTR_VALUE));
    }
    into.insert(name, value);
    if into.len() > MAX_XATTRS {
        return Err(limit("number of attributes", MAX_XATTRS));
    }
    Ok(())
}

fn sparse(into: &mut PaxSparse, keyword: &[u8], value: &[u8]) -> Result<(), EntryProblem> {
    match keyword {
        b"major" => into.major = number(value, "sparse version")?,
        b"minor" => into.minor = number(value, "sparse version")?,
        b"name" => into.name = name(value)?,
        b"size" | b"realsize" => into.real_size = number(value, "sparse size")?,
        b"numblocks" => into.count = number(value, "sparse count")?,
        b"offset" => {
            let offset = number(value, "sparse offset")?;
            if into.pending_offset.is_some() || offset.is_none() {
                return Err(EntryProblem::Sparse("has an offset without a length"));
            }
            into.pending_offset = offset;
        }
        b"numbytes" => match (into.pending_offset.take(), number(value, "sparse length")?) {
            (Some(offset), Some(length)) => into.push(offset, length)?,
            _ => return Err(EntryProblem::Sparse("has a length without an offset")),
        },
        b"map" => {
            into.pieces.clear();
            let mut numbers = value.split(|&b| b == b',').map(decimal);
            while let Some(offset) = numbers.next() {
                match (offset, numbers.next()) {
                    (Some(offset), Some(Some(length))) => into.push(offset, length)?,
                    // An empty map is one empty field.
                    (None, None) if value.is_empty() => {}
                    _ => return Err(EntryProblem::Sparse("is not a list of offsets and lengths")),
                }
            }
        }
        _ => return Err(EntryProblem::Sparse("is of an unknown form")),
    }
    Ok(())
}

impl PaxSparse {
    fn push(&mut self, offset: u64, length: u64) -> Result<(), EntryProblem> {
        if self.pieces.len() >= MAX_SPARSE_PIECES {
            return Err(EntryProblem::Limit {
                what: "number of sparse pieces",
                limit: MAX_SPARSE_PIECES as u64,
            });
        }
        self.pieces.push((offset, length));
        Ok(())
    }
}

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, EntryProblem> {
    if value.contains(&0) {
        return Err(malformed("has a name with a zero byte"));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn number(value: &[u8], field: &'static str) -> Result<Option<u64>, EntryProblem> {
    if value.is_empty() {
        return Ok(None);
    }
    decimal(value).map(Some).ok_or(EntryProblem::Number(field))
}

/// Digits only: no sign, no blanks, no overflow.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, &digit| {
        digit.is_ascii_digit().then_some(())?;
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// `-1350244992.023960108`; digits beyond nanoseconds are cut off.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|&b| b == b'.');
    let (whole, fraction) = dot.map_or((text, &[][..]), |at| (&text[..at], &text[at + 1..]));
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds = 0_u32;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        nanoseconds = nanoseconds * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// Appends one record.
pub(super) fn append(out: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let without = keyword.len() + value.len() + 3;
    let mut digits = 1;
    while (without + digits).to_string().len() > digits {
        digits += 1;
    }
    out.extend_from_slice((without + digits).to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(keyword);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Appends the record of an extended attribute.
pub(super) fn append_xattr(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    append(out, &[SCHILY_XATTR, name].concat(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_with_any_bytes() {
        for length in [0, 1, 80, 88, 89, 90, 91, 980, 990, 991, 10_000] {
            let value: Vec<u8> = (0..length).map(|i| b"\n= 1\0"[i % 5]).collect();
            let mut data = Vec::new();
            append_xattr(&mut data, b"user.a=b", &value);
            let error_or = parse(&data);
            // '=' ends the keyword: such a name cannot be carried.
            assert_eq!(error_or.unwrap().xattrs.keys().next().unwrap(), b"user.a");
            let mut data = Vec::new();
            append_xattr(&mut data, b"user.a", &value);
            append(&mut data, b"mtime", b"5.25");
            let pax = parse(&data).unwrap();
            assert_eq!(pax.xattrs[&b"user.a"[..]], value);
            assert_eq!(pax.mtime, Some(Time { seconds: 5, nanoseconds: 250_000_000 }));
        }
    }

    #[test]
    fn times() {
        let at = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        assert_eq!(time(b"1.5"), at(1, 500_000_000));
        assert_eq!(time(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(time(b"-1"), at(-1, 0));
        assert_eq!(time(b"-0.25"), at(-1, 750_000_000));
        for text in [
            "0",
            "1.5",
            "-1.5",
            "-1",
            "-0.25",
            "7.000000001",
            "-9223372036854775807",
            "-9223372036854775807.5",
        ] {
            assert_eq!(time(text.as_bytes()).unwrap().to_string(), text);
        }
        assert_eq!(time(b"1.0000000019"), at(1, 1));
        assert_eq!(time(b"0."), at(0, 0));
        for bad in [&b""[..], b".", b"+1", b"1.x", b"1.+", b"1.000000000x", b"1e3", b"99999999999999999999"] {
            assert_eq!(time(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        for bad in [
            &b"7 a=b"[..],
            b"6 a=b\n7",
            b"99 a=b\n",
            b"5 a=b\n",
            b"x a=b\n",
            b"7 abcd\n",
            b"+6 a=b\n",
            b"11 size=-1\n",
            b"18446744073709551616 a=b\n",
            b"10 path=\0\n",
            b"23 GNU.sparse.offset=1\n",
            b"23 GNU.sparse.map=1,2,3\n",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn libarchive_attributes() {
        let mut data = Vec::new();
        append(&mut data, b"LIBARCHIVE.xattr.user.a%20b", b"AQI");
        assert_eq!(parse(&data).unwrap().xattrs[&b"user.a b"[..]], [1, 2]);
    }
}
