//! The format of the driver `local`: frames that can be read from both ends.
//!
//! ```text
//!   file   = "onggilog" header frame*
//!   header = length:u32 attributes:JSON length:u32
//!   frame  = length:u32 flags:u8 time:i64 bytes length:u32
//! ```
//!
//! Numbers are little-endian; a length counts what lies between the two; the time is nanoseconds since 1970; flags:
//! 1 standard error, 2 no newline follows the bytes. Seventeen bytes beside the line, where json-file has
//! seventy-five; rotated files are compressed.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use jiff::Timestamp;

use super::entry::{Entry, Stream};

pub(super) const MAGIC: &[u8; 8] = b"onggilog";
/// Flags and time.
const FIXED: usize = 9;
/// A length.
pub(super) const LENGTH: usize = 4;
/// The longest frame that is read: no line is cut later than at 16 KiB; attributes are a header of their own.
pub(super) const MAX_FRAME: usize = 1 << 20;

const STDERR: u8 = 1;
const PARTIAL: u8 = 2;

/// What a new file begins with; `attributes` is a JSON object or empty.
pub(super) fn header(attributes: &str) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    frame(&mut out, &[attributes.as_bytes()]);
    out
}

fn frame(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // A chunk is 16 KiB, options of a command line at most 2 MiB.
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&length);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&length);
}

/// Appends an entry.
pub(super) fn encode(out: &mut Vec<u8>, stream: Stream, time: Timestamp, line: &[u8]) {
    let (bytes, partial) = match line.strip_suffix(b"\n") {
        Some(bytes) => (bytes, 0),
        None => (line, PARTIAL),
    };
    let flags = partial | if stream == Stream::Stderr { STDERR } else { 0 };
    // Until the year 2262.
    let time = i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    frame(out, &[&[flags], &time.to_le_bytes(), bytes]);
}

/// Reads what lies between the two lengths.
pub(super) fn decode(body: &[u8], attributes: &BTreeMap<String, String>) -> Option<Entry> {
    let (fixed, bytes) = body.split_at_checked(FIXED)?;
    let (&flags, time) = fixed.split_first()?;
    let time = i64::from_le_bytes(time.try_into().ok()?);
    let mut line = bytes.to_vec();
    if flags & PARTIAL == 0 {
        line.push(b'\n');
    }
    Some(Entry {
        stream: if flags & STDERR == 0 { Stream::Stdout } else { Stream::Stderr },
        time: Timestamp::from_nanosecond(time.into()).ok()?,
        line,
        attributes: attributes.clone(),
    })
}

fn attributes_of(header: &[u8]) -> BTreeMap<String, String> {
    serde_json::from_slice(header).unwrap_or_default()
}

/// The next entry of a file that may still grow. After damage nothing more can be read of the file.
pub(super) fn next(
    begun: &mut Vec<u8>,
    attributes: &mut BTreeMap<String, String>,
    input: &mut dyn BufRead,
) -> io::Result<Option<Entry>> {
    loop {
        let at_header = begun.starts_with(MAGIC);
        let start = if at_header { MAGIC.len() } else { 0 };
        if !fill(begun, input, start + LENGTH)? {
            return Ok(None);
        }
        if !at_header && begun.len() < MAGIC.len() && MAGIC.starts_with(begun) {
            if !fill(begun, input, MAGIC.len())? {
                return Ok(None);
            }
            continue;
        }
        let length = length_at(&begun[start..]);
        if length > MAX_FRAME {
            return Ok(None);
        }
        let end = start + LENGTH + length;
        if !fill(begun, input, end + LENGTH)? {
            return Ok(None);
        }
        if length_at(&begun[end..]) != length {
            return Ok(None);
        }
        let entry = if at_header {
            *attributes = attributes_of(&begun[start + LENGTH..end]);
            None
        } else {
            decode(&begun[LENGTH..end], attributes)
        };
        begun.clear();
        if entry.is_some() {
            return Ok(entry);
        }
    }
}

/// The length that these bytes begin with; they are at least four.
pub(super) fn length_at(bytes: &[u8]) -> usize {
    let length = bytes.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// Reads until there are so many bytes; `false` if there are not.
fn fill(begun: &mut Vec<u8>, input: &mut dyn BufRead, wanted: usize) -> io::Result<bool> {
    while begun.len() < wanted {
        let available = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if available.is_empty() {
            return Ok(false);
        }
        let count = available.len().min(wanted - begun.len());
        begun.extend_from_slice(&available[..count]);
        input.consume(count);
    }
    Ok(true)
}

/// How long the whole frames at the beginning of a file are: what follows was torn by a crash.
pub(super) fn whole(input: &mut dyn BufRead) -> io::Result<u64> {
    let (mut begun, mut attributes) = (Vec::new(), BTreeMap::new());
    let mut good = 0;
    if !fill(&mut begun, input, MAGIC.len() + LENGTH)? || !begun.starts_with(MAGIC) {
        return Ok(0);
    }
    let header = length_at(&begun[MAGIC.len()..]);
    let end = MAGIC.len() + LENGTH + header + LENGTH;
    if header > MAX_FRAME || !fill(&mut begun, input, end)? || length_at(&begun[end - LENGTH..]) != header {
        return Ok(0);
    }
    good += end as u64;
    begun.clear();
    while let Some(entry) = next(&mut begun, &mut attributes, input)? {
        let newline = usize::from(!entry.is_partial());
        good += (LENGTH + FIXED + entry.line.len() - newline + LENGTH) as u64;
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut bytes = header(r#"{"tag":"web"}"#);
        let time = Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap();
        encode(&mut bytes, Stream::Stdout, time, b"one\n");
        encode(&mut bytes, Stream::Stderr, time, b"\xff\0two");
        bytes
    }

    #[test]
    fn frames_come_back() {
        let bytes = file();
        let (mut begun, mut attributes, mut input) = (Vec::new(), BTreeMap::new(), &bytes[..]);
        let first = next(&mut begun, &mut attributes, &mut input).unwrap().unwrap();
        assert_eq!((&first.line[..], first.stream), (&b"one\n"[..], Stream::Stdout));
        assert_eq!(first.time.to_string(), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(first.attributes["tag"], "web");
        let second = next(&mut begun, &mut attributes, &mut input).unwrap().unwrap();
        assert_eq!((&second.line[..], second.stream), (&b"\xff\0two"[..], Stream::Stderr));
        assert!(second.is_partial() && next(&mut begun, &mut attributes, &mut input).unwrap().is_none());
    }

    #[test]
    fn a_file_that_grows_byte_by_byte_is_read_as_it_grows() {
        let bytes = file();
        let (mut begun, mut attributes, mut found) = (Vec::new(), BTreeMap::new(), 0);
        for byte in &bytes {
            let one = [*byte];
            found += usize::from(next(&mut begun, &mut attributes, &mut &one[..]).unwrap().is_some());
        }
        assert_eq!(found, 2);
    }

    #[test]
    fn torn_frames_are_told_from_whole_ones() {
        let bytes = file();
        let whole_of = |cut: usize| whole(&mut &bytes[..cut]).unwrap();
        assert_eq!(whole_of(bytes.len()), bytes.len() as u64);
        let first = header(r#"{"tag":"web"}"#).len() as u64 + 20;
        assert_eq!(whole_of(bytes.len() - 1), first);
        assert_eq!(whole_of(usize::try_from(first).unwrap()), first);
        assert_eq!((whole_of(5), whole_of(0)), (0, 0));
    }
}
