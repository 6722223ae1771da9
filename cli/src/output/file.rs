//! An archive in a file that the caller names.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::failure::Failure;

const BUFFER: usize = 1 << 20;

/// Writes a file, which appears only when it is complete; what is no regular file (a pipe, a device) is
/// written as it is.
pub(crate) fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = || Failure::local(format!("write {}", path.display()));
    let special = fs::metadata(path).is_ok_and(|meta| !meta.is_file());
    let beside = match (special, path.file_name()) {
        (false, Some(name)) => {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}", std::process::id()));
            path.with_file_name(hidden)
        }
        _ => path.to_owned(),
    };
    let finish = || -> Result<(), Failure> {
        let file = File::options().write(true).create(true).truncate(true).open(&beside);
        let mut out = BufWriter::with_capacity(BUFFER, file.map_err(failed())?);
        write(&mut out)?;
        out.flush().map_err(failed())?;
        if special { Ok(()) } else { fs::rename(&beside, path).map_err(failed()) }
    };
    let written = finish();
    if written.is_err() && !special {
        let _ = fs::remove_file(&beside);
    }
    written
}
