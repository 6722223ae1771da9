//! The one nftables table that is ours: `inet onggi`.
//!
//! ```text
//!   chain guard        prerouting -300   127.0.0.0/8 from a bridge ─► drop
//!   chain prerouting   nat -100 ─┐
//!   chain output       nat -100 ─┴► publish: to this host?  protocol . address . port ─► @ports4 @ports6
//!                                                           protocol . port           ─► @wild4 @wild6
//!   chain postrouting  nat 100   from 127.0.0.0/8 to a bridge            ─► masquerade (localhost)
//!                                marked in forward                       ─► masquerade (hairpin)
//!                                from @subnets4 @subnets6 out of all     ─► masquerade
//!   chain forward      filter 0  within one network (@same), redirected  ─► mark
//!                                within one network (@same)              ─► accept
//!                                from a network in @internal             ─► drop
//!                                to a bridge ─► inbound: known or redirected ─► accept, else drop
//! ```
//!
//! The rules never change: what a network or a container adds are elements of sets and maps, in one
//! transaction. Names of bridges begin with `onggi`, so that rules (ours and those of a host's
//! firewall) can name all of them at once.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::address::Subnet;
use crate::definition::{BRIDGE_PREFIX, Definition};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::netlink::Socket;
use crate::netlink::nft::{Batch, Element, Hook, Set, Type, Verdict};
use crate::port::{Protocol, Published};
use crate::relay;

/// The table.
pub const TABLE: &str = "onggi";

/// A bit of a packet's mark, from `forward` to `postrouting`: there a bridged packet no longer tells
/// where it came from.
const HAIRPIN: u32 = 0x0040_0000;

const SETS: [Set<'_>; 8] = [
    Set { name: "same", key: &[Type::Interface, Type::Interface], data: &[], intervals: false },
    Set { name: "internal", key: &[Type::Interface], data: &[], intervals: false },
    Set { name: "subnets4", key: &[Type::Ipv4], data: &[], intervals: true },
    Set { name: "subnets6", key: &[Type::Ipv6], data: &[], intervals: true },
    Set {
        name: "ports4",
        key: &[Type::Protocol, Type::Ipv4, Type::Port],
        data: &[Type::Ipv4, Type::Port],
        intervals: false,
    },
    Set {
        name: "ports6",
        key: &[Type::Protocol, Type::Ipv6, Type::Port],
        data: &[Type::Ipv6, Type::Port],
        intervals: false,
    },
    Set {
        name: "wild4",
        key: &[Type::Protocol, Type::Port],
        data: &[Type::Ipv4, Type::Port],
        intervals: false,
    },
    Set {
        name: "wild6",
        key: &[Type::Protocol, Type::Port],
        data: &[Type::Ipv6, Type::Port],
        intervals: false,
    },
];

/// Comments of the rules, in their order: what a check compares.
const RULES: [(&str, &str); 16] = [
    ("guard", "nobody on a network reaches the host's loopback"),
    ("guard", "nor says that he comes from there"),
    ("prerouting", "published ports, from elsewhere"),
    ("output", "published ports, from this host"),
    ("publish", "IPv4, one address"),
    ("publish", "IPv4, all addresses"),
    ("publish", "IPv6, one address"),
    ("publish", "IPv6, all addresses"),
    ("postrouting", "from localhost to a published port"),
    ("postrouting", "answers must come back this way"),
    ("postrouting", "IPv4 out of a network"),
    ("postrouting", "IPv6 out of a network"),
    ("forward", "from a container to a port that its own network publishes"),
    ("forward", "within a network, where bridges pass through here"),
    ("forward", "an internal network has no way out"),
    ("forward", "into a network"),
];
const INBOUND: [(&str, &str); 3] =
    [("inbound", "answers"), ("inbound", "published ports"), ("inbound", "all else stays out")];

