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
        if let Some((range, suits)) = mapping_of(line) {
            mapping = suits.then_some(range);
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

/// The address and length of a mapping, and whether it is read-only, private and of a file, from the
/// first line about it; `None` if it is no first line.
fn mapping_of(line: &str) -> Option<((usize, usize), bool)> {
    let mut words = line.split_ascii_whitespace();
    let (range, mode) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let path = words.nth(3).unwrap_or_default();
    let suits = matches!(mode, "r--p" | "r-xp") && path.starts_with('/');
    Some(((start, end.checked_sub(start)?), suits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_read_again_is_forgotten() {
        let of = |mode: &str, path: &str| mapping_of(&format!("1000-3000 {mode} 0 fe:00 12 {path}"));
        assert_eq!(of("r-xp", "/bin/x"), Some(((0x1000, 0x2000), true)));
        assert_eq!(of("r--p", "/bin/x"), Some(((0x1000, 0x2000), true)));
        for (mode, path) in [("rw-p", "/bin/x"), ("r--s", "/bin/x"), ("r--p", ""), ("r-xp", "[vdso]")] {
            assert_eq!(of(mode, path), Some(((0x1000, 0x2000), false)), "{mode} {path}");
        }
        assert_eq!(mapping_of("Anonymous:             0 kB"), None);
        forget_unused_pages().unwrap();
        assert_eq!(of("r-xp", "/bin/x"), Some(((0x1000, 0x2000), true)));
    }
}
