//! `HOME` of a process that was given none: what the container's own `/etc/passwd` says of its user, else `/`. The
//! runtime specification is silent; bundles that were made for runc count on it.

use std::ffi::CString;
use std::io::Read;
use std::path::Path;

use onggi_sys::path::Root;
use rustix::fs::{FileType, Mode, OFlags};

use crate::plan::ProcessPlan;

/// The most of a passwd file that is read; the largest real ones are far below.
const MAX_PASSWD: u64 = 4 << 20;

/// Adds the variable if it is missing.
pub(super) fn complete(process: &mut ProcessPlan, root: &Root<'_>) {
    if process.needs_home {
        let home = home_of(root, process.uid).and_then(|home| CString::new(format!("HOME={home}")).ok());
        process.environment.push(home.unwrap_or_else(|| c"HOME=/".to_owned()));
        process.needs_home = false;
    }
}

/// The file is the container's and not trusted: inside the root, no FIFO that nobody writes to, bounded.
fn home_of(root: &Root<'_>, uid: u32) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = root.open(Path::new("/etc/passwd"), flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(MAX_PASSWD).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().find_map(|line| entry(line, uid))
}

/// `name:password:uid:gid:gecos:home:shell`
fn entry(line: &str, uid: u32) -> Option<String> {
    let mut fields = line.split(':');
    let number = fields.nth(2)?;
    let home = fields.nth(2)?;
    (number.parse() == Ok(uid) && !home.is_empty()).then(|| home.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_passwd_file() {
        assert_eq!(entry("a:x:7:7:A:/home/a:/bin/sh", 7).as_deref(), Some("/home/a"));
        for line in ["a:x:7:7:A::/bin/sh", "a:x:8:7:A:/home/a:", "a:x:7", ""] {
            assert_eq!(entry(line, 7), None, "{line}");
        }
    }
}
