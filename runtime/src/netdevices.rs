//! Interfaces of the host that a container gets (runtime-spec, `linux.netDevices`): each moves into its network
//! namespace with the addresses that it has for good, takes its new name there, and is up.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{Linux, LinuxNetDevice};
use onggi_sys::clone::{Namespaces, enter};
use onggi_sys::interface::Interfaces;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// `IFNAMSIZ` with the NUL that ends a name.
const MAX_NAME: usize = 15;

/// One interface: its name on the host and in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetDevice {
    host: String,
    inside: String,
}

/// What a specification names; `own` says whether the container has a network namespace.
pub(crate) fn read(linux: &Linux, own: bool) -> Result<Vec<NetDevice>> {
    let none = HashMap::new();
    let wanted = linux.net_devices().as_ref().unwrap_or(&none);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    if !own {
        let why = "unable to move network devices without a NET namespace of the container";
        return Err(Error::invalid("linux.netDevices", why));
    }
    let name = |name: &str| match is_name(name) {
        true => Ok(name.to_owned()),
        false => Err(Error::invalid("linux.netDevices", format!("{name:?} is not the name of an interface"))),
    };
    let device = |(host, device): (&String, &LinuxNetDevice)| {
        let inside = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
        Ok(NetDevice { host: name(host)?, inside: name(inside)? })
    };
    let mut devices = wanted.iter().map(device).collect::<Result<Vec<_>>>()?;
    devices.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(devices)
}

/// As the kernel takes it.
fn is_name(name: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':');
    (1..=MAX_NAME).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(plain)
}

/// Moves them. The calling process has one thread, and is in the network namespace of the host.
pub(crate) fn give(devices: &[NetDevice], namespace: BorrowedFd<'_>) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let path = "/proc/self/ns/net";
    let own = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", path))?;
    let inode = |fd: BorrowedFd<'_>| {
        rustix::fs::fstat(fd).map(|stat| stat.st_ino).map_err(Error::io("look at", path))
    };
    if inode(own.as_fd())? == inode(namespace)? {
        let why = "unable to move network devices without a NET namespace: it is the host's";
        return Err(Error::invalid("linux.netDevices", why));
    }
    let step = |operation| Error::io(operation, "the network interfaces");
    let outside = Interfaces::here().map_err(step("reach"))?;
    let inside = within(namespace, &own, Interfaces::here).map_err(step("reach"))?;
    for device in devices {
        one(device, &outside, &inside, namespace)?;
    }
    Ok(())
}

fn one(
    device: &NetDevice,
    outside: &Interfaces,
    inside: &Interfaces,
    namespace: BorrowedFd<'_>,
) -> Result<()> {
    let NetDevice { host, inside: name } = device;
    let step = |operation| Error::io(operation, format!("network device {host}"));
    let index = outside.index(host).map_err(step("find"))?;
    let addresses = outside.addresses(index).map_err(step("read the addresses of"))?;
    let before = inside.indexes().map_err(step("look for"))?;
    outside
        .give(index, namespace, name)
        .map_err(Error::io("give the container", format!("network device {host} as {name}")))?;
    // It may have another number there, and of a name with %d only the kernel knows what it became.
    let after = inside.indexes().map_err(step("look for"))?;
    let new = after.into_iter().find(|index| !before.contains(index));
    let new =
        new.ok_or_else(|| Error::NotFound { what: format!("network device {name} in the container") })?;
    for address in &addresses {
        inside.add_address(new, address).map_err(step("give an address to"))?;
    }
    inside.set_up(new).map_err(step("bring up"))
}

/// A socket made in another namespace keeps working in that.
fn within<T>(
    namespace: BorrowedFd<'_>,
    own: &OwnedFd,
    make: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    enter(namespace, Namespaces::NET)?;
    let made = make();
    enter(own.as_fd(), Namespaces::NET)?;
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces() {
        for good in ["eth0", "a", "veth%d", "012345678901234"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "0123456789012345", "a\n"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_container_without_a_namespace_gets_none() {
        let mut linux = Linux::default();
        assert!(read(&linux, false).unwrap().is_empty());
        linux.set_net_devices(Some(HashMap::from([("eth0".to_owned(), LinuxNetDevice::default())])));
        assert!(read(&linux, false).is_err());
        let found = read(&linux, true).unwrap();
        assert_eq!(found, [NetDevice { host: "eth0".into(), inside: "eth0".into() }]);
    }
}
