//! Why a copy failed: plain data, since half of a copy may run in another process.

use std::io;

use onggi_oci::ErrorKind;
use serde::{Deserialize, Serialize};

/// Why files could not be copied into or out of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum CopyFault {
    /// The source is not there.
    #[error("no such file or directory: {path}")]
    NoSource {
        /// As given.
        path: String,
    },
    /// The directory that the destination would be in is not there.
    #[error("no such directory: {path}")]
    NoDirectory {
        /// As given.
        path: String,
    },
    /// Something that should be a directory is none.
    #[error("not a directory: {path}")]
    NotDirectory {
        /// As given.
        path: String,
    },
    /// A directory can't become a file.
    #[error("cannot copy a directory over the file {path}")]
    DirectoryOverFile {
        /// The destination.
        path: String,
    },
    /// A file can't take the place of a directory.
    #[error("cannot overwrite the directory {path} with something else")]
    FileOverDirectory {
        /// The destination.
        path: String,
    },
    /// The name would leave the destination.
    #[error("the archive's entry {name:?} leads out of the destination")]
    Escape {
        /// In the archive.
        name: String,
    },
    /// The stream of files is damaged.
    #[error("cannot read the archive: {problem}")]
    Archive {
        /// What is wrong.
        problem: String,
    },
    /// A file could not be packed.
    #[error("cannot pack {path}: {problem}")]
    Pack {
        /// The source.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The system refused.
    #[error("cannot {op} {path}: {}", io::Error::from_raw_os_error(*errno))]
    System {
        /// What was tried.
        op: String,
        /// On what.
        path: String,
        /// What it answered.
        errno: i32,
    },
    /// The other half of the copy ended without a word.
    #[error("the process that copies in the container ended unexpectedly")]
    Lost,
}

impl CopyFault {
    /// The class of this failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSource { .. } | Self::NoDirectory { .. } => ErrorKind::NotFound,
            Self::NotDirectory { .. } | Self::DirectoryOverFile { .. } | Self::FileOverDirectory { .. } => {
                ErrorKind::Invalid
            }
            Self::Escape { .. } | Self::Archive { .. } => ErrorKind::Corrupt,
            Self::Pack { .. } | Self::System { .. } | Self::Lost => ErrorKind::Io,
        }
    }

    /// For `map_err`.
    pub(super) fn system<E: Into<io::Error>>(op: &str, path: impl AsRef<[u8]>) -> impl FnOnce(E) -> Self {
        let path = shown(path);
        move |error| {
            let errno = error.into().raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
            Self::System { op: op.into(), path, errno }
        }
    }
}

/// A path in a message.
pub(super) fn shown(path: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(path.as_ref()).into_owned()
}
