//! What front ends ask of base images.

use onggi_oci::{Digest, ImageConfig, Platform};

use crate::error::Result;
use crate::graph::ImageSource;

/// A base image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The digest of its manifest for the platform.
    pub manifest: Digest,
    /// Its config.
    pub config: ImageConfig,
}

/// Finds base images; implemented by whoever knows the store and registries.
pub trait Images {
    /// The image for this platform. Its layers need not be here yet.
    ///
    /// # Errors
    /// There is none, or none for the platform; whoever is asked cannot be reached.
    fn resolve(&self, image: &ImageSource, platform: &Platform) -> Result<ResolvedImage>;
}
