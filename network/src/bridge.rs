//! The bridge of a network and the pairs of interfaces that lead to it. All of it happens in the
//! namespace of the calling thread, the "host" of the network.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::address::{Mac, Subnet};
use crate::definition::{Definition, Range};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::namespace::NetworkNamespace;
use crate::netlink::route::VethPair;
use crate::netlink::{Requests, Socket};

const EEXIST: i32 = 17;
const ENODEV: i32 = 19;

fn socket() -> Result<Socket> {
    Socket::open_route().map_err(Error::system("open a netlink socket"))
}

/// The index of the network's bridge; `None` if it has none.
pub(crate) fn find(network: &Definition) -> Result<Option<u32>> {
    let link = socket()?.link(&network.bridge);
    Ok(link.map_err(Error::link("look at", &network.bridge))?.map(|link| link.index))
}

/// The bridge with its addresses, up; made if it isn't there. Its index, and whether it was made.
/// `mtu` is the size of packets unless the network says one.
pub(crate) fn ensure(network: &Definition, mtu: Option<u32>) -> Result<(u32, bool)> {
    if let Some(index) = find(network)? {
        return Ok((index, false));
    }
    let failed = |op| Error::link::<io::Error>(op, &network.bridge);
    let mut socket = socket()?;
    let mut requests = Requests::new();
    let first = network.ranges.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |range| range.gateway);
    requests.add_bridge(&network.bridge, Mac::of(first), network.mtu().or(mtu));
    match socket.execute(&requests) {
        Err((_, error)) if error.raw_os_error() == Some(EEXIST) => {}
        other => other.map_err(|(_, error)| failed("make the bridge")(error))?,
    }
    let link = socket.link(&network.bridge).map_err(failed("look at the bridge"))?;
    let index = link.ok_or_else(|| failed("find the bridge")(io::ErrorKind::NotFound.into()))?.index;
    settings(network)?;
    let mut requests = Requests::new();
    for range in &network.ranges {
        requests.add_address(index, range.gateway, range.subnet);
    }
    requests.set_up(index);
    match socket.execute(&requests) {
        // Somebody else was faster.
        Err((_, error)) if error.raw_os_error() == Some(EEXIST) => {
            let mut up = Requests::new();
            up.set_up(index);
            socket.execute(&up).map_err(|(_, error)| failed("bring up the bridge")(error))?;
        }
        other => other.map_err(|(_, error)| failed("give addresses to the bridge")(error))?,
    }
    Ok((index, true))
}

