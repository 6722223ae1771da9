//! Flags about the network of a container, in Docker's grammar.

use std::net::IpAddr;

use onggi_engine::Engine;
use onggi_engine::network::{Attachment, EndpointWish, HostAddress, Mac, PortWish, Protocol, Publishing};
use onggi_engine::run::{Link, Network, Resolver, RunRequest};

use super::values;
use crate::commands::network::of_container;
use crate::session::Session;

/// The network of the container
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Add a custom host-to-IP mapping to the container's /etc/hosts; host-gateway is the host's address
    #[arg(long, value_name = "HOST:IP", value_parser = values::host)]
    add_host: Vec<(String, HostAddress)>,
    /// Set custom DNS servers
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Set DNS options
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION", value_parser = values::resolver_word)]
    dns_option: Vec<String>,
    /// Set custom DNS search domains; '.' for none
    #[arg(long, value_name = "DOMAIN", value_parser = values::resolver_word)]
    dns_search: Vec<String>,
    /// Expose a port or a range of ports, for --publish-all
    #[arg(long, value_name = "PORT[-PORT][/PROTOCOL]", value_parser = expose)]
    expose: Vec<Ports>,
    /// IPv4 address in the first network
    #[arg(long, value_name = "IP", value_parser = ipv4)]
    ip: Option<IpAddr>,
    /// IPv6 address in the first network
    #[arg(long, value_name = "IP", value_parser = ipv6)]
    ip6: Option<IpAddr>,
    /// Find another container, which has to run, by a name: CONTAINER[:NAME]
    #[arg(long, value_name = "CONTAINER[:NAME]")]
    link: Vec<Link>,
    /// Link-local addresses in the first network
    #[arg(long, value_name = "IP")]
    link_local_ip: Vec<IpAddr>,
    /// Hardware address in the first network
    #[arg(long, value_name = "MAC")]
    mac_address: Option<Mac>,
    /// Network of the container: bridge (default of root), none, host, container:NAME, or the name of a
    /// network, also as name=NETWORK,alias=NAME,ip=IP; may be given several times [env: ONGGI_NETWORK]
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = network)]
    network: Vec<Chosen>,
    /// Another name of the container in its networks
    #[arg(long, visible_alias = "net-alias", value_name = "NAME", value_parser = alias)]
    network_alias: Vec<String>,
    /// Publish a container's port: [[IP:][HOST_PORT]:]PORT[/PROTOCOL]; without an address on 127.0.0.1
    #[arg(short, long, value_name = "PORTS", value_parser = publish)]
    publish: Vec<Wishes>,
    /// Publish all exposed ports, each on a free port of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
}

/// What one `--publish` means.
#[derive(Clone, Debug)]
pub struct Wishes(Vec<PortWish>);

/// What one `--expose` means.
#[derive(Clone, Debug)]
pub struct Ports(Vec<(u16, Protocol)>);

/// What one `--network` means.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// No network, or somebody else's.
    Mode(Network),
    /// A network with its own wishes.
    Attachment(Attachment),
}

/// What the flags mean together.
#[derive(Debug)]
pub struct Wished {
    pub network: Network,
    pub publishing: Publishing,
    pub resolver: Resolver,
}

impl Options {
    /// Puts them together. `default` is the network of a container that names none.
    pub fn into_wishes(self, default: Option<&str>) -> Result<Wished, String> {
        let publishing = Publishing {
            ports: self.publish.into_iter().flat_map(|wishes| wishes.0).collect(),
            all: self.publish_all,
            exposed: self.expose.into_iter().flat_map(|ports| ports.0).collect(),
        };
        let wish = EndpointWish {
            aliases: self.network_alias,
            ipv4: self.ip,
            ipv6: self.ip6,
            mac: self.mac_address,
            link_local: self.link_local_ip,
        };
        let chosen = match (self.network.is_empty(), default) {
            (true, Some(text)) => vec![network(text).map_err(|why| format!("ONGGI_NETWORK={text}: {why}"))?],
            _ => self.network,
        };
        let network = put_together(chosen, wish)?;
        if !publishing.ports.is_empty() || publishing.all {
            match &network {
                Network::Host | Network::None => {
                    let flag = if publishing.all { "--publish-all" } else { "--publish" };
                    let mode = of_container::mode(&network);
                    return Err(format!(
                        "{flag} needs a network with addresses; with --network {mode} there is nothing to publish"
                    ));
                }
                Network::Container(_) => {
                    return Err(
                        "conflicting options: port publishing and the container type network mode".into()
                    );
                }
                _ => {}
            }
        }
        let resolver = Resolver {
            servers: self.dns,
            search: self.dns_search,
            options: self.dns_option,
            links: self.link,
            hosts: self.add_host,
        };
        Ok(Wished { network, publishing, resolver })
    }
}

