//! Base images for who only asks: one that can't be had counts as one with an empty config, so that a
//! Dockerfile can be looked at without a registry.

use std::sync::Mutex;

use onggi_oci::{DiffId, Digest, ImageConfig, Platform};

use crate::error::Result;
use crate::graph::ImageSource;
use crate::images::{Images, ResolvedImage};

/// Asks another one and makes do without an answer.
pub(super) struct Lenient<'a> {
    inner: &'a (dyn Images + Sync),
    missing: Mutex<Vec<String>>,
}

impl<'a> Lenient<'a> {
    pub(super) fn new(inner: &'a (dyn Images + Sync)) -> Self {
        Self { inner, missing: Mutex::default() }
    }

    /// What could not be had, each with the reason.
    pub(super) fn missing(self) -> Vec<String> {
        let mut missing = self.missing.into_inner().unwrap_or_default();
        missing.sort();
        missing.dedup();
        missing
    }
}

impl Images for Lenient<'_> {
    fn resolve(&self, image: &ImageSource, platform: &Platform) -> Result<ResolvedImage> {
        self.inner.resolve(image, platform).or_else(|error| {
            if let Ok(mut missing) = self.missing.lock() {
                missing.push(error.to_string());
            }
            let name = Digest::sha256(image.reference.as_bytes());
            let mut config = ImageConfig {
                os: platform.os.clone(),
                architecture: platform.architecture.clone(),
                variant: platform.variant.clone(),
                ..ImageConfig::default()
            };
            // Something is in it, whatever it is.
            config.rootfs.diff_ids.push(DiffId(name.clone()));
            Ok(ResolvedImage { manifest: name, config })
        })
    }
}
