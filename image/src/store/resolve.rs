//! From what a user types to an image: a name, an image ID or its beginning, a manifest's digest.

use std::collections::BTreeMap;

use onggi_oci::{Descriptor, Digest, Platform, Reference};

use super::Store;
use super::image::Image;
use crate::error::{Error, Result};

/// How an ID was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// By this name.
    Name(Reference),
    /// By its ID or the digest of a manifest, whole or in part.
    Id,
}

impl Store {
    /// Finds the image that `text` means: a name first, then an ID (the digest of the config, as
    /// Docker counts it) or the digest of a manifest, whole or any unambiguous beginning.
    ///
    /// Of an index, the image for `platform`; without that, the one for this host, else any.
    ///
    /// # Errors
    /// No image, or several, are meant; none of the image's platforms is the one asked for.
    pub fn resolve(&self, text: &str, platform: Option<&Platform>) -> Result<Image> {
        let (named, target, image) = self.find(text)?;
        match (named, image) {
            (Named::Id, Some(image)) if platform.is_none_or(|p| p.accepts(&image.platform())) => Ok(image),
            _ => self.image(&target, platform).map_err(|e| match e {
                Error::NoPlatform { wanted, found, .. } => {
                    Error::NoPlatform { image: text.to_owned(), wanted, found }
                }
                other => other,
            }),
        }
    }

    /// What the text names, how, and which image if it was named by ID.
    pub(super) fn find(&self, text: &str) -> Result<(Named, Descriptor, Option<Image>)> {
        if let Ok(name) = text.parse::<Reference>() {
            let name = name.with_default_tag();
            if let Some(target) = self.get_ref(&name)? {
                return Ok((Named::Name(name), target, None));
            }
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty() || !prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::NoSuchImage { name: text.to_owned() });
        }
        let (target, image) = self.find_by_id(text, prefix)?;
        Ok((Named::Id, target, Some(image)))
    }

    fn find_by_id(&self, text: &str, prefix: &str) -> Result<(Descriptor, Image)> {
        let mut found: BTreeMap<Digest, (Descriptor, Image)> = BTreeMap::new();
        let mut targets: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        for one in self.refs()? {
            targets.insert(one.target.digest.clone(), one.target);
        }
        for target in targets.into_values() {
            // An image that cannot be read has no ID; naming it by name tells what is wrong.
            let Ok(images) = self.images_of(&target) else { continue };
            let whole = target.digest.hex().starts_with(prefix);
            let mut chosen = Vec::new();
            for image in images {
                if image.id.hex().starts_with(prefix) || image.manifest_digest.hex().starts_with(prefix) {
                    chosen.push(image);
                }
            }
            if whole && chosen.is_empty() {
                chosen.extend(self.image(&target, None));
            }
            for image in chosen {
                found.entry(image.id.clone()).or_insert((target.clone(), image));
            }
        }
        if found.len() > 1 {
            let candidates = found.keys().map(|id| id.short().to_owned()).collect();
            return Err(Error::AmbiguousId { prefix: text.to_owned(), candidates });
        }
        found.into_values().next().ok_or_else(|| Error::NoSuchImage { name: text.to_owned() })
    }
}
