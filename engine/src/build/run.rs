//! A step's program: a container without a record, whose upper directory is what the step made.
//!
//! ```text
//!   layers + <step>/upper ──► overlay ─┐
//!   mounts, detached, IDs mapped ──────┼──► clone ──► program ──► exit code
//!   hostname, hosts, resolv.conf ──────┘
//! ```
//!
//! It has what any container has (its own IDs, the default capabilities, the system call filter) and
//! ends with the process that runs it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use onggi_build::graph::{Exec, Network as StepNetwork, Security as StepSecurity};
use onggi_build::{ReadyKind, ReadyMount, RunStep};
use onggi_image::snapshot::Snapshot;
use onggi_oci::Platform;
use onggi_runtime::{Container, Foreground, Rootfs, SeccompSource, Stdio, WindowSize};
use onggi_sys::idmap::IdMap;
use onggi_sys::mount::{Attributes, Change};
use rustix::fs::{MemfdFlags, Mode, OFlags};

use super::mounts;
use crate::Engine;
use crate::containers::random;
use crate::error::{Error, Result};
use crate::network::{HostAddress, Names};
use crate::run::idrange::IdRange;
use crate::run::user::{self, User};
use crate::run::{
    Network, Resolver, Resources, RunRequest, Security, Tmpfs, Ulimit, cdi, device, files, spec,
};

