//! What can go wrong in a build.

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
}

impl Error {
    /// The broad class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Caller { kind, .. } => *kind,
            Self::Step { source, .. } => source.kind(),
        }
    }
}
