//! Operations on files: `COPY`, `ADD`, `WORKDIR`, heredocs.

use super::VertexId;

/// One layer over `base`, made by actions in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct File {
    /// What lies below; `None` is nothing.
    pub base: Option<VertexId>,
    /// What is done.
    pub actions: Vec<FileAction>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileAction {
    /// Copies from another filesystem.
    Copy(Box<Copy>),
    /// Makes a directory.
    Mkdir(Mkdir),
    /// Makes a file.
    Mkfile(Mkfile),
    /// Removes something.
    Rm(Rm),
}

/// A copy, with the options of BuildKit's `FileActionCopy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Copy {
    /// Where from; `None` is the filesystem that is being made.
    pub from: Option<VertexId>,
    /// The path there, absolute.
    pub source: String,
    /// The path here, absolute. A trailing `/` means "into this directory".
    pub destination: String,
    /// The new owner; the source's if `None`.
    pub owner: Option<Owner>,
    /// New permissions.
    pub mode: Option<Mode>,
    /// Whether a source that is a symbolic link is followed (links below it are copied).
    pub follow_links: bool,
    /// Whether of a source directory only what is in it is copied.
    pub contents_only: bool,
    /// Whether an archive (tar, also compressed) is unpacked; other files are copied.
    pub unpack: bool,
    /// Whether missing directories of the destination are made.
    pub create_destination: bool,
    /// Whether `source` has wildcards.
    pub wildcard: bool,
    /// Whether a wildcard may match nothing.
    pub allow_empty_wildcard: bool,
    /// Of a copied directory only what matches; all if empty.
    pub include: Vec<String>,
    /// Of a copied directory not what matches.
    pub exclude: Vec<String>,
    /// Of `include`, those that must match something; paths below `source`.
    pub required: Vec<String>,
    /// Whether a destination of another kind is replaced (`COPY --link`).
    pub replace: bool,
    /// Whether directories above the pivot point `/./` are kept (`COPY --parents`); `source` is then
    /// the pivot and `include` has the rest.
    pub parents: bool,
}

/// Makes a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mkdir {
    /// Where, absolute.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Whether directories above it are made, and it may exist.
    pub parents: bool,
    /// Its owner; root if `None`.
    pub owner: Option<Owner>,
}

/// Makes a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mkfile {
    /// Where, absolute.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Its content.
    pub content: Vec<u8>,
    /// Its owner; root if `None`.
    pub owner: Option<Owner>,
}

/// Removes something and all below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rm {
    /// What, absolute.
    pub path: String,
    /// Whether it may be missing.
    pub allow_missing: bool,
    /// Whether `path` has wildcards.
    pub wildcard: bool,
}

/// Who owns what is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The user; root if `None`.
    pub user: Option<Principal>,
    /// The group; the user's own by number if `None`.
    pub group: Option<Principal>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// By number.
    Id(u32),
    /// By the name that it has in the base's `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// Permissions of `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// All twelve bits.
    Octal(u32),
    /// As chmod(1) has it, such as `u=rwX,go=rX`; relative to the source's.
    Symbolic(String),
}
