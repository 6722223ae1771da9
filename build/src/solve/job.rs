//! What a worker does: one step, and its layer.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use onggi_image::layer::{OverlayXattr, PackOptions, Packed, Source as PackSource, pack};
use onggi_image::snapshot::Snapshot;
use onggi_image::store::{Format, Layer, LayerFile, Store};
use onggi_oci::{Algorithm, Digest, Hasher};
use rustix::fs::{AtFlags, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use super::facts::{CONTEXT_OWNER, Opened};
use super::mounts::{self, MountSource};
use super::{Outcome, Solver, stubs};
use crate::copy::perform;
use crate::copy::select::Matcher;
use crate::error::{Error, Result};
use crate::graph::{Exec, File, FileAction, Git, Http, Network, Op, Security, Vertex, VertexId};
use crate::host::{Host, RunStep};
use crate::tree::{Tree, is_dir, list, open_below};

/// The directory that a step changes.
pub(super) const UPPER: &str = "upper";
/// The same as one file.
pub(super) const FILE: &str = "layer.erofs";
/// A layer of fewer files is a directory: making these costs less than the mount of a file, for the next step
/// and for every container.
const WORTH_A_FILE: u64 = 64;

/// What a worker made, as it tells it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Made {
    /// A layer in `upper/`.
    Layer(Layered),
    /// A directory in `tree/`, from this digest or commit.
    Directory(String),
}

/// What is known of a layer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Layered {
    /// `None`: it is the directory `upper/`; else this is `layer.erofs`.
    pub(super) file: Option<LayerFile>,
    pub(super) diff_id: Digest,
    /// Of the archive.
    pub(super) size: u64,
    pub(super) entries: u64,
    /// Of the files.
    pub(super) bytes: u64,
    pub(super) max_id: u32,
}

impl Layered {
    fn new(diff_id: Digest, packed: &Packed, file: Option<LayerFile>) -> Self {
        Self {
            file,
            diff_id,
            size: packed.bytes,
            entries: packed.entries,
            bytes: packed.file_bytes,
            max_id: packed.max_id,
        }
    }
}

/// A step with all that it needs.
pub(super) struct Job<'a> {
    id: VertexId,
    vertex: &'a Vertex,
    pub(super) dir: PathBuf,
    layers: Vec<Layer>,
    sources: BTreeMap<VertexId, MountSource>,
    store: &'a Store,
    xattr: OverlayXattr,
    epoch: Option<i64>,
    cache_mounts: PathBuf,
    allow_host_network: bool,
    allow_insecure: bool,
    allow_devices: &'a [String],
}

impl<'a> Solver<'a> {
    /// Gathers what a step needs.
    pub(super) fn job(&self, id: VertexId) -> Result<Job<'a>> {
        let vertex = self.graph.vertex(id);
        let base = match &vertex.op {
            Op::Exec(exec) => exec.root,
            Op::File(file) => file.base,
            _ => None,
        };
        let layers = self.stack(base)?.iter().map(|one| one.layer.clone()).collect();
        let mut sources = BTreeMap::new();
        for input in vertex.op.inputs() {
            let source = match self.outcome(input)? {
                Outcome::Stack(stack) => {
                    MountSource::Stack(stack.iter().map(|one| one.layer.clone()).collect())
                }
                Outcome::Directory { path, exclude, context } => MountSource::Directory {
                    path: path.clone(),
                    exclude: exclude.to_vec(),
                    owner: context.then_some(CONTEXT_OWNER),
                },
            };
            sources.insert(input, source);
        }
        Ok(Job {
            id,
            vertex,
            dir: self.lease.directory("step")?,
            layers,
            sources,
            store: self.store,
            xattr: self.store.options().overlay_xattr,
            epoch: self.options.epoch,
            cache_mounts: self.cache.dir().join("mounts"),
            allow_host_network: self.options.allow_host_network,
            allow_insecure: self.options.allow_insecure,
            allow_devices: &self.options.allow_devices,
        })
    }
}

