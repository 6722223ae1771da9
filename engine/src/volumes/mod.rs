//! Volumes: directories that outlive containers.
//!
//! ```text
//!   <root>/volumes/.lock            shared while a container is given volumes, exclusive while one is removed
//!   <root>/volumes/<name>/          made under another name and renamed, so it is whole or not there
//!       volume.json                 name, labels, options, when it was made
//!       _data/                      what containers see
//!       filling                     there while `_data` gets what an image has: without its owner, a crash
//!   <runroot>/volumes/<name>/       where a volume with a device or filesystem of its own is mounted
//! ```
//!
//! Which containers use a volume is in their records, nowhere else.

mod fill;
mod local;
mod record;

use std::collections::BTreeMap;
use std::path::PathBuf;

use onggi_image::store::Store;

use crate::Engine;
use crate::containers;
use crate::error::{Error, Result};
use crate::run::{MountKind, MountPoint};

pub(crate) use fill::{change_owner, fill};
pub(crate) use local::{source, unmount};
pub use record::Volume;
pub(crate) use record::{Lock, check_name, ensure};

/// What a volume is made with.
#[derive(Clone, Debug, Default)]
pub struct VolumeRequest {
    /// Its name; a random one if `None`, and then it counts as anonymous.
    pub name: Option<String>,
    /// For filters and whoever reads `inspect`.
    pub labels: BTreeMap<String, String>,
    /// `type`, `o` and `device` of the local driver.
    pub options: BTreeMap<String, String>,
}

/// What was removed.
#[derive(Clone, Debug, Default)]
pub struct PrunedVolumes {
    /// Their names.
    pub names: Vec<String>,
    /// What their files took, in bytes.
    pub bytes: u64,
}

impl Engine {
    /// Makes a volume. One that exists is left as it is.
    ///
    /// # Errors
    /// [`Error::VolumeName`]; [`Error::VolumeOption`]; [`Error::VolumeExists`] if the volume was made
    /// with other options.
    pub fn create_volume(&self, request: &VolumeRequest) -> Result<Volume> {
        let dir = self.volumes_dir()?;
        let lock = Lock::shared(&dir)?;
        let volume = ensure(&dir, request, &lock)?;
        if volume.options != request.options && !request.options.is_empty() {
            return Err(Error::VolumeExists { name: volume.name });
        }
        Ok(volume)
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        record::all(&self.volumes_dir()?)
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// [`Error::NoVolume`].
    pub fn volume(&self, name: &str) -> Result<Volume> {
        let found = record::read(&self.volumes_dir()?, name)?;
        found.ok_or_else(|| Error::NoVolume { name: name.into() })
    }

    /// Which containers use which volume: the volume's name, their IDs.
    pub fn volume_users(&self) -> Result<BTreeMap<String, Vec<String>>> {
        users(self.store()?)
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// [`Error::NoVolume`]; [`Error::VolumeInUse`] if a container has it, even a stopped one.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let lock = Lock::exclusive(&self.volumes_dir()?)?;
        let volume = self.volume(name)?;
        if let Some(users) = self.volume_users()?.remove(name) {
            return Err(Error::VolumeInUse { name: name.into(), users });
        }
        discard(self.store()?, &volume, &lock)
    }

    /// Removes the volumes that no container has and that `wanted` accepts.
    pub fn prune_volumes(&self, wanted: &dyn Fn(&Volume) -> bool) -> Result<PrunedVolumes> {
        let dir = self.volumes_dir()?;
        let lock = Lock::exclusive(&dir)?;
        let users = self.volume_users()?;
        let mut pruned = PrunedVolumes::default();
        for volume in record::all(&dir)? {
            if users.contains_key(&volume.name) || !wanted(&volume) {
                continue;
            }
            pruned.bytes += onggi_image::store::disk_usage(&dir.join(&volume.name))?;
            discard(self.store()?, &volume, &lock)?;
            pruned.names.push(volume.name);
        }
        Ok(pruned)
    }

    pub(crate) fn volumes_dir(&self) -> Result<PathBuf> {
        Ok(self.store()?.root().join("volumes"))
    }
}

/// Which containers use which volume.
fn users(store: &Store) -> Result<BTreeMap<String, Vec<String>>> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, points) in containers::all_mount_points(&store.containers_dir())? {
        for point in points.into_iter().filter(|point| point.kind == MountKind::Volume) {
            users.entry(point.name.unwrap_or_default()).or_default().push(id.clone());
        }
    }
    Ok(users)
}

/// Removes the anonymous ones of these volumes, as far as no container has them.
pub(crate) fn remove_anonymous(store: &Store, points: &[MountPoint]) -> Result<()> {
    let mut names =
        points.iter().filter(|point| point.anonymous).filter_map(|point| point.name.as_ref()).peekable();
    if names.peek().is_none() {
        return Ok(());
    }
    let dir = store.root().join("volumes");
    let lock = Lock::exclusive(&dir)?;
    let users = users(store)?;
    for name in names.filter(|name| !users.contains_key(*name)) {
        if let Some(volume) = record::read(&dir, name)?.filter(Volume::is_anonymous) {
            discard(store, &volume, &lock)?;
        }
    }
    Ok(())
}

fn discard(store: &Store, volume: &Volume, lock: &Lock) -> Result<()> {
    unmount(store.runroot(), volume)?;
    record::remove(&store.root().join("volumes"), &volume.name, lock)?;
    crate::events::note(store.root(), "volume", "destroy", &volume.name, &[("driver", "local")]);
    Ok(())
}
