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

mod files;
mod idrange;
mod liveness;
mod process;
mod record;
mod spec;
mod user;
mod volume;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use onggi_image::snapshot::Snapshot;
use onggi_image::store::{Claim, Image, Layer, LayerSource};
use onggi_oci::{ErrorKind, Platform, Reference};
use onggi_runtime::{Container, Defaults, Foreground, Rootfs, SeccompSource, Stdio, default_spec};
use onggi_sys::idmap::IdMap;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::{Engine, PullRequest};
use idrange::IdRange;
use liveness::Alive;
use record::Record;

pub use liveness::is_running;
pub use onggi_runtime::WindowSize;
pub use volume::Bind;

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

/// Whose IDs a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserNamespace {
    /// Its own: its root is nobody on the host.
    #[default]
    Private,
    /// The caller's.
    Host,
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
    /// Whether process 1 is an init.
    pub init: bool,
    /// Whether the caller's standard input reaches the program.
    pub interactive: bool,
    /// The container's name.
    pub name: Option<String>,
    /// The network.
    pub network: Network,
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
    /// Whose IDs it has.
    pub user_namespace: UserNamespace,
    /// Host paths that it sees.
    pub binds: Vec<Bind>,
    /// The working directory in place of the image's.
    pub workdir: Option<String>,
}

impl Engine {
    /// Runs a container in the foreground and returns its exit status.
    ///
    /// `progress` is asked for only if the image has to be fetched.
    pub fn run(&self, request: &RunRequest, progress: &dyn Fn() -> Box<dyn Progress>) -> Result<u8> {
        let store = self.store()?;
        liveness::sweep(store)?;
        if let Some(name) = &request.name {
            record::check_name(name)?;
            record::check_unused(&store.containers_dir(), name)?;
        }
        let image = self.image_to_run(request, progress)?;
        check_platform(request, &image)?;
        let layers = self.layers_to_run(&image)?;
        // Ends in an exec of ourselves where that is needed, so nothing may exist yet that it would lose.
        self.shield(request)?;

        let id = new_id()?;
        let alive = Alive::mark(store, &id)?;
        let dir = store.containers_dir().join(&id);
        let status = self.run_in(&dir, &id, request, &image, &layers);
        let finished = match &status {
            Ok(code) if !request.remove => finish(&dir, *code),
            _ => liveness::remove(&dir),
        };
        drop(alive);
        // How the program ended is worth more than how the cleaning went.
        let status = status?;
        finished.map(|()| status)
    }

    fn run_in(
        &self,
        dir: &Path,
        id: &str,
        request: &RunRequest,
        image: &Image,
        layers: &[Layer],
    ) -> Result<u8> {
        let config = &image.config.config;
        let arguments = process::arguments(config, request.entrypoint.as_deref(), &request.command)?;
        fs::create_dir(dir).map_err(|source| Error::Write { path: dir.into(), source })?;
        Record {
            id: id.into(),
            name: request.name.clone(),
            image: request.image.clone(),
            image_id: image.id.clone(),
            manifest: image.manifest_digest.clone(),
            remove: request.remove,
            arguments: arguments.clone(),
            created: jiff::Timestamp::now().to_string(),
            exit_status: None,
        }
        .write(dir)?;

        let image_tree = Snapshot::new(layers, self.authority()?.overlay_xattr);
        let mut snapshot = image_tree.clone().writable(dir);
        if request.remove {
            snapshot = snapshot.volatile();
        }
        snapshot.prepare()?;
        let user = {
            let root = image_tree.mount(None)?;
            let wanted = request.user.as_deref().unwrap_or(&config.user);
            user::resolve(root.as_fd(), wanted, &request.group_add)?
        };
        let hostname = hostname(request, id)?;
        let files = files::write(dir, &hostname, request.network)?;
        let ids = self.ids(request, layers, &user)?;
        // Only a range of its own differs from the IDs on disk.
        let shifted = matches!(ids, Ids::Range(_));
        let terminal = request.terminal.is_some();
        let parts = spec::Parts {
            environment: process::environment(config, &request.env, &hostname, &user.home, terminal),
            working_dir: process::working_dir(config, request.workdir.as_deref())?,
            arguments,
            hostname,
            files: &files,
            maps: ids.maps(),
            shifted,
            user,
        };
        let spec = spec::build(request, parts)?;
        let stdio = match (request.terminal, request.interactive) {
            (Some(size), _) => Stdio::Terminal(size),
            (None, true) => Stdio::Inherit,
            (None, false) => Stdio::Given(without_input()?),
        };
        let process = Container::new(id, spec)
            .rootfs(Rootfs::Mount(Box::new(move |userns| {
                snapshot.mount(userns.filter(|_| shifted)).map_err(std::io::Error::other)
            })))
            .stdio(stdio)
            .seccomp(SeccompSource::Docker)
            .with_init(request.init)
            .spawn()?;
        let status =
            process.wait_foreground(Foreground { input: request.interactive, ..Foreground::default() })?;
        drop(ids);
        Ok(u8::try_from(status.code()).unwrap_or(u8::MAX))
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
    fn layers_to_run(&self, image: &Image) -> Result<Vec<Layer>> {
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
    fn shield(&self, request: &RunRequest) -> Result<()> {
        let authority = self.authority()?;
        let maps = match (authority.first_namespace, request.user_namespace) {
            // A range of its own never holds the owner of our file; `spawn` makes sure.
            (true, UserNamespace::Private) => return Ok(()),
            (true, UserNamespace::Host) => None,
            (false, _) => authority.identity(),
        };
        Ok(onggi_runtime::shield(&default_spec(&Defaults { maps, ..Defaults::default() }))?)
    }

    /// The IDs that the container gets.
    fn ids(&self, request: &RunRequest, layers: &[Layer], user: &user::User) -> Result<Ids> {
        let authority = self.authority()?;
        if !authority.first_namespace {
            // The caller's namespace has the IDs already; the container gets the same in one of its own.
            return Ok(authority.identity().map_or(Ids::Host, |(uids, gids)| Ids::Nested(uids, gids)));
        }
        if request.user_namespace == UserNamespace::Host {
            return Ok(Ids::Host);
        }
        let of_layers = layers.iter().map(|layer| layer.record.max_id);
        let of_user = [user.uid, user.gid].into_iter().chain(user.additional_gids.iter().copied());
        let highest = of_layers.chain(of_user).max().unwrap_or_default();
        let seed = u32::from_le_bytes(random()?);
        Ok(Ids::Range(IdRange::take(self.store()?.runroot(), highest, seed)?))
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
fn finish(dir: &Path, code: u8) -> Result<()> {
    match Record::read(dir)? {
        Some(record) => Record { exit_status: Some(code), ..record }.write(dir),
        None => Ok(()),
    }
}

fn hostname(request: &RunRequest, id: &str) -> Result<String> {
    let Some(name) = &request.hostname else {
        return Ok(match request.network {
            Network::None => id[..12].to_owned(),
            Network::Host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
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

/// Nothing for standard input; the caller's own for output and error.
fn without_input() -> Result<[OwnedFd; 3]> {
    let failed = |source: std::io::Error| Error::Process { op: "copy its standard streams", source };
    let null = fs::File::open("/dev/null").map_err(failed)?;
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(failed);
    Ok([null.into(), copy(std::io::stdout().as_fd())?, copy(std::io::stderr().as_fd())?])
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

/// 64 random hexadecimal digits.
fn new_id() -> Result<String> {
    let bytes: [u8; 32] = random()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
