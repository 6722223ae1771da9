//! Mount points of a container: what was asked for, once it is known what that is.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use onggi_image::snapshot::Snapshot;
use onggi_oci::{ContainerConfig, Digest};
use onggi_sys::idmap::IdMap;
use onggi_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::super::request::RunRequest;
use super::{Mounted, Source, VolumesFrom, clean};
use crate::Engine;
use crate::error::{Error, Result};
use crate::volumes::{self, Lock, VolumeRequest};

/// Files of /proc that may be replaced: what lxcfs makes of them for a container.
const PROC_FILES: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
];

/// What a container has at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Absolute path in the container.
    pub target: String,
    /// What it is.
    pub kind: MountKind,
    /// The volume's or the image's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The path of the host; empty for an image.
    pub source: PathBuf,
    /// The image's manifest, which keeps the image from pruning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// A directory below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    /// Whether the container can't write.
    pub read_only: bool,
    /// Whether mounts below the source come along.
    #[serde(default)]
    pub recursive: bool,
    /// Options of the mount besides.
    #[serde(default)]
    pub options: Vec<String>,
    /// Whether it gets the owner that the container's program has.
    #[serde(default)]
    pub chown: bool,
    /// Whether a new volume gets what the image has there.
    #[serde(default)]
    pub copy: bool,
    /// Whether the volume goes with the container.
    #[serde(default)]
    pub anonymous: bool,
}

/// What a mount point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A volume.
    Volume,
    /// The tree of an image.
    Image,
}

impl MountKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Image => "image",
        }
    }
}

/// The mount points of a container that is being made. Its volumes can't be removed as long as this
/// lives, so it has to live until the container's record is written.
#[derive(Debug, Default)]
pub(crate) struct Points {
    pub list: Vec<MountPoint>,
    _lock: Option<Lock>,
}

/// Finds out what the wishes mean, and makes the volumes that are missing.
pub(crate) fn resolve(engine: &Engine, request: &RunRequest, config: &ContainerConfig) -> Result<Points> {
    if request.mounts.is_empty() && request.volumes_from.is_empty() && config.volumes.is_empty() {
        return Ok(Points::default());
    }
    let dir = engine.volumes_dir()?;
    let lock = Lock::shared(&dir)?;
    let mut list: Vec<MountPoint> = Vec::new();
    for wish in &request.mounts {
        let target = clean(&wish.target);
        let by_tmpfs = request.tmpfs.iter().any(|tmpfs| clean(&tmpfs.target) == target);
        if by_tmpfs || list.iter().any(|point| clean(&point.target) == target) {
            return Err(Error::DuplicateMount { target: wish.target.clone() });
        }
        list.push(point(engine, wish, &dir, &lock)?);
    }
    let is_free = |list: &[MountPoint], target: &Path| {
        !list.iter().any(|point| clean(&point.target) == target)
            && !request.tmpfs.iter().any(|tmpfs| clean(&tmpfs.target) == target)
    };
    for from in &request.volumes_from {
        for point in points_from(engine, from)? {
            if is_free(&list, &clean(&point.target)) {
                list.push(point);
            }
        }
    }
    for target in &config.volumes {
        // An image may say anything; what can't be a mount point is none.
        let target = clean(target);
        if target == Path::new("/") || check_proc(&target, Path::new("")).is_err() || !is_free(&list, &target)
        {
            continue;
        }
        let volume = volumes::ensure(&dir, &VolumeRequest::default(), &lock)?;
        list.push(MountPoint {
            target: target.to_string_lossy().into_owned(),
            kind: MountKind::Volume,
            name: Some(volume.name),
            source: volume.mountpoint,
            image: None,
            subpath: None,
            read_only: false,
            recursive: true,
            options: Vec::new(),
            chown: false,
            copy: true,
            anonymous: true,
        });
    }
    Ok(Points { list, _lock: Some(lock) })
}

