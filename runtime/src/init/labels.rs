//! Labels of security modules for the program.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use onggi_sys::path::Root;
use rustix::fs::{Mode, OFlags};

use super::{Step, failed};
use crate::error::Stage;
use crate::labels::Labels;

/// Asks the kernel to give the program these labels when it is executed. They are written through the
/// handle of the caller's own procfs, whatever is mounted in the container (CVE-2019-19921,
/// CVE-2025-52881).
pub(super) fn set(labels: &Labels) -> Step<()> {
    let Labels { proc: Some(proc), list } = labels else { return Ok(()) };
    for (file, value) in list {
        let write = || -> io::Result<()> {
            let itself = rustix::fs::readlinkat(proc, "self", Vec::new())?;
            let path = Path::new(itself.to_str().map_err(|_| io::ErrorKind::InvalidData)?).join(file);
            let file = Root::single(proc.as_fd()).open(&path, OFlags::WRONLY, Mode::empty())?;
            let written = rustix::io::write(&file, value.as_bytes())?;
            if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        };
        write().map_err(failed(Stage::SecurityLabel, value))?;
    }
    Ok(())
}
