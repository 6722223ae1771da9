//! A container's network, as `inspect`, `ps` and `port` show it.

use onggi_engine::Engine;
use onggi_engine::containers::ContainerDetails;
use onggi_engine::network::{
    Attachment, ContainerNetwork, Endpoint, NetworkDefinition, Published, Publishing,
};
use onggi_engine::run::{Link, Network};
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// What network the container has, by Docker's name.
pub fn mode(network: &Network) -> String {
    match network {
        Network::None => "none".into(),
        Network::Host => "host".into(),
        Network::Container(other) => format!("container:{other}"),
        Network::Default => "default".into(),
        Network::Joined(list) => list.first().map(|one| one.network.clone()).unwrap_or_default(),
    }
}

/// `HostConfig.PortBindings`: what was asked for.
pub fn port_bindings(publishing: &Publishing) -> Value {
    let mut bindings = Map::new();
    for wish in &publishing.ports {
        let ports = match wish.host_ports {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let address = wish.host_ip.map(|address| address.to_string()).unwrap_or_default();
        let list =
            bindings.entry(format!("{}/{}", wish.container_port, wish.protocol)).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({ "HostIp": address, "HostPort": ports }));
        }
    }
    Value::Object(bindings)
}

/// The ports that the container's network lets through, with those that are exposed only.
fn ports(details: &ContainerDetails, networks: &[ContainerNetwork]) -> Value {
    let mut all = Map::new();
    if networks.is_empty() {
        return Value::Object(all);
    }
    for name in exposed(details) {
        all.insert(name, Value::Null);
    }
    for port in published(networks) {
        let entry = all.entry(format!("{}/{}", port.container_port, port.protocol)).or_insert(Value::Null);
        let binding = json!({ "HostIp": port.host_ip.to_string(), "HostPort": port.host_port.to_string() });
        match entry.as_array_mut() {
            Some(list) => list.push(binding),
            None => *entry = json!([binding]),
        }
    }
    Value::Object(all)
}

/// Ports that the image or the caller exposes or publishes, as `80/tcp`.
pub fn exposed(details: &ContainerDetails) -> Vec<String> {
    let publishing = &details.record.request.publishing;
    let of_image = details.record.image.config.exposed_ports.iter();
    let mut all: Vec<String> =
        of_image.map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") }).collect();
    all.extend(publishing.exposed.iter().map(|(port, protocol)| format!("{port}/{protocol}")));
    all.extend(publishing.ports.iter().map(|wish| format!("{}/{}", wish.container_port, wish.protocol)));
    all.sort();
    all.dedup();
    all
}

fn published(networks: &[ContainerNetwork]) -> Vec<Published> {
    let mut all: Vec<Published> =
        networks.iter().flat_map(|one| one.endpoint.ports.iter().copied()).collect();
    all.sort_by_key(|port| (port.container_port, port.protocol, port.host_ip, port.host_port));
    all
}

/// The published ports of a container that runs.
pub fn published_of(engine: &Engine, details: &ContainerDetails) -> Result<Vec<Published>, Failure> {
    Ok(published(&engine.networks_of(&details.record.id)?))
}

/// `PORTS` of `ps`.
pub fn column(engine: &Engine, details: &ContainerDetails) -> Result<String, Failure> {
    if !details.status.has_program() || !details.record.request.network.is_own() {
        return Ok(String::new());
    }
    let published = published_of(engine, details)?;
    let mut words: Vec<String> = published
        .iter()
        .map(|port| format!("{}->{}/{}", address(port), port.container_port, port.protocol))
        .collect();
    let known = |name: &String| {
        published.iter().any(|port| format!("{}/{}", port.container_port, port.protocol) == *name)
    };
    words.extend(exposed(details).into_iter().filter(|name| !known(name)));
    Ok(words.join(", "))
}

/// `127.0.0.1:8080`, `[::]:8080`
pub fn address(port: &Published) -> String {
    std::net::SocketAddr::new(port.host_ip, port.host_port).to_string()
}

/// Docker has an ID for each container in each network; here it follows from the two.
pub fn endpoint_id(network: &NetworkDefinition, endpoint: &Endpoint) -> String {
    let (a, b) = (network.id.get(..32).unwrap_or_default(), endpoint.container.get(..32).unwrap_or_default());
    format!("{b}{a}")
}

