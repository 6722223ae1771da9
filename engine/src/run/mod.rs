//! Run: from an image to a program that runs, and its exit status.
//!
//! ```text
//!   image (pulled first if missing) ──► layers ready?
//!   container: id, record, upper/ ──► user and groups from the image's passwd
//!   specification: the runtime's defaults, the image's config, the caller's wishes
//!   spawn: clone ──► user namespace exists ──► overlay mounted with its IDs ──► program
//!   wait, forwarding signals and the terminal ──► exit status ──► remove
//! ```
//!
//! The process that runs the container has one thread and no helper.

mod containers;
mod device;
mod exec;
mod files;
mod groups;
mod idrange;
mod liveness;
mod mounts;
mod namespaces;
mod process;
mod record;
mod request;
mod resources;
mod seccomp;
mod security;
mod spec;
mod user;

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, Spec};
use onggi_image::snapshot::Snapshot;
use onggi_image::store::{Claim, Image, Layer, LayerSource};
use onggi_oci::{ErrorKind, Platform, Reference};
use onggi_runtime::{Container, Defaults, Foreground, Process, Rootfs, SeccompSource, Stdio, default_spec};
use onggi_sys::idmap::IdMap;
use onggi_sys::mount::{Attributes, Change};

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::{Engine, PullRequest};
use device::Node;
use exec::{Filter, Started};
use idrange::IdRange;
use liveness::Alive;

pub use containers::ContainerSummary;
pub use device::{Device, parse_rule as parse_device_rule};
pub use exec::ExecRequest;
pub use files::Resolver;
pub use liveness::is_running;
pub use mounts::{Mount, MountKind, MountPoint, Mounted, Source as MountSource, Tmpfs, VolumesFrom};
pub use namespaces::{Ipc, Namespaces, Sharing, UserNamespace};
pub use onggi_runtime::WindowSize;
pub use record::Record;
pub use request::{Network, Notes, PullPolicy, RunRequest, Streams};
pub use resources::{DEFAULT_PIDS, DeviceRate, Resources, Ulimit};
pub use security::{SeccompProfile, Security};

impl Engine {
    /// Runs a container in the foreground and returns its exit status.
    ///
    /// `progress` is asked for only if the image has to be fetched.
    pub fn run(&self, request: &RunRequest, progress: &dyn Fn() -> Box<dyn Progress>) -> Result<u8> {
        request.resources.check()?;
        request.security.check()?;
        let store = self.store()?;
        liveness::sweep(store)?;
        if let Some(name) = &request.name {
            record::check_name(name)?;
            record::check_unused(&store.containers_dir(), name)?;
        }
        let image = self.image_to_run(request, progress)?;
        check_platform(request, &image)?;
        let layers = self.layers_to_run(&image)?;
        let users = namespaces::user_namespace(request, &image.config.config);
        // Ends in an exec of ourselves where that is needed, so nothing may exist yet that it would lose.
        self.shield(users.0)?;

        let id = new_id()?;
        let id_file = request.id_file.as_deref().map(|path| write_id_file(path, &id)).transpose()?;
        let alive = Alive::mark(store, &id)?;
        let dir = store.containers_dir().join(&id);
        let cgroup = groups::path(&request.resources, self.authority()?, &id)?;
        let run = Run {
            engine: self,
            request,
            image: &image,
            layers: &layers,
            users,
            id: &id,
            dir: &dir,
            cgroup: &cgroup,
        };
        let ended = run.run(&alive);
        if ended.is_err() {
            // It may have been made and never been used.
            groups::sweep(&cgroup);
        }
        let finished = match &ended {
            Ok(ended) if !request.remove => finish(&dir, *ended),
            _ => liveness::remove(store, &dir, true),
        };
        drop(alive);
        if let (Err(_), Some(path)) = (&ended, id_file) {
            // There is no such container.
            let _ = fs::remove_file(path);
        }
        // How the program ended is worth more than how the cleaning went.
        let ended = ended?;
        finished.map(|()| ended.code)
    }

