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

mod check;
mod define;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::address::Mac;
use crate::bridge;
use crate::definition::Definition;
use crate::endpoint::{Endpoint, EndpointWish, Endpoints};
use crate::error::{Error, Result};
use crate::namespace::NetworkNamespace;
use crate::port::{self, PortWish, Protocol, Published, Reservation};
use crate::relay;
use crate::ruleset;

/// A network's bridge has 1024 ports (`BR_MAX_PORTS`); the subnet may be larger.
const DEFAULT_INTERFACE: &str = "eth";

/// All networks of one store.
#[derive(Debug)]
pub struct Networks {
    definitions: PathBuf,
    state: PathBuf,
    bridges: Bridges,
}

/// Where the bridges are.
#[derive(Debug)]
pub enum Bridges {
    /// In the caller's own network namespace.
    Here,
    /// In that of a [`holder`](crate::holder).
    In(NetworkNamespace),
    /// Nobody holds them now: there are none, nor anybody who is connected.
    Nowhere,
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
#[derive(Debug, Default)]
pub struct Reserved {
    /// For each network, in order.
    pub endpoints: Vec<(Definition, Endpoint)>,
    port_locks: Vec<Reservation>,
    /// What no rule can redirect.
    relayed: Vec<Reservation>,
}

impl Reserved {
    /// What holds the ports, for another process that outlives this one.
    pub fn take_locks(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.port_locks).into_iter().map(|port| port.socket).collect()
    }
}

impl Networks {
    /// Those of a store. Nothing is read or made.
    pub fn new(root: &Path, runroot: &Path, bridges: Bridges) -> Self {
        Self { definitions: root.join("networks"), state: runroot.join("networks"), bridges }
    }

    /// Does something where the bridges are.
    fn on_host<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.bridges {
            Bridges::Here => work(),
            Bridges::In(namespace) => namespace.inside(work),
            Bridges::Nowhere => Err(Error::NoHolder),
        }
    }

    /// Takes something away where the bridges are; what is nowhere need not be.
    fn undo_on_host(&self, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
        if matches!(self.bridges, Bridges::Nowhere) { Ok(()) } else { self.on_host(work) }
    }

    /// Whether a program publishes ports, as without root.
    fn publishes_by_program(&self) -> bool {
        !matches!(self.bridges, Bridges::Here)
    }

    /// The size of packets of networks that don't say one.
    fn mtu(&self) -> Option<u32> {
        match self.bridges {
            Bridges::Here => None,
            // All that goes out is copied by a program: the fewer packets the better.
            Bridges::In(_) | Bridges::Nowhere => Some(crate::usermode::MTU),
        }
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
        self.undo_on_host(|| {
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
        let mut reserved = Reserved::default();
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
        let by_program = self.publishes_by_program();
        (reserved.relayed, reserved.port_locks) =
            reservations.into_iter().partition(|one| !by_program && relay::is_needed(&one.published));
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
            let by_bridge = all.iter().find(|(_, other)| same(other)).map(|(name, _)| name.clone());
            by_bridge.or_else(|| crate::usermode::holder(&self.state, wanted))
        };
        let mut reservations = Vec::new();
        for wish in wishes {
            let address = wish.host_ip.unwrap_or(default);
            if self.publishes_by_program() {
                crate::usermode::check_bridged(address, wish.protocol)?;
            } else {
                check_address(address, wish.protocol, endpoint)?;
            }
            reservations.push(port::reserve(wish, address, &holder)?);
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
                let (index, _) = bridge::ensure(network, self.mtu())?;
                bridge::plug(index, network, endpoint, inside, self.mtu())?;
                elements.extend(ruleset::of_network(network));
                elements.extend(ruleset::of_endpoint(network, endpoint));
            }
            if ruleset::add(&elements)? { Ok(()) } else { self.restore() }
        })
    }

    /// Starts what brings connections to the container where rules can't; `first` is its first process,
    /// with which that ends. The calling process must have one thread.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn relay(&self, reserved: &Reserved, first: BorrowedFd<'_>) -> Result<()> {
        let publishes = |(_, endpoint): &&(Definition, Endpoint)| !endpoint.ports.is_empty();
        let Some((network, endpoint)) = reserved.endpoints.iter().find(publishes) else { return Ok(()) };
        let files = Endpoints::of(&self.state, network);
        relay::start(&reserved.relayed, &files, &endpoint.container, first)
    }

    /// Plugs in anew who was connected to bridges that are gone, as far as that can be done: `inside` is
    /// the namespace of a container that lives.
    pub fn plug_again(&self, inside: &dyn Fn(&str) -> Option<NetworkNamespace>) -> Result<()> {
        for (network, endpoints) in self.with_endpoints()? {
            for endpoint in endpoints {
                let Some(inside) = inside(&endpoint.container) else { continue };
                let endpoints = vec![(network.clone(), endpoint)];
                let reserved = Reserved { endpoints, ..Reserved::default() };
                // Of another user namespace: its container tells so by its loss.
                let _ = inside
                    .inside(|| reserved.endpoints.iter().try_for_each(|(_, one)| bridge::remove_inner(one)))
                    .and_then(|()| self.plug(&reserved, &inside));
            }
        }
        Ok(())
    }

    /// Whether anybody holds a place in any network.
    pub fn is_used(&self) -> Result<bool> {
        Ok(!self.dead(&|_| false)?.is_empty())
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
        let endpoints = vec![(network.clone(), endpoint.clone())];
        let reserved = Reserved { endpoints, ..Reserved::default() };
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
        self.undo_on_host(|| {
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
            self.undo_on_host(|| ruleset::remove(&elements))?;
        }
        Endpoints::of(&self.state, network).release(endpoint)
    }

    /// The directories whose changes tell of endpoints that came or went.
    pub fn records(&self, network: &Definition) -> PathBuf {
        Endpoints::of(&self.state, network).records()
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
fn check_address(address: IpAddr, protocol: Protocol, endpoint: &Endpoint) -> Result<()> {
    if relay::is_relayed(address) {
        return relay::check(protocol);
    }
    if address.is_ipv6() && endpoint.ipv6().is_none() {
        return Err(Error::invalid(
            "published port",
            format!("{address} is of IPv6, and the container's network has none (network create --ipv6)"),
        ));
    }
    Ok(())
}

/// The outer end of a container's pair of interfaces: one for each container and network.
fn port_name(network: &Definition, container: &str) -> String {
    format!("ov{}{}", container.get(..8).unwrap_or(container), network.id.get(..5).unwrap_or(&network.id))
}