/// Tells beside the answer what the caller may not expect of the container's network, and of what he asked for
/// besides.
pub fn tell(session: &Session, engine: &Engine, request: &RunRequest) {
    if let Some(notice) = engine.network_notice(&request.network) {
        session.warn(&notice);
    }
    let resources = &request.resources;
    if resources.oom_kill_disable && resources.memory.is_none_or(|limit| limit <= 0) {
        session.warn(
            "Disabling the OOM killer on containers without setting a '-m/--memory' limit may be dangerous.",
        );
    }
    let address = engine.settings().publish_address;
    let publishing = &request.publishing;
    let unnamed = publishing.all || publishing.ports.iter().any(|wish| wish.host_ip.is_none());
    if unnamed && address.is_loopback() {
        session.note(&format!(
            "onggi: note: ports are published on {address}, for this host alone; name an address (-p 0.0.0.0:8080:80) to let others in, \
             or set ONGGI_PUBLISH_ADDRESS=0.0.0.0 for Docker's default"
        ));
    }
}

/// One mode, or any number of networks; the wishes that name none are for the first.
fn put_together(chosen: Vec<Chosen>, wish: EndpointWish) -> Result<Network, String> {
    let has_wishes = wish != EndpointWish::default();
    let mut list = Vec::new();
    let count = chosen.len();
    for one in chosen {
        match one {
            Chosen::Mode(mode) if count > 1 => {
                return Err(format!(
                    "conflicting options: --network {} can't be joined with others",
                    of_container::mode(&mode)
                ));
            }
            Chosen::Mode(Network::Default) => {}
            Chosen::Mode(mode) if has_wishes => {
                return Err(format!(
                    "conflicting options: --ip, --ip6, --mac-address, --link-local-ip and --network-alias need a \
                     network with addresses, not {}",
                    of_container::mode(&mode)
                ));
            }
            Chosen::Mode(mode) => return Ok(mode),
            Chosen::Attachment(attachment) => list.push(attachment),
        }
    }
    if list.is_empty() {
        if !has_wishes {
            return Ok(Network::Default);
        }
        list.push(Attachment { network: "bridge".into(), wish: EndpointWish::default() });
    }
    let aliases = wish.aliases;
    if let Some(first) = list.first_mut() {
        let own = &mut first.wish;
        own.ipv4 = own.ipv4.or(wish.ipv4);
        own.ipv6 = own.ipv6.or(wish.ipv6);
        own.mac = own.mac.or(wish.mac);
        own.link_local.extend(wish.link_local);
    }
    for one in &mut list {
        one.wish.aliases.extend(aliases.iter().cloned());
        if !one.wish.aliases.is_empty() && matches!(one.network.as_str(), "bridge" | "default") {
            return Err("network-scoped aliases are only supported for user-defined networks".into());
        }
    }
    Ok(Network::Joined(list))
}

fn network(text: &str) -> Result<Chosen, String> {
    let joined = |network: &str| {
        Ok(Chosen::Attachment(Attachment { network: network.into(), wish: EndpointWish::default() }))
    };
    match text {
        "" => Err("the name of a network is empty".into()),
        "none" => Ok(Chosen::Mode(Network::None)),
        "host" => Ok(Chosen::Mode(Network::Host)),
        "default" => Ok(Chosen::Mode(Network::Default)),
        "private" => Ok(Chosen::Mode(Network::Default)),
        _ => match text.strip_prefix("container:") {
            Some("") => Err("container: needs the name of a container".into()),
            Some(name) => Ok(Chosen::Mode(Network::Container(name.into()))),
            None if text.contains('=') => advanced(text),
            None => joined(text),
        },
    }
}

/// `name=NETWORK,alias=NAME,ip=IP,ip6=IP,mac-address=MAC,link-local-ip=IP`
fn advanced(text: &str) -> Result<Chosen, String> {
    let mut attachment = Attachment::default();
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("invalid field {field:?}: expected key=value"))?;
        let bad = |why: &dyn std::fmt::Display| format!("invalid {key} {value:?}: {why}");
        let wish = &mut attachment.wish;
        match key.to_ascii_lowercase().as_str() {
            "name" => attachment.network = value.into(),
            "alias" => wish.aliases.push(alias(value)?),
            "ip" => wish.ipv4 = Some(ipv4(value)?),
            "ip6" => wish.ipv6 = Some(ipv6(value)?),
            "mac-address" => wish.mac = Some(value.parse().map_err(|error| bad(&error))?),
            "link-local-ip" => wish.link_local.push(value.parse().map_err(|error| bad(&error))?),
            "driver-opt" | "gw-priority" => return Err(format!("--network …,{key}= is not supported")),
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if attachment.network.is_empty() {
        return Err("network name/id is not specified".into());
    }
    Ok(Chosen::Attachment(attachment))
}

fn alias(text: &str) -> Result<String, String> {
    /// A label of the domain name system.
    const MAX: usize = 63;
    let good = !text.is_empty()
        && text.len() <= MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good {
        Ok(text.into())
    } else {
        Err(format!("invalid alias {text:?}: letters, digits, '_', '.' and '-'"))
    }
}

fn ipv4(text: &str) -> Result<IpAddr, String> {
    text.parse::<std::net::Ipv4Addr>().map(Into::into).map_err(|_| format!("invalid IPv4 address: {text}"))
}

