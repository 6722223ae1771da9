//! Images at rest, as commands see them: list, name, remove, inspect, save, load, prune.

use onggi_image::store::{
    CheckOptions, CheckReport, Converted, Format, Image, ImageSummary, PruneOptions, Pruned, RemoveOptions,
    Removed, Usage,
};
use onggi_oci::{History, Platform, Reference};

use crate::Engine;
use crate::error::{Error, Result};

/// Everything that `inspect` tells about an image.
#[derive(Clone, Debug)]
pub struct ImageDetails {
    /// The image.
    pub image: Image,
    /// Its names.
    pub summary: Option<ImageSummary>,
    /// Bytes of the files of its layers.
    pub size: u64,
}

impl Engine {
    /// All images, the youngest first. What cannot be read is told beside them.
    pub fn images(&self) -> Result<onggi_image::store::Images> {
        Ok(self.store()?.images()?)
    }

    /// The image that a name or an ID means.
    pub fn image(&self, text: &str, platform: Option<&Platform>) -> Result<Image> {
        Ok(self.store()?.resolve(text, platform)?)
    }

    /// Everything about an image.
    pub fn image_details(&self, text: &str, platform: Option<&Platform>) -> Result<ImageDetails> {
        let store = self.store()?;
        let image = store.resolve(text, platform)?;
        let size = store.content_size(&image)?;
        let summary = store.images()?.images.into_iter().find(|summary| summary.image.id == image.id);
        Ok(ImageDetails { image, summary, size })
    }

    /// How an image came to be: each step with the bytes of its layer, oldest first.
    pub fn history(&self, text: &str, platform: Option<&Platform>) -> Result<(Image, Vec<(History, u64)>)> {
        let store = self.store()?;
        let image = store.resolve(text, platform)?;
        let history = store.history(&image)?;
        Ok((image, history))
    }

    /// Gives the image `source` the name `target` too.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let target: Reference = target.parse()?;
        if target.digest().is_some() {
            return Err(Error::TagWithDigest { target: target.familiar() });
        }
        let store = self.store()?;
        let image = store.resolve(source, None)?;
        let target = target.with_default_tag();
        store.tag(&image.target, &target)?;
        self.note_image("tag", &image.id, &target);
        Ok(())
    }

    /// Removes what `text` names, as `docker rmi`.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Vec<Removed>> {
        let store = self.store()?;
        let is_running = |id: &str| self.look(id).is_alive();
        let id = store.resolve(text, None).ok().map(|image| image.id);
        let removed = store.remove(text, &RemoveOptions { force, is_running: &is_running })?;
        for one in &removed {
            match one {
                Removed::Untagged(name) => {
                    if let Some(id) = &id {
                        self.note_image("untag", id, name);
                    }
                }
                Removed::Deleted(digest) if id.as_ref() == Some(digest) => {
                    let id = digest.to_string();
                    crate::events::note(store.root(), "image", "delete", &id, &[("name", &id)]);
                }
                _ => {}
            }
        }
        Ok(removed)
    }

    /// Removes unused images and everything that nothing reaches.
    pub fn prune(&self, options: &PruneOptions<'_>) -> Result<Pruned> {
        Ok(self.store()?.prune(options)?)
    }

    /// What takes how much space.
    pub fn usage(&self) -> Result<Usage> {
        Ok(self.store()?.usage()?)
    }

    /// Gives all layers this format.
    ///
    /// # Errors
    /// This machine can't mount files; a damaged layer; a full disk.
    pub fn convert(&self, format: Format) -> Result<Converted> {
        Ok(self.store()?.convert(format)?)
    }

    /// Searches a registry for repositories.
    ///
    /// # Errors
    /// The registry can't be reached, or knows no way to search it.
    pub fn search(
        &self,
        registry: &str,
        term: &str,
        limit: usize,
    ) -> Result<Vec<onggi_registry_client::Found>> {
        let runtime = crate::network_runtime()?;
        Ok(runtime.block_on(self.client()?.search(registry, term, limit))?)
    }

    /// Verifies the store, and repairs it if asked.
    pub fn check(&self, options: CheckOptions) -> Result<CheckReport> {
        Ok(self.store()?.check(options)?)
    }
}
