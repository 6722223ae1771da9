//! Docker's json-file format.
//!
//! ```text
//!   {"log":"hello\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}
//!   {"log":"\ufffd\n","stream":"stderr","attrs":{"tag":"web"},"time":"…","raw":"/wo="}
//! ```
//!
//! Keys, their order and the escapes are Docker's (`<`, `>` and `&` too); `raw` is ours, last, and only there
//! where `log` can't say it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::Deserialize;

use super::entry::{Entry, Stream};

/// The longest entry that is read: 16 KiB of which each byte is an escape of six, its base64, and attributes.
const MAX_ENTRY: usize = 1 << 20;

/// Appends an entry; `attributes` is a JSON object or empty.
pub(super) fn encode(out: &mut Vec<u8>, stream: Stream, time: &str, line: &[u8], attributes: &str) {
    out.extend_from_slice(b"{\"log\":\"");
    let exact = escape(out, line);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.push(b'"');
    if !attributes.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attributes.as_bytes());
    }
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.push(b'"');
    if !exact {
        out.extend_from_slice(b",\"raw\":\"");
        out.extend_from_slice(BASE64.encode(line).as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b"}\n");
}

/// Appends the content of a JSON string; `false` if there were bytes that it can't hold.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut exact = true;
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid().as_bytes();
        let mut plain = 0;
        for (at, &byte) in text.iter().enumerate() {
            let short = match byte {
                b'"' | b'\\' => Some(byte),
                b'\n' => Some(b'n'),
                b'\r' => Some(b'r'),
                0..0x20 | b'<' | b'>' | b'&' => None,
                // U+2028 and U+2029, which JavaScript takes for ends of lines.
                0xe2 if matches!(text.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => {
                    out.extend_from_slice(&text[plain..at]);
                    out.extend_from_slice(if text[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                    plain = at + 3;
                    continue;
                }
                _ => continue,
            };
            out.extend_from_slice(&text[plain..at]);
            plain = at + 1;
            if let Some(letter) = short {
                out.extend_from_slice(&[b'\\', letter]);
            } else {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        out.extend_from_slice(&text[plain..]);
        for _ in chunk.invalid() {
            exact = false;
            out.extend_from_slice(b"\\ufffd");
        }
    }
    exact
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    time: Timestamp,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
    #[serde(borrow, default)]
    raw: Option<Cow<'a, str>>,
}

/// Reads one line of a file; `None` if it is none.
pub(super) fn decode(line: &[u8]) -> Option<Entry> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let bytes = line.raw.and_then(|raw| BASE64.decode(raw.as_bytes()).ok());
    Some(Entry {
        stream: if line.stream == "stderr" { Stream::Stderr } else { Stream::Stdout },
        time: line.time,
        line: bytes.unwrap_or_else(|| line.log.into_owned().into_bytes()),
        attributes: line.attrs.unwrap_or_default(),
    })
}

/// The next entry of a file that may still grow.
pub(super) fn next(begun: &mut Vec<u8>, input: &mut dyn BufRead) -> io::Result<Option<Entry>> {
    loop {
        let room = (MAX_ENTRY + 1).saturating_sub(begun.len());
        let read = input.take(room as u64).read_until(b'\n', begun)?;
        if begun.last() == Some(&b'\n') {
            let entry = decode(begun);
            begun.clear();
            if entry.is_some() {
                return Ok(entry);
            }
            continue;
        }
        if begun.len() > MAX_ENTRY {
            // No entry is so long: look for the end of it, and keep nothing.
            begun.clear();
        } else if read == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(line: &[u8], attributes: &str) -> String {
        let mut out = Vec::new();
        encode(&mut out, Stream::Stderr, "2026-01-02T03:04:05.5Z", line, attributes);
        String::from_utf8(out).unwrap()
    }

    /// The order of keys and the escapes are those of Docker's `jsonlog`.
    #[test]
    fn entries_are_dockers_byte_for_byte() {
        let text = encoded(b"a\"b\\c\t<x> & \x1b[0m \xe2\x80\xa8\r\n", "");
        let want = concat!(
            r#"{"log":"a\"b\\c\u0009\u003cx\u003e \u0026 \u001b[0m \u2028\r\n","stream":"stderr","#,
            r#""time":"2026-01-02T03:04:05.5Z"}"#,
            "\n"
        );
        assert_eq!(text, want);
        let text = encoded("옹기\n".as_bytes(), r#"{"tag":"web"}"#);
        assert!(
            text.starts_with(r#"{"log":"옹기\n","stream":"stderr","attrs":{"tag":"web"},"time""#),
            "{text}"
        );
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).chain(*b"\xed\xa0\x80 \xf0\x9f\x8e").collect();
        for line in [&all[..], b"", b"\n", b"text", "é\u{2029}".as_bytes()] {
            let text = encoded(line, "");
            let entry = decode(text.as_bytes()).unwrap();
            assert_eq!(entry.line, line);
            assert_eq!(
                (entry.stream, entry.time.to_string().as_str()),
                (Stream::Stderr, "2026-01-02T03:04:05.5Z")
            );
            assert_eq!(text.contains("\"raw\""), std::str::from_utf8(line).is_err());
        }
    }

    #[test]
    fn damage_is_passed_over_and_an_unfinished_line_waits() {
        let good = encoded(b"x\n", "");
        let text = format!("{{\"log\":\n{}\n{good}\0\0\n{}", "z".repeat(3 * MAX_ENTRY), &good[..20]);
        let (mut begun, mut input) = (Vec::new(), text.as_bytes());
        assert_eq!(next(&mut begun, &mut input).unwrap().unwrap().line, b"x\n");
        assert_eq!(next(&mut begun, &mut input).unwrap(), None);
        let mut rest = &good.as_bytes()[20..];
        assert_eq!(next(&mut begun, &mut rest).unwrap().unwrap().line, b"x\n");
    }
}
