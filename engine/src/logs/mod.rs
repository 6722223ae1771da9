//! Logs: what a container's program wrote, line by line, with the time.
//!
//! ```text
//!   <root>/containers/<id>/
//!     <id>-json.log               driver json-file: the file being written
//!     <id>-json.log.1 …           rotated, the youngest first; `.gz` with `compress`
//!     <id>-local.log              driver local, its own frames (see `local`)
//!     <id>-local.log.1.zst …      rotated, always compressed unless `compress=false`
//! ```
//!
//! One process writes ([`LogWriter`], the container's supervisor), any number read ([`LogReader`]); they share
//! nothing but the files, so a reader that is slow or stopped never holds up the container. A file is only ever
//! appended to and renamed, never truncated under a reader: whoever has it open reads it to its end.
//!
//! What is kept of the bytes: all of them. Docker's format holds text only and has U+FFFD in place of each byte
//! that is no UTF-8; an entry that has such bytes gets a further key, `raw`, with the exact bytes in base64, which
//! other readers of the format pass over. A program that writes no newline gets entries of 16 KiB without
//! one, as with Docker; the rest of a line is written when its newline comes or the stream ends.

mod entry;
mod json;
mod local;
mod options;
mod reader;
mod segments;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub use entry::{Entry, Stream};
pub use options::{Driver, Facts, LogConfig, LogOptions};
pub use reader::{LogQuery, LogReader, LogSink};
pub use writer::LogWriter;

use crate::Engine;
use crate::error::Result;

impl Engine {
    /// Gives what a container's program wrote to `sink`; to follow, as long as the container lives.
    ///
    /// # Errors
    /// Those of finding the container; [`crate::Error::NoLog`]; [`crate::Error::InForeground`]; a file can't
    /// be read.
    pub fn logs(&self, container: &str, query: &LogQuery, sink: &mut dyn LogSink) -> Result<()> {
        let details = self.container(container)?;
        let id = &details.record.id;
        let reader = LogReader::new(&details.dir, id, details.record.request.log.driver)?;
        if !reader.has_begun() {
            self.supervisor_of(&details)?;
        }
        reader.read(query, &mut || self.look(id).is_alive(), sink)
    }
}
