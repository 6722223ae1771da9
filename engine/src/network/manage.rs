//! Networks made, listed and removed, and containers connected to them at any time.

use std::fs;
use std::io::Write;

use onggi_network::{Definition, Endpoint, EndpointWish, Guest, NetworkNamespace, NetworkWish, dns};

use super::Attachment;
use crate::Engine;
use crate::containers::{ContainerDetails, now};
use crate::error::{Error, Result};
use crate::run::Network;

/// A network and who is connected.
#[derive(Clone, Debug)]
pub struct NetworkDetails {
    /// What it is.
    pub definition: Definition,
    /// `bridge`; `host` and `null` for the two that are no networks.
    pub driver: &'static str,
    /// The containers that run and are connected.
    pub endpoints: Vec<Endpoint>,
}

/// A network of a container that runs.
#[derive(Clone, Debug)]
pub struct ContainerNetwork {
    /// The network.
    pub network: Definition,
    /// The container's place in it.
    pub endpoint: Endpoint,
}

/// A container that is to be connected.
#[derive(Clone, Debug, Default)]
pub struct ConnectRequest {
    /// The network, by name or ID.
    pub network: String,
    /// The container, by name or ID.
    pub container: String,
    /// What is wished of the network.
    pub wish: EndpointWish,
}

impl Engine {
    /// Makes a network.
    pub fn create_network(&self, wish: NetworkWish) -> Result<Definition> {
        self.store()?;
        let made = self.networks().create(&NetworkWish { created: now(), ..wish })?;
        self.note_network("create", &made, None);
        Ok(made)
    }

    /// All networks by name, with `host` and `none`.
    pub fn list_networks(&self) -> Result<Vec<NetworkDetails>> {
        self.store()?;
        let networks = self.networks();
        self.find_network(&networks, onggi_network::DEFAULT_NETWORK)?;
        let mut all = vec![special("host", "host"), special("none", "null")];
        for definition in networks.all()? {
            let endpoints = self.live(networks.endpoints(&definition)?);
            all.push(NetworkDetails { definition, driver: "bridge", endpoints });
        }
        all.sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
        Ok(all)
    }

    /// The network that a name, an ID or the beginning of an ID means.
    pub fn network(&self, text: &str) -> Result<NetworkDetails> {
        match text {
            "host" => return Ok(special("host", "host")),
            "none" => return Ok(special("none", "null")),
            _ => {}
        }
        self.store()?;
        let networks = self.networks();
        let definition = self.find_network(&networks, text)?;
        let endpoints = self.live(networks.endpoints(&definition)?);
        Ok(NetworkDetails { definition, driver: "bridge", endpoints })
    }

    /// Removes a network that no running container is connected to.
    pub fn remove_network(&self, text: &str) -> Result<()> {
        if matches!(text, "host" | "none") {
            return Err(onggi_network::Error::Predefined { name: text.into(), op: "removed" }.into());
        }
        self.store()?;
        let networks = self.networks();
        let definition = self.find_network(&networks, text)?;
        self.give_back_of_the_dead(&networks)?;
        networks.remove(&definition)?;
        self.note_network("destroy", &definition, None);
        Ok(())
    }

    /// Gives back what containers hold that run no more.
    fn give_back_of_the_dead(&self, networks: &onggi_network::Networks) -> Result<()> {
        Ok(networks.sweep(&|id| self.look(id).is_alive())?)
    }

    /// Compares the kernel with what is written of networks, and mends it if `repair`: sentences, and
    /// whether each was mended.
    pub fn check_networks(&self, repair: bool) -> Result<Vec<(String, bool)>> {
        let networks = self.networks();
        let alive = |id: &str| self.look(id).is_alive();
        let mut found: Vec<(String, bool)> = Vec::new();
        for id in networks.dead(&alive)? {
            let short = id.get(..12).unwrap_or(&id);
            found.push((format!("container {short} runs no more and holds addresses or ports"), repair));
            if repair {
                networks.release(&id)?;
            }
        }
        if self.is_rootless() && onggi_network::holder::was_killed(&self.settings().runroot) {
            let mended = repair && (!networks.is_used()? || self.hold_networks().is_ok());
            found.push(("the process that held the networks of this user was killed".into(), mended));
            if repair {
                self.end_unused_holder()?;
            }
        }
        found.extend(self.networks().check(repair)?);
        Ok(found)
    }