impl Job<'_> {
    /// Does it; called in a process of its own.
    pub(super) fn perform(self, host: &dyn Host, log: BorrowedFd<'_>) -> Result<Made> {
        match &self.vertex.op {
            Op::File(file) => return self.file_layer(file).map(Made::Layer),
            Op::Exec(exec) => self.exec(exec, host, log)?,
            Op::Http(http) => return self.http(http, host).map(Made::Directory),
            Op::Git(git) => return self.git(git, host).map(Made::Directory),
            Op::Image(_) | Op::Local(_) | Op::Merge(_) => {}
        }
        self.layer().map(Made::Layer)
    }

    /// The tree that is changed: the base with an upper directory in `dir`, or that alone.
    fn writable(&self, dir: &Path) -> Result<OwnedFd> {
        if self.layers.is_empty() {
            let upper = dir.join(UPPER);
            fs::DirBuilder::new()
                .mode(0o755)
                .create(&upper)
                .map_err(Error::io("make the directory", &upper))?;
            return Ok(fs::File::open(&upper).map_err(Error::io("open the directory", upper))?.into());
        }
        let snapshot = Snapshot::new(&self.layers, self.xattr).writable(dir).volatile();
        snapshot.prepare()?;
        Ok(snapshot.mount(None)?)
    }

    /// What files are copied to is made in memory if it fits, and then written as one file: on a disk, making
    /// thousands of files is most of what a copy costs. Whatever goes wrong with that (it doesn't fit; the
    /// kernel can't have such an overlay), the disk is as good, and tells what is wrong with the step.
    fn file_layer(&self, file: &File) -> Result<Layered> {
        if let Some(made) = self.file_layer_in_memory(file) {
            return Ok(made);
        }
        self.file(file, &self.dir)?;
        self.layer()
    }

    fn file_layer_in_memory(&self, file: &File) -> Option<Layered> {
        if self.store.new_layers().ok()?.format != Format::Erofs {
            return None;
        }
        let memory = super::memory::directory()?;
        let dir = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
        self.file(file, &dir).ok()?;
        let upper = dir.join(UPPER);
        let upper: OwnedFd = fs::File::open(&upper).ok()?.into();
        if let Some(epoch) = self.epoch {
            clamp(upper.as_fd(), epoch, &dir).ok()?;
        }
        let stat = rustix::fs::fstatfs(&memory).ok()?;
        let format = if stat.f_files - stat.f_ffree < WORTH_A_FILE { Format::Dir } else { Format::Erofs };
        let name = if format == Format::Dir { UPPER } else { FILE };
        let at = self.dir.join(name);
        let Ok(made) = self.store.remake(upper.as_fd(), &at, format) else {
            // A part of it stands in the way of the disk's, or takes its room.
            let _ = if format == Format::Dir { fs::remove_dir_all(at) } else { fs::remove_file(at) };
            return None;
        };
        Some(Layered::new(made.diff_id.0, &made.packed, made.file))
    }

    /// Does the step's actions to its base with an upper directory in `dir`.
    fn file(&self, file: &File, dir: &Path) -> Result<()> {
        let mut opened = BTreeMap::new();
        for (id, source) in &self.sources {
            opened.insert(*id, source.open(self.xattr)?);
        }
        let tree = Tree::new(self.writable(dir)?);
        for action in &file.actions {
            let from = match action {
                FileAction::Copy(copy) => copy.from,
                _ => None,
            };
            let source = from.and_then(|from| opened.get(&from)).map(Opened::source);
            perform(action, &tree, source.as_ref(), file.base.is_some())?;
        }
        Ok(())
    }

    fn exec(&self, exec: &Exec, host: &dyn Host, log: BorrowedFd<'_>) -> Result<()> {
        let code = self.program(exec, host, log, false)?;
        if code == 0 {
            return Ok(());
        }
        Err(Error::Exit { command: exec.args.join(" "), code })
    }

    /// A shell in the place of the step's program, with the caller's own streams; called in a process of its
    /// own. How it ends means nothing.
    pub(super) fn shell(self, host: &dyn Host, log: BorrowedFd<'_>) -> Result<()> {
        let Op::Exec(exec) = &self.vertex.op else { return Ok(()) };
        let shell = match &exec.args[..] {
            [shell, flag, ..] if flag == "-c" => shell.clone(),
            _ => "/bin/sh".into(),
        };
        let exec = Exec { args: vec![shell], stdin: None, ..(**exec).clone() };
        self.program(&exec, host, log, true).map(drop)
    }

    /// Runs a program with all that the step has; gives its exit code.
    fn program(&self, exec: &Exec, host: &dyn Host, log: BorrowedFd<'_>, interactive: bool) -> Result<i32> {
        // Here and nowhere else: whoever made the graph, nothing runs with more than was allowed.
        if exec.network == Network::Host && !self.allow_host_network {
            return Err(Error::Entitlement { what: "RUN --network=host", entitlement: "network.host" });
        }
        if exec.security == Security::Insecure && !self.allow_insecure {
            return Err(Error::Entitlement {
                what: "RUN --security=insecure",
                entitlement: "security.insecure",
            });
        }
        let allowed = |name: &str| {
            let class = name.split('=').next().unwrap_or(name);
            self.allow_devices.iter().any(|one| one.is_empty() || one == name || one == class)
        };
        if exec.devices.iter().any(|device| !allowed(&device.name)) {
            return Err(Error::Entitlement { what: "RUN --device", entitlement: "device" });
        }
        let prepared = mounts::prepare(exec, &self.sources, &self.dir, &self.cache_mounts, self.xattr, host)?;
        let layers = stubs::around(&self.layers, &prepared.ready, &self.dir, self.xattr)?;
        let step = RunStep {
            vertex: self.id,
            exec,
            platform: &self.vertex.platform,
            layers: &layers,
            dir: &self.dir,
            mounts: prepared.ready,
            secrets: prepared.secrets,
            log,
            interactive,
        };
        let code = host.run(step);
        drop(prepared.locks);
        code
    }

    fn http(&self, http: &Http, host: &dyn Host) -> Result<String> {
        let tree = self.dir.join("tree");
        fs::create_dir(&tree).map_err(Error::io("make the directory", &tree))?;
        let name = Path::new(&http.filename).file_name().ok_or_else(|| Error::Invalid {
            what: "file name",
            text: http.filename.clone(),
            problem: "it is none".into(),
        })?;
        let path = tree.join(name);
        let fetched = host.fetch(http, &path)?;
        if let Some(expected) = &http.checksum {
            let mut hasher = Hasher::new(expected.algorithm());
            let mut file = fs::File::open(&path).map_err(Error::io("open", &path))?;
            std::io::copy(&mut file, &mut hasher).map_err(Error::io("read", &path))?;
            let found = hasher.finish();
            if found != *expected {
                return Err(Error::Checksum {
                    what: http.url.clone(),
                    found: found.to_string(),
                    expected: expected.to_string(),
                });
            }
        }
        let mode = fs::Permissions::from_mode(http.mode.unwrap_or(0o600) & 0o7777);
        fs::set_permissions(&path, mode).map_err(Error::io("change the mode of", &path))?;
        std::os::unix::fs::chown(&path, Some(http.uid.unwrap_or(0)), Some(http.gid.unwrap_or(0)))
            .map_err(Error::io("change the owner of", &path))?;
        let modified = fetched.modified.unwrap_or(0);
        set_time(rustix::fs::CWD, path.as_os_str(), modified).map_err(Error::io("set the time of", &path))?;
        Ok(fetched.digest.map(|digest| digest.to_string()).unwrap_or_default())
    }

    fn git(&self, git: &Git, host: &dyn Host) -> Result<String> {
        let tree = self.dir.join("tree");
        fs::create_dir(&tree).map_err(Error::io("make the directory", &tree))?;
        host.checkout(git, &tree)
    }

    /// Hashes the upper directory as the archive that it is.
    fn layer(&self) -> Result<Layered> {
        let upper = self.dir.join(UPPER);
        let fd: OwnedFd = fs::File::open(&upper).map_err(Error::io("open the directory", &upper))?.into();
        if let Some(epoch) = self.epoch {
            clamp(fd.as_fd(), epoch, &upper)?;
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let options = PackOptions::new(PackSource::OverlayUpper(self.xattr));
        let packed = pack(fd.as_fd(), &mut hasher, &options)?;
        Ok(Layered::new(hasher.finish(), &packed, None))
    }
}

