//! Images as archives: what `docker save`, `podman save` and `skopeo copy` write and read.
//!
//! ```text
//!   oci-archive                      docker-archive, as we write it: the same, and
//!     oci-layout                       manifest.json   [{"Config":…,"RepoTags":[…],"Layers":[…]}]
//!     index.json                       repositories
//!     blobs/sha256/<hex>
//!
//!   docker-archive of other tools
//!     manifest.json, <config>.json, <id>/layer.tar (or a symlink to another one), <id>/json, …
//! ```
//!
//! What we write has the exact blobs of the image, so digests survive, and it is the same bytes each
//! time. What we read may come from a pipe: every file goes into the store's ingest directory under
//! no name of its own, and the archive's names (with links and duplicates) exist in memory only.

mod layout;
mod load;
mod member;
mod save;

use std::collections::BTreeMap;

use onggi_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

pub use load::Loaded;
pub use save::SaveItem;

/// How an archive is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout that `docker load` of every age reads too.
    Docker,
    /// An OCI layout and nothing else.
    Oci,
}

/// Full names, as containerd and Docker write them into an OCI layout.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The most images in one archive.
const MAX_IMAGES: usize = 4096;

/// One image in `manifest.json` of a docker-archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The content of `repositories`: name, tag, ID.
type Repositories = BTreeMap<String, BTreeMap<String, String>>;

/// Name and ID of something loaded or saved.
fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A name with the tag that it implies.
fn tagged(name: &Reference) -> Reference {
    name.clone().with_default_tag()
}
