//! What a network is, on disk: `<root>/networks/<name>.json`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::Subnet;
use crate::error::{Error, Result};

/// The network that containers get if nothing is said.
pub const DEFAULT_NETWORK: &str = "bridge";
/// How the names of all our bridges begin.
pub const BRIDGE_PREFIX: &str = "onggi";
/// Names that mean something else in `--network`.
const RESERVED: [&str; 4] = ["bridge", "default", "host", "none"];

/// The option for the size of packets.
const OPTION_MTU: &str = "com.docker.network.driver.mtu";
/// The option for the name of the bridge.
const OPTION_BRIDGE: &str = "com.docker.network.bridge.name";
/// The option for whether containers go out with the host's address.
const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// The option for whether containers reach each other.
const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
/// The option for the address that ports are published on.
const OPTION_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";

/// Addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// All of them.
    pub subnet: Subnet,
    /// The bridge's own.
    pub gateway: IpAddr,
    /// Those that containers get by themselves; the whole subnet if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<Subnet>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The name of the bridge's interface.
    pub bridge: String,
    /// Its addresses: one range of IPv4 and, if wished, one of IPv6.
    pub ranges: Vec<Range>,
    /// Whether it has no way out.
    #[serde(default)]
    pub internal: bool,
    /// Options of the driver, as they were given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// For filters.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was made, RFC 3339.
    pub created: String,
}

/// A range as it is asked for.
#[derive(Clone, Debug, Default)]
pub struct RangeWish {
    /// The subnet; a free one if `None`.
    pub subnet: Option<Subnet>,
    /// The bridge's address; the first if `None`.
    pub gateway: Option<IpAddr>,
    /// Those that containers get by themselves.
    pub ip_range: Option<Subnet>,
}

/// A network as it is asked for.
#[derive(Clone, Debug, Default)]
pub struct NetworkWish {
    /// The name.
    pub name: String,
    /// Addresses of IPv4.
    pub ipv4: RangeWish,
    /// Addresses of IPv6; none if `None`.
    pub ipv6: Option<RangeWish>,
    /// Whether it has no way out.
    pub internal: bool,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// For filters.
    pub labels: BTreeMap<String, String>,
    /// When it is made, RFC 3339.
    pub created: String,
}

impl Definition {
    /// The first digits of the ID.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Whether it is the one that always exists.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_NETWORK
    }

    /// Whether containers find each other by name.
    pub fn has_names(&self) -> bool {
        !self.is_default()
    }

    /// The range of a version of IP.
    pub fn range(&self, ipv4: bool) -> Option<&Range> {
        self.ranges.iter().find(|range| range.subnet.is_ipv4() == ipv4)
    }

    /// The size of packets.
    pub fn mtu(&self) -> Option<u32> {
        let keys = [OPTION_MTU, "mtu"];
        keys.iter().find_map(|key| self.options.get(*key)).and_then(|value| value.parse().ok())
    }

    pub(crate) fn masquerades(&self) -> bool {
        self.options.get(OPTION_MASQUERADE).is_none_or(|value| is_true(value) == Some(true))
    }

    pub(crate) fn isolates_ports(&self) -> bool {
        self.options.get(OPTION_ICC).is_some_and(|value| is_true(value) == Some(false))
    }

    /// The address that ports are published on if none is named.
    pub fn binding(&self) -> Option<IpAddr> {
        self.options.get(OPTION_BINDING).and_then(|value| value.parse().ok())
    }
}

/// Checks a name for a new network: Docker's rule.
pub(crate) fn check_name(name: &str) -> Result<()> {
    /// A file's name with the suffix.
    const MAX_NAME: usize = 200;
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && name.len() <= MAX_NAME;
    if RESERVED.contains(&name) {
        return Err(Error::Predefined { name: name.into(), op: "created" });
    }
    if good {
        return Ok(());
    }
    Err(Error::invalid("network name", format!("{name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed")))
}

/// Checks the options and gives the name of the bridge if one is wished.
pub(crate) fn check_options(options: &BTreeMap<String, String>) -> Result<Option<String>> {
    let mut bridge = None;
    for (key, value) in options {
        let bad = |why: &str| Err(Error::invalid("network option", format!("{key}={value}: {why}")));
        match key.as_str() {
            OPTION_MTU | "mtu" => {
                // 68 is the least that IPv4 needs (RFC 791).
                if !value.parse::<u32>().is_ok_and(|mtu| (68..=65_535).contains(&mtu)) {
                    return bad("must be a number from 68 to 65535");
                }
            }
            OPTION_BRIDGE => {
                let good = value.starts_with(BRIDGE_PREFIX)
                    && value.len() <= 15
                    && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
                if !good {
                    return bad(
                        "must begin with \"onggi\" (the rules of the firewall rely on it) and have at most \
                         15 letters, digits, '_', '.' and '-'",
                    );
                }
                bridge = Some(value.clone());
            }
            OPTION_MASQUERADE | OPTION_ICC => {
                if is_true(value).is_none() {
                    return bad("must be true or false");
                }
            }
            OPTION_BINDING => {
                if value.parse::<std::net::Ipv4Addr>().is_err() {
                    return bad("must be an IPv4 address");
                }
            }
            _ => return Err(Error::unsupported(format!("the network option {key}"), KNOWN_OPTIONS)),
        }
    }
    Ok(bridge)
}

const KNOWN_OPTIONS: &str = "known are mtu, com.docker.network.driver.mtu and, with \
    com.docker.network.bridge. before them, name, enable_ip_masquerade, enable_icc, host_binding_ipv4";

fn is_true(value: &str) -> Option<bool> {
    match value {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
