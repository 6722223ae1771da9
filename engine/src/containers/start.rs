//! Starting a container: from its record to a program that runs.
//!
//! ```text
//!   user and groups from the image's passwd ──► hostname, hosts, resolv.conf ──► IDs ──► specification
//!   spawn: clone ──► user namespace exists ──► network ──► overlay mounted with its IDs ──► program
//! ```
//!
//! Everything is made anew at each start but what lies in `upper/`.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, Spec};
use onggi_image::snapshot::Snapshot;
use onggi_image::store::Layer;
use onggi_runtime::{Container, Defaults, Process, Rootfs, SeccompSource, Stdio, default_spec};
use onggi_sys::mount::{Attributes, Change};
use rustix::fs::{FileType, Gid, Uid};

use super::create::random;
use super::record::Record;
use crate::Engine;
use crate::error::{Error, Result};
use crate::network::Connection;
use crate::run::device::{self, Node};
use crate::run::exec::{Filter, Started};
use crate::run::idrange::IdRange;
use crate::run::ids::Ids;
use crate::run::keep::{self, Kept};
use crate::run::shared::Shared;
use crate::run::user::{self, User};
use crate::run::{
    Link, MountKind, SeccompProfile, Sharing, cdi, files, groups, hostname, mounts, process, seccomp,
    security, spec, stubs,
};

/// Who looks after a program once it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The process that starts it, which is its parent and with which it ends.
    Caller,
    /// A supervisor; the process that starts it only does that.
    Supervisor,
}

/// A container on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) record: &'a Record,
    pub(crate) dir: &'a Path,
    pub(crate) layers: &'a [Layer],
}

/// A container whose program runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    /// Held as long as it runs.
    pub(crate) ids: Ids,
    /// The same of its network.
    pub(crate) connection: Connection,
}

impl Engine {
    /// The layers of a container that was made before, lowest first, with the owners that it needs.
    pub(crate) fn layers_of(&self, record: &Record) -> Result<Vec<Layer>> {
        let store = self.store()?;
        let layer = |id: &onggi_oci::DiffId| {
            store.layer(id)?.ok_or_else(|| Error::MissingLayer {
                container: record.name.clone(),
                image: record.image.reference.clone(),
                diff_id: id.clone(),
            })
        };
        let layers = record.image.layers.iter().map(layer).collect::<Result<Vec<_>>>()?;
        self.layers_for(&record.request, layers)
    }

    /// The names and addresses of the containers that this one is linked to; they have to run.
    fn linked(&self, name: &str, links: &[Link]) -> Result<Vec<(String, IpAddr)>> {
        let address = |link: &Link| {
            let other = self.container(&link.container)?.record;
            let networks = self.networks_of(&other.id)?;
            let address = networks.iter().find_map(|one| one.endpoint.ipv4().or_else(|| one.endpoint.ipv6()));
            let address = address.ok_or_else(|| Error::LinkedToNothing {
                name: name.into(),
                linked: other.name.clone(),
                alias: link.alias.clone(),
            })?;
            Ok((format!("{} {} {}", link.alias, &other.id[..12], other.name), address))
        };
        links.iter().map(address).collect()
    }

    /// Keeps our own file out of the reach of a container that has IDs of this host. May end in an exec
    /// of ourselves, so nothing may exist yet that it would lose.
    ///
    /// `host_ids` also where it has those of another container.
    pub(crate) fn shield(&self, host_ids: bool) -> Result<()> {
        let authority = self.authority()?;
        let maps = match (authority.first_namespace, host_ids) {
            // A range of its own never holds the owner of our file; `spawn` makes sure.
            (true, false) => return Ok(()),
            (_, true) => None,
            (false, false) => onggi_runtime::rootless::nested_maps()?,
        };
        Ok(onggi_runtime::shield(&default_spec(&Defaults { maps, ..Defaults::default() }))?)
    }
}

