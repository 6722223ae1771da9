//! All networks of one store: made, listed, removed; containers connected, swept and checked.
//!
//! ```text
//!   <root>/networks/<name>.json        a definition; made and removed by one rename or unlink
//!   <runroot>/networks/lock            held while definitions or the whole table change
//!   <runroot>/networks/<id>/…          endpoints, see `endpoint`
//! ```
//!
//! A container comes in three steps, so that whatever can be refused is refused before it exists:
//! [`Networks::reserve`] takes addresses and ports, [`Networks::plug`] gives interfaces to its
//! namespace, and [`Networks::release`] ends both; the kernel removes the interfaces with the namespace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::address::{Mac, Subnet, free_subnet, random_ipv6_subnet};
use crate::bridge;
use crate::definition::{
    BRIDGE_PREFIX, DEFAULT_NETWORK, Definition, NetworkWish, Range, RangeWish, check_name, check_options,
};
use crate::endpoint::{Endpoint, EndpointWish, Endpoints};
use crate::error::{Error, Result};
use crate::namespace::NetworkNamespace;
use crate::port::{self, PortWish, Published, Reservation};
use crate::ruleset;

/// The most that is read of a definition.
const MAX_DEFINITION: u64 = 1 << 20;
/// A network's bridge has 1024 ports (`BR_MAX_PORTS`); the subnet may be larger.
const DEFAULT_INTERFACE: &str = "eth";

/// All networks of one store.
#[derive(Debug)]
pub struct Networks {
    definitions: PathBuf,
    state: PathBuf,
    /// Where the bridges are; the caller's namespace if `None`.
    host: Option<NetworkNamespace>,
}

/// A container that is to be connected.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    /// Its ID.
    pub id: &'a str,
    /// What people call it.
    pub name: &'a str,
    /// The networks, in the order in which they become `eth0`, `eth1`, …
    pub networks: &'a [(Definition, EndpointWish)],
    /// Ports to publish.
    pub ports: &'a [PortWish],
    /// The address for ports that don't name one.
    pub default_ip: IpAddr,
}

/// What a container has been given. The ports are held as long as this value lives.
#[derive(Debug)]
pub struct Reserved {
    /// For each network, in order.
    pub endpoints: Vec<(Definition, Endpoint)>,
    port_locks: Vec<Reservation>,
}

impl Reserved {
    /// What holds the ports, for another process that outlives this one.
    pub fn take_locks(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.port_locks).into_iter().filter_map(|port| port.socket).collect()
    }
}

impl Networks {
    /// Those of a store. Nothing is read or made.
    pub fn new(root: &Path, runroot: &Path, host: Option<NetworkNamespace>) -> Self {
        Self { definitions: root.join("networks"), state: runroot.join("networks"), host }
    }

