//! Save and load: images as archives and OCI layouts.

use std::io::{Read, Write};
use std::path::Path;

use onggi_image::archive::{Format, Loaded, SaveItem};
use onggi_image::store::{Image, Store};
use onggi_oci::{Digest, Platform, Reference};

use crate::Engine;
use crate::error::Result;

impl Engine {
    /// Writes images to `out`, each by the names that it was asked for by.
    ///
    /// A repository without a tag means all its tags, as in Docker; an ID gives no name.
    pub fn save(
        &self,
        names: &[String],
        platform: Option<&Platform>,
        format: Format,
        out: &mut dyn Write,
    ) -> Result<()> {
        let store = self.store()?;
        Ok(store.save(&items(store, names, platform)?, format, out)?)
    }

    /// Writes images into a new or empty directory, as an OCI layout.
    pub fn save_layout(&self, names: &[String], platform: Option<&Platform>, dir: &Path) -> Result<()> {
        let store = self.store()?;
        Ok(store.save_layout(&items(store, names, platform)?, dir)?)
    }

    /// Loads all images of an archive.
    pub fn load(&self, archive: impl Read) -> Result<Vec<Loaded>> {
        let loaded = self.store()?.load(archive)?;
        self.note_loaded(&loaded);
        Ok(loaded)
    }

    /// Loads all images of an OCI layout in a directory.
    pub fn load_layout(&self, dir: &Path) -> Result<Vec<Loaded>> {
        let loaded = self.store()?.load_layout(dir)?;
        self.note_loaded(&loaded);
        Ok(loaded)
    }

    fn note_loaded(&self, loaded: &[Loaded]) {
        for one in loaded {
            let id = one.id.to_string();
            let name = one.name.as_ref().map_or_else(|| id.clone(), Reference::familiar);
            crate::events::note(&self.settings().root, "image", "load", &id, &[("name", &name)]);
        }
    }
}

/// The images that are meant, each once with all its names.
fn items(store: &Store, names: &[String], platform: Option<&Platform>) -> Result<Vec<SaveItem>> {
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    let mut add = |image: Image, name: Option<Reference>| {
        let same = |(other, _): &&mut (Image, Vec<Reference>)| -> bool {
            let key = |image: &Image| -> (Digest, Digest) { (image.target.digest.clone(), image.id.clone()) };
            key(other) == key(&image)
        };
        match images.iter_mut().find(same) {
            Some((_, names)) => names.extend(name),
            None => images.push((image, name.into_iter().collect())),
        }
    };
    for text in names {
        let name = text.parse::<Reference>().ok();
        let tags = match &name {
            Some(name) if name.tag().is_none() && name.digest().is_none() => tags_of(store, name)?,
            _ => Vec::new(),
        };
        if tags.is_empty() {
            let image = store.resolve(text, platform)?;
            let name = name.filter(|n| n.tag().is_some() && n.digest().is_none());
            // Text that is a name may have been resolved as an ID.
            let named = match &name {
                Some(name) => store.get_ref(name)?.is_some(),
                None => false,
            };
            add(image, name.filter(|_| named));
        }
        for tag in tags {
            add(store.resolve(&tag.to_string(), platform)?, Some(tag));
        }
    }
    let item = |(image, names)| {
        let item = SaveItem::new(image, names);
        if platform.is_some() { item.one_platform() } else { item }
    };
    Ok(images.into_iter().map(item).collect())
}

fn tags_of(store: &Store, repository: &Reference) -> Result<Vec<Reference>> {
    let names = store.refs()?.into_iter().filter(onggi_image::store::Ref::is_tag).filter_map(|one| one.name);
    Ok(names.filter(|name| name.name() == repository.name()).collect())
}
