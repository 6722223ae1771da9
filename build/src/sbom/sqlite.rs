//! As much of SQLite's file format as it takes to read the blobs of one table.
//!
//! ```text
//!   page 1: 100 bytes of header, then a page of the table of tables
//!   page:   type u8, …, cells u16, …, [rightmost child u32]; offsets of cells u16 each; cells
//!   interior cell: child page u32, key                      leaf cell: size, key, payload, [overflow page u32]
//!   payload: size of the record's header, type of each column, columns       (varints, big-endian)
//! ```
//!
//! All numbers are checked before they are used: the file comes from an image.

use std::cell::Cell;

const HEADER: usize = 100;
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;
/// Deeper trees would hold more than any file.
const MAX_DEPTH: usize = 20;
/// The largest value: twice the largest header of a package that exists.
const MAX_VALUE: usize = 64 << 20;

/// A database in memory.
pub(super) struct Database<'a> {
    bytes: &'a [u8],
    page: usize,
    usable: usize,
    /// How many more pages are walked: one that is met twice is none of a tree.
    left: Cell<usize>,
}

/// A value of a record.
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl<'a> Database<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(b"SQLite format 3\0") {
            return None;
        }
        let page = match usize::from(u16::from_be_bytes(bytes.get(16..18)?.try_into().ok()?)) {
            1 => 65_536,
            size => size,
        };
        let usable = page.checked_sub(usize::from(*bytes.get(20)?))?;
        let sound = page.is_power_of_two() && usable >= 480;
        sound.then(|| Self { bytes, page, usable, left: Cell::new(0) })
    }

    /// The largest column of each row of a table.
    pub(super) fn blobs(&self, table: &str) -> Vec<Vec<u8>> {
        let mut tables = Vec::new();
        self.left.set(self.bytes.len() / self.page);
        self.records(1, 0, &mut tables);
        let root = tables.iter().find_map(|record| match &record[..] {
            // type, name, tbl_name, rootpage, sql
            [_, Value::Bytes(name), _, Value::Number(root), ..] if name == table.as_bytes() => Some(*root),
            _ => None,
        });
        let mut rows = Vec::new();
        self.left.set(self.bytes.len() / self.page);
        if let Some(root) = root.and_then(|root| usize::try_from(root).ok()) {
            self.records(root, 0, &mut rows);
        }
        let largest = |record: Vec<Value>| {
            let blobs = record.into_iter().filter_map(|value| match value {
                Value::Bytes(bytes) => Some(bytes),
                Value::Number(_) => None,
            });
            blobs.max_by_key(Vec::len)
        };
        rows.into_iter().filter_map(largest).collect()
    }

    /// Adds the records below a page. `None` ends the walk where the file makes no sense.
    fn records(&self, number: usize, depth: usize, out: &mut Vec<Vec<Value>>) -> Option<()> {
        self.left.set(self.left.get().checked_sub(1)?);
        let start = number.checked_sub(1)?.checked_mul(self.page)?;
        let page = self.bytes.get(start..start.checked_add(self.page)?)?;
        let head = if number == 1 { HEADER } else { 0 };
        let kind = *page.get(head)?;
        let cells = usize::from(short(page, head + 3)?);
        let offsets = head + if kind == INTERIOR { 12 } else { 8 };
        for cell in 0..cells {
            let at = usize::from(short(page, offsets + 2 * cell)?);
            match kind {
                INTERIOR if depth < MAX_DEPTH => {
                    self.records(usize::try_from(long(page, at)?).ok()?, depth + 1, out)?;
                }
                LEAF => out.extend(self.leaf(page, at).and_then(|payload| record(&payload))),
                _ => return None,
            }
        }
        if kind == INTERIOR {
            self.records(usize::try_from(long(page, head + 8)?).ok()?, depth + 1, out)?;
        }
        Some(())
    }

    /// The payload of a leaf's cell, with what overflowed to other pages.
    fn leaf(&self, page: &[u8], at: usize) -> Option<Vec<u8>> {
        let (size, used) = varint(page, at)?;
        let (_, key) = varint(page, at + used)?;
        let start = at + used + key;
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_VALUE)?;
        let most = self.usable - 35;
        if size <= most {
            return page.get(start..start.checked_add(size)?).map(<[u8]>::to_vec);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let wanted = least + (size - least) % (self.usable - 4);
        let here = if wanted <= most { wanted } else { least };
        let mut payload = page.get(start..start + here)?.to_vec();
        let mut next = long(page, start + here)?;
        while payload.len() < size {
            let start = usize::try_from(next).ok()?.checked_sub(1)?.checked_mul(self.page)?;
            let page = self.bytes.get(start..start.checked_add(self.page)?)?;
            let part = (size - payload.len()).min(self.usable - 4);
            payload.extend(page.get(4..4 + part)?);
            next = long(page, 0)?;
        }
        Some(payload)
    }
}

/// The columns of a record.
fn record(payload: &[u8]) -> Option<Vec<Value>> {
    let (header, mut at) = varint(payload, 0)?;
    let header = usize::try_from(header).ok()?;
    let mut body = header;
    let mut values = Vec::new();
    while at < header {
        let (kind, used) = varint(payload, at)?;
        at += used;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            text_or_blob => usize::try_from(text_or_blob.checked_sub(12)? / 2).ok()?,
        };
        let bytes = payload.get(body..body.checked_add(size)?)?;
        body += size;
        values.push(match kind {
            1..=6 => Value::Number(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))),
            8 | 9 => Value::Number(kind - 8),
            0 | 7 => Value::Number(0),
            _ => Value::Bytes(bytes.to_vec()),
        });
    }
    Some(values)
}

/// A number of one to nine bytes, and how many.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number = 0;
    for used in 0..9 {
        let byte = *bytes.get(at.checked_add(used)?)?;
        if used == 8 {
            return Some((number << 8 | u64::from(byte), 9));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((number, used + 1));
        }
    }
    None
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_be_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}
