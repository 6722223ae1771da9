//! What a container sees on `/sys/fs/cgroup`.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use onggi_sys::mount::{self, Attributes, Parameter};
use onggi_sys::path::Root;

use super::Hierarchies;

/// Mounts the control groups below `destination`, as seen from the cgroup
/// namespace of the calling process.
pub(crate) fn mount_inside(root: &Root<'_>, destination: &Path, attributes: Attributes) -> io::Result<()> {
    let hierarchies = Hierarchies::detect().map_err(|error| io::Error::other(error.to_string()))?;
    let onto = root.make_dirs(destination)?;
    if hierarchies.is_unified() {
        return mount::attach(mount::make("cgroup2", &[], attributes)?.as_fd(), onto.as_fd());
    }
    let open = attributes.without(Attributes::READ_ONLY);
    let tmpfs = mount::make("tmpfs", &[("mode", Some("755")), ("size", Some("1m"))], open)?;
    for (controllers, path) in hierarchies.all_legacy() {
        if let Some(name) = path.file_name() {
            rustix::fs::mkdirat(&tmpfs, name, rustix::fs::Mode::from_raw_mode(0o755))?;
            // Each controller of a joint tree is found by its own name too.
            for one in controllers.split(',').filter(|one| controllers.contains(',') && !one.is_empty()) {
                rustix::fs::symlinkat(name, &tmpfs, one)?;
            }
        }
    }
    if hierarchies.unified().is_some() {
        rustix::fs::mkdirat(&tmpfs, "unified", rustix::fs::Mode::from_raw_mode(0o755))?;
    }
    mount::attach(tmpfs.as_fd(), onto.as_fd())?;
    for (controllers, path) in hierarchies.all_legacy() {
        let Some(name) = path.file_name() else { continue };
        let parameters: Vec<Parameter<'_>> = match controllers.strip_prefix("name=") {
            Some(name) => vec![("none", None), ("name", Some(name))],
            None => controllers.split(',').map(|one| (one, None)).collect(),
        };
        let made = mount::make("cgroup", &parameters, attributes)?;
        mount::attach(made.as_fd(), root.locate(&destination.join(name))?.as_fd())?;
    }
    if hierarchies.unified().is_some() {
        let made = mount::make("cgroup2", &[], attributes)?;
        mount::attach(made.as_fd(), root.locate(&destination.join("unified"))?.as_fd())?;
    }
    if attributes.contains(Attributes::READ_ONLY) {
        let change = mount::Change { set: Attributes::READ_ONLY, ..mount::Change::default() };
        change.apply(tmpfs.as_fd(), c"")?;
    }
    Ok(())
}
