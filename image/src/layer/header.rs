//! The 512-byte header block of a tar entry.
//!
//! The layout (v7, ustar, star, GNU) is the `tar` crate's. The numbers are read
//! here, since its reader drops the upper bytes of a base-256 number that is
//! too large and accepts signs, which lets two readers see two sizes.

use tar::Header;

use super::pax::Time;
use crate::EntryProblem;

/// The size of a block, the unit of the format.
pub(super) const BLOCK: usize = 512;

/// Octal digits behind blanks and before blanks and zeros, or base-256 with the top
/// bit set (two's complement, big-endian). Empty means 0. Digits behind a zero byte
/// are refused: some readers see them, others 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start = if negative { i128::from(first) - 0x100 } else { i128::from(first & 0x7f) };
        let value = field[1..]
            .iter()
            .try_fold(start, |sum, &byte| sum.checked_mul(256)?.checked_add(i128::from(byte)))?;
        return i64::try_from(value).ok();
    }
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|b| matches!(b, b' ' | 0)).unwrap_or(digits.len());
    if !digits[end..].iter().all(|b| matches!(b, b' ' | 0)) {
        return None;
    }
    digits[..end].iter().try_fold(0_i64, |sum, &digit| {
        (b'0'..=b'7').contains(&digit).then_some(())?;
        sum.checked_mul(8)?.checked_add(i64::from(digit - b'0'))
    })
}

/// A number that cannot be negative.
pub(super) fn unsigned(field: &[u8], what: &'static str) -> Result<u64, EntryProblem> {
    number(field).and_then(|n| u64::try_from(n).ok()).ok_or(EntryProblem::Number(what))
}

/// The modification time.
pub(super) fn mtime(header: &Header) -> Result<Time, EntryProblem> {
    let seconds = number(&header.as_old().mtime).ok_or(EntryProblem::Number("mtime"))?;
    Ok(Time { seconds, nanoseconds: 0 })
}

/// Major and minor device number.
pub(super) fn device(header: &Header) -> Result<(u32, u32), EntryProblem> {
    let old = header.as_bytes();
    let part = |range: std::ops::Range<usize>, what| {
        unsigned(&old[range], what).and_then(|n| u32::try_from(n).map_err(|_| EntryProblem::Number(what)))
    };
    Ok((part(329..337, "major device number")?, part(337..345, "minor device number")?))
}

/// The sum of all bytes, those of the checksum itself counted as blanks. Some
/// old writers summed signed bytes.
pub(super) fn checksum_is_right(block: &[u8; BLOCK]) -> bool {
    let Some(stated) = number(&block[148..156]) else { return false };
    let (mut unsigned, mut signed) = (8 * i64::from(b' '), 8 * i64::from(b' '));
    for part in [&block[..148], &block[156..]] {
        unsigned += i64::from(part.iter().map(|&b| u32::from(b)).sum::<u32>());
        signed += i64::from(part.iter().map(|&b| i32::from(b.cast_signed())).sum::<i32>());
    }
    stated == unsigned || stated == signed
}

/// Up to the first zero byte.
pub(super) fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

/// The name, with the prefix of ustar and star. GNU keeps other things where
/// ustar has its prefix. Like other readers this goes by the magic alone,
/// whatever version stands behind it.
pub(super) fn path(header: &Header) -> Vec<u8> {
    let (name, block) = (text(&header.as_old().name), header.as_bytes());
    let prefix = match &block[257..263] {
        // star marks its header at the end, and keeps times behind a shorter prefix.
        b"ustar\0" if &block[508..] == b"tar\0" => text(&block[345..476]),
        b"ustar\0" => text(&block[345..500]),
        _ => &[],
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (magic, end, whole) in [
            (&b"ustar\x0000"[..], &b""[..], &b"prefix/name"[..]),
            (b"ustar\x00429", b"", b"prefix/name"),
            (b"ustar\x0000", b"tar\0", b"prefix/name"),
            (b"ustar  \0", b"", b"name"),
            (b"\0\0\0\0\0\0\0\0", b"", b"name"),
        ] {
            let mut header = Header::new_old();
            let block = header.as_mut_bytes();
            block[..4].copy_from_slice(b"name");
            block[257..257 + magic.len()].copy_from_slice(magic);
            block[345..351].copy_from_slice(b"prefix");
            block[512 - end.len()..].copy_from_slice(end);
            assert_eq!(path(&header), whole, "{magic:?}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777\0"), Some(0o77_777_777_777));
        assert_eq!(number(b"\x80\0\0\0\0\x20\0\0"), Some(1 << 21));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), Some(i64::MAX));
        for bad in [
            &b"-000644\0"[..],
            b"\x00000644\0",
            b"0x644\0\0\0",
            b"644 1\0\0\0",
            b"0000648\0",
            b"\x80\0\0\x01\0\0\0\0\0\0\0\0",
        ] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
