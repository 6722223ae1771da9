//! An address, ports and names for a network namespace. Knows nothing of containers but an ID and
//! a name: whoever calls has a namespace that is to be connected.
//!
//! ```text
//!   Networks ─┬─ definition   what a network is                    <root>/networks/<name>.json
//!             ├─ endpoint     who has which address                <runroot>/networks/<id>/
//!             ├─ port         published ports, held by sockets
//!             ├─ dns          the resolver of one container    ┐ processes that end with it
//!             ├─ relay        its ports on [::1]               ┘
//!             ├─ bridge       interfaces, addresses, routes        ┐
//!             └─ ruleset      the one nftables table               ┴► netlink, without any program
//! ```
//!
//! [`usermode`] is for callers without root: a program with a TAP interface. [`holder`] is where their
//! bridges are.
//! Everything blocks; nothing but the namespace of a short-lived thread is entered.
#![forbid(unsafe_code)]

mod address;
mod bridge;
mod companion;
mod definition;
pub mod dns;
mod endpoint;
mod error;
pub mod holder;
mod namespace;
mod netlink;
mod networks;
mod port;
mod relay;
mod ruleset;
pub mod usermode;

pub use address::{Mac, Subnet};
pub use definition::{BRIDGE_PREFIX, DEFAULT_NETWORK, Definition, NetworkWish, Range, RangeWish};
pub use endpoint::{Endpoint, EndpointWish};
pub use error::{Error, Result};
pub use namespace::NetworkNamespace;
pub use networks::{Bridges, Guest, Networks, Reserved};
pub use port::{Holder, PortWish, Protocol, Published, Reservation};
pub use ruleset::TABLE;