    /// Does something where the bridges are.
    fn on_host<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.host {
            None => work(),
            Some(namespace) => namespace.inside(work),
        }
    }

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
                if self.on_host(|| bridge::find(&probe))?.is_none() { name } else { bridge_name(&id) }
            }
            None => bridge_name(&id),
        };
        let routed = self.on_host(bridge::routed_subnets)?;
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

    /// All networks, by name.
    pub fn all(&self) -> Result<Vec<Definition>> {
        let entries = match fs::read_dir(&self.definitions) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &self.definitions)(error)),
        };
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".json").filter(|name| !name.starts_with('.')) {
                all.extend(self.read(name)?);
            }
        }
        all.sort_by(|a: &Definition, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The network that a name, an ID or the beginning of an ID means.
    ///
    /// # Errors
    /// [`Error::NoNetwork`], [`Error::Ambiguous`].
    pub fn find(&self, text: &str) -> Result<Definition> {
        let is_name = !text.is_empty() && !text.contains('/') && !text.starts_with('.');
        if is_name && let Some(found) = self.read(text)? {
            return Ok(found);
        }
        let mut found =
            self.all()?.into_iter().filter(|network| !text.is_empty() && network.id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(network), None) => Ok(network),
            (Some(network), Some(_)) if network.id == text => Ok(network),
            (Some(_), Some(_)) => Err(Error::Ambiguous { name: text.into() }),
            (None, _) => Err(Error::NoNetwork { name: text.into() }),
        }
    }

    /// Removes a network that no container is connected to.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Predefined`].
    pub fn remove(&self, network: &Definition) -> Result<()> {
        if network.is_default() {
            return Err(Error::Predefined { name: network.name.clone(), op: "removed" });
        }
        let _lock = self.lock()?;
        let endpoints = self.endpoints(network)?;
        if !endpoints.is_empty() {
            let containers = endpoints.into_iter().map(|endpoint| endpoint.name).collect();
            return Err(Error::InUse { name: network.name.clone(), containers });
        }
        self.on_host(|| {
            bridge::remove(network)?;
            ruleset::remove(&ruleset::of_network(network))
        })?;
        Endpoints::of(&self.state, network).remove()?;
        let path = self.file(&network.name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// The containers that are connected and run.
    pub fn endpoints(&self, network: &Definition) -> Result<Vec<Endpoint>> {
        Endpoints::of(&self.state, network).all()
    }

    /// The networks that a running container is connected to.
    pub fn of_container(&self, container: &str) -> Result<Vec<(Definition, Endpoint)>> {
        let mut all = Vec::new();
        for network in self.all()? {
            if let Some(endpoint) = Endpoints::of(&self.state, &network).get(container)? {
                all.push((network, endpoint));
            }
        }
        all.sort_by(|a, b| a.1.interface.cmp(&b.1.interface));
        Ok(all)
    }

    /// Takes addresses and ports for a container. Whatever fails gives everything back.
    ///
    /// # Errors
    /// [`Error::AddressTaken`], [`Error::AddressesExhausted`], [`Error::PortTaken`], [`Error::Invalid`].
    pub fn reserve(&self, guest: &Guest<'_>) -> Result<Reserved> {
        let mut reserved = Reserved { endpoints: Vec::new(), port_locks: Vec::new() };
        let outcome = self.reserve_into(guest, &mut reserved);
        match outcome {
            Ok(()) => Ok(reserved),
            Err(error) => {
                for (network, endpoint) in &reserved.endpoints {
                    Endpoints::of(&self.state, network).release(endpoint)?;
                }
                Err(error)
            }
        }
    }

    fn reserve_into(&self, guest: &Guest<'_>, reserved: &mut Reserved) -> Result<()> {
        for (number, (network, wish)) in guest.networks.iter().enumerate() {
            let interface = format!("{DEFAULT_INTERFACE}{number}");
            let endpoint = self.claim(network, guest, wish, interface)?;
            reserved.endpoints.push((network.clone(), endpoint));
        }
        if guest.ports.is_empty() {
            return Ok(());
        }
        // The first network with a way out speaks for the container.
        let Some((network, endpoint)) = reserved.endpoints.iter_mut().find(|(network, _)| !network.internal)
        else {
            return Err(Error::invalid("published port", "an internal network has no way in or out"));
        };
        let default = network.binding().unwrap_or(guest.default_ip);
        let (ports, reservations) = self.take_ports(guest.ports, default, endpoint)?;
        endpoint.ports = ports;
        reserved.port_locks = reservations;
        Endpoints::of(&self.state, network).put(endpoint)
    }

    fn take_ports(
        &self,
        wishes: &[PortWish],
        default: IpAddr,
        endpoint: &Endpoint,
    ) -> Result<(Vec<Published>, Vec<Reservation>)> {
        let others: std::cell::OnceCell<Vec<(String, Published)>> = std::cell::OnceCell::new();
        let holder = |wanted: &Published| {
            let all = others.get_or_init(|| self.published().unwrap_or_default());
            let same = |other: &Published| {
                let any = other.host_ip.is_unspecified() || wanted.host_ip.is_unspecified();
                other.protocol == wanted.protocol
                    && other.host_port == wanted.host_port
                    && other.host_ip.is_ipv4() == wanted.host_ip.is_ipv4()
                    && (any || other.host_ip == wanted.host_ip)
            };
            all.iter().find(|(_, other)| same(other)).map(|(name, _)| name.clone())
        };
        let mut reservations = Vec::new();
        for wish in wishes {
            let address = wish.host_ip.unwrap_or(default);
            check_address(address, endpoint)?;
            reservations.push(self.on_host_port(wish, address, &holder)?);
        }
        Ok((reservations.iter().map(|one| one.published).collect(), reservations))
    }

    /// Takes ports that a program of [`usermode`](crate::usermode) is going to publish.
    ///
    /// # Errors
    /// [`Error::PortTaken`], [`Error::Port`].
    pub fn reserve_ports(&self, wishes: &[PortWish], default: IpAddr) -> Result<Vec<Reservation>> {
        let mut all = Vec::new();
        for wish in wishes {
            let address = wish.host_ip.unwrap_or(default);
            crate::usermode::check_address(address, wish.protocol)?;
            all.push(port::reserve(wish, address, &|port| crate::usermode::holder(&self.state, port))?);
        }
        Ok(all)
    }

    /// Ports are the caller's host's, also where bridges are in another namespace.
    fn on_host_port(
        &self,
        wish: &PortWish,
        address: IpAddr,
        holder: &dyn Fn(&Published) -> Option<String>,
    ) -> Result<Reservation> {
        port::reserve(wish, address, holder)
    }

    /// All ports that containers of this store have, with the containers' names.
    fn published(&self) -> Result<Vec<(String, Published)>> {
        let mut all = Vec::new();
        for network in self.all()? {
            for endpoint in self.endpoints(&network)? {
                all.extend(endpoint.ports.iter().map(|port| (endpoint.name.clone(), *port)));
            }
        }
        Ok(all)
    }

    /// A record with addresses of its own.
    fn claim(
        &self,
        network: &Definition,
        guest: &Guest<'_>,
        wish: &EndpointWish,
        interface: String,
    ) -> Result<Endpoint> {
        let files = Endpoints::of(&self.state, network);
        files.prepare()?;
        for address in &wish.link_local {
            let good = match address {
                IpAddr::V4(address) => address.is_link_local(),
                IpAddr::V6(address) => address.is_unicast_link_local(),
            };
            if !good {
                return Err(Error::invalid("link-local address", address.to_string()));
            }
        }
        let wished = [(wish.ipv4, true), (wish.ipv6, false)];
        for (address, ipv4) in wished {
            if let Some(address) = address
                && (address.is_ipv4() != ipv4 || network.range(ipv4).is_none())
            {
                let why = format!("network {} has no subnet for {address}", network.name);
                return Err(Error::invalid("IP address", why));
            }
        }
        let mut endpoint = Endpoint {
            container: guest.id.into(),
            name: guest.name.into(),
            aliases: wish.aliases.clone(),
            addresses: Vec::new(),
            link_local: wish.link_local.clone(),
            mac: Mac([0; 6]),
            interface,
            port: port_name(network, guest.id),
            ports: Vec::new(),
        };
        for range in &network.ranges {
            let wanted = if range.subnet.is_ipv4() { wish.ipv4 } else { wish.ipv6 };
            match files.claim(network, range, wanted, guest.id) {
                Ok(address) => endpoint.addresses.push(address),
                Err(error) => {
                    files.release(&endpoint)?;
                    return Err(error);
                }
            }
        }
        let first = endpoint.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        endpoint.mac = wish.mac.unwrap_or_else(|| Mac::of(first));
        let written = files.put(&endpoint);
        if written.is_err() {
            files.release(&endpoint)?;
        }
        written.map(|()| endpoint)
    }

    /// Gives a container's namespace its interfaces, and its ports to the table.
    pub fn plug(&self, reserved: &Reserved, inside: &NetworkNamespace) -> Result<()> {
        self.on_host(|| {
            let mut elements = Vec::new();
            for (network, endpoint) in &reserved.endpoints {
                let (index, _) = bridge::ensure(network)?;
                bridge::plug(index, network, endpoint, inside)?;
                elements.extend(ruleset::of_network(network));
                elements.extend(ruleset::of_endpoint(network, endpoint));
            }
            if ruleset::add(&elements)? { Ok(()) } else { self.restore() }
        })
    }

    /// Connects a running container to one more network.
    ///
    /// # Errors
    /// [`Error::Connected`] if it is already; as [`reserve`](Self::reserve) and [`plug`](Self::plug).
    pub fn connect(
        &self,
        network: &Definition,
        guest: &Guest<'_>,
        wish: &EndpointWish,
        inside: &NetworkNamespace,
    ) -> Result<Endpoint> {
        if Endpoints::of(&self.state, network).get(guest.id)?.is_some() {
            return Err(Error::Connected { container: guest.name.into(), network: network.name.clone() });
        }
        let interface = inside.inside(bridge::free_interface)?;
        let endpoint = self.claim(network, guest, wish, interface)?;
        let reserved =
            Reserved { endpoints: vec![(network.clone(), endpoint.clone())], port_locks: Vec::new() };
        let plugged = self.plug(&reserved, inside);
        if plugged.is_err() {
            Endpoints::of(&self.state, network).release(&endpoint)?;
        }
        plugged.map(|()| endpoint)
    }

    /// Takes a network from a running container. Ports that it published by this network end.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn disconnect(&self, network: &Definition, container: &str, inside: &NetworkNamespace) -> Result<()> {
        let files = Endpoints::of(&self.state, network);
        let endpoint = files.get(container)?.ok_or_else(|| Error::NotConnected {
            container: container.into(),
            network: network.name.clone(),
        })?;
        self.on_host(|| {
            ruleset::remove(&ruleset::of_endpoint(network, &endpoint))?;
            bridge::unplug(&endpoint)
        })?;
        files.release(&endpoint)?;
        for (network, endpoint) in self.of_container(container)? {
            inside.inside(|| bridge::route_through(&network, &endpoint))?;
        }
        Ok(())
    }

    /// Changes the name by which others find a running container.
    pub fn rename(&self, container: &str, name: &str) -> Result<()> {
        for (network, endpoint) in self.of_container(container)? {
            Endpoints::of(&self.state, &network).put(&Endpoint { name: name.into(), ..endpoint })?;
        }
        Ok(())
    }

    /// Gives back everything that a container has which runs no more. Its interfaces go with its namespace.
    pub fn release(&self, container: &str) -> Result<()> {
        for network in self.all()? {
            let files = Endpoints::of(&self.state, &network);
            match files.get(container)? {
                Some(endpoint) => self.give_back(&network, &endpoint)?,
                None => files.release_claims(container)?,
            }
        }
        Ok(())
    }

    /// As [`release`](Self::release), by whoever knows what it is.
    pub fn release_reserved(&self, reserved: &Reserved) -> Result<()> {
        for (network, endpoint) in &reserved.endpoints {
            // It may have been disconnected meanwhile.
            if let Some(endpoint) = Endpoints::of(&self.state, network).get(&endpoint.container)? {
                self.give_back(network, &endpoint)?;
            }
        }
        Ok(())
    }

    fn give_back(&self, network: &Definition, endpoint: &Endpoint) -> Result<()> {
        let elements = ruleset::of_endpoint(network, endpoint);
        if !elements.is_empty() {
            self.on_host(|| ruleset::remove(&elements))?;
        }
        Endpoints::of(&self.state, network).release(endpoint)
    }

    /// Gives back what containers hold that are not alive.
    pub fn sweep(&self, alive: &dyn Fn(&str) -> bool) -> Result<()> {
        self.dead(alive)?.iter().try_for_each(|holder| self.release(holder))
    }

    /// Containers that hold something and are not alive.
    pub fn dead(&self, alive: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut dead = Vec::new();
        for network in self.all()? {
            dead.extend(Endpoints::of(&self.state, &network).holders()?);
        }
        dead.retain(|holder| !alive(holder));
        dead.sort();
        dead.dedup();
        Ok(dead)
    }

    /// Compares the kernel with the files, and mends what differs if `repair`. Sentences about what was
    /// found, and whether each was mended.
    pub fn check(&self, repair: bool) -> Result<Vec<(String, bool)>> {
        let _lock = self.lock()?;
        let networks = self.with_endpoints()?;
        if networks.is_empty() {
            return Ok(Vec::new());
        }
        let definitions: Vec<Definition> = networks.iter().map(|(network, _)| network.clone()).collect();
        self.on_host(|| {
            let mut found = Vec::new();
            let mut bridges = Vec::new();
            let mut needed = Vec::new();
            for (network, endpoints) in &networks {
                match bridge::find(network)? {
                    Some(index) => bridges.push(index),
                    // Not used since the last reboot.
                    None if endpoints.is_empty() => continue,
                    None => {
                        let what = format!("network {} has no bridge {}", network.name, network.bridge);
                        if repair {
                            bridges.push(bridge::ensure(network)?.0);
                        }
                        found.push((format!("{what}: its containers must be restarted"), false));
                    }
                }
                needed.push((network.clone(), endpoints.clone()));
            }
            let ports = bridge::ports_of(&bridges)?;
            for (network, endpoints) in &needed {
                for lost in endpoints.iter().filter(|endpoint| !ports.contains(&endpoint.port)) {
                    let what =
                        format!("container {} has lost its interface to network {}", lost.name, network.name);
                    found.push((
                        format!("{what}: it must be restarted, or disconnected and connected"),
                        false,
                    ));
                }
            }
            let wanted = ruleset::wanted(&needed);
            let drift = ruleset::compare(&wanted, &definitions)?;
            if needed.is_empty() {
                return Ok(found);
            }
            let mut broken = |what: String| found.push((what, repair));
            if drift.no_table {
                broken("the nftables table \"inet onggi\" is missing".into());
            } else if drift.rules {
                broken("the rules of the nftables table \"inet onggi\" were changed".into());
            }
            if !drift.no_table && drift.missing > 0 {
                broken(format!(
                    "{} elements of the nftables table \"inet onggi\" are missing",
                    drift.missing
                ));
            }
            if !drift.stale.is_empty() {
                let count = drift.stale.len();
                broken(format!("{count} elements of the nftables table \"inet onggi\" belong to nobody"));
            }
            if repair && (drift.no_table || drift.rules) {
                ruleset::restore_beside(&wanted, &definitions)?;
            } else if repair {
                ruleset::remove(&drift.stale)?;
                ruleset::add(&wanted)?;
            }
            Ok(found)
        })
    }

    /// Chains of the host's own firewall that drop what is forwarded: what a person should know.
    pub fn foreign_drops(&self) -> Result<Vec<String>> {
        self.on_host(ruleset::foreign_drops)
    }

    /// Makes the whole table from the files; in the host's namespace.
    fn restore(&self) -> Result<()> {
        let _lock = self.lock()?;
        let networks = self.with_endpoints()?;
        if ruleset::exists()? {
            // Somebody else was faster; ours are missing at most.
            if ruleset::add(&ruleset::wanted(&networks))? {
                return Ok(());
            }
        }
        ruleset::restore(&ruleset::wanted(&networks))
    }

    fn with_endpoints(&self) -> Result<Vec<(Definition, Vec<Endpoint>)>> {
        let all = self.all()?.into_iter();
        all.map(|network| self.endpoints(&network).map(|endpoints| (network, endpoints))).collect()
    }

    /// The directories whose changes tell of endpoints that came or went.
    pub fn records(&self, network: &Definition) -> PathBuf {
        Endpoints::of(&self.state, network).records()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.definitions.join(format!("{name}.json"))
    }

    fn read(&self, name: &str) -> Result<Option<Definition>> {
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

    fn lock(&self) -> Result<File> {
        let path = self.state.join("lock");
        fs::create_dir_all(&self.state).map_err(Error::io("make", &self.state))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|e| Error::io("lock", &path)(e.into()))?;
        Ok(file)
    }
}

/// An address that ports can be published on, and that the container can answer.
fn check_address(address: IpAddr, endpoint: &Endpoint) -> Result<()> {
    if address.is_ipv6() && address.is_loopback() {
        return Err(Error::unsupported(
            "publishing a port on [::1]",
            "the kernel does not route its loopback addresses of IPv6; name 127.0.0.1 or an address of the host",
        ));
    }
    if address.is_ipv6() && endpoint.ipv6().is_none() {
        return Err(Error::invalid(
            "published port",
            format!("{address} is of IPv6, and the container's network has none (network create --ipv6)"),
        ));
    }
    Ok(())
}

fn bridge_name(id: &str) -> String {
    format!("{BRIDGE_PREFIX}-{}", id.get(..9).unwrap_or(id))
}

/// The outer end of a container's pair of interfaces: one for each container and network.
fn port_name(network: &Definition, container: &str) -> String {
    format!("ov{}{}", container.get(..8).unwrap_or(container), network.id.get(..5).unwrap_or(&network.id))
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