/// Sets later times to the epoch, in the tree itself: then it says the same as its archive.
fn clamp(dir: BorrowedFd<'_>, epoch: i64, shown: &Path) -> Result<()> {
    let failed = || Error::io::<std::io::Error>("set the times below", shown);
    for name in list(dir).map_err(|error| failed()(error.into()))? {
        let stat = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed()(error.into()))?;
        if is_dir(&stat) {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            let below = open_below(dir, Path::new(&name), flags, rustix::fs::Mode::empty())
                .map_err(|error| failed()(error.into()))?;
            clamp(below.as_fd(), epoch, shown)?;
        }
        let is_whiteout = stat.st_mode & 0o170_000 == 0o020_000 && stat.st_rdev == 0;
        if stat.st_mtime >= epoch && !is_whiteout {
            set_time(dir, &name, epoch).map_err(|error| failed()(error.into()))?;
        }
    }
    Ok(())
}

fn set_time(dir: impl AsFd, name: &std::ffi::OsStr, seconds: i64) -> rustix::io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

impl MountSource {
    /// Opens it for reading.
    pub(super) fn open(&self, xattr: OverlayXattr) -> Result<Opened> {
        match self {
            Self::Directory { path, exclude, owner } => Ok(Opened {
                tree: Tree::open_host(path)?,
                ignore: if exclude.is_empty() { None } else { Some(Matcher::new(exclude)?) },
                owner: *owner,
            }),
            Self::Stack(layers) if layers.is_empty() => {
                let empty = onggi_sys::mount::make(
                    "tmpfs",
                    &[("mode", Some("0755"))],
                    onggi_sys::mount::Attributes::READ_ONLY,
                )
                .map_err(Error::io("mount", "an empty tree"))?;
                Ok(Opened { tree: Tree::new(empty), ignore: None, owner: None })
            }
            Self::Stack(layers) => {
                let mount = Snapshot::new(layers, xattr).mount(None)?;
                Ok(Opened { tree: Tree::new(mount), ignore: None, owner: None })
            }
        }
    }
}
