//! Manifest lists: one name for images of several platforms that were made apart.
//!
//! A list is an index in the store under its name, and its images are in the store: so it can be run, saved and pushed as any
//! other. Images that are not here are pulled for it.

use std::sync::Arc;

use onggi_image::store::{Image, Lease, Ref, Store};
use onggi_oci::{Descriptor, Digest, ErrorKind, ImageIndex, Manifest, MediaType, Platform, Reference};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::{Engine, PullRequest, PushRequest, Pushed};

/// What `manifest annotate` says of an entry; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedPlatform {
    /// `linux`, …
    pub os: Option<String>,
    /// `amd64`, …
    pub architecture: Option<String>,
    /// `v7`, …
    pub variant: Option<String>,
    /// Of Windows.
    pub os_version: Option<String>,
    /// Of Windows.
    pub os_features: Vec<String>,
}

impl ListedPlatform {
    fn apply(&self, entry: &mut Descriptor) {
        if *self == Self::default() {
            return;
        }
        let old = entry.platform.clone().unwrap_or_else(Platform::host);
        let os = self.os.as_deref().unwrap_or(&old.os);
        let architecture = self.architecture.as_deref().unwrap_or(&old.architecture);
        // Another architecture has other variants.
        let variant = match (&self.variant, &self.architecture) {
            (Some(variant), _) => Some(variant.as_str()),
            (None, Some(_)) => None,
            (None, None) => old.variant.as_deref(),
        };
        let mut platform = Platform::new(os, architecture, variant);
        platform.os_version = self.os_version.clone().or(old.os_version);
        platform.os_features =
            if self.os_features.is_empty() { old.os_features } else { self.os_features.clone() };
        entry.platform = Some(platform);
    }
}

impl Engine {
    /// Makes a list of images; with `amend`, adds to one that is there.
    ///
    /// # Errors
    /// The name is taken ([`Error::ListExists`]), or an image can't be had.
    pub fn create_manifest_list(
        &self,
        list: &Reference,
        members: &[Reference],
        amend: bool,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let store = self.store()?;
        let list = list.clone().with_default_tag();
        let index = match store.get_ref(&list)? {
            None => ImageIndex::new(MediaType::OciIndex, Vec::new()),
            Some(_) if amend => self.manifest_list(&list)?,
            Some(_) => return Err(Error::ListExists { name: list.familiar() }),
        };
        self.extend_list(&list, index, members, &ListedPlatform::default(), progress)
    }

    /// Adds images to a list.
    pub fn add_to_manifest_list(
        &self,
        list: &Reference,
        members: &[Reference],
        platform: &ListedPlatform,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let list = list.clone().with_default_tag();
        self.extend_list(&list, self.manifest_list(&list)?, members, platform, progress)
    }

    fn extend_list(
        &self,
        list: &Reference,
        mut index: ImageIndex,
        members: &[Reference],
        platform: &ListedPlatform,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let store = self.store()?;
        let lease = store.lease(&format!("list {list}"))?;
        for member in members {
            for mut entry in self.entries_of(&lease, member, progress)? {
                platform.apply(&mut entry);
                index.manifests.retain(|known| known.digest != entry.digest);
                index.manifests.push(entry);
            }
        }
        write_list(&lease, list, index)
    }

    /// Says for which platform an image of a list is.
    pub fn annotate_manifest_list(
        &self,
        list: &Reference,
        member: &str,
        platform: &ListedPlatform,
    ) -> Result<Digest> {
        self.change_list(list, member, |entries, position| platform.apply(&mut entries[position]))
    }

    /// Takes an image out of a list.
    pub fn remove_from_manifest_list(&self, list: &Reference, member: &str) -> Result<Digest> {
        self.change_list(list, member, |entries, position| drop(entries.remove(position)))
    }

