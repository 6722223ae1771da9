//! Refs: names of images.
//!
//! ```text
//!   refs/<registry>/<repository…>/:<tag>       {"mediaType":…,"digest":…,"size":…}
//!   refs/<registry>/<repository…>/@<digest>    pulled by digest, or what a tag pointed to before
//!   refs/@<digest>                             without any name
//! ```
//!
//! No registry and no component of a repository begins with `:` or `@`, so a repository can be the
//! beginning of another's name, and a tag is never taken for a folder.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use onggi_oci::{Descriptor, Digest, Reference};

use super::lock::{Hold, RefsLock};
use super::{Store, durable};
use crate::error::{Error, Result};

/// The most that is read of a ref; one has 200 bytes.
const MAX_REF: u64 = 64 << 10;

/// A name and what it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    /// With a tag or a digest; `None` for an image without a name.
    pub name: Option<Reference>,
    /// A manifest or an index.
    pub target: Descriptor,
}

impl Ref {
    /// A ref that names `target` so.
    pub fn new(name: Reference, target: &Descriptor) -> Self {
        Self { name: Some(name), target: plain(target) }
    }

    /// Keeps `target` without giving it a name.
    pub fn nameless(target: &Descriptor) -> Self {
        Self { name: None, target: plain(target) }
    }

    /// Whether it is a name with a tag.
    pub fn is_tag(&self) -> bool {
        self.name.as_ref().is_some_and(|n| n.digest().is_none())
    }
}

/// Only what a ref keeps.
fn plain(target: &Descriptor) -> Descriptor {
    Descriptor::new(target.media_type.clone(), target.digest.clone(), target.size)
}

impl Store {
    /// Writes refs, each at once for every reader, when everything that they reach is here and
    /// durable. An image that loses its last tag by this stays, without a name, until it is pruned.
    ///
    /// # Errors
    /// Something that they reach is missing ([`Error::Incomplete`]); then no ref changes.
    pub fn set_refs(&self, refs: &[Ref]) -> Result<()> {
        let hold = self.hold()?;
        let targets: BTreeSet<&Digest> = refs.iter().map(|r| &r.target.digest).collect();
        for digest in targets {
            let Some(one) = refs.iter().find(|r| r.target.digest == *digest) else { continue };
            let missing = self.missing(&one.target)?;
            if !missing.is_empty() {
                let what = one.name.as_ref().map_or_else(|| digest.to_string(), Reference::familiar);
                return Err(Error::Incomplete { what, missing: missing.join(", ") });
            }
        }
        self.sync_names()?;
        let lock = self.lock_refs()?;
        let mut replaced = Vec::new();
        for one in refs {
            let path = self.ref_path(one)?;
            let old = read_ref(&path)?;
            if old.as_ref() == Some(&one.target) {
                continue;
            }
            self.write_ref(&hold, &path, &one.target)?;
            replaced.extend(old);
        }
        if !replaced.is_empty() {
            let kept: BTreeSet<Digest> = self.refs()?.into_iter().map(|r| r.target.digest).collect();
            for old in replaced.iter().filter(|old| !kept.contains(&old.digest)) {
                self.write_ref(&hold, &self.ref_path(&Ref::nameless(old))?, old)?;
            }
        }
        self.refresh_index(&hold, &lock)
    }

    /// Names the image `target`, in addition to the names that it has.
    pub fn tag(&self, target: &Descriptor, name: &Reference) -> Result<()> {
        self.set_refs(&[Ref::new(name.clone().with_default_tag(), target)])
    }

    /// What the name points to; without tag and digest, `latest` is meant.
    pub fn get_ref(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let name = name.clone().with_default_tag();
        if let Some(target) = read_ref(&self.named_path(&name)?)? {
            return Ok(Some(target));
        }
        // A tag of the same repository may point to the digest that is asked for.
        let Some(digest) = name.digest() else { return Ok(None) };
        let refs = self.refs()?;
        let same =
            |r: &&Ref| r.target.digest == *digest && r.name.as_ref().is_some_and(|n| n.name() == name.name());
        Ok(refs.iter().find(same).map(|r| r.target.clone()))
    }

