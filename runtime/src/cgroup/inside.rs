//! What a container sees on `/sys/fs/cgroup`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use onggi_sys::mount::{self, Attributes, Change, Parameter};
use onggi_sys::path::Root;
use rustix::fs::{Mode, mkdirat, symlinkat};

use super::Hierarchies;

/// Mounts the control groups below `destination`. With `groups` (what `/proc/self/cgroup` said before
/// the calling process had its own cgroup namespace), its groups are bound from the host's mounts, so
/// that no others show: a new instance of each version 1 tree would show the same and take far
/// longer. Trees in which it shares somebody else's group are left out: what lies in that is not its
/// business. Without, it has had its namespace from birth, and a new instance begins at its group.
pub(crate) fn mount_inside(
    root: &Root<'_>,
    destination: &Path,
    attributes: Attributes,
    groups: Option<&str>,
) -> io::Result<()> {
    let hierarchies = match groups {
        Some(text) => Hierarchies::of(text),
        None => Hierarchies::detect().map_err(|error| io::Error::other(error.to_string()))?,
    };
    let own = groups.and_then(|text| group_in(text, "")).filter(|path| *path != "/");
    let is_shown = |controllers: &str| match (groups, own) {
        (Some(text), Some(own)) => group_in(text, controllers) == Some(own),
        _ => true,
    };
    let tree = |controllers: &str, mount: &Path, kind: &str, parameters: &[Parameter<'_>]| match groups {
        Some(groups) => bound(groups, controllers, mount, attributes),
        None => mount::make(kind, parameters, attributes),
    };
    let onto = root.make_dirs(destination)?;
    if let Some(mount) = hierarchies.unified().filter(|_| hierarchies.is_unified()) {
        return mount::attach(tree("", mount, "cgroup2", &[])?.as_fd(), onto.as_fd());
    }
    let open = attributes.without(Attributes::READ_ONLY);
    let tmpfs = mount::make("tmpfs", &[("mode", Some("755")), ("size", Some("1m"))], open)?;
    let directory = |name: &std::ffi::OsStr| mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755));
    let legacy = || hierarchies.all_legacy().filter(|(controllers, _)| is_shown(controllers));
    for (controllers, path) in legacy() {
        if let Some(name) = path.file_name() {
            directory(name)?;
            // Each controller of a joint tree is found by its own name too.
            for one in controllers.split(',').filter(|one| controllers.contains(',') && !one.is_empty()) {
                symlinkat(name, &tmpfs, one)?;
            }
        }
    }
    if hierarchies.unified().is_some() {
        directory("unified".as_ref())?;
    }
    mount::attach(tmpfs.as_fd(), onto.as_fd())?;
    for (controllers, path) in legacy() {
        let Some(name) = path.file_name() else { continue };
        let parameters: Vec<Parameter<'_>> = match controllers.strip_prefix("name=") {
            Some(name) => vec![("none", None), ("name", Some(name))],
            None => controllers.split(',').map(|one| (one, None)).collect(),
        };
        let made = tree(controllers, path, "cgroup", &parameters)?;
        mount::attach(made.as_fd(), root.locate(&destination.join(name))?.as_fd())?;
    }
    if let Some(path) = hierarchies.unified() {
        let made = tree("", path, "cgroup2", &[])?;
        mount::attach(made.as_fd(), root.locate(&destination.join("unified"))?.as_fd())?;
    }
    if attributes.contains(Attributes::READ_ONLY) {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        change.apply(tmpfs.as_fd(), c"")?;
    }
    Ok(())
}

/// The group in one tree, as `/proc/self/cgroup` says it.
fn group_in<'a>(text: &'a str, controllers: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        (fields.next()? == controllers).then(|| fields.next()).flatten()
    })
}

/// The own group of one tree, cloned from the host's mount of it.
fn bound(groups: &str, controllers: &str, mount: &Path, attributes: Attributes) -> io::Result<OwnedFd> {
    let path = group_in(groups, controllers);
    let group = mount.join(path.unwrap_or("/").trim_start_matches('/'));
    let group = CString::new(group.as_os_str().as_bytes())?;
    let tree = mount::clone_tree(rustix::fs::CWD, &group, false)?;
    Change { set: attributes, ..Change::default() }.apply(tree.as_fd(), c"")?;
    Ok(tree)
}