    /// Chains of the host's own firewall that drop what containers send out.
    pub fn firewall_drops(&self) -> Result<Vec<String>> {
        let networks = self.networks();
        if self.is_rootless() || networks.all()?.is_empty() {
            return Ok(Vec::new());
        }
        Ok(networks.foreign_drops()?)
    }

    /// Connects a container; one that does not run will be at its next start.
    pub fn connect_network(&self, request: &ConnectRequest) -> Result<()> {
        let details = self.container(&request.container)?;
        if details.pid.is_some() {
            self.enter_networks(&details.record.request.network)?;
        }
        self.store()?;
        let networks = self.networks();
        let network = self.find_network(&networks, &request.network)?;
        let mut joined = joined(&details)?;
        if joined.iter().any(|one| is_named(&network, &one.network)) {
            let (container, network) = (details.record.name, network.name);
            return Err(onggi_network::Error::Connected { container, network }.into());
        }
        if let Some(pid) = details.pid {
            self.check_bridged(&details)?;
            let (networks, _lock) = self.hold_networks()?;
            let inside = NetworkNamespace::of(pid)?;
            let guest = Guest {
                id: &details.record.id,
                name: &details.record.name,
                networks: &[],
                ports: &[],
                default_ip: self.settings().publish_address,
            };
            let endpoint = networks.connect(&network, &guest, &request.wish, &inside)?;
            self.tell_names(&details, &network, &endpoint, &inside)?;
        }
        joined.push(Attachment { network: network.name.clone(), wish: request.wish.clone() });
        self.note_network("connect", &network, Some(&details.record.id));
        self.keep_networks(details, joined)
    }

    /// Takes a network from a container.
    pub fn disconnect_network(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let details = self.container(container);
        if let Ok(details) = &details
            && details.pid.is_some()
        {
            self.enter_networks(&details.record.request.network)?;
        }
        self.store()?;
        let networks = self.networks();
        if force && matches!(details, Err(Error::NoContainer { .. })) {
            // Of a container that is gone, by its ID.
            self.find_network(&networks, network)?;
            networks.release(container)?;
            return self.end_unused_holder();
        }
        let network = self.find_network(&networks, network)?;
        let details = details?;
        if details.pid.is_some() {
            self.check_bridged(&details)?;
        }
        let mut joined = joined(&details)?;
        let before = joined.len();
        joined.retain(|one| !is_named(&network, &one.network));
        let was_joined = joined.len() < before;
        let not_connected = || -> Error {
            let (container, network) = (details.record.name.clone(), network.name.clone());
            onggi_network::Error::NotConnected { container, network }.into()
        };
        match details.pid {
            Some(pid) => match networks.disconnect(&network, &details.record.id, &NetworkNamespace::of(pid)?)
            {
                Err(onggi_network::Error::NotConnected { .. }) if was_joined => {}
                Err(onggi_network::Error::NotConnected { .. }) => return Err(not_connected()),
                other => other?,
            },
            None if !was_joined => return Err(not_connected()),
            None => {}
        }
        self.note_network("disconnect", &network, Some(&details.record.id));
        self.keep_networks(details, joined)?;
        self.end_unused_holder()
    }

    /// A running container that a program connects can't have bridges: that is another user namespace.
    fn check_bridged(&self, details: &ContainerDetails) -> Result<()> {
        if !self.is_rootless() || super::shared::needs_bridges(&details.record.request.network) {
            return Ok(());
        }
        Err(Error::flag_unsupported(
            "changing the networks of this container while it runs",
            "without root it was started without bridges; stop it, connect it, and start it again",
        ))
    }

    /// The networks of a container that runs, in the order of its interfaces.
    pub fn networks_of(&self, id: &str) -> Result<Vec<ContainerNetwork>> {
        if !self.look(id).is_alive() {
            return Ok(Vec::new());
        }
        let all = self.networks().of_container(id)?;
        if all.is_empty()
            && let Some(mode) = onggi_network::usermode::get(&self.settings().runroot, id)?
        {
            return Ok(vec![user_mode(id, &mode)]);
        }
        Ok(all.into_iter().map(|(network, endpoint)| ContainerNetwork { network, endpoint }).collect())
    }

