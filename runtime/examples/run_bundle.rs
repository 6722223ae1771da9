//! Runs a bundle in the foreground, or one command with the default
//! specification in a directory:
//!
//! ```text
//! run_bundle BUNDLE
//! run_bundle [--tty] [--init] [--host-ids] [--no-seccomp] [--cgroup PATH] --rootfs DIR COMMAND…
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr)]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};
use onggi_runtime::cgroup::Cgroup;
use onggi_runtime::{
    Container, Defaults, Error, Foreground, Rootfs, SeccompSource, Stdio, WindowSize, default_spec, rootless,
    shield,
};
use onggi_sys::idmap::IdMap;

#[derive(Default)]
struct Options {
    rootfs: Option<PathBuf>,
    tty: bool,
    init: bool,
    host_ids: bool,
    no_seccomp: bool,
    host_network: bool,
    cgroup: Option<PathBuf>,
    resources: Option<LinuxResources>,
    binds: Vec<String>,
    user: Option<(u32, u32)>,
    cwd: Option<PathBuf>,
    command: Vec<String>,
}

fn main() -> std::process::ExitCode {
    let code = match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("run_bundle: {error}");
            error.exit_code()
        }
    };
    std::process::ExitCode::from(code)
}

fn run() -> Result<u8, Error> {
    let mut options = parse();
    rootless::enter()?;
    let (spec, container): (Spec, fn(Container) -> Container) = if options.rootfs.is_some() {
        (specification(&options), |container| container)
    } else {
        let bundle = Path::new(options.command.first().map_or(".", String::as_str));
        let spec = Spec::load(bundle.join("config.json"))
            .map_err(|error| Error::Invalid { what: "config.json".into(), why: error.to_string() })?;
        (spec, |container| container)
    };
    shield(&spec)?;
    let mut builder = container(Container::new("example", spec)).with_init(options.init);
    match options.rootfs.take() {
        Some(rootfs) => {
            let rootfs_cloned = rootfs.clone();
            let mount = move |userns: Option<std::os::fd::BorrowedFd<'_>>| -> std::io::Result<(OwnedFd, Vec<OwnedFd>)> {
                use onggi_sys::mount::{Change, clone_tree};
                use std::os::unix::ffi::OsStrExt;
                let path = std::ffi::CString::new(rootfs_cloned.as_os_str().as_bytes())?;
                let tree = clone_tree(rustix::fs::CWD, &path, false)?;
                let tree_fd = std::os::fd::AsFd::as_fd(&tree);
                if let Some(userns) = userns.filter(|_| rustix::process::geteuid().is_root()) {
                    let change = Change { idmap: Some(userns), ..Change::default() };
                    // Inside a user namespace the maps are the identity.
                    match change.apply(tree_fd, c"") {
                        Err(error) if error.raw_os_error() == Some(1) => {}
                        other => other?,
                    }
                }
                Ok((tree, Vec::new()))
            };
            builder = builder.rootfs(Rootfs::Mount(Box::new(mount)));
            if !options.no_seccomp {
                builder = builder.seccomp(SeccompSource::Docker);
            }
        }
        None => builder = builder.bundle(options.command.first().map_or(".", String::as_str)),
    }
    if options.tty {
        builder = builder.stdio(Stdio::Terminal(WindowSize { rows: 24, columns: 80 }));
    }
    if let Some(path) = &options.cgroup
        && let Some(cgroup) = Cgroup::create(path, options.resources.as_ref())?
    {
        builder = builder.cgroup(cgroup);
    }
    let status = builder.spawn()?.wait_foreground(&Foreground::default())?;
    Ok(u8::try_from(status.code()).unwrap_or(125))
}

fn specification(options: &Options) -> Spec {
    let maps = match rootless::nested_maps() {
        _ if options.host_ids => None,
        Ok(Some(maps)) => Some(maps),
        _ => IdMap::single(0, 1_000_000, 65536).ok().map(|map| (map.clone(), map)),
    };
    let defaults = Defaults {
        maps,
        own_network: !options.host_network,
        hostname: Some("example".into()),
        ..Defaults::default()
    };
    let mut spec = default_spec(&defaults);
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(options.command.clone()));
        if let Some((uid, gid)) = options.user {
            process.user_mut().set_uid(uid).set_gid(gid);
        }
        if let Some(cwd) = &options.cwd {
            process.set_cwd(cwd.clone());
        }
    }
    if let Some(mounts) = spec.mounts_mut() {
        for bind in &options.binds {
            let mut parts = bind.splitn(3, ':');
            let (Some(source), Some(destination)) = (parts.next(), parts.next()) else { continue };
            let mut mount = oci_spec::runtime::Mount::default();
            let words = parts.next().map(|words| words.split(',').map(String::from).collect::<Vec<_>>());
            let mut words = words.unwrap_or_default();
            words.push("rbind".into());
            mount
                .set_destination(destination.into())
                .set_source(Some(source.into()))
                .set_options(Some(words));
            mount.set_typ(Some("bind".into()));
            mounts.push(mount);
        }
    }
    spec
}

fn parse() -> Options {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--tty" => options.tty = true,
            "--init" => options.init = true,
            "--host-ids" => options.host_ids = true,
            "--no-seccomp" => options.no_seccomp = true,
            "--host-network" => options.host_network = true,
            "--rootfs" => options.rootfs = arguments.next().map(PathBuf::from),
            "--cgroup" => options.cgroup = arguments.next().map(PathBuf::from),
            "--resources" => {
                options.resources = arguments.next().and_then(|json| serde_json::from_str(&json).ok());
            }
            "--bind" => options.binds.extend(arguments.next()),
            "--cwd" => options.cwd = arguments.next().map(PathBuf::from),
            "--user" => {
                let user = arguments.next().unwrap_or_default();
                let ids = user.split_once(':').unwrap_or((&user, "0"));
                options.user = Some((ids.0.parse().unwrap_or(0), ids.1.parse().unwrap_or(0)));
            }
            _ => {
                options.command.push(argument);
                options.command.extend(arguments.by_ref());
            }
        }
    }
    options
}
