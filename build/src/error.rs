//! What can go wrong in a build.

use std::io;
use std::path::PathBuf;

use onggi_oci::ErrorKind;

use crate::graph::Location;

/// The result of a step of a build.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A build that failed, by operation and object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller could not do what he was asked for (fetch an image, run a program).
    #[error("{op} {object}: {source}")]
    Caller {
        /// The operation.
        op: &'static str,
        /// What it was done to.
        object: String,
        /// The broad class of the failure.
        kind: ErrorKind,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A step failed; the error inside says how.
    #[error("{source}")]
    Step {
        /// The step's display name.
        name: String,
        /// Where the build file asks for it.
        location: Option<Location>,
        /// The reason.
        source: Box<Error>,
    },
    /// Something about layers and the store.
    #[error(transparent)]
    Image(#[from] onggi_image::Error),
    /// The operating system refused something.
    #[error("failed to {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// With what file; inside of the tree that is being made or read.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A source of `COPY` or `ADD` that is not there.
    #[error("{path:?}: not found")]
    NotFound {
        /// As written.
        path: String,
    },
    /// Something is in the way of a copy.
    #[error("cannot copy to non-directory: {}", path.display())]
    NotADirectory {
        /// In the tree that is being made.
        path: PathBuf,
    },
    /// A directory is in the way of a file.
    #[error("cannot replace directory {} with a file", path.display())]
    IsADirectory {
        /// In the tree that is being made.
        path: PathBuf,
    },
    /// A name that the image's passwd or group file does not have.
    #[error("unable to find {kind} {name}: no matching entry in {file}")]
    UnknownName {
        /// `user` or `group`.
        kind: &'static str,
        /// As written.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// Something that is written wrongly.
    #[error("invalid {what} {text:?}: {problem}")]
    Invalid {
        /// What it is meant to be.
        what: &'static str,
        /// As written.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something that was asked for and cannot be had.
    #[error("{what} is not supported: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// The reason, and what helps.
        why: String,
    },
    /// A limit that protects from hostile input.
    #[error("{what} is more than the limit of {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// A program of the build file that failed.
    #[error("process {command:?} did not complete successfully: {}", exit_words(*code))]
    Exit {
        /// Its words.
        command: String,
        /// As shells count: the status, or 128 + the signal.
        code: i32,
    },
    /// Something needs a permission that was not given.
    #[error("{what} is not allowed: give --allow {entitlement}")]
    Entitlement {
        /// What was asked for.
        what: &'static str,
        /// The name of the permission.
        entitlement: &'static str,
    },
    /// Content that is not what was promised.
    #[error("{what} has the digest {found}, expected {expected}")]
    Checksum {
        /// What was read.
        what: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// What a worker process said before it ended.
    #[error("{message}")]
    Worker {
        /// Its words.
        message: String,
        /// The broad class of the failure.
        kind: ErrorKind,
    },
    /// A program that the builder itself uses failed.
    #[error("{program} failed: {message}")]
    Program {
        /// Which one.
        program: &'static str,
        /// Its last words.
        message: String,
    },
}

/// An exit code in words, as BuildKit says it.
fn exit_words(code: i32) -> String {
    match code {
        137 => "exit code: 137 (killed; the machine may be out of memory)".into(),
        _ => format!("exit code: {code}"),
    }
}

impl Error {
    /// For `map_err`: what was tried with what file.
    pub(crate) fn io<E: Into<io::Error>>(
        op: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { op, path, source: source.into() }
    }

    /// The broad class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Caller { kind, .. } | Self::Worker { kind, .. } => *kind,
            Self::Step { source, .. } => source.kind(),
            Self::Image(source) => source.kind(),
            Self::Io { .. } | Self::Program { .. } => ErrorKind::Io,
            Self::NotFound { .. } | Self::UnknownName { .. } => ErrorKind::NotFound,
            Self::NotADirectory { .. } | Self::IsADirectory { .. } | Self::Exit { .. } => ErrorKind::Conflict,
            Self::Invalid { .. } | Self::Limit { .. } => ErrorKind::Invalid,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Entitlement { .. } => ErrorKind::Denied,
            Self::Checksum { .. } => ErrorKind::Corrupt,
        }
    }

    /// The exit code of the program that failed, if that is what happened.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exit { code, .. } => Some(*code),
            Self::Step { source, .. } => source.exit_code(),
            _ => None,
        }
    }
}
