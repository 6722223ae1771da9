//! What to run, and how: everything that a caller can wish for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use onggi_oci::Platform;
use onggi_runtime::WindowSize;
use serde::{Deserialize, Serialize};

use super::cdi::Gpus;
use super::device::Device;
use super::files::Resolver;
use super::mounts::{Mounted, Tmpfs, VolumesFrom};
use super::namespaces::Namespaces;
use super::resources::Resources;
use super::security::Security;
use crate::logs::LogConfig;
use crate::network::{Attachment, Publishing};

/// What network a container has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Its own, with nothing but loopback.
    #[default]
    None,
    /// The host's.
    Host,
    /// That of another container, by name or ID.
    Container(String),
    /// Its own, with whatever reaches the outside here: the default bridge of root, the caller's own
    /// connections of an ordinary user.
    Default,
    /// Its own, with these networks.
    Joined(Vec<Attachment>),
}

impl Network {
    /// Whether the container has a network namespace of its own.
    pub fn is_own(&self) -> bool {
        !matches!(self, Self::Host | Self::Container(_))
    }
}

/// When the image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Before every run.
    Always,
    /// If it is not in the store.
    #[default]
    Missing,
    /// Never; a missing image is an error.
    Never,
}

/// Which of its caller's streams the program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What is kept with a container and steers nothing at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// If its exit status is not 0, at most so often; `None` without end.
    OnFailure(Option<u32>),
    /// Always, also at the start of the host.
    Always,
    /// Always, but not after somebody stopped it.
    UnlessStopped,
}

/// What happens to a container that became unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnhealthy {
    /// It is marked, no more.
    #[default]
    None,
    /// It is killed; its restart policy goes on from there.
    Kill,
    /// It is stopped and started again.
    Restart,
    /// It is stopped for good.
    Stop,
}

/// How to find out whether a container is well; `None` leaves it to the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthWish {
    /// No check at all, also if the image has one.
    pub disabled: bool,
    /// A command for the container's shell: 0 is healthy.
    pub command: Option<String>,
    /// Between two probes.
    pub interval: Option<Duration>,
    /// A probe that takes longer has failed.
    pub timeout: Option<Duration>,
    /// So many failures in a row make it unhealthy.
    pub retries: Option<u32>,
    /// Failures in this time after the start do not count.
    pub start_period: Option<Duration>,
    /// Between two probes in that time.
    pub start_interval: Option<Duration>,
    /// What follows.
    pub on_unhealthy: OnUnhealthy,
}

/// What to run, and how. All of it is kept with the container, for each time that it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// The caller's streams that the program is attached to.
    pub streams: Streams,
    /// Whether its standard input stays open when nobody is attached.
    pub interactive: bool,
    /// The container's name; one is made up if `None`.
    pub name: Option<String>,
    /// A file that gets the container's ID; it must not exist.
    pub id_file: Option<PathBuf>,
    /// The network.
    pub network: Network,
    /// Ports to be reached from outside.
    pub publishing: Publishing,
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
    /// Devices by the names that their descriptions give them (CDI).
    pub named_devices: Vec<String>,
    /// GPUs, which have such names too.
    pub gpus: Vec<Gpus>,
    /// Where these descriptions are.
    pub cdi_dirs: Vec<PathBuf>,
    /// Kernel settings of its namespaces.
    pub sysctls: Vec<(String, String)>,
    /// How much it may use.
    pub resources: Resources,
    /// What it may do.
    pub security: Security,
    /// When it is started again.
    pub restart: Restart,
    /// How to find out whether it is well.
    pub health: HealthWish,
    /// Where its output is kept.
    pub log: LogConfig,
    /// What is kept with it.
    pub notes: Notes,
    /// The working directory in place of the image's.
    pub workdir: Option<String>,
}
