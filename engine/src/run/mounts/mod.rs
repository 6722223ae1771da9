//! What a container sees besides its image: host paths, volumes, other images, directories in memory.
//!
//! ```text
//!   -v         [SOURCE:]TARGET[:OPTION,…]                               short
//!   --mount    type=bind|volume|tmpfs|image,source=…,target=…[,…]       long
//!   --tmpfs    TARGET[:OPTION,…]                                        tmpfs
//!       │
//!       ▼  when the container is made: volumes get names and exist, --volumes-from is looked up   points
//!   MountPoint, kept with the container
//!       │
//!       ▼  each time it starts                                          spec
//!   mounts of the specification
//! ```

mod long;
mod points;
mod short;
mod tmpfs;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use points::{MountKind, MountPoint};
pub use tmpfs::Tmpfs;

pub(crate) use points::{Ready, Tree, chown, release, resolve, restore};

/// One mount, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Absolute path in the container.
    pub target: String,
    /// What is there.
    pub source: Source,
    /// Whether the container can't write.
    pub read_only: bool,
    /// Options of the mount besides, each from the allow-list (CVE-2024-9407).
    pub options: Vec<String>,
    /// Whether what is mounted gets the owner that the container's program has.
    pub chown: bool,
    /// The words of a `-v`, with an absolute source; `None` for a `--mount`.
    pub short: Option<String>,
}

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A path of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// Whether mounts below the source come along.
        recursive: bool,
        /// Whether the directory is made if it is missing, as `-v` has it.
        create: bool,
    },
    /// A volume.
    Volume {
        /// `None` for an anonymous one.
        name: Option<String>,
        /// Whether a new volume gets what the image has at the target.
        copy: bool,
        /// A directory below the volume's.
        subpath: Option<String>,
        /// What a volume that does not exist yet is made with.
        labels: BTreeMap<String, String>,
        /// Options of the driver, likewise.
        driver_options: BTreeMap<String, String>,
    },
    /// The tree of an image.
    Image {
        /// Its name or ID.
        image: String,
        /// A directory below its root.
        subpath: Option<String>,
    },
}

/// What one `--mount` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// A path, volume or image.
    Mounted(Mounted),
    /// A directory in memory.
    Tmpfs(Tmpfs),
}

/// One `--volumes-from`: the mounts of another container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// Its name or ID.
    pub container: String,
    /// Another mode than there.
    pub read_only: Option<bool>,
}

impl std::str::FromStr for VolumesFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (container, mode) = text.split_once(':').unwrap_or((text, ""));
        let read_only = match mode {
            "" => None,
            "ro" => Some(true),
            "rw" => Some(false),
            // Labels have no effect where the host has none.
            "z" | "Z" => None,
            other => return Err(format!("invalid mode {other:?} (ro and rw are known)")),
        };
        if container.is_empty() {
            return Err(format!("invalid volumes-from: {text:?} names no container"));
        }
        Ok(Self { container: container.into(), read_only })
    }
}

impl std::fmt::Display for VolumesFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.container)?;
        match self.read_only {
            None => Ok(()),
            Some(true) => f.write_str(":ro"),
            Some(false) => f.write_str(":rw"),
        }
    }
}

/// A mount point must be a path below the container's root.
fn check_target(target: &str) -> Result<(), &'static str> {
    if !target.starts_with('/') {
        return Err("the path in the container must be absolute");
    }
    if Path::new(target).components().all(|c| !matches!(c, Component::Normal(_))) {
        return Err("the container's root cannot be a mount target");
    }
    Ok(())
}

/// The same place in one spelling, for comparing targets.
fn clean(target: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}
