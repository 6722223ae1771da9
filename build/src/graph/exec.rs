//! Running a program: `RUN`.

use std::net::IpAddr;

use super::VertexId;

/// A program that makes a layer over `root`.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// The root filesystem; `None` is an empty one.
    pub root: Option<VertexId>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`, all of it.
    pub env: Vec<String>,
    /// Names in `env` whose values change nothing about the result and are not in the key
    /// (the predefined proxy arguments).
    pub unkeyed_env: Vec<String>,
    /// Where it starts, absolute.
    pub cwd: String,
    /// `user[:group]`, names or numbers; root if empty.
    pub user: String,
    /// Bytes on its standard input; none if `None`.
    pub stdin: Option<Vec<u8>>,
    /// What else it sees, in the order written.
    pub mounts: Vec<Mount>,
    /// What it reaches.
    pub network: Network,
    /// What it may do.
    pub security: Security,
    /// Names of other machines (`--add-host`).
    pub extra_hosts: Vec<ExtraHost>,
    /// Its host name, if it is to have a certain one.
    pub hostname: Option<String>,
    /// The size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Devices (`--device`).
    pub devices: Vec<Device>,
}

/// Something mounted for the time of one program. None of it gets into the layer.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where, absolute; not used by a secret that is only a variable.
    pub target: String,
    /// What.
    pub kind: MountKind,
}

impl Mount {
    /// The vertex that it shows.
    pub fn input(&self) -> Option<VertexId> {
        match &self.kind {
            MountKind::Bind { from, .. } => *from,
            MountKind::Cache(cache) => cache.from,
            MountKind::Tmpfs(_) | MountKind::Secret(_) | MountKind::Ssh(_) => None,
        }
    }
}

/// What is mounted.
#[derive(Clone, Debug)]
pub enum MountKind {
    /// Part of another filesystem.
    Bind {
        /// Which one; `None` is an empty one.
        from: Option<VertexId>,
        /// The path there.
        source: String,
        /// Whether it can be written; what was written is thrown away.
        writable: bool,
    },
    /// A directory that later builds see again.
    Cache(CacheMount),
    /// A directory in memory.
    Tmpfs(TmpfsMount),
    /// A secret of the caller's.
    Secret(SecretMount),
    /// The caller's ssh agent.
    Ssh(SshMount),
}

/// A directory that later builds see again.
#[derive(Clone, Debug, Default)]
pub struct CacheMount {
    /// Which one; the front end puts the target if none was named.
    pub id: String,
    /// What several users of it at once do.
    pub sharing: Sharing,
    /// What a new one begins with.
    pub from: Option<VertexId>,
    /// The path in `from`.
    pub source: String,
    /// Permissions of a new one; 0755 if `None`.
    pub mode: Option<u32>,
    /// Owner of a new one.
    pub uid: u32,
    /// Group of a new one.
    pub gid: u32,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// What several users of a cache at once do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// All have the same.
    #[default]
    Shared,
    /// A second one gets another.
    Private,
    /// A second one waits.
    Locked,
}

/// A directory in memory.
#[derive(Clone, Debug, Default)]
pub struct TmpfsMount {
    /// Its limit in bytes.
    pub size: Option<u64>,
}

/// A secret of the caller's.
#[derive(Clone, Debug, Default)]
pub struct SecretMount {
    /// Which one.
    pub id: String,
    /// How the program sees it.
    pub target: SecretTarget,
    /// Whether it is an error if the caller has none.
    pub required: bool,
    /// Permissions of the file; 0400 if `None`.
    pub mode: Option<u32>,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// How a program sees a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecretTarget {
    /// As a file at the mount's target.
    #[default]
    File,
    /// As this variable.
    Env(String),
    /// As both.
    FileAndEnv(String),
}

/// The caller's ssh agent.
#[derive(Clone, Debug, Default)]
pub struct SshMount {
    /// Which one; `default` if none was named.
    pub id: String,
    /// Whether it is an error if the caller has none.
    pub required: bool,
    /// Permissions of the socket; 0600 if `None`.
    pub mode: Option<u32>,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What a program reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// What the build has by default.
    #[default]
    Default,
    /// Nothing but itself.
    None,
    /// The host's network; needs the entitlement `network.host`.
    Host,
}

/// What a program may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// As any container.
    #[default]
    Sandbox,
    /// As a privileged one; needs the entitlement `security.insecure`.
    Insecure,
}

/// A name of another machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

/// A limit of processes, as `--ulimit` has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ulimit {
    /// `nofile` and so on.
    pub name: String,
    /// What counts; -1 is no limit.
    pub soft: i64,
    /// How far it can be raised; -1 is no limit.
    pub hard: i64,
}

/// A device (`--device`), by its CDI name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// `vendor/class=name`
    pub name: String,
    /// Whether the step runs without it where it is missing.
    pub optional: bool,
}
