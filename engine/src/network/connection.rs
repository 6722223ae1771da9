//! The network of one container, from its start to its end.
//!
//! ```text
//!   prepare   which networks ─► addresses, ports (refused before anything exists)
//!   names     hosts, resolv.conf
//!   attach    the namespace exists, the program does not run yet ─► interfaces, table, resolver
//!   drop      addresses, ports and elements go back; the interfaces go with the namespace
//! ```

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use onggi_network::usermode::{Part, Program};
use onggi_network::{
    Definition, EndpointWish, NetworkNamespace, Networks, PortWish, Protocol, Published, Reserved, dns,
    usermode,
};
use onggi_runtime::Created;

use super::shared::{check_bridges, needs_bridges};
use super::{Attachment, HostAddress, Publishing};
use crate::Engine;
use crate::containers::Record;
use crate::error::{Error, Result};
use crate::run::Network;

/// Who is to be connected: a container, or the programs of a build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest<'a> {
    /// Its ID.
    pub id: &'a str,
    /// What people call it.
    pub name: &'a str,
    /// What it wishes.
    pub network: &'a Network,
    /// The ports to publish.
    pub publishing: &'a Publishing,
    /// The ports that its image exposes.
    pub exposed: &'a BTreeSet<String>,
    /// Its own name servers.
    pub servers: &'a [IpAddr],
}

impl<'a> From<&'a Record> for Guest<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            id: &record.id,
            name: &record.name,
            network: &record.request.network,
            publishing: &record.request.publishing,
            exposed: &record.image.config.exposed_ports,
            servers: &record.request.resolver.servers,
        }
    }
}

/// What a container's `hosts` and `resolv.conf` have to say about its network.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// The host's address, seen from inside.
    pub gateway: Option<IpAddr>,
    /// The resolver of its own, if it has one.
    pub resolver: Option<IpAddr>,
    /// Whether names without a dot are looked up as they are.
    pub undotted: bool,
}

/// The network of a container that runs or is about to. Dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Connection(Option<Rc<Joined>>);

/// Networks with addresses.
#[derive(Debug)]
struct Joined {
    networks: Networks,
    kind: Kind,
    id: String,
    runroot: PathBuf,
    /// The store, of an ordinary user whose bridges are held by a process.
    shared: Option<PathBuf>,
    /// Whether somebody else gives it back.
    kept: bool,
    resolver: Option<dns::ResolverWish>,
    /// What the runtime could only pass on as words.
    failure: RefCell<Option<onggi_network::Error>>,
}

/// How it is connected.
#[derive(Debug)]
enum Kind {
    /// By bridges of this host.
    Bridges {
        reserved: Reserved,
        /// What publishes ports, where the bridges can't.
        publisher: Option<(Program, PathBuf)>,
    },
    /// By a program, which binds the ports itself.
    UserMode { program: (Program, PathBuf), ports: Vec<Published> },
}

impl Connection {
    /// Takes what the guest needs of its networks.
    pub(crate) fn prepare(engine: &Engine, guest: Guest<'_>) -> Result<Self> {
        let default;
        let attachments: &[Attachment] = match guest.network {
            Network::None | Network::Host | Network::Container(_) => return Ok(Self(None)),
            // An ordinary user has no bridge of his own on this host.
            network if engine.is_rootless() && !needs_bridges(network) => {
                return Self::prepare_user_mode(engine, guest, network);
            }
            Network::Default => {
                let network = onggi_network::DEFAULT_NETWORK.into();
                default = [Attachment { network, wish: EndpointWish::default() }];
                &default
            }
            Network::Joined(list) => list,
        };
        if engine.is_rootless() {
            check_bridges(attachments)?;
        }
        let ports = wished_ports(guest.publishing, guest.exposed)?;
        let publisher =
            if engine.is_rootless() && !ports.is_empty() { Some(usermode::find()?) } else { None };
        let (networks, lock) = engine.hold_networks()?;
        let reserved = Self::reserve(engine, guest, &networks, attachments, &ports);
        drop(lock);
        let (mut reserved, named) = match reserved {
            Ok(found) => found,
            Err(error) => {
                let _ = engine.end_unused_holder();
                return Err(error);
            }
        };
        if publisher.is_some() {
            // What the container's first process inherits would keep them from the program.
            drop(reserved.take_locks());
        }
        let local = guest.servers.is_empty() && host_resolves_on_loopback();
        let resolver = (named || local).then(|| resolver_of(engine, guest));
        let kind = Kind::Bridges { reserved, publisher };
        Ok(Self::new(engine, guest, networks, kind, resolver))
    }