    fn note_network(&self, action: &str, network: &Definition, container: Option<&str>) {
        let mut attributes = vec![("name", network.name.as_str()), ("type", "bridge")];
        attributes.extend(container.map(|id| ("container", id)));
        crate::events::note(&self.settings().root, "network", action, &network.id, &attributes);
    }

    fn live(&self, mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
        endpoints.retain(|one| self.look(&one.container).is_alive());
        endpoints
    }

    /// The container's record with these networks.
    fn keep_networks(&self, details: ContainerDetails, joined: Vec<Attachment>) -> Result<()> {
        let mut record = details.record;
        record.request.network = if joined.is_empty() { Network::None } else { Network::Joined(joined) };
        record.write(&details.dir)
    }

    /// Lets a running container know its new name and, if it has no resolver yet, the names of others.
    /// Its files are mounted, so they change where they lie.
    fn tell_names(
        &self,
        details: &ContainerDetails,
        network: &Definition,
        endpoint: &Endpoint,
        inside: &NetworkNamespace,
    ) -> Result<()> {
        let hosts = details.dir.join("hosts");
        let failed = |path: &std::path::Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        let hostname = fs::read_to_string(details.dir.join("hostname")).unwrap_or_default();
        let lines = endpoint.addresses.iter().map(|address| format!("{address}\t{}\n", hostname.trim()));
        let file = fs::OpenOptions::new().append(true).open(&hosts);
        file.and_then(|mut file| file.write_all(lines.collect::<String>().as_bytes()))
            .map_err(failed(&hosts))?;
        let conf = details.dir.join("resolv.conf");
        let text = fs::read_to_string(&conf).unwrap_or_default();
        let server = format!("nameserver {}", dns::RESOLVER);
        let Some(pid) =
            details.pid.filter(|_| network.has_names() && !text.lines().any(|line| line == server))
        else {
            return Ok(());
        };
        let wish = dns::ResolverWish {
            root: self.settings().root.clone(),
            runroot: self.settings().runroot.clone(),
            container: details.record.id.clone(),
            servers: details.record.request.resolver.servers.clone(),
        };
        dns::start(wish, inside, std::os::fd::AsFd::as_fd(&dns::pidfd(pid)?))?;
        let others =
            text.lines().filter(|line| !line.starts_with("nameserver")).map(|line| format!("{line}\n"));
        let text = format!("{}{server}\noptions ndots:0\n", others.collect::<String>());
        fs::write(&conf, text).map_err(failed(&conf))
    }
}

/// The networks that a container was made for.
fn joined(details: &ContainerDetails) -> Result<Vec<Attachment>> {
    let network = || onggi_network::DEFAULT_NETWORK.into();
    Ok(match &details.record.request.network {
        Network::Joined(list) => list.clone(),
        Network::Default => vec![Attachment { network: network(), wish: EndpointWish::default() }],
        Network::None => Vec::new(),
        Network::Host | Network::Container(_) => {
            return Err(Error::flag(
                "network connect",
                "the container has the network of the host or of another container",
            ));
        }
    })
}

fn is_named(network: &Definition, text: &str) -> bool {
    network.name == text
        || (network.is_default() && text == "default")
        || (!text.is_empty() && network.id.starts_with(text))
}

/// A program that connects a container, as if it were a network with one place.
fn user_mode(id: &str, mode: &onggi_network::usermode::UserMode) -> ContainerNetwork {
    let network =
        Definition { name: mode.program.name().into(), ..special(mode.program.name(), "").definition };
    let endpoint = Endpoint {
        container: id.into(),
        name: String::new(),
        aliases: Vec::new(),
        addresses: Vec::new(),
        link_local: Vec::new(),
        mac: onggi_network::Mac([0; 6]),
        interface: "eth0".into(),
        port: String::new(),
        ports: mode.ports.clone(),
    };
    ContainerNetwork { network, endpoint }
}

/// What Docker lists as a network and isn't one.
fn special(name: &str, driver: &'static str) -> NetworkDetails {
    // The digests of the two words: always the same.
    let id = onggi_oci::Digest::sha256(format!("onggi network {name}").as_bytes()).hex().to_owned();
    let definition = Definition {
        id,
        name: name.into(),
        bridge: String::new(),
        ranges: Vec::new(),
        internal: false,
        options: std::collections::BTreeMap::new(),
        labels: std::collections::BTreeMap::new(),
        created: String::new(),
    };
    NetworkDetails { definition, driver, endpoints: Vec::new() }
}