/// `NetworkSettings`.
pub fn settings(engine: &Engine, details: &ContainerDetails) -> Result<Value, Failure> {
    let request = &details.record.request.network;
    let live = if request.is_own() { engine.networks_of(&details.record.id)? } else { Vec::new() };
    let mut networks = Map::new();
    match request {
        Network::None | Network::Host => {
            networks.insert(mode(request), endpoint(None, None));
        }
        Network::Default => {
            networks.insert("bridge".into(), endpoint(None, live.first()));
        }
        Network::Joined(list) => {
            for (index, one) in list.iter().enumerate() {
                let found = live.iter().find(|live| {
                    live.network.name == one.network || live.network.id.starts_with(&one.network)
                });
                let name = found.map_or(&one.network, |found| &found.network.name);
                let mut shown = endpoint(Some(one), found);
                let links = &details.record.request.resolver.links;
                // As Docker, which gives them to the first of its networks.
                if index == 0 && !links.is_empty() {
                    let link = |link: &Link| format!("{}:{}", link.container, link.alias);
                    shown["Links"] = json!(links.iter().map(link).collect::<Vec<_>>());
                }
                networks.insert(name.clone(), shown);
            }
        }
        Network::Container(_) => {}
    }
    let bridge = live.iter().find(|one| one.network.is_default());
    let of_bridge = endpoint(None, bridge);
    let pid = details.pid.map(rustix::process::Pid::as_raw_nonzero);
    let mut object = json!({
        "Bridge": "",
        "SandboxID": if live.is_empty() { "" } else { details.record.id.as_str() },
        "SandboxKey": pid.filter(|_| request.is_own()).map(|pid| format!("/proc/{pid}/ns/net")).unwrap_or_default(),
        "Ports": ports(details, &live),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": Value::Null,
        "SecondaryIPv6Addresses": Value::Null,
    });
    if let Some(object) = object.as_object_mut() {
        let own = [
            "EndpointID",
            "Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "MacAddress",
        ];
        for key in own {
            object.insert(key.into(), of_bridge[key].clone());
        }
        object.insert("Networks".into(), Value::Object(networks));
    }
    Ok(object)
}

/// One network of a container: what was wished, and what it has if it runs.
fn endpoint(wished: Option<&Attachment>, live: Option<&ContainerNetwork>) -> Value {
    let wish = wished.map(|one| &one.wish);
    let range = |ipv4| live.and_then(|live| live.network.range(ipv4));
    let gateway = |ipv4| range(ipv4).map(|range| range.gateway.to_string()).unwrap_or_default();
    let prefix = |ipv4| range(ipv4).map_or(0, |range| range.subnet.prefix());
    let address = |ipv4: bool| {
        let endpoint = live.map(|live| &live.endpoint);
        let found = endpoint.and_then(|one| if ipv4 { one.ipv4() } else { one.ipv6() });
        found.map(|address| address.to_string()).unwrap_or_default()
    };
    let aliases = wish.map(|wish| &wish.aliases).filter(|aliases| !aliases.is_empty());
    let names = live.filter(|live| live.network.has_names()).map(|live| {
        let endpoint = &live.endpoint;
        let own = [endpoint.name.clone()].into_iter().chain(endpoint.aliases.iter().cloned());
        own.chain([endpoint.short_container().to_owned()]).collect::<Vec<_>>()
    });
    let mac = live.map(|live| live.endpoint.mac).or(wish.and_then(|wish| wish.mac));
    json!({
        "IPAMConfig": ipam(wished),
        "Links": Value::Null,
        "Aliases": aliases,
        "MacAddress": mac.map(|mac| mac.to_string()).unwrap_or_default(),
        "DriverOpts": Value::Null,
        "GwPriority": 0,
        "NetworkID": live.map(|live| live.network.id.as_str()).unwrap_or_default(),
        "EndpointID": live.map(|live| endpoint_id(&live.network, &live.endpoint)).unwrap_or_default(),
        "Gateway": gateway(true),
        "IPAddress": address(true),
        "IPPrefixLen": if address(true).is_empty() { 0 } else { prefix(true) },
        "IPv6Gateway": gateway(false),
        "GlobalIPv6Address": address(false),
        "GlobalIPv6PrefixLen": if address(false).is_empty() { 0 } else { prefix(false) },
        "DNSNames": names,
    })
}

fn ipam(wished: Option<&Attachment>) -> Value {
    let Some(wish) = wished.map(|one| &one.wish) else { return Value::Null };
    let mut object = Map::new();
    if let Some(address) = wish.ipv4 {
        object.insert("IPv4Address".into(), json!(address));
    }
    if let Some(address) = wish.ipv6 {
        object.insert("IPv6Address".into(), json!(address));
    }
    if !wish.link_local.is_empty() {
        object.insert("LinkLocalIPs".into(), json!(wish.link_local));
    }
    if object.is_empty() { Value::Null } else { Value::Object(object) }
}
