//! Networks, as containers and people use them: the crate `network` knows namespaces, this module
//! knows whose they are.
//!
//! | module | subject |
//! |---|---|
//! | this | what can be wished, and where it is kept |
//! | [`connection`] | the network of one container from its start to its end |
//! | [`manage`] | networks made, listed, removed; containers connected to them while they run |
//! | [`shared`] | who holds the bridges of an ordinary user |

mod connection;
mod manage;
mod shared;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub(crate) use connection::{Connection, Guest, Names};
pub use manage::{ConnectRequest, ContainerNetwork, NetworkDetails};
pub use onggi_network::{
    DEFAULT_NETWORK, Definition as NetworkDefinition, Endpoint, EndpointWish, Mac, NetworkWish, PortWish,
    Protocol, Published, Range as NetworkRange, RangeWish, Subnet,
};

/// A network that a container joins, by name or ID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// The network.
    pub network: String,
    /// What is wished of it.
    pub wish: EndpointWish,
}

/// Ports to be reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Publishing {
    /// Those that were named.
    pub ports: Vec<PortWish>,
    /// Whether all exposed ports are published, each on a port of this host that is free.
    pub all: bool,
    /// Ports exposed besides those of the image.
    pub exposed: Vec<(u16, Protocol)>,
}

/// The address behind a name of `--add-host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostAddress {
    /// The host's, as the container reaches it.
    HostGateway,
    /// This one.
    #[serde(untagged)]
    Address(IpAddr),
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::HostGateway => f.write_str("host-gateway"),
        }
    }
}
