//! An entry of a log: a line, or a part of a long one.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use jiff::Timestamp;

use super::{json, local};

/// Which of a program's streams something came from. A terminal has one only, and that counts as the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As Docker's format spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A line with its newline, or a part of a line without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it came from.
    pub stream: Stream,
    /// When; the parts of one line share the time of the first.
    pub time: Timestamp,
    /// The exact bytes.
    pub line: Vec<u8>,
    /// What `--log-opt labels`, `env` and `tag` added.
    pub attributes: BTreeMap<String, String>,
}

impl Entry {
    /// Whether its line goes on in another entry, or had not ended when the log did.
    pub fn is_partial(&self) -> bool {
        self.line.last() != Some(&b'\n')
    }
}

/// How entries lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Docker's: a JSON object on a line.
    Json,
    /// Frames of our own.
    Local,
}

impl Format {
    /// The name of the file that is being written.
    pub(super) fn file_name(self, id: &str) -> String {
        match self {
            Self::Json => format!("{id}-json.log"),
            Self::Local => format!("{id}-local.log"),
        }
    }

    /// What rotated files end in when they are compressed.
    pub(super) fn compressed_suffix(self) -> &'static str {
        match self {
            Self::Json => ".gz",
            Self::Local => ".zst",
        }
    }
}

/// Reads entries out of one file, which may still grow: what is incomplete is kept for the next call.
#[derive(Debug)]
pub(super) struct Decoder {
    format: Format,
    /// Bytes of an entry that has not ended.
    begun: Vec<u8>,
    /// `local`: what the file's header says.
    attributes: BTreeMap<String, String>,
}

impl Decoder {
    pub(super) fn new(format: Format) -> Self {
        Self { format, begun: Vec::new(), attributes: BTreeMap::new() }
    }

    /// For the middle of a `local` file, whose header was read before.
    pub(super) fn with_attributes(mut self, attributes: BTreeMap<String, String>) -> Self {
        self.attributes = attributes;
        self
    }

    /// The next entry; `None` where the file ends for now. What is damaged is passed over.
    pub(super) fn next(&mut self, input: &mut dyn BufRead) -> io::Result<Option<Entry>> {
        match self.format {
            Format::Json => json::next(&mut self.begun, input),
            Format::Local => local::next(&mut self.begun, &mut self.attributes, input),
        }
    }
}