    fn change_list(
        &self,
        list: &Reference,
        member: &str,
        change: impl FnOnce(&mut Vec<Descriptor>, usize),
    ) -> Result<Digest> {
        let store = self.store()?;
        let list = list.clone().with_default_tag();
        let lease = store.lease(&format!("list {list}"))?;
        let mut index = self.manifest_list(&list)?;
        let digest = if let Ok(digest) = member.parse::<Digest>() {
            Some(digest)
        } else {
            let name = member.parse::<Reference>()?.with_default_tag();
            match name.digest() {
                Some(digest) => Some(digest.clone()),
                None => store.get_ref(&name)?.map(|target| target.digest),
            }
        };
        let found = index.manifests.iter().position(|entry| Some(&entry.digest) == digest.as_ref());
        let Some(position) = found else {
            return Err(Error::NotListed { list: list.familiar(), member: member.into() });
        };
        change(&mut index.manifests, position);
        write_list(&lease, &list, index)
    }

    /// The list of this name.
    fn manifest_list(&self, list: &Reference) -> Result<ImageIndex> {
        let store = self.store()?;
        let none = || Error::NoSuchList { name: list.familiar() };
        let target = store.get_ref(list)?.ok_or_else(none)?;
        match store.read_manifest(&target.digest, Some(&target.media_type))? {
            Manifest::Index(index) => Ok(index),
            Manifest::Image(_) => Err(Error::NoList { name: list.familiar() }),
        }
    }