    /// The image, fetched if it has to be.
    fn image_to_run(&self, request: &RunRequest, progress: &dyn Fn() -> Box<dyn Progress>) -> Result<Image> {
        let platform = request.platform.as_ref();
        if request.pull != PullPolicy::Always {
            match self.store()?.resolve(&request.image, platform) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                found => return Ok(found?),
            }
            if request.pull == PullPolicy::Never {
                return Err(Error::PullForbidden { image: record::familiar(&request.image) });
            }
        }
        let reference: Reference = request.image.parse()?;
        self.pull(&reference, &PullRequest { platform: request.platform.clone() }, progress().as_ref())?;
        Ok(self.store()?.resolve(&request.image, platform)?)
    }

    /// The image's layers, lowest first; those that are only here as blobs are unpacked.
    pub(crate) fn layers_to_run(&self, image: &Image) -> Result<Vec<Layer>> {
        let store = self.store()?;
        if let Ok(layers) = store.ready_layers(image) {
            return Ok(layers);
        }
        let lease = store.lease("run")?;
        for layer in image.layers() {
            if let Claim::Unpack(permit) = lease.claim_layer(layer.blob, layer.diff_id)? {
                let source = LayerSource { blob: layer.blob.clone(), diff_id: layer.diff_id.clone() };
                store.publish(vec![lease.unpack(source, permit)?])?;
            }
        }
        Ok(store.ready_layers(image)?)
    }

    /// Keeps our own file out of the reach of a container that has IDs of this host.
    fn shield(&self, users: UserNamespace) -> Result<()> {
        let authority = self.authority()?;
        let maps = match (authority.first_namespace, users) {
            // A range of its own never holds the owner of our file; `spawn` makes sure.
            (true, UserNamespace::Private) => return Ok(()),
            (true, UserNamespace::Host) => None,
            (false, _) => onggi_runtime::rootless::nested_maps()?,
        };
        Ok(onggi_runtime::shield(&default_spec(&Defaults { maps, ..Defaults::default() }))?)
    }
}

/// One container on its way.
struct Run<'a> {
    engine: &'a Engine,
    request: &'a RunRequest,
    image: &'a Image,
    layers: &'a [Layer],
    users: (UserNamespace, Option<&'static str>),
    id: &'a str,
    dir: &'a Path,
    cgroup: &'a Path,
}

/// How a container ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    code: u8,
    out_of_memory: bool,
}

