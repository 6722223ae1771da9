//! What can go wrong with images at rest.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate: the operation, the object, the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation on a path.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb phrase: "create the directory".
        op: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Reading or writing a stream failed.
    #[error("cannot {op}: {source}")]
    Stream {
        /// What was tried, as a verb phrase: "read the layer".
        op: &'static str,
        /// What the system or the decoder answered.
        source: io::Error,
    },
    /// An entry of a layer archive is not acceptable.
    #[error("layer entry {name:?}: {problem}")]
    Entry {
        /// The entry's name; bytes that are not UTF-8 are shown as U+FFFD.
        name: String,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// Something from outside is larger than onggi accepts.
    #[error("{what} is more than the limit of {limit}")]
    Limit {
        /// What was counted: "the number of entries of the layer".
        what: &'static str,
        /// The limit, in the unit that `what` names.
        limit: u64,
    },
    /// Stored or received data contradicts itself.
    #[error("{what} is damaged: {problem}")]
    Corrupt {
        /// What is damaged: "the layer archive".
        what: String,
        /// How that shows.
        problem: String,
    },
}

impl Error {
    /// An [`Error::Io`] in one call, for `map_err`.
    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Io { op, path: path.as_ref().to_owned(), source: source.into() }
    }
}

/// Why an entry of a layer archive is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryProblem {
    /// A rule of the format or of safety is broken.
    #[error("{0}")]
    Refused(std::borrow::Cow<'static, str>),
    /// A system call for the entry failed.
    #[error("cannot {op}: {source}")]
    Io {
        /// What was tried, as a verb phrase.
        op: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}
