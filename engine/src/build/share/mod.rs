//! Results of builds, shared between machines.
//!
//! ```text
//!   manifest  artifactType application/vnd.onggi.build-cache.v1
//!     config  application/vnd.onggi.build-cache.config.v1+json    steps by key: onggi_build::cache::shared
//!     layers  application/vnd.oci.image.layer.v1.tar+gzip …       one for each step that is told of
//! ```
//!
//! The manifest lies in a registry (`type=registry`) or an OCI layout (`type=local`); `type=inline` puts the config into an
//! annotation of the image's own manifest, whose layers are the results. What comes from there is used only under the key
//! that this machine finds itself, and its layers are verified by digest and diff ID like those of any image.

mod export;
mod import;

use std::path::PathBuf;

use onggi_oci::{Digest, Reference};

pub(super) use export::inline;
pub(super) use import::Shared;

/// What the artifact is.
const ARTIFACT: &str = "application/vnd.onggi.build-cache.v1";
/// What its config is.
const CONFIG: &str = "application/vnd.onggi.build-cache.config.v1+json";
/// The annotation of an image's manifest with the steps that made its layers.
pub(super) const INLINE: &str = "dev.onggi.build-cache.v1";
/// The largest list of results, in bytes: a step takes some 400, so there is room for every step of
/// [`onggi_build::cache::shared::MAX_STEPS`] and as many contents.
const MAX_CONFIG: u64 = 16 << 20;

/// Where results of other machines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFrom {
    /// A registry: an artifact, or an image with its steps in an annotation.
    Registry(Reference),
    /// An OCI layout.
    Local {
        /// The directory.
        dir: PathBuf,
        /// Which of its entries.
        tag: String,
        /// The same by digest.
        digest: Option<Digest>,
    },
}

impl std::fmt::Display for CacheFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{}", reference.clone().with_default_tag()),
            Self::Local { dir, .. } => write!(f, "{}", dir.display()),
        }
    }
}

/// Where results go for other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// A registry.
    Registry(Reference),
    /// An OCI layout.
    Local {
        /// The directory.
        dir: PathBuf,
        /// The name of its entry.
        tag: String,
    },
    /// The image itself.
    Inline,
}

/// What is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Steps whose layers the image has.
    #[default]
    Min,
    /// All steps.
    Max,
}

/// Where results go, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTo {
    /// Where.
    pub place: CachePlace,
    /// Which.
    pub mode: CacheMode,
    /// Whether the build succeeds without it.
    pub ignore_error: bool,
}