fn ipv6(text: &str) -> Result<IpAddr, String> {
    text.parse::<std::net::Ipv6Addr>().map(Into::into).map_err(|_| format!("invalid IPv6 address: {text}"))
}

/// `80`, `80/udp`, `8000-8010/tcp`
fn expose(text: &str) -> Result<Ports, String> {
    let bad = || format!("invalid range format for --expose: {text}");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol = protocol.parse().map_err(|_| format!("invalid protocol: {protocol}"))?;
    let (first, last) = range(ports).ok_or_else(bad)?;
    Ok(Ports((first..=last).map(|port| (port, protocol)).collect()))
}

/// `[[IP:][HOST[-HOST]]:]PORT[-PORT][/PROTOCOL]`, an address of IPv6 in brackets.
fn publish(text: &str) -> Result<Wishes, String> {
    let invalid = |why: &str| format!("invalid publish {text:?}: {why}");
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol =
        protocol.parse().map_err(|_| invalid("the protocol must be tcp, udp or sctp"))?;
    let (host, container) = match ports.rsplit_once(':') {
        None => (None, ports),
        Some((host, container)) => (Some(host), container),
    };
    let (first, last) =
        range(container).ok_or_else(|| invalid("no container port (1 to 65535, or a range)"))?;
    let (address, host) = match host.map(|host| host.rsplit_once(':').unwrap_or(("", host))) {
        None => (None, None),
        Some((address, ports)) => {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            let parsed = match bare {
                "" => None,
                _ => Some(bare.parse::<IpAddr>().map_err(|_| invalid("its address is no IP address"))?),
            };
            let ports = match ports {
                "" | "0" => None,
                _ => Some(
                    range(ports).ok_or_else(|| invalid("its host port is none (1 to 65535, or a range)"))?,
                ),
            };
            (parsed, ports)
        }
    };
    let wish =
        |container_port, host_ports| PortWish { host_ip: address, host_ports, container_port, protocol };
    Ok(Wishes(match host {
        None => (first..=last).map(|port| wish(port, None)).collect(),
        // One of these is taken.
        Some(host) if first == last => vec![wish(first, Some(host))],
        Some((from, to)) if to - from == last - first => {
            (first..=last).zip(from..=to).map(|(port, host)| wish(port, Some((host, host)))).collect()
        }
        Some(_) => return Err(invalid("its two ranges are not of the same length")),
    }))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_dockers() {
        let shown = |text: &str| {
            publish(text).map(|wishes| {
                let one = |w: &PortWish| {
                    let address = w.host_ip.map(|a| a.to_string()).unwrap_or_default();
                    let host =
                        w.host_ports.map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
                    format!("{address}:{}:{}/{}", host.unwrap_or_default(), w.container_port, w.protocol)
                };
                wishes.0.iter().map(one).collect::<Vec<_>>().join(" ")
            })
        };
        for (text, wanted) in [
            ("80", "::80/tcp"),
            ("8080:80", ":8080:80/tcp"),
            ("8080:80/UDP", ":8080:80/udp"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1::80/tcp"),
            ("[::1]:8080:80", "::1:8080:80/tcp"),
            ("::1:8080:80", "::1:8080:80/tcp"),
            ("0:80", "::80/tcp"),
            ("8000-8001:80", ":8000-8001:80/tcp"),
            ("8000-8001:80-81", ":8000:80/tcp :8001:81/tcp"),
            ("80-81", "::80/tcp ::81/tcp"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(wanted), "{text}");
        }
        for bad in
            ["", ":", "x", "0", "65536", "80:", "1-3:80-81", "81-80", "a:80:80", "80/icmp", "1.2.3:80:80"]
        {
            assert!(publish(bad).is_err(), "{bad}");
        }
        assert_eq!(expose("80-82/udp").map(|ports| ports.0.len()), Ok(3));
        assert!(expose("80-").is_err());
    }

    #[test]
    fn networks_and_wishes_go_together() {
        let parse = |list: &[&str], wish| {
            put_together(list.iter().map(|text| network(text).unwrap()).collect(), wish)
        };
        assert_eq!(parse(&[], EndpointWish::default()), Ok(Network::Default));
        assert_eq!(parse(&["none"], EndpointWish::default()), Ok(Network::None));
        let wish = EndpointWish {
            ipv4: Some("10.0.0.9".parse().unwrap()),
            aliases: vec!["db".into()],
            ..EndpointWish::default()
        };
        let Ok(Network::Joined(list)) = parse(&["a", "name=b,alias=x"], wish.clone()) else {
            panic!("networks")
        };
        assert_eq!((list[0].wish.ipv4, list[1].wish.ipv4), (wish.ipv4, None));
        assert_eq!(
            (list[0].wish.aliases.join(" "), list[1].wish.aliases.join(" ")),
            ("db".into(), "x db".into())
        );
        assert!(parse(&["none", "a"], EndpointWish::default()).is_err());
        assert!(parse(&["host"], wish.clone()).is_err() && parse(&["bridge"], wish).is_err());
        for bad in
            ["", "container:", "name=", "alias=x", "name=a,ip=::1", "name=a,x=y", "name=a,driver-opt=x=y"]
        {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