impl Start<'_> {
    /// Starts the program; a control group that was made for nothing is gone again.
    pub(crate) fn spawn(self, stdio: Stdio, keeper: Keeper) -> Result<Running> {
        let started = self.try_spawn(stdio, keeper);
        if started.is_err() {
            // It may have been made and never been used.
            groups::sweep(&self.record.cgroup);
        }
        started
    }

    fn try_spawn(self, stdio: Stdio, keeper: Keeper) -> Result<Running> {
        let (record, request, config) = (self.record, &self.record.request, &self.record.image.config);
        let authority = self.engine.authority()?;
        let image_tree = Snapshot::new(self.layers, authority.overlay_xattr);
        let stubs = stubs::directory(self.engine.store()?.root())?;
        let mut snapshot = image_tree.clone().over(&stubs).writable(self.dir);
        // What is volatile is not mounted twice.
        if request.remove && keeper == Keeper::Caller {
            snapshot = snapshot.volatile();
        }
        let kept = self.engine.kept_ids(request)?;
        let own_user = kept.as_ref().map(Kept::user);
        let wanted = request.user.as_deref().or(own_user.as_deref()).unwrap_or(&config.user);
        let mut user = user::resolve_in_image(&image_tree, wanted, &request.group_add)?;
        let databases = match &kept {
            Some(kept) => keep::names(record, &image_tree, kept, self.dir)?,
            None => Vec::new(),
        };
        if kept.is_some_and(|kept| user.uid == kept.uid)
            && databases.iter().any(|file| file.target == "/etc/passwd")
        {
            user.home = process::working_dir(config, request.workdir.as_deref())?;
        }
        let shared = self.engine.shared(record)?;
        let hostname = match &shared.files {
            Some(others) => files::hostname_of(others)?,
            None => hostname(request, &record.id)?,
        };
        let connection = Connection::prepare(self.engine, record.into())?;
        let names = connection.names();
        let linked = self.engine.linked(&record.name, &request.resolver.links)?;
        let files = match &shared.files {
            Some(others) => files::of(others),
            None => files::write(self.dir, &hostname, &request.network, &request.resolver, &names, &linked)?,
        };
        let gpus: Vec<String> = request.gpus.iter().flat_map(cdi::Gpus::names).collect();
        let named = request.named_devices.iter().map(|name| ("--device", name));
        let named = named.chain(gpus.iter().map(|name| ("--gpus", name)));
        let wishes: Vec<_> = named.map(|(flag, name)| cdi::Wish { flag, name, optional: false }).collect();
        let described = cdi::find(&wishes, &request.cdi_dirs)?;
        user.additional_gids.extend(&described.groups);
        let ids = self.ids(&user, &shared)?;
        let owner = (user.uid, user.gid);
        let shifted = ids.are_shifted();
        if own_user.is_some() && record.mounts.iter().any(|point| point.kind == MountKind::Image) {
            let why = "with --userns=keep-id: its files would have other owners; COPY them into the image";
            return Err(Error::flag_unsupported("--mount type=image", why));
        }
        // What is id-mapped has the container's numbers on disk.
        let on_disk = if shifted { owner } else { ids.outside(owner.0, owner.1) };
        mounts::chown(&record.mounts, on_disk.0, on_disk.1)?;
        let nodes = if request.security.privileged { device::all() } else { Vec::new() };
        let nodes = [nodes, device::find(&request.devices)?, described.nodes].concat();
        let device_rules = self.device_rules(&nodes, &ids)?;
        let maps = ids.maps();
        let users = maps.as_ref().filter(|_| shifted);
        let mut seen = mounts::restore(self.engine, &record.mounts, users)?;
        seen.extend(mounts::restore(self.engine, &described.mounts, users)?);
        let mut parts = spec::Parts {
            environment: process::environment(
                config,
                &request.env,
                &hostname,
                &user.home,
                record.has_terminal(),
            ),
            working_dir: process::working_dir(config, request.workdir.as_deref())?,
            arguments: record.arguments.clone(),
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
        process::add(&mut parts.environment, &described.env);
        for node in &nodes {
            if matches!(ids, Ids::Host) {
                parts.devices.push(node.to_linux()?);
            } else if shifted {
                let path = node.make_in(self.dir, |uid, gid| ids.outside(uid, gid))?;
                parts.device_binds.push((path, node.target.clone()));
            } else {
                parts.device_binds.push((node.source.clone(), node.target.clone()));
            }
        }
        for file in databases {
            parts.device_binds.push((file.source, file.target.into()));
        }
        let mut spec = spec::build(request, parts)?;
        shared.apply(&mut spec)?;
        spec.set_hooks(described.hooks);
        let group = groups::make(&record.cgroup, &request.resources, authority, device_rules)?;
        let filter = self.filter(&spec)?;
        Started {
            process: spec.process().clone().unwrap_or_default(),
            filter: filter.clone(),
            own_group: group.is_some(),
        }
        .write(self.dir)?;
        // A device node that an image brings along must be of no use.
        let no_devices = !request.security.privileged && shifted;
        if let (Keeper::Supervisor, Stdio::Given(fds)) = (keeper, &stdio) {
            // The program may open /dev/stdout. Only what the supervisor made is changed: /dev/null is the host's.
            let (uid, gid) = ids.outside(owner.0, owner.1);
            let is_pipe = |fd: &OwnedFd| {
                rustix::fs::fstat(fd)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
            };
            for fd in fds.iter().filter(|fd| is_pipe(fd)) {
                let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            }
        }
        let mut container = Container::new(&record.id, spec)
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
            .die_with_parent(keeper == Keeper::Caller)
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
        if let Some(memory) = shared.memory()? {
            container = container.mount("/dev/shm", memory);
        }
        if let Some(group) = group {
            container = container.cgroup(group);
        }
        if let Some(attach) = connection.attach() {
            container = container.on_created(attach);
        }
        let process =
            container.spawn().map_err(|error| connection.failure().unwrap_or_else(|| error.into()))?;
        drop((held, shared));
        Ok(Running { process, ids, connection })
    }

    /// The IDs that the container gets.
    fn ids(&self, user: &User, shared: &Shared) -> Result<Ids> {
        let authority = self.engine.authority()?;
        let of_layers = self.layers.iter().map(|layer| layer.record.max_id);
        let of_user = [user.uid, user.gid].into_iter().chain(user.additional_gids.iter().copied());
        let wished = self.record.request.namespaces.user_ids;
        let highest = of_layers
            .chain(of_user)
            .chain(wished.map(|count| count.saturating_sub(1)))
            .max()
            .unwrap_or_default();
        let runroot = &self.engine.settings().runroot;
        if let Some(ids) = shared.ids(authority.first_namespace, runroot, highest)? {
            return Ok(ids);
        }
        if !authority.first_namespace {
            // The caller's namespace has the IDs already; the container gets the same in one of its own.
            let maps = onggi_runtime::rootless::nested_maps()?;
            let last = wished.unwrap_or_default().saturating_sub(1);
            let has = |map: &onggi_sys::idmap::IdMap| map.to_outside(last).is_some();
            if let (Some(count), Some((uids, gids))) = (wished, &maps)
                && !(has(uids) && has(gids))
            {
                let problem =
                    format!("you don't have {count} IDs: see your lines in /etc/subuid and /etc/subgid");
                return Err(Error::flag("--userns", problem));
            }
            if let Some(kept) = self.engine.kept_ids(&self.record.request)? {
                kept.must_have(highest)?;
                return Ok(Ids::Nested(kept.shift.uids, kept.shift.gids));
            }
            return Ok(maps.map_or(Ids::Host, |(uids, gids)| Ids::Nested(uids, gids)));
        }
        if self.record.host_ids {
            return Ok(Ids::Host);
        }
        let seed = u32::from_le_bytes(random()?);
        Ok(Ids::Range(IdRange::take(runroot, highest, seed)?))
    }

    /// Which devices the control group allows; `None` for no rules.
    fn device_rules(&self, nodes: &[Node], ids: &Ids) -> Result<Option<Vec<LinuxDeviceCgroup>>> {
        let (request, security) = (&self.record.request, &self.record.request.security);
        if security.privileged {
            return Ok(None);
        }
        let partial = request.devices.iter().any(|device| device.access != "rwm")
            || (!request.cdi_dirs.is_empty() && nodes.iter().any(Node::is_partial));
        let asked = if security.device_rules.is_empty() {
            "--device with permissions"
        } else {
            "--device-cgroup-rule"
        };
        let needed = partial || !security.device_rules.is_empty();
        if !needed && nodes.is_empty() && !matches!(ids, Ids::Host) {
            return Ok(None);
        }
        if self.engine.authority()?.first_namespace {
            return device::rules(nodes, &security.device_rules).map(Some);
        }
        let why = "rules for devices need root";
        if needed { Err(Error::flag_unsupported(asked, why)) } else { Ok(None) }
    }

    fn filter(&self, spec: &Spec) -> Result<Filter> {
        let security = &self.record.request.security;
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
