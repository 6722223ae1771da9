//! Published ports: what is wished, what is given, and holding it.
//!
//! A port is held by a socket that is bound to it as long as the container runs: nobody else on this
//! host gets it meanwhile, and whoever has it already is named.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::relay;

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Error::invalid("protocol", format!("{text:?} is none of tcp, udp and sctp"))),
        }
    }
}

/// A port of a container that is to be reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortWish {
    /// The address of this host; `None` for the default.
    pub host_ip: Option<IpAddr>,
    /// The first and the last port of this host of which one is taken; `None` for any that is free.
    pub host_ports: Option<(u16, u16)>,
    /// The container's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A port that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The address of this host; unspecified for all of its version.
    pub host_ip: IpAddr,
    /// The port of this host.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A container of this store, by name or short ID.
    Container(String),
    /// A process of this host.
    Process {
        /// Its number.
        pid: u32,
        /// What it is called.
        name: String,
    },
    /// Somebody whom the caller may not look at, or who has gone.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(name) => write!(f, "container {name}"),
            Self::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Self::Unknown => f.write_str("a process that cannot be seen from here"),
        }
    }
}

/// A port of this host that nobody else gets while this value lives.
#[derive(Debug)]
pub struct Reservation {
    /// Which one.
    pub published: Published,
    /// Held, never read.
    pub(crate) socket: OwnedFd,
}

/// How often a random port that is somebody's for another protocol is tried anew.
const RANDOM_TRIES: usize = 16;
/// How long the relay of a container that has ended may keep a port.
const RELAY_PATIENCE: Duration = Duration::from_secs(1);
const RELAY_PAUSE: Duration = Duration::from_millis(2);