impl Run<'_> {
    fn run(&self, alive: &Alive) -> Result<Ended> {
        let (request, config) = (self.request, &self.image.config.config);
        let authority = self.engine.authority()?;
        let arguments = process::arguments(config, request.entrypoint.as_deref(), &request.command)?;
        fs::create_dir(self.dir).map_err(|source| Error::Write { path: self.dir.into(), source })?;
        let points = mounts::resolve(self.engine, request, config)?;
        Record { mounts: points.list.clone(), ..self.record(arguments.clone()) }.write(self.dir)?;

        let image_tree = Snapshot::new(self.layers, authority.overlay_xattr);
        let mut snapshot = image_tree.clone().writable(self.dir);
        if request.remove {
            snapshot = snapshot.volatile();
        }
        snapshot.prepare()?;
        let user = {
            let root = image_tree.mount(None)?;
            points.fill(self.engine, root.as_fd())?;
            let wanted = request.user.as_deref().unwrap_or(&config.user);
            user::resolve(root.as_fd(), wanted, &request.group_add)?
        };
        let hostname = hostname(request, self.id)?;
        let files = files::write(self.dir, &hostname, request.network, &request.resolver)?;
        let ids = self.ids(&user)?;
        mounts::chown(&points.list, user.uid, user.gid)?;
        // Only a range of its own differs from the IDs on disk.
        let shifted = matches!(ids, Ids::Range(_));
        let nodes = if request.security.privileged { device::all() } else { Vec::new() };
        let nodes = [nodes, device::find(&request.devices)?].concat();
        let device_rules = self.device_rules(&nodes, &ids)?;
        let terminal = request.terminal.is_some();
        let maps = ids.maps();
        let seen = mounts::restore(self.engine, &points.list, maps.as_ref().filter(|_| shifted))?;
        let mut parts = spec::Parts {
            environment: process::environment(config, &request.env, &hostname, &user.home, terminal),
            working_dir: process::working_dir(config, request.workdir.as_deref())?,
            arguments,
            hostname: (request.namespaces.uts == Sharing::Private).then_some(hostname),
            files: &files,
            seen: &seen,
            maps,
            shifted,
            user,
            devices: Vec::new(),
            device_binds: Vec::new(),
            rlimits: request.resources.rlimits()?,
        };
        for node in &nodes {
            match &ids {
                Ids::Host => parts.devices.push(node.to_linux()?),
                Ids::Nested(..) => parts.device_binds.push((node.source.clone(), node.target.clone())),
                Ids::Range(range) => {
                    let path = node.make_in(self.dir, |uid, gid| range.outside(uid, gid))?;
                    parts.device_binds.push((path, node.target.clone()));
                }
            }
        }
        let spec = spec::build(request, parts)?;
        let group = groups::make(self.cgroup, &request.resources, authority, device_rules)?;
        let filter = self.filter(&spec)?;
        Started {
            process: spec.process().clone().unwrap_or_default(),
            filter: filter.clone(),
            own_group: group.is_some(),
        }
        .write(self.dir)?;
        // A device node that an image brings along must be of no use.
        let no_devices = !request.security.privileged && (shifted || groups::is_unified()?);
        let mut container = Container::new(self.id, spec)
            .rootfs(Rootfs::Mount(Box::new(move |userns| {
                let root = snapshot.mount(userns.filter(|_| shifted)).map_err(std::io::Error::other)?;
                if no_devices {
                    Change { set: Attributes::NO_DEV, ..Change::default() }.apply(root.as_fd(), c"")?;
                }
                Ok(root)
            })))
            .stdio(stdio(request)?)
            .seccomp(match filter {
                Filter::Docker => SeccompSource::Docker,
                Filter::Unconfined => SeccompSource::Unconfined,
                Filter::Profile(profile) => {
                    SeccompSource::Filter(onggi_runtime::seccomp::Filter::compile(&profile)?)
                }
            })
            .with_init(request.init);
        // What a path of /proc/self/fd means must stay open until the runtime has opened that.
        let mut held = Vec::new();
        for one in seen {
            held.push(one.held);
            if let mounts::Tree::Detached(tree) = one.tree {
                container = container.mount(one.target, tree);
            }
        }
        if let Some(group) = group {
            container = container.cgroup(group);
        }
        let process = container.spawn()?;
        drop(held);
        alive.tell(process.pid())?;
        let ended = self.wait(process);
        drop(ids);
        mounts::release(self.engine, &points.list)?;
        ended
    }

    /// Waits for the end, and clears the control group away.
    fn wait(&self, mut process: Process) -> Result<Ended> {
        let group = process.take_cgroup();
        let status = process.wait_foreground(Foreground {
            input: self.request.streams.input,
            forward_signals: self.request.forward_signals,
            ..Foreground::default()
        });
        let limited = self.request.resources.memory.is_some();
        let out_of_memory = limited && group.as_ref().is_some_and(groups::was_out_of_memory);
        let removed = group.map_or(Ok(()), |group| group.remove());
        let code = u8::try_from(status?.code()).unwrap_or(u8::MAX);
        removed?;
        Ok(Ended { code, out_of_memory })
    }

    fn record(&self, arguments: Vec<String>) -> Record {
        let notes = &self.request.notes;
        let config = &self.image.config.config;
        let mut labels = config.labels.clone();
        labels.extend(notes.labels.clone());
        Record {
            id: self.id.into(),
            name: self.request.name.clone(),
            image: self.request.image.clone(),
            image_id: self.image.id.clone(),
            manifest: self.image.manifest_digest.clone(),
            remove: self.request.remove,
            arguments,
            created: jiff::Timestamp::now().to_string(),
            exit_status: None,
            finished: None,
            oom_killed: false,
            host_ids: self.users.0 == UserNamespace::Host,
            host_ids_because: self.users.1.map(Into::into),
            cgroup: Some(self.cgroup.to_owned()),
            mounts: Vec::new(),
            labels,
            annotations: notes.annotations.clone(),
            stop_signal: notes.stop_signal.clone().or_else(|| config.stop_signal.clone()),
            stop_timeout: notes.stop_timeout,
        }
    }

    /// The IDs that the container gets.
    fn ids(&self, user: &user::User) -> Result<Ids> {
        let authority = self.engine.authority()?;
        if !authority.first_namespace {
            // The caller's namespace has the IDs already; the container gets the same in one of its own.
            let maps = onggi_runtime::rootless::nested_maps()?;
            return Ok(maps.map_or(Ids::Host, |(uids, gids)| Ids::Nested(uids, gids)));
        }
        if self.users.0 == UserNamespace::Host {
            return Ok(Ids::Host);
        }
        let of_layers = self.layers.iter().map(|layer| layer.record.max_id);
        let of_user = [user.uid, user.gid].into_iter().chain(user.additional_gids.iter().copied());
        let highest = of_layers.chain(of_user).max().unwrap_or_default();
        let seed = u32::from_le_bytes(random()?);
        Ok(Ids::Range(IdRange::take(self.engine.store()?.runroot(), highest, seed)?))
    }

    /// Which devices the control group allows; `None` for no rules.
    fn device_rules(&self, nodes: &[Node], ids: &Ids) -> Result<Option<Vec<LinuxDeviceCgroup>>> {
        let (request, security) = (self.request, &self.request.security);
        if security.privileged {
            return Ok(None);
        }
        let partial = request.devices.iter().any(|device| device.access != "rwm");
        let asked = if security.device_rules.is_empty() {
            "--device with permissions"
        } else {
            "--device-cgroup-rule"
        };
        let needed = partial || !security.device_rules.is_empty();
        if !needed && nodes.is_empty() && !matches!(ids, Ids::Host) {
            return Ok(None);
        }
        let why = if matches!(ids, Ids::Nested(..)) {
            "rules for devices need root"
        } else if groups::is_unified()? {
            "rules for devices need control groups of version 1"
        } else {
            return device::rules(nodes, &security.device_rules).map(Some);
        };
        if needed { Err(Error::flag_unsupported(asked, why)) } else { Ok(None) }
    }

    fn filter(&self, spec: &Spec) -> Result<Filter> {
        let security = &self.request.security;
        Ok(match &security.seccomp {
            SeccompProfile::Unconfined => Filter::Unconfined,
            SeccompProfile::Builtin if security.privileged => Filter::Unconfined,
            SeccompProfile::Builtin => Filter::Docker,
            SeccompProfile::File(path) => {
                let bounding = spec.process().as_ref().map(security::bounding).unwrap_or_default();
                Filter::Profile(Box::new(seccomp::read(path, bounding)?))
            }
        })
    }
}

