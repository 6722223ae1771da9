//! Interfaces, addresses and routes (`NETLINK_ROUTE`, rtnetlink(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{ACK, Attributes, CREATE, DUMP, EXCL, Requests, Socket, attribute, attributes, first_four, text};
use crate::address::{Mac, Subnet};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// No duplicate address detection: the address serves at once.
const IFA_F_NODAD: u8 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

const FRA_SRC: u16 = 2;
/// Look into the table that the header names.
const FR_ACT_TO_TBL: u8 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// An interface, as far as anybody here wants to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
}

/// Both ends of a pair of interfaces: ours on a bridge, the other in a namespace.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub name: &'a str,
    pub bridge: u32,
    pub mtu: Option<u32>,
    /// Whether the bridge sends a frame back through the port that it came from.
    pub hairpin: bool,
    /// Whether it reaches no other port that is so too.
    pub isolated: bool,
    pub peer: &'a str,
    pub peer_mac: Mac,
    pub peer_namespace: BorrowedFd<'a>,
}

/// The requests of this family.
impl Requests {
    pub(crate) fn add_bridge(&mut self, name: &str, mac: Mac, mtu: Option<u32>) {
        self.add(RTM_NEWLINK, ACK | CREATE | EXCL, &link_header(0, 0, 0), |link| {
            link.text(IFLA_IFNAME, name);
            // A fixed address: else it changes with the ports, and neighbours lose it.
            link.bytes(IFLA_ADDRESS, &mac.0);
            if let Some(mtu) = mtu {
                link.u32(IFLA_MTU, mtu);
            }
            link.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
        });
    }

