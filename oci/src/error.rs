//! What can be wrong with a value of this vocabulary.

/// The result of parsing a value.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The broad class of a failure, the same for every library crate of onggi; the command line maps
/// it to hints and exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The thing exists already, is in use, or changed meanwhile.
    Conflict,
    /// Permission or credentials are lacking.
    Denied,
    /// This kernel, host, registry or version of onggi cannot do it.
    Unsupported,
    /// Bytes do not have the digest, size or form that was promised.
    Corrupt,
    /// A remote party failed or could not be reached.
    Remote,
    /// The operating system refused an operation.
    Io,
    /// The caller's input makes no sense.
    Invalid,
}

/// A value that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text that is not a digest (image-spec, "Digests").
    #[error("invalid digest {text:?}: {problem}")]
    Digest {
        /// The text as given, shortened.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Text that is not an image reference.
    #[error("invalid reference format: {problem} in {text:?}")]
    Reference {
        /// The text as given, shortened.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Text that is not a platform.
    #[error("invalid platform {text:?}: {problem}")]
    Platform {
        /// The text as given, shortened.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A document larger than is ever read.
    #[error("{what} of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The kind of document.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A document that is not the JSON it should be.
    #[error("{what} is not valid: {source}")]
    Json {
        /// The kind of document.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A document whose parts contradict each other or the specification.
    #[error("{what} is not valid: {problem}")]
    Document {
        /// The kind of document.
        what: &'static str,
        /// The contradiction.
        problem: String,
    },
    /// A document of a kind that onggi does not read.
    #[error("{what} is not supported: {problem}")]
    UnsupportedDocument {
        /// The kind of document.
        what: &'static str,
        /// Why, and what would help.
        problem: &'static str,
    },
}

impl Error {
    /// The class of this failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Digest { .. } | Self::Reference { .. } | Self::Platform { .. } => ErrorKind::Invalid,
            Self::TooLarge { .. } | Self::Json { .. } | Self::Document { .. } => ErrorKind::Corrupt,
            Self::UnsupportedDocument { .. } => ErrorKind::Unsupported,
        }
    }
}

/// Shortens text from outside for a message.
pub(crate) fn shown(text: &str) -> String {
    const MAX: usize = 120;
    if text.len() <= MAX {
        return text.to_owned();
    }
    let mut end = MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}
