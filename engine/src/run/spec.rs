//! The container's specification: the runtime's defaults, changed by the image and the caller.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, Mount, MountBuilder, PosixRlimit, Spec, UserBuilder};
use onggi_runtime::{Defaults, default_spec};
use onggi_sys::idmap::IdMap;

use super::files::HostFile;
use super::mounts::{Ready, Tree};
use super::namespaces::{Ipc, Sharing};
use super::request::RunRequest;
use super::user::User;
use crate::error::{Error, Result};

/// What was found out before.
pub(crate) struct Parts<'a> {
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// Who it runs as.
    pub user: User,
    /// The host name; `None` if the host's is shared.
    pub hostname: Option<String>,
    /// What it sees besides its image.
    pub seen: &'a [Ready],
    /// The generated files.
    pub files: &'a [HostFile],
    /// The IDs of the container's own user namespace.
    pub maps: Option<(IdMap, IdMap)>,
    /// Whether those IDs are others than the files on disk have, so that binds must be id-mapped.
    pub shifted: bool,
    /// Device nodes to make.
    pub devices: Vec<LinuxDevice>,
    /// Device nodes to bind, outside and inside.
    pub device_binds: Vec<(PathBuf, PathBuf)>,
    /// Limits of its processes.
    pub rlimits: Vec<PosixRlimit>,
}

/// The whole specification.
pub(crate) fn build(request: &RunRequest, parts: Parts<'_>) -> Result<Spec> {
    let own_ids = parts.maps.is_some();
    let defaults = Defaults::default();
    let mut spec = default_spec(&Defaults {
        maps: parts.maps,
        own_network: request.network.is_own(),
        hostname: parts.hostname,
        read_only: request.read_only,
        shm_size: request.resources.shm_size.unwrap_or(defaults.shm_size),
    });
    spec.set_domainname(request.domainname.clone());
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(parts.arguments));
        process.set_env(Some(parts.environment));
        process.set_cwd(parts.working_dir.into());
        process.set_oom_score_adj(request.resources.oom_score_adj);
        process.set_rlimits(Some(parts.rlimits).filter(|list| !list.is_empty()));
        let user = UserBuilder::default()
            .uid(parts.user.uid)
            .gid(parts.user.gid)
            .additional_gids(parts.user.additional_gids)
            .build();
        process.set_user(user.map_err(Error::specification)?);
    }
    let shared = request.namespaces.shared();
    if let Some(linux) = spec.linux_mut() {
        if !shared.is_empty() {
            let mut namespaces = linux.namespaces().clone().unwrap_or_default();
            namespaces.retain(|one| !shared.contains(&one.typ()));
            linux.set_namespaces(Some(namespaces));
        }
        if !parts.devices.is_empty() {
            linux.set_devices(Some(parts.devices));
        }
        if !request.sysctls.is_empty() {
            linux.set_sysctl(Some(request.sysctls.iter().cloned().collect::<HashMap<_, _>>()));
        }
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    adapt(&mut mounts, request, own_ids)?;
    mounts.extend(own_mounts(request, parts.seen, parts.files, &parts.device_binds, parts.shifted)?);
    spec.set_mounts(Some(mounts));
    request.security.apply(&mut spec)?;
    Ok(spec)
}

/// Changes the kernel's filesystems where namespaces are the host's.
fn adapt(mounts: &mut Vec<Mount>, request: &RunRequest, own_ids: bool) -> Result<()> {
    match &request.namespaces.ipc {
        Ipc::Private | Ipc::Shareable => {}
        // The other container's takes its place.
        Ipc::None | Ipc::Container(_) => mounts.retain(|one| one.destination() != Path::new("/dev/shm")),
        Ipc::Host => {
            for one in mounts.iter_mut().filter(|one| one.destination() == Path::new("/dev/shm")) {
                let options = ["bind", "nosuid", "noexec", "nodev"].map(String::from).to_vec();
                *one = mount("bind", Path::new("/dev/shm"), "/dev/shm", options)?;
            }
        }
    }
    // With other IDs the host's own instance is shown, which not every host has.
    if request.namespaces.ipc == Ipc::Host && own_ids && !Path::new("/dev/mqueue").exists() {
        mounts.retain(|one| one.destination() != Path::new("/dev/mqueue"));
    }
    // The kernel makes a new instance only for the owner of the pid namespace.
    if request.namespaces.pid == Sharing::Host && own_ids {
        for one in mounts.iter_mut().filter(|one| one.destination() == Path::new("/proc")) {
            let options = ["rbind", "nosuid", "noexec", "nodev"].map(String::from).to_vec();
            *one = mount("bind", Path::new("/proc"), "/proc", options)?;
        }
    }
    Ok(())
}

/// What the caller and the engine add, outer ones first.
fn own_mounts(
    request: &RunRequest,
    seen: &[Ready],
    files: &[HostFile],
    devices: &[(PathBuf, PathBuf)],
    shifted: bool,
) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for one in seen {
        if let Tree::Path(path) = &one.tree {
            mounts.push(mount("bind", path, &one.target, one.options.clone())?);
        }
    }
    for tmpfs in &request.tmpfs {
        mounts.push(mount("tmpfs", Path::new("tmpfs"), &tmpfs.target, tmpfs.options.clone())?);
    }
    for file in files {
        // A path that the caller mounts himself is his.
        if seen.iter().any(|one| one.target == file.target) {
            continue;
        }
        let id_mapped = shifted.then(|| "idmap".to_owned());
        let options = ["bind".to_owned()].into_iter().chain(id_mapped).collect();
        mounts.push(mount("bind", &file.source, file.target, options)?);
    }
    for (source, target) in devices {
        mounts.push(mount("bind", source, target, vec!["bind".into(), "nosuid".into(), "noexec".into()])?);
    }
    mounts.sort_by_key(|one| one.destination().components().count());
    Ok(mounts)
}

fn mount(kind: &str, source: &Path, target: impl AsRef<Path>, options: Vec<String>) -> Result<Mount> {
    let mount =
        MountBuilder::default().typ(kind).source(source).destination(target.as_ref()).options(options);
    mount.build().map_err(Error::specification)
}
