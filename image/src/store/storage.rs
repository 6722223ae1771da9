//! Which format new layers get, and how a layer's file is mounted here: found out once a boot.
//!
//! ```text
//!   <runroot>/storage.json    {"device":65024,"way":"file"}      what the probe found
//! ```
//!
//! The probe mounts a file of three entries from where layers lie, and an overlay on top of it: not
//! every filesystem can carry one (tmpfs only by a loop device), and kernels bound how many lie on each other.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use onggi_sys::loop_device::LoopDevice;
use onggi_sys::mount::{Attributes, make};
use onggi_sys::overlay::Overlay;
use serde::{Deserialize, Serialize};

use super::layer::Format;
use super::{Store, durable};
use crate::erofs;
use crate::error::{Error, Result};
use crate::layer::{Limits, OverlayXattr};
use crate::snapshot::is_unknown_way;

/// What the probe found, below the runroot.
const RECORD: &str = "storage.json";
/// The most that is read of it.
const MAX_RECORD: u64 = 4096;

/// Why an ordinary user gets directories.
const NOT_ROOT: &str = "only root of the first user namespace may mount files";

/// Which format layers get that are made from now on. Layers that are here stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// One file where this machine can mount it, else a directory.
    #[default]
    Auto,
    /// A directory.
    Dir,
    /// One file, or an error that says why not.
    Erofs,
}

impl std::str::FromStr for Storage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "dir" => Ok(Self::Dir),
            "erofs" => Ok(Self::Erofs),
            other => Err(format!("{other:?} is no format of layers; there are auto, dir and erofs")),
        }
    }
}

/// How a layer's file is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileMount {
    /// From the file itself (Linux 6.12).
    File,
    /// Through a loop device.
    Loop,
}

/// What new layers become here, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLayers {
    /// Their format.
    pub format: Format,
    /// Why it is a directory although a file was preferred; how a file is mounted.
    pub because: String,
}

/// The content of `storage.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Probed {
    /// The device of the filesystem that was probed.
    device: u64,
    /// How files are mounted.
    way: Option<FileMount>,
    /// Why they are not.
    #[serde(default)]
    because: String,
}

impl Store {
    /// What new layers become. The first call since the machine started tries it out.
    ///
    /// # Errors
    /// [`Storage::Erofs`] was asked for, and this machine can't.
    pub fn new_layers(&self) -> Result<NewLayers> {
        let dir = |because: &str| NewLayers { format: Format::Dir, because: because.to_owned() };
        let wanted = self.inner.storage;
        if wanted == Storage::Dir {
            return Ok(dir("it was asked for"));
        }
        let found = if self.options().overlay_xattr == OverlayXattr::User {
            dir(NOT_ROOT)
        } else {
            let probed = self.probed()?;
            match probed.way {
                Some(FileMount::File) => {
                    NewLayers { format: Format::Erofs, because: "mounted from the file".into() }
                }
                Some(FileMount::Loop) => {
                    NewLayers { format: Format::Erofs, because: "mounted by loop devices".into() }
                }
                None => dir(&probed.because),
            }
        };
        if wanted == Storage::Erofs && found.format != Format::Erofs {
            return Err(Error::NoFileLayers { because: found.because });
        }
        Ok(found)
    }

    /// Fails where layers can't be files.
    pub(super) fn require_file_mounts(&self) -> Result<()> {
        if self.options().overlay_xattr == OverlayXattr::User {
            return Err(Error::NoFileLayers { because: NOT_ROOT.into() });
        }
        let probed = self.probed()?;
        probed.way.map_or(Err(Error::NoFileLayers { because: probed.because }), |_| Ok(()))
    }

    /// What an earlier probe found, else what one finds now.
    fn probed(&self) -> Result<Probed> {
        let layers = self.layers_dir();
        let device = layers.metadata().map_err(|e| Error::io("look at", &layers, e))?.dev();
        let path = self.runroot().join(RECORD);
        let known = durable::read_small(&path, MAX_RECORD)?;
        let known = known.and_then(|bytes| serde_json::from_slice::<Probed>(&bytes).ok());
        if let Some(known) = known.filter(|known| known.device == device) {
            return Ok(known);
        }
        let probed = match self.probe()? {
            Ok(way) => Probed { device, way: Some(way), because: String::new() },
            Err(because) => Probed { device, way: None, because },
        };
        durable::make_dir_all(self.runroot())?;
        let bytes = serde_json::to_vec(&probed).expect("plain values always serialise");
        durable::replace_volatile(&self.hold()?, self.runroot(), &path, &bytes)?;
        Ok(probed)
    }

    /// Tries both ways. `Err` in it: why none serves.
    fn probe(&self) -> Result<Result<FileMount, String>> {
        let lease = self.lease("try the formats of layers")?;
        let path = lease.scratch("probe")?;
        erofs::write(io::empty(), durable::create_new(&path)?, || *b"onggi's own test", &Limits::default())?;
        let mut because = String::new();
        for way in [FileMount::File, FileMount::Loop] {
            match mount_file(&path, way).and_then(|mount| overlay_on(&mount)) {
                Ok(()) => return Ok(Ok(way)),
                Err(error) if because.is_empty() => because = format!("this machine can't: {error}"),
                Err(error) => because += &format!("; by a loop device: {error}"),
            }
        }
        Ok(Err(because))
    }

    /// Mounts a layer's file, detached.
    pub(super) fn mount_layer_file(&self, file: &Path) -> Result<OwnedFd> {
        let probed = self.probed()?;
        let Some(way) = probed.way else { return Err(Error::NoFileLayers { because: probed.because }) };
        mount_file(file, way).map_err(|e| Error::io("mount the layer's file", file, e))
    }
}

/// Layers are read by root of the host alone, and overlays decide anew what of a layer counts.
const ATTRIBUTES: Attributes = Attributes::READ_ONLY.with(Attributes::NO_SUID).with(Attributes::NO_DEV);

fn mount_file(file: &Path, way: FileMount) -> io::Result<OwnedFd> {
    let mount = |source: &Path| {
        let source = source.to_str().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // A read-only device is opened only by who says so.
        make("erofs", &[("source", Some(source)), ("ro", None)], ATTRIBUTES)
    };
    match way {
        FileMount::File => mount(file),
        FileMount::Loop => {
            let device = LoopDevice::attach(File::open(file)?.as_fd())?;
            mount(device.path())
        }
    }
}

fn overlay_on(mount: &OwnedFd) -> io::Result<()> {
    let empty = make("tmpfs", &[("mode", Some("0755"))], Attributes::READ_ONLY)?;
    let lowers = [mount.as_fd(), empty.as_fd()];
    let overlay = Overlay { lowers: &lowers, upper: None, parameters: &[], owner: None };
    let mounted = match overlay.mount(Attributes::READ_ONLY) {
        Err(e) if is_unknown_way(&e) => {
            Overlay::mount_in_namespace(&lowers, None, &[], None, Attributes::READ_ONLY)
        }
        other => other,
    };
    mounted.map(drop).map_err(|e| e.source)
}