/// The IDs of a container, held as long as it runs.
enum Ids {
    Host,
    Nested(IdMap, IdMap),
    Range(IdRange),
}

impl Ids {
    fn maps(&self) -> Option<(IdMap, IdMap)> {
        match self {
            Self::Host => None,
            Self::Nested(uids, gids) => Some((uids.clone(), gids.clone())),
            Self::Range(range) => Some((range.map(), range.map())),
        }
    }
}

/// Keeps a container that has ended.
fn finish(dir: &Path, ended: Ended) -> Result<()> {
    match Record::read(dir)? {
        Some(record) => Record {
            exit_status: Some(ended.code),
            oom_killed: ended.out_of_memory,
            finished: Some(jiff::Timestamp::now().to_string()),
            ..record
        }
        .write(dir),
        None => Ok(()),
    }
}

/// Writes the container's ID where the caller wants it, which must be a new file.
fn write_id_file<'a>(path: &'a Path, id: &str) -> Result<&'a Path> {
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
    match file.and_then(|mut file| file.write_all(id.as_bytes())) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::flag(
            "--cidfile",
            format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ),
        )),
        Err(source) => Err(Error::Write { path: path.into(), source }),
    }
}

fn hostname(request: &RunRequest, id: &str) -> Result<String> {
    let shared = request.namespaces.uts == Sharing::Host;
    if shared && (request.hostname.is_some() || request.domainname.is_some()) {
        return Err(Error::flag("--uts", "conflicting options: hostname and the UTS mode"));
    }
    let Some(name) = &request.hostname else {
        return Ok(match request.network {
            Network::None if !shared => id[..12].to_owned(),
            _ => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        });
    };
    let problem = if name.is_empty() || name.len() > 64 {
        "it must have 1 to 64 characters"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)) || name.starts_with('-')
    {
        "it must be of letters, digits, '.', '-' and '_'"
    } else {
        return Ok(name.clone());
    };
    Err(Error::Hostname { name: name.clone(), problem })
}