/// The host name of programs that are to have none of their own.
const HOST_NAME: &str = "build";
/// The search path of programs whose image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Engine {
    /// Runs a step's program; gives its exit code as shells count. `names` is of the network that the
    /// calling process is in, if that is not the host's; `terminal` the size of the one that a shell gets;
    /// `cdi_dirs` describe devices.
    pub(super) fn run_step(
        &self,
        step: &RunStep<'_>,
        names: Option<&Names>,
        terminal: Option<WindowSize>,
        cdi_dirs: &[PathBuf],
    ) -> Result<i32> {
        let authority = self.authority()?;
        check_platform(step.platform)?;
        let exec = step.exec;
        let insecure = exec.security == StepSecurity::Insecure;
        let image_tree = Snapshot::new(step.layers, authority.overlay_xattr);
        let snapshot = image_tree.clone().writable(step.dir).volatile();
        snapshot.prepare()?;
        let user = user::resolve_in_image(&image_tree, &exec.user, &[])?;
        let ids = self.step_ids(step, &user, insecure)?;
        let shifted = matches!(ids, StepIds::Range(_));
        let maps = ids.maps()?;
        let mut request = request(exec, step);
        let hostname = exec.hostname.clone().unwrap_or_else(|| HOST_NAME.into());
        // The caller made directories with exact modes; these are ordinary files.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let nobody = Names::default();
        let files = files::write(
            step.dir,
            &hostname,
            &request.network,
            &request.resolver,
            names.unwrap_or(&nobody),
            &[],
        )?;
        if names.is_some() {
            // It is ready, and this process is in it.
            request.network = Network::Host;
        }
        let wishes: Vec<_> = exec
            .devices
            .iter()
            .map(|one| cdi::Wish { flag: "RUN --device", name: &one.name, optional: one.optional })
            .collect();
        let described = cdi::find(&wishes, cdi_dirs)?;
        let devices: Vec<_> = wishes.iter().map(|wish| wish.name).collect();
        let described = described.for_a_step(&format!("RUN --device={}", devices.join(",")))?;
        let nodes = if insecure { device::all() } else { described.nodes };
        let mut environment = environment(exec, &step.secrets, &user.home);
        environment.extend(described.env);
        let mut parts = spec::Parts {
            arguments: exec.args.clone(),
            environment,
            working_dir: if exec.cwd.is_empty() { "/".into() } else { exec.cwd.clone() },
            user,
            hostname: Some(hostname),
            seen: &[],
            files: &files,
            maps: maps.clone(),
            shifted,
            devices: Vec::new(),
            device_binds: Vec::new(),
            rlimits: request.resources.rlimits()?,
        };
        for node in &nodes {
            match &ids {
                StepIds::Host => parts.devices.push(node.to_linux()?),
                StepIds::Range(range) => {
                    let path = node.make_in(step.dir, |uid, gid| range.outside(uid, gid))?;
                    parts.device_binds.push((path, node.target.clone()));
                }
                StepIds::Nested(..) => parts.device_binds.push((node.source.clone(), node.target.clone())),
            }
        }
        let mut spec = spec::build(&request, parts)?;
        let sysfs = names.and_then(|_| own_sysfs().ok()).filter(|_| !insecure);
        if sysfs.is_some() {
            let mounts = spec.mounts().iter().flatten();
            let others = mounts.filter(|mount| mount.destination() != Path::new("/sys")).cloned().collect();
            spec.set_mounts(Some(others));
        }
        let no_devices = !insecure;
        let copy =
            || step.log.try_clone_to_owned().map_err(|source| Error::Process { op: "copy a pipe", source });
        let stdio = match (step.interactive, terminal) {
            (true, Some(size)) => Stdio::Terminal(size),
            (true, None) => Stdio::Inherit,
            (false, _) => Stdio::Given([input(exec.stdin.as_deref())?, copy()?, copy()?]),
        };
        let mut container = Container::new("build", spec)
            .rootfs(Rootfs::Mount(Box::new(move |userns| {
                let mounted =
                    snapshot.mount_held(userns.filter(|_| shifted)).map_err(std::io::Error::other)?;
                let root = mounted.root;
                if no_devices {
                    Change { set: Attributes::NO_DEV, ..Change::default() }.apply(root.as_fd(), c"")?;
                }
                Ok((root, mounted.held))
            })))
            .stdio(stdio)
            .seccomp(if insecure { SeccompSource::Unconfined } else { SeccompSource::Docker });
        if let Some(sysfs) = sysfs {
            container = container.mount("/sys", sysfs);
        }
        let mut agents = Vec::new();
        let wanted = |mount: &&ReadyMount| !matches!(mount.kind, ReadyKind::Tmpfs { .. });
        if step.mounts.iter().any(|mount| wanted(&mount)) {
            let users = maps.as_ref().filter(|_| shifted);
            let users =
                users.map(|(uids, gids)| onggi_runtime::rootless::user_namespace(uids, gids)).transpose()?;
            for (number, mount) in step.mounts.iter().enumerate().filter(|(_, mount)| wanted(mount)) {
                let scratch = step.dir.join(format!("agent-{number}"));
                let (tree, agent) =
                    mounts::tree(mount, users.as_ref().map(AsFd::as_fd), authority.overlay_xattr, &scratch)?;
                agents.extend(agent);
                container = container.mount(&mount.target, tree);
            }
        }
        let process = container.spawn()?;
        let status =
            if step.interactive { process.wait_foreground(&Foreground::default()) } else { process.wait() };
        drop(agents);
        drop(ids);
        Ok(status?.code())
    }

    fn step_ids(&self, step: &RunStep<'_>, user: &User, insecure: bool) -> Result<StepIds> {
        let authority = self.authority()?;
        if !authority.first_namespace {
            let maps = onggi_runtime::rootless::nested_maps()?;
            return Ok(maps.map_or(StepIds::Host, |(uids, gids)| StepIds::Nested(uids, gids)));
        }
        if insecure {
            return Ok(StepIds::Host);
        }
        let of_layers = step.layers.iter().map(|layer| layer.record.max_id);
        let of_user = [user.uid, user.gid].into_iter().chain(user.additional_gids.iter().copied());
        let highest = of_layers.chain(of_user).max().unwrap_or_default();
        let seed = u32::from_le_bytes(random()?);
        Ok(StepIds::Range(IdRange::take(&self.settings().runroot, highest, seed)?))
    }
}

/// What `/sys` shows of the network that this process is in. The program's user namespace does not own that network, so it
/// could only see the host's.
fn own_sysfs() -> std::io::Result<OwnedFd> {
    let attributes =
        Attributes::READ_ONLY.with(Attributes::NO_SUID).with(Attributes::NO_DEV).with(Attributes::NO_EXEC);
    onggi_sys::mount::make("sysfs", &[], attributes)
}