/// An element and the set that it belongs to.
type Owned = (&'static str, Element);

/// Everything that has to be in the table for these networks and their endpoints.
pub(crate) fn wanted(networks: &[(Definition, Vec<Endpoint>)]) -> Vec<Owned> {
    let mut all = Vec::new();
    for (network, endpoints) in networks {
        all.extend(of_network(network));
        for endpoint in endpoints {
            all.extend(of_endpoint(network, endpoint));
        }
    }
    all
}

/// What a network needs in the table.
pub(crate) fn of_network(network: &Definition) -> Vec<Owned> {
    let name = interface(&network.bridge);
    let comment = format!("{} {}", network.short_id(), network.name);
    let plain = |key| Element { key, data: Vec::new(), end: false, comment: comment.clone() };
    let mut all = vec![("same", plain([name, name].concat()))];
    if network.internal {
        all.push(("internal", plain(name.to_vec())));
        return all;
    }
    if !network.masquerades() {
        return all;
    }
    for range in &network.ranges {
        let set = if range.subnet.is_ipv4() { "subnets4" } else { "subnets6" };
        all.push((set, plain(bytes(range.subnet.first()))));
        if let Some(next) = after(range.subnet) {
            // The kernel takes no comment at an end.
            all.push((set, Element { end: true, comment: String::new(), ..plain(bytes(next)) }));
        }
    }
    all
}

/// What the published ports of a container need.
pub(crate) fn of_endpoint(network: &Definition, endpoint: &Endpoint) -> Vec<Owned> {
    let comment = format!("{} {}", network.short_id(), endpoint.short_container());
    let mut all = Vec::new();
    for port in endpoint.ports.iter().filter(|port| !relay::is_needed(port)) {
        all.extend(of_port(port, endpoint, &comment));
    }
    all
}

fn of_port(port: &Published, endpoint: &Endpoint, comment: &str) -> Vec<Owned> {
    let element = |set, key: Vec<u8>, to: IpAddr| {
        let data = [bytes(to), padded_port(port.container_port)].concat();
        (set, Element { key, data, end: false, comment: comment.to_owned() })
    };
    let protocol = vec![port.protocol.number(), 0, 0, 0];
    let own = padded_port(port.host_port);
    let mut all = Vec::new();
    // A wildcard is of one version, as of a socket with IPV6_V6ONLY.
    let to = if port.host_ip.is_ipv4() { endpoint.ipv4() } else { endpoint.ipv6() };
    let Some(to) = to else { return all };
    let four = port.host_ip.is_ipv4();
    if port.host_ip.is_unspecified() {
        all.push(element(if four { "wild4" } else { "wild6" }, [protocol, own].concat(), to));
    } else {
        let key = [protocol, bytes(port.host_ip), own].concat();
        all.push(element(if four { "ports4" } else { "ports6" }, key, to));
    }
    all
}

/// Adds elements; `false` if there is no table, or one that lacks our sets.
pub(crate) fn add(elements: &[Owned]) -> Result<bool> {
    if elements.is_empty() {
        return Ok(true);
    }
    let mut batch = Batch::new(TABLE);
    each_set(elements, |set, list| batch.add_elements(set, list));
    missing_is_false(commit(batch, "add to"))
}

/// Whether the table is there.
pub(crate) fn exists() -> Result<bool> {
    socket()?.has_table(TABLE).map_err(failed("read"))
}

/// In a container's namespace: what goes to these services arrives at other ports of the same address.
///
/// ```text
///   chain output   nat -100   protocol . 127.0.0.11 . 53 ─► @names ─► 127.0.0.11 . the resolver's port
/// ```
pub(crate) fn redirect_names(service: SocketAddr, ports: &[(Protocol, u16)]) -> Result<()> {
    const NAMES: Set<'_> = Set {
        name: "names",
        key: &[Type::Protocol, Type::Ipv4, Type::Port],
        data: &[Type::Ipv4, Type::Port],
        intervals: false,
    };
    let element = |(protocol, port): &(Protocol, u16)| {
        let address = bytes(service.ip());
        let key = [vec![protocol.number(), 0, 0, 0], address.clone(), padded_port(service.port())].concat();
        Element { key, data: [address, padded_port(*port)].concat(), end: false, comment: String::new() }
    };
    let mut batch = Batch::new(TABLE);
    batch.add_table();
    batch.add_set(&NAMES);
    batch.add_base_chain("output", "nat", Hook::Output, -100);
    batch.add_rule("output", "the resolver", |rule| {
        rule.version(true).service(true, true).look_up(NAMES.name).redirect(true);
    });
    let elements: Vec<Element> = ports.iter().map(element).collect();
    batch.add_elements(NAMES.name, &elements);
    commit(batch, "make")
}