/// Takes the port, or one of the range. `others` finds the container that has one.
pub(crate) fn reserve(
    wish: &PortWish,
    address: IpAddr,
    others: &dyn Fn(&Published) -> Option<String>,
) -> Result<Reservation> {
    let (first, last) = wish.host_ports.unwrap_or((0, 0));
    let mut taken = None;
    let tries = if first == 0 { RANDOM_TRIES } else { 1 };
    for port in (first..=last).flat_map(|port| std::iter::repeat_n(port, tries)) {
        let mut published = Published {
            host_ip: address,
            host_port: port,
            container_port: wish.container_port,
            protocol: wish.protocol,
        };
        let failed = |source| Error::Port { address, port, protocol: wish.protocol, source };
        let mut held = hold(wish.protocol, SocketAddr::new(address, port));
        if relay::is_relayed(address) {
            // The relay of a container that ended just now takes a moment to notice.
            let since = Instant::now();
            while matches!(&held, Err(error) if error.kind() == io::ErrorKind::AddrInUse)
                && since.elapsed() < RELAY_PATIENCE
                && others(&published).is_none()
            {
                std::thread::sleep(RELAY_PAUSE);
                held = hold(wish.protocol, SocketAddr::new(address, port));
            }
        }
        match held {
            Ok((socket, port)) => {
                published.host_port = port;
                if let Some(name) = others(&published) {
                    taken = Some((published.host_port, Holder::Container(name)));
                    continue;
                }
                return Ok(Reservation { published, socket });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let holder = others(&published).map(Holder::Container);
                taken = Some((port, holder.unwrap_or_else(|| holder_of(wish.protocol, address, port))));
            }
            // The container has the same kernel.
            Err(error) if Errno::from_io_error(&error).is_some_and(is_unknown) => {
                return Err(Error::unsupported(
                    format!("publishing {}", wish.protocol),
                    "this kernel does not know the protocol, so no program of a container can use it",
                ));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let (port, holder) = taken.unwrap_or((first, Holder::Unknown));
    Err(Error::PortTaken { address, port, protocol: wish.protocol, holder })
}

fn is_unknown(errno: Errno) -> bool {
    matches!(errno, Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT)
}

/// A socket that has the port, and its number.
fn hold(protocol: Protocol, address: SocketAddr) -> io::Result<(OwnedFd, u16)> {
    match bound(protocol, address, false) {
        // It may be that only connections of a server that has gone are not forgotten yet. Then
        // another server could take the port, and so can we: by listening.
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp => {
            let (socket, port) = bound(protocol, address, true)?;
            listen(&socket, 0)?;
            Ok((socket, port))
        }
        other => Ok(other?),
    }
}

fn bound(protocol: Protocol, address: SocketAddr, reuse: bool) -> rustix::io::Result<(OwnedFd, u16)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, reuse)?;
    bind(&socket, &address)?;
    let name: SocketAddr = getsockname(&socket)?.try_into()?;
    Ok((socket, name.port()))
}

/// The process that has the port: by the kernel's list of sockets and the descriptors of processes.
fn holder_of(protocol: Protocol, address: IpAddr, port: u16) -> Holder {
    let found = socket_inode(protocol, address, port).and_then(|inode| {
        let wanted = format!("socket:[{inode}]");
        let processes = fs::read_dir("/proc").ok()?.flatten();
        processes.into_iter().find_map(|process| {
            let pid = process.file_name().to_str()?.parse::<u32>().ok()?;
            let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
            open.any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
                .then(|| {
                    let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                    Holder::Process { pid, name: name.trim().to_owned() }
                })
        })
    });
    found.unwrap_or(Holder::Unknown)
}

fn socket_inode(protocol: Protocol, address: IpAddr, port: u16) -> Option<u64> {
    let name = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => return None,
    };
    let versions = [("", address.is_ipv4() || address.is_unspecified()), ("6", true)];
    let lists = versions.into_iter().filter(|(_, asked)| *asked);
    lists.into_iter().find_map(|(version, _)| {
        let list = fs::read_to_string(format!("/proc/thread-self/net/{name}{version}")).ok()?;
        list.lines().skip(1).find_map(|line| {
            // number: local remote state queues timer retransmits uid timeout inode
            let mut fields = line.split_ascii_whitespace();
            let (_, local) = (fields.next()?, fields.next()?);
            let (_, state) = (fields.next()?, fields.next()?);
            let inode = fields.nth(5)?.parse().ok().filter(|inode| *inode != 0)?;
            let here = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()? == port;
            // 0A listens; UDP sockets are 07.
            (here && matches!(state, "0A" | "07")).then_some(inode)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn wish(ports: Option<(u16, u16)>, protocol: Protocol) -> PortWish {
        PortWish { host_ip: None, host_ports: ports, container_port: 80, protocol }
    }

    #[test]
    fn a_port_is_held_and_its_holder_named() {
        let first = reserve(&wish(None, Protocol::Tcp), HERE, &|_| None).unwrap();
        let port = first.published.host_port;
        assert_ne!(port, 0);
        let again = reserve(&wish(Some((port, port)), Protocol::Tcp), HERE, &|_| None).unwrap_err();
        assert!(again.to_string().contains(&port.to_string()), "{again}");
        // The kernel doesn't list sockets that are bound only; a server's are.
        let server = std::net::TcpListener::bind((HERE, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let error = reserve(&wish(Some((port, port)), Protocol::Tcp), HERE, &|_| None).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        let by_name = |published: &Published| (published.host_port == port).then(|| "web".to_owned());
        let error = reserve(&wish(Some((port, port)), Protocol::Tcp), HERE, &by_name).unwrap_err();
        assert!(error.to_string().ends_with("by container web"), "{error}");
    }

    #[test]
    fn of_a_range_the_first_free_port_is_taken() {
        let server = std::net::UdpSocket::bind((HERE, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let Some(next) = port.checked_add(20) else { return };
        let got = reserve(&wish(Some((port, next)), Protocol::Udp), HERE, &|_| None).unwrap();
        assert!(got.published.host_port > port);
        // SCTP is held as the others are, or refused by name.
        match reserve(&wish(None, Protocol::Sctp), HERE, &|_| None) {
            Ok(got) => assert_ne!(got.published.host_port, 0),
            Err(error) => assert!(error.to_string().contains("publishing sctp is not supported"), "{error}"),
        }
        assert!("TCP".parse::<Protocol>().is_ok() && "icmp".parse::<Protocol>().is_err());
    }
}