    /// Whether there is a list of this name.
    pub fn has_manifest_list(&self, list: &Reference) -> Result<bool> {
        match self.manifest_list(&list.clone().with_default_tag()) {
            Ok(_) => Ok(true),
            Err(Error::NoSuchList { .. } | Error::NoList { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pushes a list and its images, under its own name or another.
    pub fn push_manifest_list(
        &self,
        list: &Reference,
        to: Option<&Reference>,
        request: &PushRequest,
        progress: &Arc<dyn Progress>,
    ) -> Result<Pushed> {
        let store = self.store()?;
        let list = list.clone().with_default_tag();
        self.manifest_list(&list)?;
        let Some(to) = to.map(|to| to.clone().with_default_tag()).filter(|to| *to != list) else {
            return self.push(&list, request, progress);
        };
        let Some(target) = store.get_ref(&list)? else { return Err(Error::NoList { name: list.familiar() }) };
        let before = store.get_ref(&to)?;
        let other = Ref::new(to.clone(), &target);
        store.set_refs(std::slice::from_ref(&other))?;
        let pushed = self.push(&to, request, progress);
        match before {
            Some(before) => store.set_refs(&[Ref::new(to, &before)])?,
            None => drop(store.remove_refs(&[other])?),
        }
        pushed
    }

    /// Forgets lists; their images stay under their own names.
    pub fn remove_manifest_list(&self, list: &Reference) -> Result<()> {
        let list = list.clone().with_default_tag();
        self.manifest_list(&list)?;
        let store = self.store()?;
        if let Some(target) = store.get_ref(&list)? {
            store.remove_refs(&[Ref::new(list, &target)])?;
        }
        Ok(())
    }

    /// The document of a list or image: of one that is here, else of its registry's. With `verbose`, each entry with its
    /// manifest, as `docker manifest inspect -v` has it.
    pub fn inspect_manifest(&self, name: &Reference, verbose: bool) -> Result<Value> {
        let store = self.store()?;
        let name = name.clone().with_default_tag();
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let shown = |entry: &Descriptor, bytes: &[u8]| {
            let reference = name.without_tag().with_digest(entry.digest.clone());
            let kind = if entry.media_type == MediaType::DockerManifest {
                "SchemaV2Manifest"
            } else {
                "OCIManifest"
            };
            let mut value = json!({ "Ref": reference.to_string(), "Descriptor": entry });
            value[kind] = json(bytes);
            value
        };
        if let Some(target) = store.get_ref(&name)? {
            let bytes = store.read_blob(&target.digest)?;
            if !verbose {
                return Ok(json(&bytes));
            }
            return match Manifest::parse(&bytes, Some(&target.media_type))? {
                Manifest::Image(_) => Ok(shown(&target, &bytes)),
                Manifest::Index(index) => {
                    let each = index.manifests.iter().map(|entry| {
                        let bytes =
                            if store.has_blob(entry)? { store.read_blob(&entry.digest)? } else { Vec::new() };
                        Ok(shown(entry, &bytes))
                    });
                    Ok(Value::Array(each.collect::<Result<_>>()?))
                }
            };
        }
        let client = self.client()?;
        super::network_runtime()?.block_on(async {
            let top = client.resolve(&name).await?;
            let index = match &top.manifest {
                _ if !verbose => return Ok(json(&top.bytes)),
                Manifest::Image(_) => return Ok(shown(&top.descriptor(), &top.bytes)),
                Manifest::Index(index) => index,
            };
            let mut all = Vec::new();
            for entry in &index.manifests {
                let bytes = client.manifest(&name, entry).await?.bytes;
                all.push(shown(entry, &bytes));
            }
            Ok(Value::Array(all))
        })
    }

    /// What a list gets of an image: one entry, or those of an index.
    fn entries_of(
        &self,
        lease: &Lease,
        member: &Reference,
        progress: &dyn Progress,
    ) -> Result<Vec<Descriptor>> {
        let store = self.store()?;
        let member = member.clone().with_default_tag();
        match store.resolve(&member.to_string(), None) {
            Ok(image) => return local_entries(store, lease, &image),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let client = self.client()?;
        let top = super::network_runtime()?.block_on(client.resolve(&member))?;
        let wanted = match &top.manifest {
            Manifest::Image(_) => vec![top.descriptor()],
            Manifest::Index(index) => index
                .manifests
                .iter()
                .filter(|entry| entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown"))
                .cloned()
                .collect(),
        };
        let mut entries = Vec::new();
        for entry in wanted {
            lease.protect([&entry.digest])?;
            let exact = member.without_tag().with_digest(entry.digest.clone());
            let known = store.get_ref(&exact)?;
            self.pull(&exact, &PullRequest::default(), progress)?;
            let image = store
                .image(&Descriptor::new(entry.media_type.clone(), entry.digest.clone(), entry.size), None)?;
            protect(lease, &image)?;
            entries.extend(local_entries(store, lease, &image)?);
            if let (None, Some(target)) = (known, store.get_ref(&exact)?) {
                // The list's name keeps it from here on.
                store.remove_refs(&[Ref::new(exact, &target)])?;
            }
        }
        Ok(entries)
    }
}

fn protect(lease: &Lease, image: &Image) -> Result<()> {
    let layers = image.layers().flat_map(|layer| [&layer.blob.digest, &layer.diff_id.0]);
    Ok(lease.protect(layers.chain([&image.id, &image.manifest_digest]))?)
}

/// The entries of an image that is here; of an index, of those of its images that are here, and what is said of them.
fn local_entries(store: &Store, lease: &Lease, image: &Image) -> Result<Vec<Descriptor>> {
    if let Manifest::Index(index) =
        store.read_manifest(&image.target.digest, Some(&image.target.media_type))?
    {
        let mut entries = Vec::new();
        for entry in index.manifests {
            if store.has_blob(&entry)? {
                lease.protect([&entry.digest])?;
                entries.push(entry);
            }
        }
        return Ok(entries);
    }
    protect(lease, image)?;
    let mut entry = image.target.clone();
    entry.annotations.clear();
    entry.platform = Some(image.platform());
    Ok(vec![entry])
}

fn write_list(lease: &Lease, list: &Reference, index: ImageIndex) -> Result<Digest> {
    let store = lease.store();
    let bytes = Manifest::Index(index).to_bytes();
    let target = Descriptor::of(MediaType::OciIndex, &bytes);
    // As what comes from elsewhere: not more entries than anybody reads.
    Manifest::parse(&bytes, Some(&target.media_type))?;
    lease.protect([&target.digest])?;
    if !store.has_blob(&target)? {
        store.publish(vec![lease.stage(&target, &bytes)?])?;
    }
    store.set_refs(&[Ref::new(list.clone(), &target)])?;
    Ok(target.digest)
}