/// The IDs of a step's program, held as long as it runs.
enum StepIds {
    Host,
    Nested(IdMap, IdMap),
    Range(IdRange),
}

impl StepIds {
    #[expect(clippy::unnecessary_wraps, reason = "as its users want it")]
    fn maps(&self) -> Result<Option<(IdMap, IdMap)>> {
        Ok(match self {
            Self::Host => None,
            Self::Nested(uids, gids) => Some((uids.clone(), gids.clone())),
            Self::Range(range) => Some((range.map(), range.map())),
        })
    }
}

/// The step in the words of a container.
fn request(exec: &Exec, step: &RunStep<'_>) -> RunRequest {
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let ulimit = |one: &onggi_build::graph::Ulimit| Ulimit {
        name: one.name.clone(),
        soft: limit(one.soft),
        hard: limit(one.hard),
    };
    let named = exec.extra_hosts.iter().map(|host| (host.name.clone(), host.address));
    let tmpfs = step.mounts.iter().filter_map(|mount| match &mount.kind {
        ReadyKind::Tmpfs { size } => {
            let mut options: Vec<String> = ["nosuid", "nodev", "mode=1777"].map(String::from).into();
            options.extend(size.map(|size| format!("size={size}")));
            Some(Tmpfs { target: mount.target.to_string_lossy().into_owned(), options, short: None })
        }
        _ => None,
    });
    RunRequest {
        network: match exec.network {
            StepNetwork::None => Network::None,
            StepNetwork::Default => Network::Default,
            StepNetwork::Host => Network::Host,
        },
        resolver: Resolver {
            hosts: named.map(|(name, address)| (name, HostAddress::Address(address))).collect(),
            ..Resolver::default()
        },
        resources: Resources {
            ulimits: exec.ulimits.iter().map(ulimit).collect(),
            shm_size: exec.shm_size,
            ..Resources::default()
        },
        // A program of a build may become the container's root anyway: the build file says as whom
        // it runs. So that sudo works, as with BuildKit.
        security: Security {
            new_privileges: true,
            privileged: exec.security == StepSecurity::Insecure,
            ..Security::default()
        },
        tmpfs: tmpfs.collect(),
        ..RunRequest::default()
    }
}

/// What the build file says, then what it needs besides.
fn environment(exec: &Exec, secrets: &[String], home: &str) -> Vec<String> {
    let mut all = exec.env.clone();
    let has = |all: &[String], name: &str| all.iter().any(|one| one.split('=').next() == Some(name));
    if !has(&all, "PATH") {
        all.insert(0, format!("PATH={DEFAULT_PATH}"));
    }
    if !has(&all, "HOME") {
        all.push(format!("HOME={home}"));
    }
    for secret in secrets {
        let name = secret.split('=').next().unwrap_or_default();
        all.retain(|one| one.split('=').next() != Some(name));
        all.push(secret.clone());
    }
    all
}

/// Its standard input: nothing, or these bytes.
fn input(bytes: Option<&[u8]>) -> Result<OwnedFd> {
    use std::io::{Seek, Write};
    let failed = |source: std::io::Error| Error::Process { op: "prepare the input of a step", source };
    let Some(bytes) = bytes else {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        return null.map_err(|errno| failed(errno.into()));
    };
    let file =
        rustix::fs::memfd_create(c"input", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file.into())
}

/// A program for another machine runs only where the kernel knows an interpreter for it.
fn check_platform(platform: &Platform) -> Result<()> {
    let host = Platform::host();
    if host.accepts(platform) || has_interpreter(platform) {
        return Ok(());
    }
    Err(Error::flag_unsupported(
        format!("a RUN step for {platform} on {host}"),
        "no interpreter for it is registered (install qemu-user-static and binfmt-support, or register one with binfmt_misc and the flag F)",
    ))
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
    let entry = Path::new("/proc/sys/fs/binfmt_misc").join(format!("qemu-{machine}"));
    platform.os == "linux" && std::fs::read_to_string(entry).is_ok_and(|text| text.starts_with("enabled"))
}
