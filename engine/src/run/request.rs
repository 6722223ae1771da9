//! What to run, and how: everything that a caller can wish for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use onggi_oci::Platform;
use onggi_runtime::WindowSize;

use super::device::Device;
use super::files::Resolver;
use super::mounts::{Mounted, Tmpfs, VolumesFrom};
use super::namespaces::Namespaces;
use super::resources::Resources;
use super::security::Security;

/// What network a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Its own, with nothing but loopback.
    #[default]
    None,
    /// The host's.
    Host,
}

/// When the image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before every run.
    Always,
    /// If it is not in the store.
    #[default]
    Missing,
    /// Never; a missing image is an error.
    Never,
}

/// Which of the caller's streams the program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub input: bool,
    /// Standard output.
    pub output: bool,
    /// Standard error.
    pub error: bool,
}

impl Default for Streams {
    /// Output and error.
    fn default() -> Self {
        Self { input: false, output: true, error: true }
    }
}

/// What is kept with a container and steers nothing now.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// For filters and whoever reads `inspect`.
    pub labels: BTreeMap<String, String>,
    /// For the runtime.
    pub annotations: BTreeMap<String, String>,
    /// The signal that asks it to end.
    pub stop_signal: Option<String>,
    /// Seconds that it has for that; negative for no end.
    pub stop_timeout: Option<i64>,
}

/// What to run, and how.
#[derive(Clone, Debug, Default)]
pub struct RunRequest {
    /// A name or an ID.
    pub image: String,
    /// The command in place of the image's.
    pub command: Vec<String>,
    /// The entrypoint in place of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// More groups, by name or number.
    pub group_add: Vec<String>,
    /// The host name; the short ID if `None`.
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// Whether process 1 is an init.
    pub init: bool,
    /// The caller's streams that the program gets.
    pub streams: Streams,
    /// Whether signals that reach the caller go on to the program.
    pub forward_signals: bool,
    /// The container's name.
    pub name: Option<String>,
    /// A file that gets the container's ID; it must not exist.
    pub id_file: Option<PathBuf>,
    /// The network.
    pub network: Network,
    /// Names and name servers.
    pub resolver: Resolver,
    /// The platform to take of an image that has several.
    pub platform: Option<Platform>,
    /// When to fetch the image.
    pub pull: PullPolicy,
    /// Whether the root filesystem cannot be written.
    pub read_only: bool,
    /// Whether the container goes when its program ends.
    pub remove: bool,
    /// Whether the program has a terminal; its size.
    pub terminal: Option<WindowSize>,
    /// `user[:group]` in place of the image's.
    pub user: Option<String>,
    /// Which namespaces are its own.
    pub namespaces: Namespaces,
    /// Host paths, volumes and images that it sees.
    pub mounts: Vec<Mounted>,
    /// Containers whose mounts it sees too.
    pub volumes_from: Vec<VolumesFrom>,
    /// Directories of its own in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Host devices that it gets.
    pub devices: Vec<Device>,
    /// Kernel settings of its namespaces.
    pub sysctls: Vec<(String, String)>,
    /// How much it may use.
    pub resources: Resources,
    /// What it may do.
    pub security: Security,
    /// What is kept with it.
    pub notes: Notes,
    /// The working directory in place of the image's.
    pub workdir: Option<String>,
}