    /// All refs, sorted by name, those without a name first.
    pub fn refs(&self) -> Result<Vec<Ref>> {
        let mut refs = Vec::new();
        self.walk_refs(&mut |name, path| {
            // A name that is none is a fault, which `system check` reports.
            if let (Some(name), Some(target)) = (name, read_ref(path)?) {
                refs.push(Ref { name, target });
            }
            Ok(())
        })?;
        refs.sort_by(|a, b| (&a.name, &a.target.digest).cmp(&(&b.name, &b.target.digest)));
        Ok(refs)
    }

    /// Removes refs. What they reach stays until it is pruned.
    pub fn remove_refs(&self, refs: &[Ref]) -> Result<()> {
        let hold = self.hold()?;
        let lock = self.lock_refs()?;
        for one in refs {
            let path = self.ref_path(one)?;
            durable::remove_file(&path)?;
            let mut parent = path.parent().unwrap_or(&path);
            // Another may have removed the last tag of this repository, and the directories with it.
            while parent != self.refs_dir() && !parent.exists() {
                parent = parent.parent().unwrap_or(parent);
            }
            durable::sync_dir(parent)?;
            while parent != self.refs_dir() && fs::remove_dir(parent).is_ok() {
                let Some(above) = parent.parent() else { break };
                parent = above;
            }
        }
        self.refresh_index(&hold, &lock)
    }

    /// Calls `visit` for each file below `refs/`.
    pub(super) fn walk_refs(&self, visit: &mut Visit<'_>) -> Result<()> {
        walk_refs_below(&self.refs_dir(), "", visit)
    }

    fn write_ref(&self, hold: &Hold, path: &Path, target: &Descriptor) -> Result<()> {
        if let Some(parent) = path.parent() {
            durable::make_dirs_below(&self.refs_dir(), parent)?;
        }
        let bytes = serde_json::to_vec(target).expect("plain values always serialise");
        durable::replace(hold, &self.ingest_dir(), path, &bytes)
    }

    fn ref_path(&self, one: &Ref) -> Result<PathBuf> {
        match &one.name {
            Some(name) => self.named_path(name),
            None => Ok(self.refs_dir().join(format!("@{}", one.target.digest))),
        }
    }

    fn named_path(&self, name: &Reference) -> Result<PathBuf> {
        let mut path = self.refs_dir();
        for component in std::iter::once(name.registry()).chain(name.repository().split('/')) {
            // The type promises this; a path is worth a second look.
            if matches!(component, "" | "." | "..") || component.starts_with([':', '@']) {
                return Err(Error::NoSuchImage { name: name.to_string() });
            }
            path.push(component);
        }
        path.push(match (name.digest(), name.tag()) {
            (Some(digest), _) => format!("@{digest}"),
            (None, tag) => format!(":{}", tag.unwrap_or(onggi_oci::DEFAULT_TAG)),
        });
        Ok(path)
    }

    /// Proof that the caller may change refs is in its hands.
    pub(super) fn with_refs_locked<T>(&self, work: impl FnOnce(&Hold, &RefsLock) -> Result<T>) -> Result<T> {
        let hold = self.hold()?;
        let lock = self.lock_refs()?;
        work(&hold, &lock)
    }
}

/// Takes a file below `refs/` and the name of the ref that it is: `None` if it is none.
type Visit<'a> = dyn FnMut(Option<Option<Reference>>, &Path) -> Result<()> + 'a;

fn walk_refs_below(dir: &Path, prefix: &str, visit: &mut Visit<'_>) -> Result<()> {
    let io = |e| Error::io("read the directory", dir, e);
    let entries = match fs::read_dir(dir) {
        // Removed meanwhile, with its last tag.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io)?,
    };
    for entry in entries {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if entry.file_type().map_err(io)?.is_dir() {
            let prefix = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            walk_refs_below(&path, &prefix, visit)?;
            continue;
        }
        let parsed = match (prefix, name.strip_prefix('@')) {
            ("", Some(digest)) => digest.parse::<Digest>().ok().map(|_| None),
            _ if name.starts_with([':', '@']) => format!("{prefix}{name}").parse().ok().map(Some),
            _ => None,
        };
        visit(parsed, &path)?;
    }
    Ok(())
}

/// Reads a ref's file, `None` if there is none.
pub(super) fn read_ref(path: &Path) -> Result<Option<Descriptor>> {
    let bytes = match durable::read_small(path, MAX_REF) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        other => other?,
    };
    let Some(bytes) = bytes else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::corrupt(path.display(), e))
}