/// Removes elements, as far as they are there.
pub(crate) fn remove(elements: &[Owned]) -> Result<()> {
    // What somebody else removed must not keep the rest.
    let mut socket = socket()?;
    if !socket.has_table(TABLE).map_err(failed("read"))? {
        return Ok(());
    }
    let mut batch = Batch::new(TABLE);
    each_set(elements, |set, list| batch.delete_elements(set, list));
    if missing_is_false(commit(batch, "remove from"))? {
        return Ok(());
    }
    for one in elements {
        let mut batch = Batch::new(TABLE);
        batch.delete_elements(one.0, std::slice::from_ref(&one.1));
        missing_is_false(commit(batch, "remove from"))?;
    }
    Ok(())
}

/// Makes the whole table anew, in one transaction: who is connected stays so.
pub(crate) fn restore(elements: &[Owned]) -> Result<()> {
    let mut batch = Batch::new(TABLE);
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    for set in &SETS {
        batch.add_set(set);
    }
    // Connection tracking only looks at addresses after -200; nat chains have fixed places.
    batch.add_base_chain("guard", "filter", Hook::Prerouting, -300);
    batch.add_chain("publish");
    batch.add_chain("inbound");
    batch.add_base_chain("prerouting", "nat", Hook::Prerouting, -100);
    batch.add_base_chain("output", "nat", Hook::Output, -100);
    batch.add_base_chain("postrouting", "nat", Hook::Postrouting, 100);
    batch.add_base_chain("forward", "filter", Hook::Forward, 0);
    add_rules(&mut batch);
    each_set(elements, |set, list| batch.add_elements(set, list));
    commit(batch, "make")
}

/// As [`restore`]; what other stores have in the table stays.
pub(crate) fn restore_beside(elements: &[Owned], networks: &[Definition]) -> Result<()> {
    let mut socket = socket()?;
    let mut all = elements.to_vec();
    for set in &SETS {
        let there = socket.elements(TABLE, set.name).map_err(failed("read"))?;
        all.extend(split(there, networks).1.into_iter().map(|element| (set.name, element)));
    }
    all.sort();
    all.dedup();
    restore(&all)
}

/// Whether an element says that it is of one of these networks.
fn is_of(element: &Element, networks: &[Definition]) -> bool {
    let first = element.comment.split(' ').next().unwrap_or_default();
    networks.iter().any(|network| first == network.short_id())
}

/// Elements of these networks, and those of others. The end of an interval is whose its start is.
fn split(mut elements: Vec<Element>, networks: &[Definition]) -> (Vec<Element>, Vec<Element>) {
    // Where one interval ends and another begins, the end comes first.
    elements.sort_by(|a, b| a.key.cmp(&b.key).then(b.end.cmp(&a.end)));
    let mut is_ours = false;
    elements.into_iter().partition(|element| {
        if !element.end {
            is_ours = is_of(element, networks);
        }
        is_ours
    })
}

fn add_rules(batch: &mut Batch<'_>) {
    let mut about = RULES.iter().chain(&INBOUND);
    let mut rule = |fill: &dyn Fn(&mut crate::netlink::nft::Rule<'_, '_>)| {
        if let Some((chain, words)) = about.next() {
            batch.add_rule(chain, words, |rule| fill(rule));
        }
    };
    let loopback = [127];
    rule(&|r| r.enters_by(BRIDGE_PREFIX).version(true).ipv4_begins(true, &loopback).verdict(Verdict::Drop));
    rule(&|r| r.enters_by(BRIDGE_PREFIX).version(true).ipv4_begins(false, &loopback).verdict(Verdict::Drop));
    rule(&|r| r.is_for_this_host().verdict(Verdict::Jump("publish")));
    rule(&|r| r.is_for_this_host().verdict(Verdict::Jump("publish")));
    rule(&|r| r.version(true).service(true, true).look_up("ports4").redirect(true));
    rule(&|r| r.version(true).service(true, false).look_up("wild4").redirect(true));
    rule(&|r| r.version(false).service(false, true).look_up("ports6").redirect(false));
    rule(&|r| r.version(false).service(false, false).look_up("wild6").redirect(false));
    rule(&|r| r.leaves_by(BRIDGE_PREFIX, true).version(true).ipv4_begins(false, &loopback).masquerade());
    rule(&|r| r.marked(HAIRPIN).masquerade());
    rule(&|r| r.leaves_by(BRIDGE_PREFIX, false).version(true).source(true).is_in("subnets4").masquerade());
    rule(&|r| r.leaves_by(BRIDGE_PREFIX, false).version(false).source(false).is_in("subnets6").masquerade());
    rule(&|r| r.interfaces().is_in("same").redirected().mark(HAIRPIN));
    rule(&|r| r.interfaces().is_in("same").verdict(Verdict::Accept));
    rule(&|r| r.interface().is_in("internal").verdict(Verdict::Drop));
    rule(&|r| r.leaves_by(BRIDGE_PREFIX, true).verdict(Verdict::Goto("inbound")));
    rule(&|r| r.established().verdict(Verdict::Accept));
    rule(&|r| r.redirected().verdict(Verdict::Accept));
    rule(&|r| r.verdict(Verdict::Drop));
}