/// What one wish means.
fn point(engine: &Engine, wish: &Mounted, dir: &Path, lock: &Lock) -> Result<MountPoint> {
    let mut point = MountPoint {
        target: wish.target.clone(),
        kind: MountKind::Bind,
        name: None,
        source: PathBuf::new(),
        image: None,
        subpath: None,
        read_only: wish.read_only,
        recursive: true,
        options: wish.options.clone(),
        chown: wish.chown,
        copy: false,
        anonymous: false,
    };
    match &wish.source {
        Source::Bind { path, recursive, create } => {
            point.source.clone_from(path);
            point.recursive = *recursive;
            match std::fs::symlink_metadata(path) {
                Ok(_) => {}
                Err(error) if *create && error.kind() == std::io::ErrorKind::NotFound => {
                    let made = std::fs::create_dir_all(path);
                    made.map_err(|source| Error::BindSource { path: path.clone(), source })?;
                }
                Err(source) => return Err(Error::BindSource { path: path.clone(), source }),
            }
        }
        Source::Volume { name, copy, subpath, labels, driver_options } => {
            let request =
                VolumeRequest { name: name.clone(), labels: labels.clone(), options: driver_options.clone() };
            let volume = volumes::ensure(dir, &request, lock)?;
            point.kind = MountKind::Volume;
            point.source = volume.mountpoint;
            point.name = Some(volume.name);
            point.subpath.clone_from(subpath);
            point.copy = *copy && subpath.is_none() && volume.options.is_empty();
            point.anonymous = name.is_none();
        }
        Source::Image { image, subpath } => {
            let image_found = engine.store()?.resolve(image, None)?;
            point.kind = MountKind::Image;
            point.name = Some(image.clone());
            point.image = Some(image_found.manifest_digest.clone());
            point.subpath.clone_from(subpath);
        }
    }
    Ok(point)
}

/// The mounts of another container.
fn points_from(engine: &Engine, from: &VolumesFrom) -> Result<Vec<MountPoint>> {
    let record = engine.find_container(&from.container)?;
    let adopt = |point: MountPoint| MountPoint {
        read_only: from.read_only.unwrap_or(point.read_only),
        // It goes with the last container that has it.
        copy: false,
        ..point
    };
    Ok(record.mounts.into_iter().map(adopt).collect())
}

/// Nothing may lie over /proc but another /proc, or a file that is known to be of no use to an attack.
fn check_proc(target: &Path, source: &Path) -> Result<()> {
    let Ok(below) = target.strip_prefix("/proc") else { return Ok(()) };
    let harmless = PROC_FILES.iter().any(|file| below == Path::new(file));
    if harmless || source == Path::new("/proc") {
        return Ok(());
    }
    Err(Error::MountInProc { target: target.into() })
}

impl Points {
    /// Gives new volumes what the image has at their places.
    pub(crate) fn fill(&self, engine: &Engine, image_root: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        let store = engine.store()?;
        for point in self.list.iter().filter(|point| point.copy) {
            if let Some(name) = &point.name {
                volumes::fill(&engine.volume(name)?, image_root, &point.target, store.options())?;
            }
        }
        Ok(())
    }
}

/// A mount point that can be mounted now.
pub(crate) struct Ready {
    /// Where.
    pub target: String,
    /// What: a path, or the descriptor of a tree that is mounted nowhere.
    pub tree: Tree,
    /// Options of the mount.
    pub options: Vec<String>,
    /// What a path of /proc/self/fd names.
    pub held: Option<OwnedFd>,
}

/// What is mounted.
pub(crate) enum Tree {
    /// What a path names.
    Path(PathBuf),
    /// A detached mount.
    Detached(OwnedFd),
}

/// Makes everything ready that the container sees besides its image, each time it starts.
///
/// `shifted` are the IDs of the container where those on disk are others.
pub(crate) fn restore(
    engine: &Engine,
    points: &[MountPoint],
    shifted: Option<&(IdMap, IdMap)>,
) -> Result<Vec<Ready>> {
    points.iter().map(|point| point.restore(engine, shifted)).collect()
}

/// Gives what was mounted with `U` to the program's user, given as the IDs on disk.
pub(crate) fn chown(points: &[MountPoint], uid: u32, gid: u32) -> Result<()> {
    points
        .iter()
        .filter(|point| point.chown)
        .try_for_each(|point| volumes::change_owner(&point.source, uid, gid))
}

