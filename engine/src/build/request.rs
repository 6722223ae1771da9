//! What is to be built, and how: everything that a caller can wish for.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;

use onggi_build::graph::{Network, Ulimit};
use onggi_build::solve::ShellState;
use onggi_oci::{Platform, Reference};
use onggi_runtime::WindowSize;

use super::attest::Attestations;
use super::lock::LockMode;
use super::share::{CacheFrom, CacheTo};

/// The build file.
#[derive(Clone, Debug, Default)]
pub enum BuildFile {
    /// `Dockerfile` or `Containerfile` of the context.
    #[default]
    Default,
    /// A path of the caller's, else of the context; or a URL.
    Named(String),
    /// This text, by this name.
    Text(String, String),
}

/// A secret: what it is called, and where it is.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Its name in the build file.
    pub id: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// What becomes of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An image in the store, by these names or, if there are none, by its tags.
    Image(Vec<Reference>),
    /// That, and in its registry.
    Registry(Vec<Reference>),
    /// An archive for `docker load`; on standard output if there is no path.
    Docker(Option<PathBuf>),
    /// An OCI layout as an archive, or as a directory.
    Oci {
        /// Where; standard output if `None`.
        path: Option<PathBuf>,
        /// Whether it is an archive.
        tar: bool,
    },
    /// The files of the result, in a directory.
    Local(PathBuf),
    /// The files of the result, as an archive.
    Tar(Option<PathBuf>),
}

/// What is to be built, and how.
#[derive(Debug, Default)]
pub struct BuildRequest {
    /// A directory, `-`, an archive, a URL or a repository.
    pub context: String,
    /// What `-` reads.
    pub input: Option<File>,
    /// The build file.
    pub file: BuildFile,
    /// The stage; the last if `None`.
    pub target: Option<String>,
    /// `--build-arg`; of a name without value, the caller's own.
    pub build_args: BTreeMap<String, String>,
    /// `--build-context`
    pub contexts: BTreeMap<String, String>,
    /// `--secret`
    pub secrets: Vec<Secret>,
    /// `--ssh`: sockets by name.
    pub ssh: BTreeMap<String, PathBuf>,
    /// `--platform`; the machine's own if there is none.
    pub platforms: Vec<Platform>,
    /// `--no-cache`
    pub no_cache: bool,
    /// `--no-cache-filter`
    pub no_cache_filter: Vec<String>,
    /// `--pull`
    pub pull: bool,
    /// `--tag`
    pub tags: Vec<Reference>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// `--annotation`
    pub annotations: BTreeMap<String, String>,
    /// `--network`
    pub network: Network,
    /// `--network NAME`: what programs have that want the default; the host's default if `None`.
    pub network_name: Option<String>,
    /// `--add-host`
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// `--shm-size`, in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`
    pub ulimits: Vec<Ulimit>,
    /// `--allow network.host`
    pub allow_host_network: bool,
    /// `--allow security.insecure`
    pub allow_insecure: bool,
    /// `--allow device=NAME`: names of devices or of classes; an empty one stands for all.
    pub allow_devices: Vec<String>,
    /// Where descriptions of devices are (CDI).
    pub cdi_dirs: Vec<PathBuf>,
    /// `--jobs`; the number of processors if `None`.
    pub jobs: Option<usize>,
    /// `--timestamp` or `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
    /// `--explain`
    pub explain: bool,
    /// `--sbom`, `--provenance`, `--attest`
    pub attestations: Attestations,
    /// The most bytes that the build cache may have; a part of the disk if `None`.
    pub cache_limit: Option<u64>,
    /// `--lock`
    pub lock: Option<LockMode>,
    /// `--debug-shell`
    pub shell: Option<Shell>,
    /// `--cache-from`
    pub cache_from: Vec<CacheFrom>,
    /// `--cache-to`
    pub cache_to: Vec<CacheTo>,
    /// `--output`
    pub outputs: Vec<Output>,
}

/// A shell in the place of a program that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shell {
    /// What it finds.
    pub state: ShellState,
    /// The size of the terminal that it gets; without, it has the caller's streams as they are.
    pub terminal: Option<WindowSize>,
}
