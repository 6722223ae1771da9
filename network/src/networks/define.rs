//! Networks defined: what is wished is checked against what is there, and written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use super::{Bridges, Networks};
use crate::address::{Subnet, free_subnet, random_ipv6_subnet};
use crate::bridge;
use crate::definition::{
    BRIDGE_PREFIX, DEFAULT_NETWORK, Definition, NetworkWish, Range, RangeWish, check_name, check_options,
};
use crate::error::{Error, Result};

/// The most that is read of a definition.
const MAX_DEFINITION: u64 = 1 << 20;

impl Networks {
    /// The network that containers get by default; defined now if it isn't yet.
    pub fn default_network(&self, created: &dyn Fn() -> String) -> Result<Definition> {
        if let Some(found) = self.read(DEFAULT_NETWORK)? {
            return Ok(found);
        }
        let _lock = self.lock()?;
        if let Some(found) = self.read(DEFAULT_NETWORK)? {
            return Ok(found);
        }
        let wish = NetworkWish { name: DEFAULT_NETWORK.into(), created: created(), ..NetworkWish::default() };
        self.define(&wish, None)
    }

    /// Defines a network. Its bridge is made when the first container needs it.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Overlap`], [`Error::Invalid`] and [`Error::Unsupported`] for wishes
    /// that can't be.
    pub fn create(&self, wish: &NetworkWish) -> Result<Definition> {
        check_name(&wish.name)?;
        let bridge = check_options(&wish.options)?;
        let _lock = self.lock()?;
        if self.read(&wish.name)?.is_some() {
            return Err(Error::Exists { name: wish.name.clone() });
        }
        self.define(wish, bridge)
    }

    fn define(&self, wish: &NetworkWish, bridge: Option<String>) -> Result<Definition> {
        let others = self.all()?;
        let id: String = random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let bridge_taken = |name: &str| others.iter().any(|other| other.bridge == name);
        if let Some(name) = bridge.as_deref().filter(|name| bridge_taken(name)) {
            return Err(Error::invalid("network option", format!("another network has the bridge {name}")));
        }
        let bridge = match bridge {
            Some(name) => name,
            // The short name, unless another store has it.
            None if wish.name == DEFAULT_NETWORK => {
                let name = format!("{BRIDGE_PREFIX}0");
                let probe = Definition { bridge: name.clone(), ..blank() };
                // A holder's namespace is of one store.
                let is_free = !matches!(self.bridges, Bridges::Here) || bridge::find(&probe)?.is_none();
                if is_free { name } else { bridge_name(&id) }
            }
            None => bridge_name(&id),
        };
        // The caller's: where he can go, containers shall go too.
        let routed = bridge::routed_subnets()?;
        let mut ranges = vec![self.range(&wish.ipv4, true, wish, &others, &routed)?];
        if let Some(ipv6) = &wish.ipv6 {
            ranges.push(self.range(ipv6, false, wish, &others, &routed)?);
        }
        let definition = Definition {
            id,
            name: wish.name.clone(),
            bridge,
            ranges,
            internal: wish.internal,
            options: wish.options.clone(),
            labels: wish.labels.clone(),
            created: wish.created.clone(),
        };
        self.write(&definition)?;
        Ok(definition)
    }

    /// One range, checked against what is there.
    fn range(
        &self,
        wish: &RangeWish,
        ipv4: bool,
        network: &NetworkWish,
        others: &[Definition],
        routed: &[Subnet],
    ) -> Result<Range> {
        let of_networks = || others.iter().flat_map(|n| n.ranges.iter().map(move |range| (n, range.subnet)));
        let subnet = match wish.subnet {
            Some(subnet) if subnet.is_ipv4() != ipv4 => {
                return Err(Error::invalid("subnet", format!("{subnet} is of the other version of IP")));
            }
            Some(subnet) => {
                // Enough for a gateway and one container.
                if subnet.hosts().nth(1).is_none() {
                    return Err(Error::invalid(
                        "subnet",
                        format!("{subnet} has no room for a gateway and a container"),
                    ));
                }
                subnet
            }
            None if wish.gateway.is_some() || wish.ip_range.is_some() => {
                return Err(Error::invalid("network", "--gateway and --ip-range need --subnet"));
            }
            None if ipv4 => {
                let taken: Vec<_> =
                    of_networks().map(|(_, subnet)| subnet).chain(routed.iter().copied()).collect();
                free_subnet(&taken, network.name == DEFAULT_NETWORK)?
            }
            None => random_ipv6_subnet(random()?),
        };
        if let Some((other, theirs)) = of_networks().find(|(_, theirs)| theirs.overlaps(subnet)) {
            return Err(Error::Overlap { subnet, other: theirs, of: format!("network {}", other.name) });
        }
        if let Some(route) = routed.iter().find(|route| route.overlaps(subnet)) {
            return Err(Error::Overlap { subnet, other: *route, of: "this host's routes".into() });
        }
        let within = |what, address: IpAddr| {
            if subnet.is_host(address) {
                return Ok(address);
            }
            Err(Error::invalid(what, format!("{address} is no address of a host in {subnet}")))
        };
        let gateway = if let Some(gateway) = wish.gateway {
            within("gateway", gateway)?
        } else {
            // The first of the range, where one is given (as Docker), else of the subnet.
            let from = wish.ip_range.unwrap_or(subnet);
            let mut all = (0..).map_while(|offset| from.nth(offset));
            let first = all.find(|address| subnet.is_host(*address));
            first.ok_or_else(|| Error::invalid("ip range", format!("{from} has no host of {subnet}")))?
        };
        if let Some(ip_range) = wish.ip_range
            && !(subnet.contains(ip_range.first()) && subnet.contains(ip_range.last()))
        {
            return Err(Error::invalid("ip range", format!("{ip_range} does not lie in {subnet}")));
        }
        Ok(Range { subnet, gateway, ip_range: wish.ip_range })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.definitions.join(format!("{name}.json"))
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Definition>> {
        let path = self.file(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename) => {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_DEFINITION).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::Damaged { path, problem: error.to_string() })
    }

    fn write(&self, network: &Definition) -> Result<()> {
        fs::create_dir_all(&self.definitions).map_err(Error::io("make", &self.definitions))?;
        let path = self.file(&network.name);
        let beside = self.definitions.join(format!(".{}", network.id));
        let bytes = serde_json::to_vec_pretty(network).expect("plain values always serialise");
        let written = File::create(&beside).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.definitions)?.sync_all()
        });
        written.map_err(Error::io("write", path))
    }
}

fn bridge_name(id: &str) -> String {
    format!("{BRIDGE_PREFIX}-{}", id.get(..9).unwrap_or(id))
}

/// A definition of nothing.
fn blank() -> Definition {
    Definition {
        id: String::new(),
        name: String::new(),
        bridge: String::new(),
        ranges: Vec::new(),
        internal: false,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        created: String::new(),
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    // Requests of up to 256 bytes are never cut short.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::system("read random bytes"))?;
    Ok(bytes)
}
