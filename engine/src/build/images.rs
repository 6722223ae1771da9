//! Base images: from the store, else pulled.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use onggi_build::graph::{ImagePlace, ImageSource};
use onggi_build::{Images, ResolvedImage, StackLayer};
use onggi_image::store::{Image, Lease};
use onggi_oci::{Digest, ErrorKind, Platform, Reference};

use super::layout::Layout;
use super::lock::Lock;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::{Engine, PullRequest, Settings};

/// Finds base images, and remembers what they were.
pub(super) struct Bases<'a> {
    pub(super) settings: Settings,
    /// Whether a registry is asked also for what is here.
    pub(super) pull: bool,
    /// OCI layouts by the name of their context.
    pub(super) layouts: HashMap<String, PathBuf>,
    /// Keeps what came from layouts and so has no name.
    pub(super) lease: Lease,
    pub(super) progress: &'a (dyn Progress + Sync),
    /// Whether no registry is asked: for questions about the build file, which nobody wants to wait for.
    pub(super) local_only: bool,
    /// What images must be, if that was written down.
    pub(super) lock: Option<Lock>,
    pub(super) found: Mutex<HashMap<Digest, Image>>,
}

impl Bases<'_> {
    fn find(&self, source: &ImageSource, platform: &Platform) -> Result<Image> {
        let engine = Engine::new(self.settings.clone());
        let store = engine.store()?;
        if let ImagePlace::Layout(name) = &source.place {
            return self.find_in_layout(name, source, platform);
        }
        let reference: Reference = source.reference.parse()?;
        let reference = reference.with_default_tag();
        if let Some(digest) = self.lock.as_ref().and_then(|lock| lock.image(&reference)) {
            return self.find_locked(&engine, &reference, &digest, platform);
        }
        if !self.pull || self.local_only {
            match store.resolve(&reference.to_string(), Some(platform)) {
                Err(error) if error.kind() == ErrorKind::NotFound && !self.local_only => {}
                // What is here for another platform may be in the registry for this one.
                found => return Ok(found?),
            }
        }
        let request = PullRequest { platform: Some(platform.clone()) };
        engine.pull(&reference, &request, self.progress)?;
        Ok(store.resolve(&reference.to_string(), Some(platform))?)
    }

    /// The image that the lock file names, whatever the tag means by now.
    fn find_locked(
        &self,
        engine: &Engine,
        reference: &Reference,
        digest: &Digest,
        platform: &Platform,
    ) -> Result<Image> {
        let store = engine.store()?;
        if let Ok(image) = store.resolve(&reference.to_string(), Some(platform))
            && image.target.digest == *digest
        {
            return Ok(image);
        }
        let exact = reference.without_tag().with_digest(digest.clone());
        if let Ok(image) = store.resolve(&exact.to_string(), Some(platform)) {
            return Ok(image);
        }
        let request = PullRequest { platform: Some(platform.clone()) };
        let pulled = engine.pull(&exact, &request, self.progress);
        pulled.map_err(|error| Error::Locked {
            what: reference.familiar(),
            locked: digest.to_string(),
            problem: error.to_string(),
        })?;
        Ok(store.resolve(&exact.to_string(), Some(platform))?)
    }

    /// What an image of the graph was when it was found.
    pub(super) fn target(&self, source: &ImageSource) -> Option<Digest> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(source.manifest.as_ref()?).map(|image| image.target.digest.clone())
    }

    fn find_in_layout(&self, name: &str, source: &ImageSource, platform: &Platform) -> Result<Image> {
        let Some(dir) = self.layouts.get(name) else {
            return Err(Error::flag("--build-context", format!("there is no OCI layout named {name:?}")));
        };
        let rest = source.reference.strip_prefix(name).unwrap_or_default();
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (rest, None),
        };
        let tag = rest.strip_prefix(':');
        Layout::open(dir)?.image(&self.lease, tag, digest.as_ref(), platform)
    }

    /// The layers of an image that was found before.
    pub(super) fn layers(
        &self,
        engine: &Engine,
        source: &ImageSource,
        platform: &Platform,
    ) -> Result<Vec<StackLayer>> {
        let known = source.manifest.as_ref().and_then(|digest| {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
        });
        let image = match known {
            Some(image) => image,
            None => self.find(source, platform)?,
        };
        let layers = engine.layers_to_run(&image)?;
        let stacked = image.layers().zip(layers).map(|(one, layer)| StackLayer {
            blob: one.blob.clone(),
            layer,
            created: None,
        });
        Ok(stacked.collect())
    }
}

impl Images for Bases<'_> {
    fn resolve(&self, image: &ImageSource, platform: &Platform) -> onggi_build::Result<ResolvedImage> {
        let found = self.find(image, platform);
        let found = found.map_err(|source| onggi_build::Error::Caller {
            op: "resolve",
            object: image.reference.clone(),
            kind: source.kind(),
            source: Box::new(source),
        })?;
        let resolved =
            ResolvedImage { manifest: found.manifest_digest.clone(), config: found.config.clone() };
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(found.manifest_digest.clone(), found);
        Ok(resolved)
    }
}