    /// Takes addresses and ports; whether its networks have names.
    fn reserve(
        engine: &Engine,
        guest: Guest<'_>,
        networks: &Networks,
        attachments: &[Attachment],
        ports: &[PortWish],
    ) -> Result<(Reserved, bool)> {
        let mut chosen: Vec<(Definition, EndpointWish)> = Vec::new();
        for one in attachments {
            let network = engine.find_network(networks, &one.network)?;
            if chosen.iter().any(|(other, _)| other.id == network.id) {
                return Err(Error::flag("--network", format!("network {} is named twice", network.name)));
            }
            chosen.push((network, one.wish.clone()));
        }
        let reserved = networks.reserve(&onggi_network::Guest {
            id: guest.id,
            name: guest.name,
            networks: &chosen,
            ports,
            default_ip: engine.settings().publish_address,
        })?;
        Ok((reserved, chosen.iter().any(|(network, _)| network.has_names())))
    }

    fn new(
        engine: &Engine,
        guest: Guest<'_>,
        networks: Networks,
        kind: Kind,
        resolver: Option<dns::ResolverWish>,
    ) -> Self {
        let runroot = engine.settings().runroot.clone();
        let failure = RefCell::new(None);
        let is_shared = engine.is_rootless() && matches!(kind, Kind::Bridges { .. });
        let shared = is_shared.then(|| engine.settings().root.clone());
        Self(Some(Rc::new(Joined {
            networks,
            kind,
            id: guest.id.into(),
            runroot,
            shared,
            kept: false,
            resolver,
            failure,
        })))
    }

    /// Finds the program that connects the containers of an ordinary user.
    fn prepare_user_mode(engine: &Engine, guest: Guest<'_>, network: &Network) -> Result<Self> {
        let publishing = guest.publishing;
        let wished = !publishing.ports.is_empty() || publishing.all || *network != Network::Default;
        let program = match usermode::find() {
            // Nobody asked for it; whoever starts the container was told.
            Err(_) if !wished => return Ok(Self(None)),
            other => other?,
        };
        let networks = engine.networks();
        let ports = wished_ports(publishing, guest.exposed)?;
        // They are only looked at: what the container's first process inherits would keep them from the
        // program.
        let free = networks.reserve_ports(&ports, engine.settings().publish_address)?;
        let ports = free.iter().map(|port| port.published).collect();
        drop(free);
        let resolver =
            (guest.servers.is_empty() && host_resolves_on_loopback()).then(|| resolver_of(engine, guest));
        Ok(Self::new(engine, guest, networks, Kind::UserMode { program, ports }, resolver))
    }

    /// What its files have to say.
    pub(crate) fn names(&self) -> Names {
        let Some(joined) = &self.0 else { return Names::default() };
        let resolver = joined.resolver.as_ref().map(|_| dns::RESOLVER.into());
        let Kind::Bridges { reserved: Reserved { endpoints, .. }, .. } = &joined.kind else {
            return Names { resolver, ..Names::default() };
        };
        let gateway = endpoints.iter().find(|(network, _)| !network.internal).or(endpoints.first());
        Names {
            addresses: endpoints
                .iter()
                .flat_map(|(_, endpoint)| endpoint.addresses.iter().copied())
                .collect(),
            gateway: gateway.and_then(|(network, _)| network.ranges.first()).map(|range| range.gateway),
            resolver,
            undotted: endpoints.iter().any(|(network, _)| network.has_names()),
        }
    }

    /// What is to be done once the namespace exists; `None` if there is nothing to do.
    pub(crate) fn attach(&self) -> Option<impl FnOnce(&Created<'_>) -> std::io::Result<()> + 'static> {
        let joined = Rc::clone(self.0.as_ref()?);
        Some(move |created: &Created<'_>| {
            let attached =
                NetworkNamespace::of(created.pid).and_then(|inside| joined.attach(&inside, created.pidfd));
            attached.map_err(|error| {
                let words = error.to_string();
                *joined.failure.borrow_mut() = Some(error);
                std::io::Error::other(words)
            })
        })
    }

    /// Connects a namespace that is no container's; `owner` is the process with whose end all ends.
    pub(crate) fn attach_namespace(&self, inside: &NetworkNamespace, owner: BorrowedFd<'_>) -> Result<()> {
        Ok(self.0.as_ref().map_or(Ok(()), |joined| joined.attach(inside, owner))?)
    }

    /// What must stay open as long as the container runs, for whoever looks after it from now on and
    /// calls [`Engine::release_network`] at its end.
    pub(crate) fn into_locks(self) -> Vec<OwnedFd> {
        let mut joined = self.0.and_then(Rc::into_inner);
        joined.as_mut().map_or_else(Vec::new, |joined| {
            joined.kept = true;
            match &mut joined.kind {
                Kind::Bridges { reserved, .. } => reserved.take_locks(),
                Kind::UserMode { .. } => Vec::new(),
            }
        })
    }

    /// The reason of a start that failed, where it was the network.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.0.as_ref()?.failure.borrow_mut().take().map(Into::into)
    }
}

