//! What can go wrong with images at rest.

use std::io;
use std::path::{Path, PathBuf};

use onggi_oci::{DiffId, Digest, ErrorKind};

use crate::store::ContainerUse;

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
        #[source]
        problem: EntryProblem,
    },
    /// A file cannot be put into a layer.
    #[error("cannot put {} into a layer: {problem}", path.display())]
    File {
        /// The file, below the directory that is packed.
        path: PathBuf,
        /// Why it can't.
        #[source]
        problem: FileProblem,
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
    /// The directory of a store holds something else.
    #[error("{} is no store of onggi: it holds {found:?}; name an empty or a new directory", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// Something in it that onggi did not put there.
        found: String,
    },
    /// Bytes are not those that were promised.
    #[error("{what} is not what was promised: expected {promised}, got {found}")]
    Mismatch {
        /// What the bytes should have been.
        what: String,
        /// The digest or size that was promised.
        promised: String,
        /// What came instead.
        found: String,
    },
    /// No image has this name or ID.
    #[error("no such image: {name}")]
    NoSuchImage {
        /// As the user wrote it.
        name: String,
    },
    /// Several images have an ID that begins so.
    #[error("{prefix} may mean several images: {}; write more of the ID", candidates.join(", "))]
    AmbiguousId {
        /// As the user wrote it.
        prefix: String,
        /// The IDs that begin so, shortened.
        candidates: Vec<String>,
    },
    /// The image is not here for this platform.
    #[error("{image} is not in the store for {wanted}{}", offered(found))]
    NoPlatform {
        /// The image, as the user wrote it.
        image: String,
        /// The platform that was asked for.
        wanted: String,
        /// The platforms that are here.
        found: Vec<String>,
    },
    /// What a name points to is not a runnable image.
    #[error("{what} is not an image that can be run")]
    NotAnImage {
        /// What it is instead.
        what: String,
    },
    /// A blob is not in the store.
    #[error("the blob {digest} is not in the store")]
    NoSuchBlob {
        /// Its digest.
        digest: Digest,
    },
    /// A layer is not ready.
    #[error("the layer {diff_id} is not in the store")]
    NoSuchLayer {
        /// Its diff ID.
        diff_id: DiffId,
    },
    /// An image cannot be named because parts of it are not here.
    #[error("{what} is not complete: {missing} is not in the store; pull or load it again")]
    Incomplete {
        /// The image.
        what: String,
        /// What is not here.
        missing: String,
    },
    /// An image has several names and was to be removed by ID.
    #[error(
        "{image} has several names ({}): remove it by name, or by force (-f) with all its names",
        names.join(", ")
    )]
    SeveralNames {
        /// The image, as the user wrote it.
        image: String,
        /// Its names.
        names: Vec<String>,
    },
    /// A container uses an image that was to be removed.
    #[error("{image} is used by the {} container {}: {}", if user.running { "running" } else { "stopped" },
        user.id, if user.running { "stop it first" } else { "remove it first, or force (-f)" })]
    ImageInUse {
        /// The image, as the user wrote it.
        image: String,
        /// The container.
        user: ContainerUse,
    },
    /// A directory to write into holds something.
    #[error("{} is not empty: it holds {found:?}; name an empty or a new directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// An archive is compressed in a way that is not read.
    #[error("the archive is compressed with {compression}, which is not supported; decompress it first")]
    ArchiveCompression {
        /// With what.
        compression: &'static str,
    },
    /// The layers of a snapshot cannot be mounted.
    #[error("cannot mount {layers} layers: {source}")]
    Overlay {
        /// How many.
        layers: usize,
        /// Which step failed, and what the kernel said.
        source: onggi_sys::overlay::OverlayError,
    },
    /// Layers were to be files, which this machine can't mount.
    #[error("layers can't be EROFS files here: {because}; the format dir works everywhere")]
    NoFileLayers {
        /// Why not.
        because: String,
    },
    /// A manifest, index or config cannot be understood.
    #[error("{what} cannot be used: {source}")]
    Document {
        /// Which one.
        what: String,
        /// What is wrong with it.
        source: onggi_oci::Error,
    },
}

impl Error {
    /// The class of this failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Io,
            },
            Self::Stream { source, .. } if source.kind() == io::ErrorKind::InvalidData => ErrorKind::Corrupt,
            Self::Entry { problem: EntryProblem::Owner { .. } | EntryProblem::Device { .. }, .. } => {
                ErrorKind::Denied
            }
            Self::Stream { .. }
            | Self::Entry { problem: EntryProblem::Io { .. } | EntryProblem::Xattr { .. }, .. } => {
                ErrorKind::Io
            }
            Self::Entry { .. } | Self::Limit { .. } | Self::Corrupt { .. } | Self::Mismatch { .. } => {
                ErrorKind::Corrupt
            }
            Self::NotAStore { .. } | Self::AmbiguousId { .. } => ErrorKind::Invalid,
            Self::NoSuchImage { .. }
            | Self::NoPlatform { .. }
            | Self::NoSuchBlob { .. }
            | Self::NoSuchLayer { .. }
            | Self::Incomplete { .. } => ErrorKind::NotFound,
            Self::Overlay { source, .. } if source.source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::Denied
            }
            Self::Overlay { .. } => ErrorKind::Io,
            Self::File { problem: FileProblem::Changed, .. }
            | Self::SeveralNames { .. }
            | Self::ImageInUse { .. }
            | Self::NotEmpty { .. } => ErrorKind::Conflict,
            Self::File { .. }
            | Self::NotAnImage { .. }
            | Self::ArchiveCompression { .. }
            | Self::NoFileLayers { .. } => ErrorKind::Unsupported,
            Self::Document { source, .. } => source.kind(),
        }
    }

    /// An [`Error::Corrupt`] in one call.
    pub(crate) fn corrupt(what: impl std::fmt::Display, problem: impl std::fmt::Display) -> Self {
        Self::Corrupt { what: what.to_string(), problem: problem.to_string() }
    }

    /// An [`Error::Io`] in one call, for `map_err`.
    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Io { op, path: path.as_ref().to_owned(), source: source.into() }
    }
}