    pub(crate) fn add_veth(&mut self, pair: &VethPair<'_>) {
        let mtu = |link: &mut Attributes<'_>| {
            if let Some(mtu) = pair.mtu {
                link.u32(IFLA_MTU, mtu);
            }
        };
        self.add(RTM_NEWLINK, ACK | CREATE | EXCL, &link_header(0, IFF_UP, IFF_UP), |link| {
            link.text(IFLA_IFNAME, pair.name);
            link.u32(IFLA_MASTER, pair.bridge);
            mtu(link);
            link.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "veth");
                info.nest(IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |peer| {
                        peer.raw(&link_header(0, 0, 0));
                        peer.text(IFLA_IFNAME, pair.peer);
                        peer.bytes(IFLA_ADDRESS, &pair.peer_mac.0);
                        mtu(peer);
                        let fd = u32::try_from(pair.peer_namespace.as_raw_fd()).unwrap_or_default();
                        peer.u32(IFLA_NET_NS_FD, fd);
                    });
                });
            });
        });
        if pair.hairpin || pair.isolated {
            self.add(RTM_NEWLINK, ACK, &link_header(0, 0, 0), |link| {
                link.text(IFLA_IFNAME, pair.name);
                link.nest(IFLA_LINKINFO, |info| {
                    info.text(IFLA_INFO_SLAVE_KIND, "bridge");
                    info.nest(IFLA_INFO_SLAVE_DATA, |data| {
                        data.bytes(IFLA_BRPORT_MODE, &[u8::from(pair.hairpin)]);
                        data.bytes(IFLA_BRPORT_ISOLATED, &[u8::from(pair.isolated)]);
                    });
                });
            });
        }
    }

    pub(crate) fn set_up(&mut self, index: u32) {
        self.add(RTM_NEWLINK, ACK, &link_header(index, IFF_UP, IFF_UP), |_| {});
    }

    pub(crate) fn delete_link(&mut self, index: u32) {
        self.add(RTM_DELLINK, ACK, &link_header(index, 0, 0), |_| {});
    }

    /// `address` with the length of its subnet's prefix.
    pub(crate) fn add_address(&mut self, index: u32, address: IpAddr, subnet: Subnet) {
        self.add(RTM_NEWADDR, ACK | CREATE | EXCL, &address_header(index, address, subnet), |list| {
            with_bytes(address, |bytes| {
                list.bytes(IFA_LOCAL, bytes);
                list.bytes(IFA_ADDRESS, bytes);
            });
            if let IpAddr::V4(last) = subnet.last()
                && subnet.prefix() < 31
            {
                list.bytes(IFA_BROADCAST, &last.octets());
            }
        });
    }

    /// Everything that has no nearer route goes to `gateway`.
    pub(crate) fn add_default_route(&mut self, index: u32, gateway: IpAddr) {
        self.add_default_route_in(RT_TABLE_MAIN, index, gateway);
    }

    /// What comes from `source` asks `table` first (`RTM_NEWRULE`).
    pub(crate) fn add_source_rule(&mut self, source: Ipv4Addr, table: u8) {
        // fib_rule_hdr: family, lengths of destination and source, tos, table, 2 unused, action, flags u32
        let header = [AF_INET, 0, 32, 0, table, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        self.add(RTM_NEWRULE, ACK | CREATE | EXCL, &header, |rule| rule.bytes(FRA_SRC, &source.octets()));
    }

    /// The same of another table than the main one.
    pub(crate) fn add_default_route_in(&mut self, table: u8, index: u32, gateway: IpAddr) {
        let family = if gateway.is_ipv4() { AF_INET } else { AF_INET6 };
        // rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags
        let header = [family, 0, 0, 0, table, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
        self.add(RTM_NEWROUTE, ACK | CREATE | EXCL, &header, |route| {
            with_bytes(gateway, |bytes| route.bytes(RTA_GATEWAY, bytes));
            route.u32(RTA_OIF, index);
        });
    }
}

impl Socket {
    /// The interface of this name.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut request = Requests::new();
        request.add(RTM_GETLINK, 0, &link_header(0, 0, 0), |link| link.text(IFLA_IFNAME, name));
        match self.ask_one(&request) {
            // ENODEV
            Err(error) if error.raw_os_error() == Some(19) => Ok(None),
            found => Ok(found?.as_deref().and_then(read_link)),
        }
    }

    /// All interfaces of the namespace.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut request = Requests::new();
        request.add(RTM_GETLINK, DUMP, &link_header(0, 0, 0), |_| {});
        let answers = self.ask(&request)?;
        Ok(answers
            .iter()
            .filter(|answer| answer.kind == RTM_NEWLINK)
            .filter_map(|a| read_link(&a.body))
            .collect())
    }

    /// The destinations of all routes but the default ones: subnets that are taken on this host.
    pub(crate) fn destinations(&mut self) -> io::Result<Vec<Subnet>> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut request = Requests::new();
            request.add(RTM_GETROUTE, DUMP, &[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| {});
            for answer in self.ask(&request)? {
                let Some((header, rest)) = answer.body.split_at_checked(12) else { continue };
                // Only unicast: local and broadcast routes lie inside of those.
                let (prefix, kind) = (header[1], header[7]);
                if answer.kind != RTM_NEWROUTE || kind != RTN_UNICAST || prefix == 0 {
                    continue;
                }
                found.extend(
                    attribute(rest, RTA_DST)
                        .and_then(read_ip)
                        .and_then(|ip| Subnet::containing(ip, prefix).ok()),
                );
            }
        }
        Ok(found)
    }

    fn ask_one(&mut self, request: &Requests) -> io::Result<Option<Vec<u8>>> {
        // Without ACK the answer is the message itself or an error.
        self.send(request)?;
        let mut buffer = vec![0; super::RECEIVE];
        let length = self.receive(&mut buffer)?;
        let Some(message) = super::Messages(&buffer[..length]).next() else { return Ok(None) };
        if message.kind != super::ERROR {
            return Ok(Some(message.body.to_vec()));
        }
        match i32::from_ne_bytes(first_four(message.body)) {
            0 => Ok(None),
            code => Err(io::Error::from_raw_os_error(-code)),
        }
    }
}

fn read_link(body: &[u8]) -> Option<Link> {
    let (header, rest) = body.split_at_checked(16)?;
    let index = u32::from_ne_bytes(first_four(&header[4..]));
    let flags = u32::from_ne_bytes(first_four(&header[8..]));
    let mut link = Link { index, name: String::new(), up: flags & IFF_UP != 0, master: None };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MASTER => link.master = Some(u32::from_ne_bytes(first_four(value))),
            _ => {}
        }
    }
    Some(link)
}

fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).into())
}

/// ifinfomsg: family, padding, type u16, index i32, flags u32, change u32
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// ifaddrmsg: family, prefix, flags, scope, index u32
fn address_header(index: u32, address: IpAddr, subnet: Subnet) -> [u8; 8] {
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    let flags = if address.is_ipv4() { 0 } else { IFA_F_NODAD };
    let mut header = [family, subnet.prefix(), flags, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

fn with_bytes(address: IpAddr, write: impl FnOnce(&[u8])) {
    match address {
        IpAddr::V4(address) => write(&address.octets()),
        IpAddr::V6(address) => write(&address.octets()),
    }
}
