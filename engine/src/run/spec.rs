//! The container's specification: the runtime's defaults, changed by the image and the caller.

use std::path::Path;

use oci_spec::runtime::{Mount, MountBuilder, Spec, UserBuilder};
use onggi_runtime::{Defaults, default_spec};
use onggi_sys::idmap::IdMap;

use super::files::HostFile;
use super::user::User;
use super::{Network, RunRequest};
use crate::error::{Error, Result};

/// What was found out before.
pub(super) struct Parts<'a> {
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// Who it runs as.
    pub user: User,
    /// The host name.
    pub hostname: String,
    /// The generated files.
    pub files: &'a [HostFile],
    /// The IDs of the container's own user namespace.
    pub maps: Option<(IdMap, IdMap)>,
    /// Whether those IDs are others than the files on disk have, so that binds must be id-mapped.
    pub shifted: bool,
}

/// The whole specification.
pub(super) fn build(request: &RunRequest, parts: Parts<'_>) -> Result<Spec> {
    let mut spec = default_spec(&Defaults {
        maps: parts.maps,
        own_network: request.network == Network::None,
        hostname: Some(parts.hostname),
        read_only: request.read_only,
        ..Defaults::default()
    });
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(parts.arguments));
        process.set_env(Some(parts.environment));
        process.set_cwd(parts.working_dir.into());
        let user = UserBuilder::default()
            .uid(parts.user.uid)
            .gid(parts.user.gid)
            .additional_gids(parts.user.additional_gids)
            .build();
        process.set_user(user.map_err(Error::specification)?);
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for bind in &request.binds {
        if let Err(source) = std::fs::symlink_metadata(&bind.source) {
            return Err(Error::BindSource { path: bind.source.clone(), source });
        }
        let mut options = vec![if bind.recursive { "rbind" } else { "bind" }.to_owned()];
        options.extend(bind.options.iter().cloned());
        if parts.shifted {
            options.push(if bind.recursive { "ridmap" } else { "idmap" }.to_owned());
        }
        mounts.push(mount(&bind.source, &bind.target, options)?);
    }
    for file in parts.files {
        // A path that the caller mounts himself is his.
        if request.binds.iter().any(|bind| bind.target == file.target) {
            continue;
        }
        let mut options = vec!["bind".to_owned()];
        if parts.shifted {
            options.push("idmap".to_owned());
        }
        mounts.push(mount(&file.source, file.target, options)?);
    }
    spec.set_mounts(Some(mounts));
    Ok(spec)
}

fn mount(source: &Path, target: &str, options: Vec<String>) -> Result<Mount> {
    let mount = MountBuilder::default().typ("bind").source(source).destination(target).options(options);
    mount.build().map_err(Error::specification)
}