/// Settings of the kernel that the bridge needs.
fn settings(network: &Definition) -> Result<()> {
    let of = |version: &str, name: &str| format!("/proc/sys/net/{version}/conf/{}/{name}", network.bridge);
    let six = network.range(false).is_some();
    // A published port on 127.0.0.1 goes out by the bridge; the table keeps others away from there.
    set(&of("ipv4", "route_localnet"), "1")?;
    if Path::new("/proc/sys/net/ipv6").exists() {
        // Without addresses of its own, the host must not be found by link-local ones either.
        set(&of("ipv6", "disable_ipv6"), if six { "0" } else { "1" })?;
        set(&of("ipv6", "accept_ra"), "0")?;
    }
    if !network.internal {
        set("/proc/sys/net/ipv4/ip_forward", "1")?;
        if six {
            set("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        }
    }
    Ok(())
}

/// Writes a setting of the kernel unless it is so already.
fn set(path: &str, value: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(path, value).map_err(Error::io("change the kernel's setting", path))
}

/// Removes the bridge if it is there.
pub(crate) fn remove(network: &Definition) -> Result<()> {
    let Some(index) = find(network)? else { return Ok(()) };
    let mut requests = Requests::new();
    requests.delete_link(index);
    match socket()?.execute(&requests) {
        Err((_, error)) if error.raw_os_error() == Some(ENODEV) => Ok(()),
        other => other.map_err(|(_, error)| Error::link("remove the bridge", &network.bridge)(error)),
    }
}

/// Joins a namespace to the bridge by a pair of interfaces.
pub(crate) fn plug(
    bridge: u32,
    network: &Definition,
    endpoint: &Endpoint,
    inside: &NetworkNamespace,
    mtu: Option<u32>,
) -> Result<()> {
    use std::os::fd::AsFd;
    let mut requests = Requests::new();
    // With this setting bridges pass through the table, and a redirected packet may leave by the
    // port that it came from.
    let filtered = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    requests.add_veth(&VethPair {
        name: &endpoint.port,
        bridge,
        mtu: network.mtu().or(mtu),
        hairpin: filtered.is_ok_and(|on| on.trim() == "1"),
        isolated: network.isolates_ports(),
        peer: &endpoint.interface,
        peer_mac: endpoint.mac,
        peer_namespace: inside.as_fd(),
    });
    let op = format!("the interface {} of network {}", endpoint.interface, network.name);
    socket()?.execute(&requests).map_err(|(_, error)| Error::link("make", op)(error))?;
    let outcome = inside.inside(|| configure(network, endpoint));
    if outcome.is_err() {
        unplug(endpoint)?;
    }
    outcome
}

/// Addresses and routes of the inner end.
fn configure(network: &Definition, endpoint: &Endpoint) -> Result<()> {
    let name = &endpoint.interface;
    let mut socket = socket()?;
    let link = socket.link(name).map_err(Error::link("look at", name))?;
    let index =
        link.ok_or_else(|| Error::link("find", name)(io::Error::from(io::ErrorKind::NotFound)))?.index;
    let ipv6 = endpoint.addresses.iter().chain(&endpoint.link_local).any(IpAddr::is_ipv6);
    if !ipv6 && Path::new("/proc/sys/net/ipv6").exists() {
        // A network without IPv6 has none, not even among neighbours.
        set(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    let mut requests = Requests::new();
    for address in &endpoint.addresses {
        if let Some(range) = network.range(address.is_ipv4()) {
            requests.add_address(index, *address, range.subnet);
        }
    }
    for address in &endpoint.link_local {
        let subnet = Subnet::containing(*address, if address.is_ipv4() { 16 } else { 64 })?;
        requests.add_address(index, *address, subnet);
    }
    requests.set_up(index);
    socket.execute(&requests).map_err(|(_, error)| Error::link("give addresses to", name)(error))?;
    for range in network.ranges.iter().filter(|_| !network.internal) {
        route(&mut socket, index, range, name)?;
    }
    Ok(())
}

/// The default route, unless another network has it already.
fn route(socket: &mut Socket, index: u32, range: &Range, name: &str) -> Result<()> {
    let mut requests = Requests::new();
    requests.add_default_route(index, range.gateway);
    match socket.execute(&requests) {
        Err((_, error)) if error.raw_os_error() == Some(EEXIST) => Ok(()),
        other => other.map_err(|(_, error)| Error::link("give a default route to", name)(error)),
    }
}

/// Gives addresses to the interface by which a program of the user mode brings what is published. Answers
/// have to leave by it, though the default route is a bridge's: by their source.
pub(crate) fn configure_ports(name: &str, own: Ipv4Addr, peer: Ipv4Addr, subnet: Subnet) -> Result<()> {
    /// Of the container's 255 tables one that nobody has a use for.
    const TABLE: u8 = 77;
    let mut socket = socket()?;
    let link = socket.link(name).map_err(Error::link("look at", name))?;
    let index =
        link.ok_or_else(|| Error::link("find", name)(io::Error::from(io::ErrorKind::NotFound)))?.index;
    if Path::new("/proc/sys/net/ipv6").exists() {
        set(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    let mut requests = Requests::new();
    requests.add_address(index, own.into(), subnet);
    requests.set_up(index);
    requests.add_default_route_in(TABLE, index, peer.into());
    requests.add_source_rule(own, TABLE);
    socket.execute(&requests).map_err(|(_, error)| Error::link("give addresses to", name)(error))
}

/// Removes an interface of a container that leads to a bridge which is gone.
pub(crate) fn remove_inner(endpoint: &Endpoint) -> Result<()> {
    let mut socket = socket()?;
    let name = &endpoint.interface;
    let Some(link) = socket.link(name).map_err(Error::link("look at", name))? else { return Ok(()) };
    let mut requests = Requests::new();
    requests.delete_link(link.index);
    socket.execute(&requests).map_err(|(_, error)| Error::link("remove the interface", name)(error))
}

/// Gives the default route to another network after the one that had it has gone.
pub(crate) fn route_through(network: &Definition, endpoint: &Endpoint) -> Result<()> {
    let mut socket = socket()?;
    let name = &endpoint.interface;
    let Some(link) = socket.link(name).map_err(Error::link("look at", name))? else { return Ok(()) };
    for range in network.ranges.iter().filter(|_| !network.internal) {
        route(&mut socket, link.index, range, name)?;
    }
    Ok(())
}

/// Removes a pair of interfaces, if it is there.
pub(crate) fn unplug(endpoint: &Endpoint) -> Result<()> {
    let mut socket = socket()?;
    let name = &endpoint.port;
    let Some(link) = socket.link(name).map_err(Error::link("look at", name))? else { return Ok(()) };
    let mut requests = Requests::new();
    requests.delete_link(link.index);
    match socket.execute(&requests) {
        Err((_, error)) if error.raw_os_error() == Some(ENODEV) => Ok(()),
        other => other.map_err(|(_, error)| Error::link("remove the interface", name)(error)),
    }
}

/// A name for an interface in the current namespace that none has yet: `eth0`, `eth1`, …
pub(crate) fn free_interface() -> Result<String> {
    let links = socket()?.links().map_err(Error::link("list", "the interfaces"))?;
    let free = (0..=links.len())
        .map(|number| format!("eth{number}"))
        .find(|name| links.iter().all(|link| link.name != *name));
    free.ok_or(Error::System { op: "name an interface", source: io::ErrorKind::QuotaExceeded.into() })
}

/// Subnets that this host has routes to.
pub(crate) fn routed_subnets() -> Result<Vec<Subnet>> {
    socket()?.destinations().map_err(Error::link("list", "the routes of this host"))
}

/// Ports of our bridges in this namespace: the name of each interface that hangs on one.
pub(crate) fn ports_of(bridges: &[u32]) -> Result<Vec<String>> {
    let links = socket()?.links().map_err(Error::link("list", "the interfaces"))?;
    let on_bridge =
        links.into_iter().filter(|link| link.master.is_some_and(|master| bridges.contains(&master)));
    Ok(on_bridge.map(|link| link.name).collect())
}