/// The platforms that are here, as the end of a sentence.
fn offered(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!("; it is here for {}", found.join(", ")) }
}

/// Why an entry of a layer archive is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryProblem {
    /// The name cannot be a name in a tree.
    #[error("its name {0}")]
    Name(&'static str),
    /// The type is none that a layer may hold.
    #[error("its type {:?} is none that a layer may hold", char::from(*.0))]
    Type(u8),
    /// A header field is not a number, or not one in range.
    #[error("its {0} is not a number in range")]
    Number(&'static str),
    /// The two headers of the entry name different sizes, so that readers
    /// disagree about where the next entry begins.
    #[error("its extended header says {pax} bytes and its header {header}")]
    SizeConflict {
        /// The size in the extended header.
        pax: u64,
        /// The size in the header.
        header: u64,
    },
    /// An entry that has no content claims a size, so that readers disagree
    /// about where the next entry begins.
    #[error("it is {kind} and yet claims {size} bytes of content")]
    UnexpectedContent {
        /// What the entry is: "a symbolic link".
        kind: &'static str,
        /// The size that it claims.
        size: u64,
    },
    /// An extended header is malformed.
    #[error("its extended header {0}")]
    ExtendedHeader(&'static str),
    /// The map of a sparse file is malformed.
    #[error("its sparse map {0}")]
    Sparse(&'static str),
    /// An extended attribute that would steer overlayfs.
    #[error("the attribute {0:?} belongs to overlayfs and may not come from an image")]
    OverlayXattr(String),
    /// A whiteout that names nothing that could be removed.
    #[error("it is a whiteout for no name")]
    WhiteoutName,
    /// The device number that overlayfs uses for whiteouts.
    #[error("it is the character device 0/0, which overlayfs takes for a whiteout")]
    WhiteoutDevice,
    /// The hard link cannot be made.
    #[error("it is a hard link to {target:?}, which {problem}")]
    HardLink {
        /// The target as the archive names it.
        target: String,
        /// What is wrong with the target.
        problem: &'static str,
    },
    /// Something above the entry is not a directory.
    #[error("{0:?} above it is not a directory")]
    Parent(String),
    /// A symbolic link above the entry leads in a circle.
    #[error("more than {0} symbolic links lead to it")]
    LinkLoop(u32),
    /// The root of the tree can only be a directory.
    #[error("it would replace the root directory")]
    Root,
    /// The owner cannot be given to a file here.
    #[error("its owner {uid}:{gid} cannot be set ({source}); more subordinate ids may be needed")]
    Owner {
        /// The user id in the archive.
        uid: u32,
        /// The group id in the archive.
        gid: u32,
        /// What the system answered.
        source: io::Error,
    },
    /// An extended attribute cannot be set.
    #[error("its attribute {name:?} cannot be set: {source}")]
    Xattr {
        /// The attribute's name.
        name: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A device node cannot be made here.
    #[error("it is a device, which cannot be made here: {source}")]
    Device {
        /// What the system answered.
        source: io::Error,
    },
    /// The entry exceeds a limit.
    #[error("its {what} is more than the limit of {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Another system call for the entry failed.
    #[error("cannot {op}: {source}")]
    Io {
        /// What was tried, as a verb phrase.
        op: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

/// Why a file cannot be put into a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// It is not what it was a moment ago.
    #[error("it changed while it was read")]
    Changed,
    /// Its name is one of a whiteout.
    #[error("a name that begins with .wh. means a removed file in a layer")]
    WhiteoutName,
    /// Its device number is overlayfs's whiteout, and this is no upper directory.
    #[error("it is the character device 0/0, which overlayfs takes for a whiteout")]
    WhiteoutDevice,
    /// An attribute of overlayfs that a layer can't express.
    #[error("a layer can't express the overlayfs attribute {0:?}")]
    OverlayXattr(String),
    /// An attribute's name has an equals sign, which ends names in archives.
    #[error("the name of its attribute {0:?} has an equals sign")]
    XattrName(String),
    /// Its path is longer or deeper than can be unpacked again.
    #[error("its path is too long")]
    TooDeep,
    /// It is no kind of file that archives know.
    #[error("archives have no such type of file")]
    UnknownType,
}