/// What the table in the kernel lacks, and what it has of ours that nobody needs.
#[derive(Debug, Default)]
pub(crate) struct Drift {
    pub no_table: bool,
    pub rules: bool,
    pub missing: usize,
    pub stale: Vec<Owned>,
}

/// Compares the table with what has to be in it. Elements with comments of networks that are not
/// in `networks` belong to other stores.
pub(crate) fn compare(wanted: &[Owned], networks: &[Definition]) -> Result<Drift> {
    let mut socket = socket()?;
    let mut drift = Drift::default();
    if !socket.has_table(TABLE).map_err(failed("read"))? {
        drift.no_table = true;
        drift.missing = wanted.len();
        return Ok(drift);
    }
    let rules = socket.rules(TABLE).map_err(failed("read"))?;
    let expected = RULES.iter().chain(&INBOUND);
    let by_chain = |rules: &mut Vec<(String, String)>| rules.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected: Vec<_> =
        expected.map(|(chain, about)| ((*chain).to_owned(), (*about).to_owned())).collect();
    let mut found = rules;
    by_chain(&mut expected);
    by_chain(&mut found);
    drift.rules = expected != found;
    for set in &SETS {
        let there = socket.elements(TABLE, set.name).map_err(failed("read"))?;
        let (ours, others) = split(there, networks);
        let needed: BTreeSet<&Element> =
            wanted.iter().filter(|(name, _)| *name == set.name).map(|(_, element)| element).collect();
        let is_there = |element: &Element| ours.contains(element) || others.contains(element);
        drift.missing += needed.iter().filter(|element| !is_there(element)).count();
        let stale = ours.into_iter().filter(|element| !needed.contains(element));
        drift.stale.extend(stale.map(|element| (set.name, element)));
    }
    Ok(drift)
}

/// Chains of other tables whose policy drops what is forwarded.
pub(crate) fn foreign_drops() -> Result<Vec<String>> {
    socket()?.forward_drops(TABLE).map_err(failed("read"))
}

fn socket() -> Result<Socket> {
    Socket::open_netfilter().map_err(failed("reach"))
}

fn commit(batch: Batch<'_>, op: &'static str) -> Result<()> {
    batch.commit(&mut socket()?).map_err(failed(op))
}

fn failed(op: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Ruleset { op, source }
}

fn missing_is_false(outcome: Result<()>) -> Result<bool> {
    match outcome {
        Err(Error::Ruleset { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true),
    }
}

fn each_set(elements: &[Owned], mut put: impl FnMut(&'static str, &[Element])) {
    for set in &SETS {
        let list: Vec<Element> =
            elements.iter().filter(|(name, _)| *name == set.name).map(|(_, one)| one.clone()).collect();
        if !list.is_empty() {
            put(set.name, &list);
        }
    }
}

/// A name in the sixteen bytes that the kernel has for one.
fn interface(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.as_bytes()).take(15) {
        *to = *from;
    }
    bytes
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn padded_port(port: u16) -> Vec<u8> {
    [&port.to_be_bytes()[..], &[0, 0]].concat()
}

/// The address after the last of a subnet; `None` at the end of all addresses.
fn after(subnet: Subnet) -> Option<IpAddr> {
    match subnet.last() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}
