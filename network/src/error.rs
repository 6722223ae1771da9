//! What can go wrong with networks, in sentences.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use onggi_oci::ErrorKind;

use crate::address::Subnet;
use crate::port::{Holder, Protocol};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate: the operation, the object, the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A wish that makes no sense.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// What was wished.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A wish that this host or this program can't fulfil.
    #[error("{what} is not supported: {why}")]
    Unsupported {
        /// The wish.
        what: String,
        /// The reason and, where there is one, the remedy.
        why: String,
    },
    /// There is no network of this name.
    #[error("network {name} not found")]
    NoNetwork {
        /// As the caller wrote it.
        name: String,
    },
    /// Several networks' IDs begin like this.
    #[error("network {name} is ambiguous: several IDs begin with it")]
    Ambiguous {
        /// As the caller wrote it.
        name: String,
    },
    /// The name has a network already.
    #[error("network with name {name} already exists")]
    Exists {
        /// The name.
        name: String,
    },
    /// A network that always exists.
    #[error("{name} is a pre-defined network and cannot be {op}")]
    Predefined {
        /// Its name.
        name: String,
        /// What was tried: "removed".
        op: &'static str,
    },
    /// Somebody is connected to the network.
    #[error("network {name} has active endpoints ({})", containers.join(", "))]
    InUse {
        /// The network.
        name: String,
        /// The containers.
        containers: Vec<String>,
    },
    /// The container is connected already.
    #[error("container {container} is already connected to network {network}")]
    Connected {
        /// Its name or ID.
        container: String,
        /// The network.
        network: String,
    },
    /// The container isn't connected.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// Its name or ID.
        container: String,
        /// The network.
        network: String,
    },
    /// Two networks can't share addresses.
    #[error("the subnet {subnet} overlaps {other} of {of}")]
    Overlap {
        /// The wished one.
        subnet: Subnet,
        /// The one that is there.
        other: Subnet,
        /// Whose it is: "network web", "this host's routes".
        of: String,
    },
    /// Every subnet that networks get by themselves is taken.
    #[error("no free subnet is left for the network: name one with --subnet")]
    NoSubnet,
    /// The address is another container's.
    #[error("address {address} of network {network} is already in use by container {holder}")]
    AddressTaken {
        /// The wished one.
        address: IpAddr,
        /// The network.
        network: String,
        /// The other container.
        holder: String,
    },
    /// All addresses are given away.
    #[error("network {network} has no free address left in {range}")]
    AddressesExhausted {
        /// The network.
        network: String,
        /// Where an address was looked for.
        range: Subnet,
    },
    /// The port is somebody's.
    #[error("port {port}/{protocol} of {address} is already in use by {holder}")]
    PortTaken {
        /// The address of this host.
        address: IpAddr,
        /// The port.
        port: u16,
        /// The protocol.
        protocol: Protocol,
        /// Who has it.
        holder: Holder,
    },
    /// The system refuses the port.
    #[error("cannot publish port {port}/{protocol} on {address}: {source}{}", hint(source))]
    Port {
        /// The address of this host.
        address: IpAddr,
        /// The port; 0 for any.
        port: u16,
        /// The protocol.
        protocol: Protocol,
        /// Why not.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file doesn't say what it should.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The kernel refused a change of interfaces, addresses or routes.
    #[error("cannot {op} {object}: {source}{}", permission(source))]
    Link {
        /// What was tried, as a verb phrase.
        op: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused a change of our firewall table.
    #[error("cannot {op} the nftables table \"inet onggi\": {source}{}", nft_hint(source))]
    Ruleset {
        /// What was tried, as a verb.
        op: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A system call about namespaces, sockets or processes failed.
    #[error("cannot {op}: {source}")]
    System {
        /// What was tried, as a verb phrase.
        op: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// An ordinary user's bridges are gone with the process that held them.
    #[error(
        "the process that held the networks of this user was killed; the next container that starts makes it anew"
    )]
    NoHolder,
    /// The holder belongs to another user namespace than the caller.
    #[error(
        "the networks of this user were made anew while this container's supervisor lived: stop the container and start it again"
    )]
    HeldElsewhere,
    /// A program that connects a namespace failed.
    #[error("{program} failed: {words}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it printed, or its status.
        words: String,
    },
}

impl Error {
    /// The broad class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::Ambiguous { .. } => ErrorKind::Invalid,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::NoNetwork { .. } | Self::NotConnected { .. } => ErrorKind::NotFound,
            Self::Exists { .. }
            | Self::InUse { .. }
            | Self::Connected { .. }
            | Self::Overlap { .. }
            | Self::NoSubnet
            | Self::NoHolder
            | Self::HeldElsewhere
            | Self::AddressTaken { .. }
            | Self::AddressesExhausted { .. }
            | Self::PortTaken { .. } => ErrorKind::Conflict,
            Self::Predefined { .. } => ErrorKind::Denied,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Port { source, .. }
            | Self::Io { source, .. }
            | Self::Link { source, .. }
            | Self::Ruleset { source, .. }
            | Self::System { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                ErrorKind::Denied
            }
            _ => ErrorKind::Io,
        }
    }

    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { what, why: why.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), why: why.into() }
    }

    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, path: path.as_ref().into(), source }
    }

    pub(crate) fn link<E: Into<io::Error>>(
        op: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Link { op, object: object.into(), source: source.into() }
    }

    pub(crate) fn system<E: Into<io::Error>>(op: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { op, source: source.into() }
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            " (ports below net.ipv4.ip_unprivileged_port_start are root's: take one of 1024 and above)"
        }
        io::ErrorKind::AddrNotAvailable => " (no interface of this host has the address)",
        _ => "",
    }
}

fn permission(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (networks need CAP_NET_ADMIN; --network none and host do not)",
        io::ErrorKind::Unsupported => " (the kernel lacks the module bridge or veth)",
        _ => "",
    }
}

fn nft_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (networks need CAP_NET_ADMIN; --network none and host do not)",
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported => {
            " (does the kernel have nf_tables with nft_nat, nft_masq, nft_fib_inet and nft_ct?)"
        }
        _ => "",
    }
}
