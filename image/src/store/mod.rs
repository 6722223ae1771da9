//! The store: an OCI image layout with refs and unpacked layers beside it.
//!
//! ```text
//!   <root>/
//!     oci-layout, index.json          for other tools; index.json is derived from refs/
//!     blobs/sha256/<hex>              manifests, configs, layers as transferred
//!     refs/<registry>/<name>/:<tag>   digest, size, media type of a manifest or index
//!     layers/<diff id hex>/           layer.json and fs/ or layer.erofs
//!     ingest/<random>/                what is unfinished, and the lease of whoever makes it
//!     containers/ volumes/ networks/ cache/
//!   <runroot>/locks/                  one lock file for each blob that is being fetched now
//!   <runroot>/mounts/<diff id hex>/   layers that are files, mounted
//! ```
//!
//! The promise: any process may die at any instruction, and the next one finds a valid store.
//! Everything is written below `ingest/`, flushed, renamed to its place, and the directory is
//! flushed; a ref appears only when everything that it reaches is durable. `docs/store.md` tells
//! the whole story, with the locks.

mod blob;
mod check;
mod claim;
mod commit;
mod compress;
mod convert;
mod durable;
mod gc;
mod image;
mod index;
mod ingest;
mod layer;
mod lease;
mod lock;
mod mounts;
mod origin;
mod reach;
mod refs;
mod remake;
mod remove;
mod resolve;
mod shifted;
mod storage;
mod usage;
mod walk;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use onggi_oci::{DiffId, Digest};

use crate::error::{Error, Result};
use crate::layer::UnpackOptions;

pub use blob::{BlobWriter, MAX_DOCUMENT};
pub use check::{CheckOptions, CheckReport, Depth, Fault, Mend, Problem};
pub use claim::{Claim, Permit};
pub use commit::Pending;
pub use compress::{CompressedLayer, Recipe};
pub use convert::Converted;
pub use gc::{PruneOptions, Pruned};
pub use image::{Image, ImageLayer, ImageSummary, Images};
pub(crate) use index::REF_NAME;
pub use ingest::{LayerIngest, LayerSource};
pub use layer::{BlobForm, Format, Layer, LayerFile, LayerRecord};
pub use lease::Lease;
pub use lock::Hold;
pub(crate) use mounts::Mounting;
pub use refs::Ref;
pub use remake::Remade;
pub use remove::{ContainerUse, RemoveOptions, Removed};
pub use storage::{FileMount, NewLayers, Storage};
pub use usage::{Count, Usage, disk_usage};

/// The content of `oci-layout` (image-spec "oci-layout file").
const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}\n";
/// The directories of a store, in the order in which they are made.
const FOLDERS: [&str; 9] =
    ["blobs", "blobs/sha256", "refs", "layers", "ingest", "containers", "volumes", "networks", "cache"];

/// An open store. Clones share it; it holds no lock and no file open.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    runroot: PathBuf,
    options: UnpackOptions,
    storage: Storage,
    /// The lock of whoever uses mounted layers, once this process does.
    uses_mounts: OnceLock<fs::File>,
    /// Whether mounted layers stay when nobody uses them.
    keeps_mounts: OnceLock<bool>,
    /// Whether this process mounted a layer since it last looked how many there are.
    mounted: AtomicBool,
    committer: commit::Committer,
}

impl Store {
    /// Opens the store below `root`, and makes it if there is nothing yet.
    ///
    /// `runroot` holds what a reboot may lose; all processes that use one `root` must use the same
    /// `runroot`, else one blob may be fetched twice.
    ///
    /// # Errors
    /// `root` holds something that is no store, or cannot be made.
    pub fn open(root: &Path, runroot: &Path, options: UnpackOptions) -> Result<Self> {
        Self::open_with(root, runroot, options, Storage::Auto)
    }

    /// The same, with a choice of the format that new layers get.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(root: &Path, runroot: &Path, options: UnpackOptions, storage: Storage) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|e| Error::io("find the directory", root, e))?;
        let runroot =
            std::path::absolute(runroot).map_err(|e| Error::io("find the directory", runroot, e))?;
        let inner = Inner {
            root,
            runroot,
            options,
            storage,
            uses_mounts: OnceLock::new(),
            keeps_mounts: OnceLock::new(),
            mounted: AtomicBool::new(false),
            committer: commit::Committer::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        let layout = store.root().join("oci-layout");
        match fs::symlink_metadata(&layout) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => store.create(&layout)?,
            Err(e) => return Err(Error::io("look at", &layout, e)),
        }
        Ok(store)
    }

    /// Makes the directories. `oci-layout` comes last: where it is, everything else is.
    fn create(&self, layout: &Path) -> Result<()> {
        let root = self.root();
        durable::make_dir_all(root)?;
        let entries = fs::read_dir(root).map_err(|e| Error::io("read the directory", root, e))?;
        for entry in entries {
            let name = entry.map_err(|e| Error::io("read the directory", root, e))?.file_name();
            let ours = name.to_str().is_some_and(|n| {
                FOLDERS.contains(&n) || n == "oci-layout" || n == "index.json" || n == "lost+found"
            });
            if !ours {
                return Err(Error::NotAStore { path: root.to_owned(), found: name.to_string_lossy().into() });
            }
        }
        self.forget_mounts();
        for folder in FOLDERS {
            durable::make_dir(&root.join(folder))?;
        }
        let hold = self.hold()?;
        self.refresh_index(&hold, &self.lock_refs()?)?;
        durable::replace(&hold, &self.ingest_dir(), layout, OCI_LAYOUT)
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The directory for what a reboot may lose.
    pub fn runroot(&self) -> &Path {
        &self.inner.runroot
    }

    /// How layers are made ready.
    pub fn options(&self) -> &UnpackOptions {
        &self.inner.options
    }

    /// The directory of all containers; each is a root of the garbage collection.
    pub fn containers_dir(&self) -> PathBuf {
        self.root().join("containers")
    }

    fn ingest_dir(&self) -> PathBuf {
        self.root().join("ingest")
    }

    fn refs_dir(&self) -> PathBuf {
        self.root().join("refs")
    }

    fn layers_dir(&self) -> PathBuf {
        self.root().join("layers")
    }

    /// Where the blob with this digest is or will be.
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.root().join("blobs");
        path.push(digest.algorithm().name());
        path.push(digest.hex());
        path
    }

    /// Where the layer with this diff ID is or will be.
    fn layer_dir(&self, diff_id: &DiffId) -> PathBuf {
        self.layers_dir().join(diff_id.0.hex())
    }
}
