//! What the solver asks of its caller, who knows registries, containers and the user.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use onggi_image::store::{Layer, LayerRecord};
use onggi_oci::{Descriptor, DiffId, Digest, Platform};

use crate::cache::shared::SharedStep;
use crate::error::Result;
use crate::graph::{Exec, Git, Http, ImageSource, VertexId};

/// A layer of a stack, ready to be mounted.
#[derive(Clone, Debug)]
pub struct StackLayer {
    /// How a manifest lists it.
    pub blob: Descriptor,
    /// Where it is, and what is known of it.
    pub layer: Layer,
    /// When the step that made it ran, in seconds since 1970; `None` for a layer of a base image.
    pub created: Option<i64>,
}

impl StackLayer {
    /// Its digest.
    pub fn diff_id(&self) -> &DiffId {
        &self.layer.record.diff_id
    }

    /// What is known of it.
    pub fn record(&self) -> &LayerRecord {
        &self.layer.record
    }
}

/// Something that a program sees for the time of its run.
#[derive(Debug)]
pub struct ReadyMount {
    /// Where, absolute, in the container.
    pub target: PathBuf,
    /// Whether it is a directory.
    pub directory: bool,
    /// What.
    pub kind: ReadyKind,
}

/// What is mounted.
#[derive(Debug)]
pub enum ReadyKind {
    /// A directory or file of the host.
    Directory {
        /// The directory that the path cannot leave.
        root: PathBuf,
        /// Below it; symbolic links stay inside.
        path: PathBuf,
        /// Whether it can be written.
        writable: bool,
    },
    /// A directory or file of a stack of layers.
    Stack {
        /// The layers, lowest first.
        layers: Vec<Layer>,
        /// Below its root; symbolic links stay inside.
        path: PathBuf,
        /// A directory for what is written; `None` if nothing can be.
        scratch: Option<PathBuf>,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Its limit in bytes.
        size: Option<u64>,
    },
    /// A file in memory.
    File {
        /// Its content.
        content: Vec<u8>,
        /// Its permissions.
        mode: u32,
        /// Its owner in the container.
        uid: u32,
        /// Its group in the container.
        gid: u32,
    },
    /// A socket that leads to this one of the host.
    Socket {
        /// On the host.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner in the container.
        uid: u32,
        /// Its group in the container.
        gid: u32,
    },
}

/// One program to run.
#[derive(Debug)]
pub struct RunStep<'a> {
    /// Which step it is.
    pub vertex: VertexId,
    /// What the build file says of it. Its mounts are in `mounts`; variables of secrets in `secrets`.
    pub exec: &'a Exec,
    /// The platform of its root.
    pub platform: &'a Platform,
    /// The root's layers, lowest first.
    pub layers: &'a [Layer],
    /// A directory for `upper/` (which may be there) and `work/`. What the program changes is to be in
    /// `upper/`, and nothing else.
    pub dir: &'a Path,
    /// What else it sees, by target.
    pub mounts: Vec<ReadyMount>,
    /// `NAME=value` of secrets.
    pub secrets: Vec<String>,
    /// Where its output goes.
    pub log: BorrowedFd<'a>,
    /// Whether it has the caller's own streams in place of the log, and a terminal if they are one.
    pub interactive: bool,
}

/// What a program that failed began with.
#[derive(Debug)]
pub struct FailedState<'a> {
    /// What the build file says of the program.
    pub exec: &'a Exec,
    /// Those of its variables that an image of the build has too. Build arguments are not among them.
    pub env: Vec<String>,
    /// The platform of its root.
    pub platform: &'a Platform,
    /// The root's layers, lowest first.
    pub layers: Vec<StackLayer>,
}

/// The caller.
pub trait Host {
    /// The layers of an image, all of them ready, lowest first.
    fn image_layers(&self, image: &ImageSource, platform: &Platform) -> Result<Vec<StackLayer>>;

    /// Makes ready the network of a program that is to have the default one; called by the solver, and
    /// [`disconnect`](Self::disconnect) once the program has ended.
    fn connect(&self, _step: VertexId) -> Result<()> {
        Ok(())
    }

    /// The program of this step has ended, with all that it started.
    fn disconnect(&self, _step: VertexId) {}

    /// Runs a program and waits for it; called in a process of its own with one thread. Returns the
    /// exit code as shells count.
    fn run(&self, step: RunStep<'_>) -> Result<i32>;

    /// A program failed: what it began with, all of it durable. Whoever keeps it can look at it later.
    fn keep_state(&self, _state: FailedState<'_>) {}

    /// Fetches a file; called in a process of its own. It lies at `into` afterwards.
    fn fetch(&self, http: &Http, into: &Path) -> Result<Fetched>;

    /// Fetches a repository; called in a process of its own. It lies below `into` afterwards. Gives the
    /// commit.
    fn checkout(&self, git: &Git, into: &Path) -> Result<String>;

    /// A secret of the user's.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>>;

    /// The user's ssh agent.
    fn ssh_agent(&self, id: &str) -> Result<Option<PathBuf>>;

    /// What another machine made of a step with this key, and whether its layer can be had.
    fn shared_step(&self, _key: &Digest) -> Option<(SharedStep, bool)> {
        None
    }

    /// What another machine remembers by this key: see [`crate::cache::shared`].
    fn shared_content(&self, _key: &Digest) -> Option<Digest> {
        None
    }

    /// Brings layers of other machines' steps into the store, all of them verified.
    fn fetch_shared(&self, _steps: &[SharedStep]) -> Result<()> {
        Ok(())
    }

    /// Name servers and hosts that programs get beside the host's.
    fn extra_hosts(&self) -> Vec<(String, IpAddr)> {
        Vec::new()
    }
}

/// A file that was fetched.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// When it was last changed, as the server says.
    pub modified: Option<i64>,
    /// The digest of its bytes.
    pub digest: Option<Digest>,
}