impl Joined {
    /// Connects the namespace; `first` is the process with whose end all ends.
    fn attach(&self, inside: &NetworkNamespace, first: BorrowedFd<'_>) -> onggi_network::Result<()> {
        match &self.kind {
            Kind::Bridges { reserved, publisher } => {
                self.networks.plug(reserved, inside)?;
                self.networks.relay(reserved, first)?;
                if let Some(program) = publisher {
                    let ports: Vec<_> =
                        reserved.endpoints.iter().flat_map(|(_, one)| one.ports.iter().copied()).collect();
                    usermode::start(program, &self.runroot, &self.id, inside, Part::Ports, &ports)?;
                }
            }
            Kind::UserMode { program, ports } => {
                usermode::start(program, &self.runroot, &self.id, inside, Part::Whole, ports)?;
            }
        }
        if let Some(resolver) = &self.resolver {
            dns::start(resolver.clone(), inside, first)?;
        }
        Ok(())
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // What stays behind goes with the next sweep.
        let _ = match &self.kind {
            Kind::Bridges { reserved, publisher } => {
                if publisher.is_some() {
                    let _ = usermode::release(&self.runroot, &self.id);
                }
                self.networks.release_reserved(reserved)
            }
            Kind::UserMode { .. } => usermode::release(&self.runroot, &self.id),
        };
        if let Some(root) = &self.shared {
            let _ = super::shared::end_unused(root, &self.runroot);
        }
    }
}

impl Engine {
    /// Gives back what a container that has ended had of its networks.
    pub(crate) fn release_network(&self, record: &Record) -> Result<()> {
        if matches!(record.request.network, Network::Default | Network::Joined(_)) {
            self.release_networks_of(&record.id)?;
        }
        Ok(())
    }

    /// As [`release_network`](Self::release_network), of a container without a record.
    pub(crate) fn release_networks_of(&self, id: &str) -> Result<()> {
        usermode::release(&self.settings().runroot, id)?;
        self.networks().release(id)?;
        self.end_unused_holder()
    }

    /// What the caller should know of a container's network: why it has none, or no way out.
    pub fn network_notice(&self, network: &Network) -> Option<String> {
        let bridges = needs_bridges(network);
        if !(bridges || *network == Network::Default) || !self.is_rootless() {
            return None;
        }
        let why = usermode::find().err()?;
        let what = if bridges {
            "networks have no way out of this host"
        } else {
            "the container has no network but loopback"
        };
        Some(format!("{what}: {why}"))
    }

    /// A network by name or ID; the default one is made now if it has to be.
    pub(crate) fn find_network(&self, networks: &Networks, text: &str) -> Result<Definition> {
        if matches!(text, onggi_network::DEFAULT_NETWORK | "default") {
            return Ok(networks.default_network(&crate::containers::now)?);
        }
        Ok(networks.find(text)?)
    }
}

fn resolver_of(engine: &Engine, guest: Guest<'_>) -> dns::ResolverWish {
    dns::ResolverWish {
        root: engine.settings().root.clone(),
        runroot: engine.settings().runroot.clone(),
        container: guest.id.into(),
        servers: guest.servers.to_vec(),
    }
}

/// Named ports, and all exposed ones if that is wished.
fn wished_ports(publishing: &Publishing, of_image: &BTreeSet<String>) -> Result<Vec<PortWish>> {
    let mut wishes = publishing.ports.clone();
    if !publishing.all {
        return Ok(wishes);
    }
    let mut exposed = publishing.exposed.clone();
    for text in of_image {
        exposed.extend(parse_exposed(text)?);
    }
    exposed.sort_unstable();
    exposed.dedup();
    for (container_port, protocol) in exposed {
        let known = |wish: &PortWish| wish.container_port == container_port && wish.protocol == protocol;
        if !wishes.iter().any(known) {
            wishes.push(PortWish { host_ip: None, host_ports: None, container_port, protocol });
        }
    }
    Ok(wishes)
}

/// `80`, `80/udp`, `8000-8010/tcp`.
pub(crate) fn parse_exposed(text: &str) -> Result<Vec<(u16, Protocol)>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol = protocol.parse()?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let bad = || Error::flag("--expose", format!("invalid port {text:?} in the image's EXPOSE"));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first == 0 || first > last {
        return Err(bad());
    }
    Ok((first..=last).map(|port| (port, protocol)).collect())
}

/// Whether a name server of the host can't be reached from another namespace.
fn host_resolves_on_loopback() -> bool {
    dns::read_servers("/etc/resolv.conf".as_ref()).iter().any(IpAddr::is_loopback)
}

impl HostAddress {
    /// The address that it stands for.
    pub(crate) fn resolve(self, names: &Names) -> Result<IpAddr> {
        match self {
            Self::Address(address) => Ok(address),
            Self::HostGateway => names.gateway.ok_or_else(|| {
                Error::flag(
                    "--add-host",
                    "host-gateway needs a network with a gateway, which this container lacks",
                )
            }),
        }
    }
}