/// An image for another machine runs only where the kernel knows an interpreter for it.
fn check_platform(request: &RunRequest, image: &Image) -> Result<()> {
    let (host, platform) = (Platform::host(), image.platform());
    // Images built from scratch by simple tools name no platform at all.
    if image.config.architecture.is_empty() || host.accepts(&platform) || has_interpreter(&platform) {
        return Ok(());
    }
    Err(Error::ForeignPlatform {
        image: record::familiar(&request.image),
        platform: platform.to_string(),
        host: host.to_string(),
    })
}

/// Whether binfmt_misc has an entry by which the usual packages register QEMU for the architecture.
fn has_interpreter(platform: &Platform) -> bool {
    let machine = match platform.architecture.as_str() {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        "loong64" => "loongarch64",
        other => other,
    };
    let entry = PathBuf::from(format!("/proc/sys/fs/binfmt_misc/qemu-{machine}"));
    platform.os == "linux" && fs::read_to_string(entry).is_ok_and(|text| text.starts_with("enabled"))
}

/// The caller's streams that the program gets; nothing in place of the others.
fn stdio(request: &RunRequest) -> Result<Stdio> {
    if let Some(size) = request.terminal {
        return Ok(Stdio::Terminal(size));
    }
    streams(request.streams)
}

fn streams(wished: Streams) -> Result<Stdio> {
    if wished == (Streams { input: true, output: true, error: true }) {
        return Ok(Stdio::Inherit);
    }
    let failed = |source: std::io::Error| Error::Process { op: "copy its standard streams", source };
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
    let choose = |own: std::os::fd::BorrowedFd<'_>, wished| -> Result<OwnedFd> {
        if wished { own.try_clone_to_owned() } else { null.as_fd().try_clone_to_owned() }.map_err(failed)
    };
    Ok(Stdio::Given([
        choose(std::io::stdin().as_fd(), wished.input)?,
        choose(std::io::stdout().as_fd(), wished.output)?,
        choose(std::io::stderr().as_fd(), wished.error)?,
    ]))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(count) if count == N => Ok(bytes),
        // Requests of up to 256 bytes are never cut short.
        Ok(_) => {
            Err(Error::Process { op: "read random bytes", source: std::io::ErrorKind::UnexpectedEof.into() })
        }
        Err(errno) => Err(Error::Process { op: "read random bytes", source: errno.into() }),
    }
}

/// The mount points of all containers, with their IDs.
pub(crate) fn all_mount_points(containers: &Path) -> Result<Vec<(String, Vec<MountPoint>)>> {
    Record::all_mounts(containers)
}

/// 64 random hexadecimal digits.
pub(crate) fn new_id() -> Result<String> {
    let bytes: [u8; 32] = random()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
