//! The network of one container, from its start to its end.
//!
//! ```text
//!   prepare   which networks ─► addresses, ports (refused before anything exists)
//!   names     hosts, resolv.conf
//!   attach    the namespace exists, the program does not run yet ─► interfaces, table, resolver
//!   drop      addresses, ports and elements go back; the interfaces go with the namespace
//! ```

use std::cell::RefCell;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use onggi_network::{
    Definition, EndpointWish, Guest, NetworkNamespace, Networks, PortWish, Protocol, Reserved, dns,
};
use onggi_runtime::Created;

use super::{Attachment, HostAddress, Publishing};
use crate::Engine;
use crate::containers::Record;
use crate::error::{Error, Result};
use crate::run::Network;

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
    pub plain_names: bool,
}

/// The network of a container that runs or is about to. Dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Connection(Option<Rc<Joined>>);

/// Networks with addresses.
#[derive(Debug)]
struct Joined {
    networks: Networks,
    reserved: Reserved,
    /// Whether somebody else gives it back.
    kept: bool,
    resolver: Option<dns::ResolverWish>,
    /// What the runtime could only pass on as words.
    failure: RefCell<Option<onggi_network::Error>>,
}

impl Connection {
    /// Takes what the container needs of its networks.
    pub(crate) fn prepare(engine: &Engine, record: &Record) -> Result<Self> {
        let request = &record.request;
        let default;
        let attachments: &[Attachment] = match &request.network {
            Network::None | Network::Host | Network::Container(_) => return Ok(Self(None)),
            // An ordinary user has no bridge of his own on this host.
            Network::Default if engine.authority()?.rootless => return Ok(Self(None)),
            Network::Default => {
                let network = onggi_network::DEFAULT_NETWORK.into();
                default = [Attachment { network, wish: EndpointWish::default() }];
                &default
            }
            Network::Joined(list) => list,
        };
        let networks = engine.networks()?;
        let mut chosen: Vec<(Definition, EndpointWish)> = Vec::new();
        for one in attachments {
            let network = engine.find_network(&networks, &one.network)?;
            if chosen.iter().any(|(other, _)| other.id == network.id) {
                return Err(Error::flag("--network", format!("network {} is named twice", network.name)));
            }
            chosen.push((network, one.wish.clone()));
        }
        let ports = wished_ports(&request.publishing, &record.image.config.exposed_ports)?;
        let reserved = networks.reserve(&Guest {
            id: &record.id,
            name: &record.name,
            networks: &chosen,
            ports: &ports,
            default_ip: engine.settings().publish_address,
        })?;
        let named = chosen.iter().any(|(network, _)| network.has_names());
        let servers = &request.resolver.servers;
        let local = servers.is_empty() && host_resolves_on_loopback();
        let resolver = (named || local).then(|| dns::ResolverWish {
            root: engine.settings().root.clone(),
            runroot: engine.settings().runroot.clone(),
            container: record.id.clone(),
            servers: servers.clone(),
        });
        let joined = Joined { networks, reserved, kept: false, resolver, failure: RefCell::new(None) };
        Ok(Self(Some(Rc::new(joined))))
    }

    /// What its files have to say.
    pub(crate) fn names(&self) -> Names {
        let Some(joined) = &self.0 else { return Names::default() };
        let endpoints = &joined.reserved.endpoints;
        let gateway = endpoints.iter().find(|(network, _)| !network.internal).or(endpoints.first());
        Names {
            addresses: endpoints
                .iter()
                .flat_map(|(_, endpoint)| endpoint.addresses.iter().copied())
                .collect(),
            gateway: gateway.and_then(|(network, _)| network.ranges.first()).map(|range| range.gateway),
            resolver: joined.resolver.as_ref().map(|_| dns::RESOLVER.into()),
            plain_names: endpoints.iter().any(|(network, _)| network.has_names()),
        }
    }

    /// What is to be done once the namespace exists; `None` if there is nothing to do.
    pub(crate) fn attach(&self) -> Option<impl FnOnce(&Created<'_>) -> std::io::Result<()> + 'static> {
        let joined = Rc::clone(self.0.as_ref()?);
        Some(move |created: &Created<'_>| {
            joined.attach(created).map_err(|error| {
                let words = error.to_string();
                *joined.failure.borrow_mut() = Some(error);
                std::io::Error::other(words)
            })
        })
    }

    /// What must stay open as long as the container runs, for whoever looks after it from now on and
    /// calls [`Engine::release_network`] at its end.
    pub(crate) fn into_locks(self) -> Vec<OwnedFd> {
        let mut joined = self.0.and_then(Rc::into_inner);
        joined.as_mut().map_or_else(Vec::new, |joined| {
            joined.kept = true;
            joined.reserved.take_locks()
        })
    }

    /// The reason of a start that failed, where it was the network.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.0.as_ref()?.failure.borrow_mut().take().map(Into::into)
    }
}

impl Joined {
    fn attach(&self, created: &Created<'_>) -> onggi_network::Result<()> {
        let inside = NetworkNamespace::of(created.pid)?;
        self.networks.plug(&self.reserved, &inside)?;
        if let Some(resolver) = &self.resolver {
            dns::start(resolver.clone(), &inside, created.pidfd)?;
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
        let _ = self.networks.release_reserved(&self.reserved);
    }
}

impl Engine {
    /// Gives back what a container that has ended had of its networks.
    pub(crate) fn release_network(&self, record: &Record) -> Result<()> {
        if matches!(record.request.network, Network::Default | Network::Joined(_)) {
            self.networks()?.release(&record.id)?;
        }
        Ok(())
    }

    /// A network by name or ID; the default one is made now if it has to be.
    pub(crate) fn find_network(&self, networks: &Networks, text: &str) -> Result<Definition> {
        if matches!(text, onggi_network::DEFAULT_NETWORK | "default") {
            return Ok(networks.default_network(&crate::containers::now)?);
        }
        Ok(networks.find(text)?)
    }
}

/// Named ports, and all exposed ones if that is wished.
fn wished_ports(
    publishing: &Publishing,
    of_image: &std::collections::BTreeSet<String>,
) -> Result<Vec<PortWish>> {
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
