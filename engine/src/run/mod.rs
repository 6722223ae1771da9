//! What a container is to be: the wishes, and how each becomes a part of the runtime's specification.
//!
//! | module | subject |
//! |---|---|
//! | [`request`] | all wishes, as they are kept with the container |
//! | [`spec`] | the specification, put together |
//! | [`process`], [`user`], [`hostname`], [`files`] | the program, who it runs as, names and name servers |
//! | [`namespaces`], [`ids`], [`idrange`], [`keep`] | what it shares with the host, whose IDs it has |
//! | [`shared`] | what it shares with other containers |
//! | [`security`], [`seccomp`], [`device`], [`cdi`] | what it may do |
//! | [`resources`], [`groups`] | how much it may use |
//! | [`mounts`], [`stubs`] | what it sees besides its image, and where |
//! | [`exec`] | a further process in it |
//!
//! When it is made, started, looked after and removed is [`crate::containers`]'s business.

pub(crate) mod cdi;
pub(crate) mod device;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod groups;
mod hostname;
pub(crate) mod idrange;
pub(crate) mod ids;
pub(crate) mod keep;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod process;
mod request;
mod resources;
pub mod seccomp;
pub(crate) mod security;
pub(crate) mod shared;
pub(crate) mod spec;
pub(crate) mod stubs;
pub(crate) mod user;

pub use cdi::Gpus;
pub use device::{Device, parse_rule as parse_device_rule};
pub use exec::ExecRequest;
pub use files::{Link, Resolver};
pub(crate) use hostname::hostname;
pub use keep::KeepId;
pub use mounts::{Mount, MountKind, MountPoint, Mounted, Source as MountSource, Tmpfs, VolumesFrom};
pub use namespaces::{Ipc, Namespaces, Sharing, UserNamespace};
pub use onggi_runtime::WindowSize;
pub use request::{HealthWish, Network, Notes, OnUnhealthy, PullPolicy, Restart, RunRequest, Streams};
pub use resources::{DEFAULT_PIDS, DeviceRate, Resources, Ulimit};
pub use security::{SeccompProfile, Security};
