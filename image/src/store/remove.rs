//! Removing images with the rules of `docker rmi`.

use std::collections::BTreeSet;

use onggi_oci::{Digest, Reference};

use super::refs::Ref;
use super::resolve::Named;
use super::{Image, Store};
use crate::error::{Error, Result};

/// One line of what `rmi` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removed {
    /// A name is gone.
    Untagged(Reference),
    /// An image, by ID, or a layer, by diff ID, is gone.
    Deleted(Digest),
}

/// A container that uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUse {
    /// The container's ID.
    pub id: String,
    /// A running container keeps its image even from `--force`.
    pub running: bool,
}

/// How to remove.
#[derive(Clone, Copy)]
pub struct RemoveOptions<'a> {
    /// Also if it has several names and was named by ID, or if a stopped container uses it.
    pub force: bool,
    /// Whether the container with this ID runs; the store knows only that it exists.
    pub is_running: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for RemoveOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoveOptions").field("force", &self.force).finish_non_exhaustive()
    }
}

impl Store {
    /// Removes what `text` names: only the name if the image has others, else the image.
    ///
    /// # Errors
    /// It has several names and was named by ID; a container uses it.
    pub fn remove(&self, text: &str, options: &RemoveOptions<'_>) -> Result<Vec<Removed>> {
        self.sweep()?;
        let (named, target, image) = self.find(text)?;
        let image = match image {
            Some(image) => Some(image),
            None => self.image(&target, None).ok(),
        };
        // Every ref of the same image, also by another manifest.
        let mut refs = Vec::new();
        for one in self.refs()? {
            let same = one.target.digest == target.digest
                || image.as_ref().is_some_and(|i| self.image(&one.target, None).is_ok_and(|o| o.id == i.id));
            if same {
                refs.push(one);
            }
        }
        let mut going: Vec<Ref> = match &named {
            Named::Name(name) => going_by_name(name, &refs),
            Named::Id => refs.clone(),
        };
        let last = going.len() == refs.len();
        if last && let Some(image) = &image {
            self.allow_removal(text, image, options)?;
        }
        if named == Named::Id && !options.force {
            let repositories: BTreeSet<String> =
                refs.iter().filter_map(|r| r.name.as_ref().map(Reference::name)).collect();
            let tags = refs.iter().filter(|r| r.is_tag()).count();
            if repositories.len() > 1 || tags > 1 {
                let names = refs.iter().filter(|r| r.is_tag()).filter_map(|r| r.name.as_ref());
                let names = names.map(Reference::familiar).collect();
                return Err(Error::SeveralNames { image: text.to_owned(), names });
            }
        }
        let before: BTreeSet<_> = self.layer_ids()?.into_iter().collect();
        going.sort_by_key(|one| !one.is_tag());
        self.remove_refs(&going)?;
        let mut removed: Vec<Removed> =
            going.into_iter().filter_map(|r| r.name.map(Removed::Untagged)).collect();
        if last {
            self.collect_garbage(false)?;
            removed.extend(image.map(|i| Removed::Deleted(i.id)));
            let after: BTreeSet<_> = self.layer_ids()?.into_iter().collect();
            removed.extend(before.difference(&after).map(|gone| Removed::Deleted(gone.0.clone())));
        }
        Ok(removed)
    }

    fn allow_removal(&self, text: &str, image: &Image, options: &RemoveOptions<'_>) -> Result<()> {
        let digests = [&image.id, &image.manifest_digest, &image.target.digest];
        for (id, used) in self.containers()? {
            if !digests.iter().any(|d| used.contains(*d)) {
                continue;
            }
            let running = (options.is_running)(&id);
            if running || !options.force {
                let user = ContainerUse { id, running };
                return Err(Error::ImageInUse { image: text.to_owned(), user });
            }
        }
        Ok(())
    }
}

/// With its last tag in a repository, an image also loses its digests there; and with its last
/// tag at all, everything.
fn going_by_name(name: &Reference, refs: &[Ref]) -> Vec<Ref> {
    let is_it = |r: &Ref| r.name.as_ref() == Some(name);
    if name.digest().is_some() && !refs.iter().any(is_it) {
        // Named by a digest that only a tag of the repository holds: the tag is meant.
        let here = |r: &&Ref| r.name.as_ref().is_some_and(|n| n.name() == name.name());
        return refs.iter().filter(here).cloned().collect();
    }
    let other_tags = |r: &&Ref| r.is_tag() && !is_it(r);
    let here = |r: &Ref| r.name.as_ref().is_some_and(|n| n.name() == name.name());
    let left = refs.iter().filter(other_tags).count();
    let left_here = refs.iter().filter(other_tags).filter(|r| here(r)).count();
    let goes = |r: &&Ref| {
        is_it(r) || (name.digest().is_none() && !r.is_tag() && (left == 0 || (left_here == 0 && here(r))))
    };
    refs.iter().filter(goes).cloned().collect()
}
