//! What a process keeps mapped of its own program.

use std::io;

/// Takes read-only mappings of files out of this process's page tables: their pages stay in the page
/// cache, and the few that are needed again come back at their next use.
///
/// For a process that did much at its start and does little from then on, so that what it needs is what
/// it is seen to have (`Pss` of `/proc/PID/smaps_rollup`).
///
/// # Errors
/// `/proc/self/smaps` cannot be read.
pub fn forget_unused_pages() -> io::Result<()> {
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    // One mapping at a time: its first line, and whether anything in it is our own copy.
    let mut mapping: Option<(usize, usize)> = None;
    for line in text.lines() {
        if let Some(range) = read_only_file(line) {
            mapping = range;
        } else if let Some(rest) = line.strip_prefix("Anonymous:")
            && let Some((start, length)) = mapping.take()
            && rest.trim().trim_end_matches("kB").trim() == "0"
        {
            // SAFETY: the mapping is of a file, can't be written and holds no page that differs from the
            // file, so that what is read from it afterwards is the same as before.
            unsafe {
                let address = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start);
                libc::madvise(address, length, libc::MADV_DONTNEED);
            }
        }
    }
    Ok(())
}

/// The address and length of a read-only private mapping of a file, from the first line about it;
/// `Some(None)` if that is about another one, `None` if it is no first line.
fn read_only_file(line: &str) -> Option<Option<(usize, usize)>> {
    let mut words = line.split_ascii_whitespace();
    let (range, mode) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let path = words.nth(3).unwrap_or_default();
    let suits = matches!(mode, "r--p" | "r-xp") && path.starts_with('/');
    Some(suits.then_some((start, end.checked_sub(start)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_read_again_is_forgotten() {
        let of = |mode: &str, path: &str| read_only_file(&format!("1000-3000 {mode} 0 fe:00 12 {path}"));
        assert_eq!(of("r-xp", "/bin/x"), Some(Some((0x1000, 0x2000))));
        assert_eq!(of("r--p", "/bin/x"), Some(Some((0x1000, 0x2000))));
        for (mode, path) in [("rw-p", "/bin/x"), ("r--s", "/bin/x"), ("r--p", ""), ("r-xp", "[vdso]")] {
            assert_eq!(of(mode, path), Some(None), "{mode} {path}");
        }
        assert_eq!(read_only_file("Anonymous:             0 kB"), None);
        forget_unused_pages().unwrap();
        assert_eq!(of("r-xp", "/bin/x"), Some(Some((0x1000, 0x2000))));
    }
}
