//! Where files come from.

use onggi_oci::Digest;

/// An image as a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageSource {
    /// Its name as written, `debian:12` or with a digest; for people and for resolving.
    pub reference: String,
    /// Where it is looked for.
    pub place: ImagePlace,
    /// The manifest for the vertex's platform, once it was resolved. A vertex of a graph always has it.
    pub manifest: Option<Digest>,
}

/// Where an image is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ImagePlace {
    /// The store, else its registry.
    #[default]
    Registry,
    /// An OCI layout: the named context that is one, whose path the caller knows.
    Layout(String),
}

/// A directory of the caller's. Only what is used is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Local {
    /// `context`, `dockerfile`, or the name of `--build-context`.
    pub name: String,
    /// Patterns of `.dockerignore` in their order, with negations.
    pub exclude: Vec<String>,
}

/// A checkout of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Git {
    /// What `git` is asked to fetch from.
    pub remote: String,
    /// Branch, tag or commit; the remote's default if `None`.
    pub reference: Option<String>,
    /// The directory that counts as the root.
    pub subdir: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// The commit that it must be, possibly abbreviated.
    pub checksum: Option<String>,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
}

/// A file by URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Http {
    /// `http:` or `https:`
    pub url: String,
    /// What its bytes must hash to.
    pub checksum: Option<Digest>,
    /// The file's name in the result.
    pub filename: String,
    /// Its permissions; 0600 if `None`.
    pub mode: Option<u32>,
    /// Its owner.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
}