/// Unmounts volumes with a filesystem of their own that no other running container has.
pub(crate) fn release(engine: &Engine, points: &[MountPoint]) -> Result<()> {
    for point in points.iter().filter(|point| point.kind == MountKind::Volume) {
        let name = point.name.as_deref().unwrap_or_default();
        match engine.volume(name) {
            // The kernel refuses what somebody still uses.
            Ok(volume) => volumes::unmount(engine.store()?.runroot(), &volume)?,
            Err(Error::NoVolume { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Engine {
    /// The directory that is mounted at a point of a container that does not run; `None` if it is a file.
    pub(crate) fn mounted_directory(&self, point: &MountPoint) -> Result<Option<OwnedFd>> {
        let ready = point.restore(self, None)?;
        let directory = match ready.tree {
            Tree::Detached(tree) => return Ok(Some(tree)),
            Tree::Path(path) => path,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&directory, flags, Mode::empty()) {
            Ok(opened) => Ok(Some(opened)),
            Err(rustix::io::Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Error::BindSource { path: directory, source: errno.into() }),
        }
    }
}

impl MountPoint {
    fn restore(&self, engine: &Engine, shifted: Option<&(IdMap, IdMap)>) -> Result<Ready> {
        check_proc(&clean(&self.target), &self.source)?;
        if let Some(image) = &self.image {
            let tree = Tree::Detached(self.image_tree(engine, image, shifted)?);
            return Ok(Ready { target: self.target.clone(), tree, options: vec!["ro".into()], held: None });
        }
        let mut options = vec![if self.recursive { "rbind" } else { "bind" }.to_owned()];
        options.extend(self.options.iter().cloned());
        if self.read_only {
            options.push("ro".into());
            if self.recursive {
                // What is mounted below is not to be written either.
                options.push("rro".into());
            }
        }
        if shifted.is_some() {
            options.push(if self.recursive { "ridmap" } else { "idmap" }.into());
        }
        let mut source = self.source.clone();
        if self.kind == MountKind::Volume {
            let volume = engine.volume(self.name.as_deref().unwrap_or_default())?;
            let first = engine.authority()?.first_namespace;
            source = volumes::source(engine.store()?.runroot(), &volume, first)?;
        }
        let missing = |source: std::io::Error| Error::BindSource { path: self.source.clone(), source };
        let (path, held) = match &self.subpath {
            None => {
                std::fs::symlink_metadata(&source).map_err(missing)?;
                (source, None)
            }
            Some(subpath) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = rustix::fs::open(&source, flags, Mode::empty()).map_err(|e| missing(e.into()))?;
                // What containers write into a volume must not lead out of it.
                let found = Root::new(dir.as_fd()).locate(Path::new(subpath)).map_err(missing)?;
                (format!("/proc/self/fd/{}", found.as_raw_fd()).into(), Some(found))
            }
        };
        Ok(Ready { target: self.target.clone(), tree: Tree::Path(path), options, held })
    }

    fn image_tree(
        &self,
        engine: &Engine,
        image: &Digest,
        shifted: Option<&(IdMap, IdMap)>,
    ) -> Result<OwnedFd> {
        let image = engine.store()?.resolve(&image.to_string(), None)?;
        let layers = engine.layers_to_run(&image)?;
        let users =
            shifted.map(|(uids, gids)| onggi_runtime::rootless::user_namespace(uids, gids)).transpose()?;
        let snapshot = Snapshot::new(&layers, engine.authority()?.overlay_xattr);
        let root = snapshot.mount(users.as_ref().map(AsFd::as_fd))?;
        let Some(subpath) = &self.subpath else { return Ok(root) };
        let failed = |source| Error::BindSource { path: subpath.into(), source };
        let found = Root::new(root.as_fd()).locate(Path::new(subpath)).map_err(failed)?;
        onggi_sys::mount::clone_tree(found.as_fd(), c"", true).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_over_proc() {
        for (target, good) in [
            ("/proc", false),
            ("/proc/self", false),
            ("/proc/sys/kernel/core_pattern", false),
            ("/proc/cpuinfo", true),
            ("/process", true),
            ("/data", true),
        ] {
            assert_eq!(check_proc(Path::new(target), Path::new("/srv")).is_ok(), good, "{target}");
        }
        assert!(check_proc(Path::new("/proc"), Path::new("/proc")).is_ok());
    }
}
