//! Subnets, hardware addresses, and the choice of free ones.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A block of addresses: the first one and the length of the prefix that they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    first: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet with this prefix that the address lies in.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a prefix that is longer than an address.
    pub fn containing(address: IpAddr, prefix: u8) -> Result<Self> {
        let width = width(address);
        if prefix > width {
            return Err(Error::invalid(
                "subnet",
                format!("{address}/{prefix}: the prefix is at most {width}"),
            ));
        }
        Ok(Self { first: from_number(to_number(address) & mask(width, prefix), address), prefix })
    }

    /// Its first address, the name of the subnet itself.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// Its last address; of IPv4 the broadcast address.
    pub fn last(self) -> IpAddr {
        from_number(to_number(self.first) | !mask(width(self.first), self.prefix), self.first)
    }

    /// The length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether the address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4()
            && to_number(address) & mask(width(address), self.prefix) == to_number(self.first)
    }

    /// Whether some address lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The address that comes `offset` after the first; `None` beyond the end.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        let address = from_number(to_number(self.first).checked_add(offset)?, self.first);
        (offset <= !mask(width(self.first), self.prefix) && self.contains(address)).then_some(address)
    }

    /// Whether a host can have the address: not the subnet's own, nor the broadcast address.
    pub fn is_host(self, address: IpAddr) -> bool {
        // One or two addresses: all of them (RFC 3021).
        let tiny = width(self.first) - self.prefix <= 1;
        let edge = address == self.first || (address.is_ipv4() && address == self.last());
        self.contains(address) && (tiny || !edge)
    }

    /// Addresses that a host can have, lowest first.
    pub fn hosts(self) -> impl Iterator<Item = IpAddr> {
        (0..).map_while(move |offset| self.nth(offset)).filter(move |address| self.is_host(*address))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    /// `ADDRESS/PREFIX`; the address may be any of the subnet.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::invalid("subnet", format!("{text:?} is not of the form ADDRESS/PREFIX"));
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address = address.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().map_err(|_| invalid())?;
        Self::containing(address, prefix)
    }
}

impl Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A hardware address of Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address that goes with an IP address: locally administered, `02:42` and four bytes of
    /// it, so that who gets an address again is found at once by neighbours that remember it.
    pub fn of(address: IpAddr) -> Self {
        let [a, b, c, d] = match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => {
                let [.., a, b, c, d] = address.octets();
                [a, b, c, d]
            }
        };
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<String> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&bytes.join(":"))
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid("MAC address", format!("{text:?} {why}"));
        let mut bytes = [0; 6];
        let parts: Vec<&str> = text.split([':', '-']).collect();
        if parts.len() != bytes.len() {
            return Err(invalid("does not have six parts"));
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| invalid("is not of pairs of hexadecimal digits"))?;
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(invalid("is not the address of one interface"));
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The IPv4 subnet that the default network wants.
const DEFAULT_POOL: Subnet = Subnet { first: IpAddr::V4(Ipv4Addr::new(10, 88, 0, 0)), prefix: 16 };
/// Where subnets of other networks come from: 10.89.0.0 up to the end of 10.0.0.0/8, then 172.16.0.0/12.
const POOLS: [(u32, u32); 2] = [(0x0a59_0000, 0x0aff_ffff), (0xac10_0000, 0xac1f_ffff)];
/// The prefix of a network's subnet where nothing is asked for: 253 containers.
const POOL_PREFIX: u8 = 24;

/// A free IPv4 subnet: one that overlaps none of `taken`.
pub(crate) fn free_subnet(taken: &[Subnet], for_default: bool) -> Result<Subnet> {
    let is_free = |wanted: &Subnet| !taken.iter().any(|other| other.overlaps(*wanted));
    if for_default && is_free(&DEFAULT_POOL) {
        return Ok(DEFAULT_POOL);
    }
    let step = 1 << (32 - POOL_PREFIX);
    let candidates = POOLS.into_iter().flat_map(|(from, to)| (from..=to).step_by(step));
    let subnets = candidates.map(|first| Subnet { first: Ipv4Addr::from(first).into(), prefix: POOL_PREFIX });
    subnets.into_iter().find(is_free).ok_or(Error::NoSubnet)
}

/// A random subnet of the unique local addresses (RFC 4193).
pub(crate) fn random_ipv6_subnet(random: [u8; 7]) -> Subnet {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..8].copy_from_slice(&random);
    Subnet { first: Ipv6Addr::from(bytes).into(), prefix: 64 }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// IPv4 addresses keep the ones above their 32 bits out of everything: see [`mask`].
fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // Callers stay below 2³² for IPv4; the rest is cut off.
        IpAddr::V4(_) => {
            Ipv4Addr::from(u32::try_from(number & u128::from(u32::MAX)).unwrap_or_default()).into()
        }
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The bits of the prefix; bits above the address's width count as of the prefix.
fn mask(width: u8, prefix: u8) -> u128 {
    let hosts = u32::from(width - prefix.min(width));
    u128::MAX.checked_shl(hosts).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_know_their_bounds() {
        let small = subnet("10.1.2.77/24");
        assert_eq!(small.to_string(), "10.1.2.0/24");
        assert_eq!(small.last().to_string(), "10.1.2.255");
        assert!(
            small.contains("10.1.2.255".parse().unwrap()) && !small.contains("10.1.3.0".parse().unwrap())
        );
        assert!(!small.contains("::1".parse().unwrap()));
        assert_eq!(small.hosts().count(), 254);
        assert_eq!(small.nth(256), None);
        assert_eq!(subnet("0.0.0.0/0").last().to_string(), "255.255.255.255");
        assert_eq!(subnet("::/0").nth(1).unwrap().to_string(), "::1");
        assert_eq!(subnet("10.0.0.4/31").hosts().count(), 2);
        assert_eq!(subnet("10.0.0.4/32").hosts().count(), 1);
        assert_eq!(subnet("fd00::/64").hosts().next().unwrap().to_string(), "fd00::1");
        assert!(subnet("10.0.0.0/8").overlaps(small) && small.overlaps(subnet("10.0.0.0/8")));
        assert!(!small.overlaps(subnet("10.1.3.0/24")) && !small.overlaps(subnet("::/0")));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "::/129", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hardware_addresses_parse_as_they_print() {
        let mac: Mac = "02:42:ac:11:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:ac:11:00:ff");
        assert_eq!(Mac::of("172.17.0.255".parse().unwrap()), mac);
        for bad in
            ["", "02:42", "02:42:ac:11:00:fg", "01:00:00:00:00:00", "00:00:00:00:00:00", "2:42:ac:11:0:f"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn free_subnets_avoid_what_is_taken() {
        assert_eq!(free_subnet(&[], true).unwrap().to_string(), "10.88.0.0/16");
        assert_eq!(free_subnet(&[], false).unwrap().to_string(), "10.89.0.0/24");
        assert_eq!(free_subnet(&[subnet("10.89.0.0/23")], false).unwrap().to_string(), "10.89.2.0/24");
        assert_eq!(free_subnet(&[subnet("10.0.0.0/8")], true).unwrap().to_string(), "172.16.0.0/24");
        assert!(free_subnet(&[subnet("0.0.0.0/0")], true).is_err());
    }
}
