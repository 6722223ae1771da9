//! Where the last lines of a log begin, found from its end.
//!
//! A line that was cut into several entries counts once (Docker counts the entries).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::entry::{Decoder, Entry, Format};
use super::segments::Segment;
use super::{json, local};

/// Read at once, backwards.
const BLOCK: usize = 64 << 10;

/// Where to begin reading.
#[derive(Debug)]
pub(super) struct Start {
    /// The index of the file.
    pub(super) segment: usize,
    /// In a file that is not compressed: bytes from its beginning.
    pub(super) offset: u64,
    /// In a compressed one: entries to pass over.
    pub(super) skip: u64,
    /// What the header of a `local` file said, if the offset is behind it.
    pub(super) attributes: BTreeMap<String, String>,
}

/// Counts lines backwards.
struct Count {
    wanted: u64,
    found: u64,
    /// Whether an entry was seen at all.
    begun: bool,
}

impl Count {
    /// Takes the entry before the former one; `true` if it is one too many.
    fn is_beyond(&mut self, entry: &Entry) -> bool {
        let ends = !entry.is_partial() || !self.begun;
        self.begun = true;
        if ends && self.found == self.wanted {
            return true;
        }
        self.found += u64::from(ends);
        false
    }
}

/// Finds the last `lines` lines.
pub(super) fn find(segments: &[Segment], format: Format, lines: u64) -> io::Result<Start> {
    let start = |segment| Start { segment, offset: 0, skip: 0, attributes: BTreeMap::new() };
    let mut count = Count { wanted: lines, found: 0, begun: false };
    for (index, segment) in segments.iter().enumerate().rev() {
        if segment.compressed {
            if let Some(skip) = in_compressed(segment, format, &mut count)? {
                return Ok(Start { skip, ..start(index) });
            }
            continue;
        }
        let length = segment.file.metadata()?.len();
        let found = match format {
            Format::Json => in_json(&segment.file, length, &mut count)?.map(|at| (at, BTreeMap::new())),
            Format::Local => in_local(segment, length, &mut count)?,
        };
        if let Some((offset, attributes)) = found {
            return Ok(Start { offset, attributes, ..start(index) });
        }
    }
    Ok(start(0))
}

/// Reads forward twice: once to see where the lines end, once (by the caller) to skip.
fn in_compressed(segment: &Segment, format: Format, count: &mut Count) -> io::Result<Option<u64>> {
    let (mut decoder, mut input) = (Decoder::new(format), segment.reader()?);
    let mut partial: Vec<bool> = Vec::new();
    while let Some(entry) = decoder.next(&mut input)? {
        partial.push(entry.is_partial());
    }
    for (index, partial) in partial.iter().enumerate().rev() {
        let ends = !partial || !count.begun;
        count.begun = true;
        if ends && count.found == count.wanted {
            return Ok(Some(index as u64 + 1));
        }
        count.found += u64::from(ends);
    }
    Ok(None)
}

fn in_json(file: &File, length: u64, count: &mut Count) -> io::Result<Option<u64>> {
    let mut block = vec![0; BLOCK];
    // From the start of the block to the end of the entry that is looked for.
    let mut tail: Vec<u8> = Vec::new();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(part, start)?;
        tail.splice(0..0, part.iter().copied());
        end = start;
        // Whole lines in `tail`: each between two newlines.
        while let Some(last) = tail.iter().rposition(|&byte| byte == b'\n') {
            let before = tail[..last].iter().rposition(|&byte| byte == b'\n');
            if before.is_none() && start > 0 {
                break;
            }
            let from = before.map_or(0, |at| at + 1);
            if let Some(entry) = json::decode(&tail[from..last])
                && count.is_beyond(&entry)
            {
                return Ok(Some(start + last as u64 + 1));
            }
            tail.truncate(from);
            if from == 0 {
                break;
            }
        }
    }
    Ok(None)
}

fn in_local(
    segment: &Segment,
    length: u64,
    count: &mut Count,
) -> io::Result<Option<(u64, BTreeMap<String, String>)>> {
    let file = &segment.file;
    let word = |at: u64| -> io::Result<usize> {
        let mut bytes = [0; local::LENGTH];
        file.read_exact_at(&mut bytes, at)?;
        Ok(local::length_at(&bytes))
    };
    let attributes = || -> io::Result<BTreeMap<String, String>> {
        let mut header = vec![0; word(local::MAGIC.len() as u64)?.min(local::MAX_FRAME)];
        file.read_exact_at(&mut header, (local::MAGIC.len() + local::LENGTH) as u64)?;
        Ok(serde_json::from_slice(&header).unwrap_or_default())
    };
    let first = (local::MAGIC.len() + 2 * local::LENGTH) as u64;
    if length < first {
        return Ok(None);
    }
    let first = first + word(local::MAGIC.len() as u64)? as u64;
    // A frame may be half written at this moment.
    let mut end = local::whole(&mut segment.reader()?)?.min(length);
    while end > first {
        let body = word(end - local::LENGTH as u64)?;
        let whole = (body + 2 * local::LENGTH) as u64;
        let Some(start) = end.checked_sub(whole).filter(|start| *start >= first) else { break };
        let mut bytes = vec![0; body];
        file.read_exact_at(&mut bytes, start + local::LENGTH as u64)?;
        if let Some(entry) = local::decode(&bytes, &BTreeMap::new())
            && count.is_beyond(&entry)
        {
            return Ok(Some((end, attributes()?)));
        }
        end = start;
    }
    Ok(None)
}
