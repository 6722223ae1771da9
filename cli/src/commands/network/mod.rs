//! `onggi network`: the group of commands about networks.
//!
//! | module | subject |
//! |---|---|
//! | this | the commands |
//! | [`of_container`] | the network in what other commands show of a container |

pub mod of_container;

use std::net::IpAddr;

use onggi_engine::network::{
    ConnectRequest, Endpoint, EndpointWish, NetworkDetails, NetworkWish, RangeWish, Subnet,
};
use onggi_engine::oci::ErrorKind;
use serde_json::{Map, Value, json};

use super::filter::Filters;
use super::run::values;
use crate::failure::Failure;
use crate::output::json;
use crate::output::listing::Listing;
use crate::session::Session;

/// Commands about networks.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Connect a container to a network
    Connect(Connect),
    /// Create a network
    Create(Create),
    /// Disconnect a container from a network
    Disconnect(Disconnect),
    /// Show everything about networks
    Inspect(Inspect),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove all unused networks
    Prune(Prune),
    /// Remove networks that no running container uses
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Connect(options) => options.run(session),
            Self::Create(options) => options.run(session),
            Self::Disconnect(options) => options.run(session),
            Self::Inspect(options) => options.run(session),
            Self::Ls(options) => options.run(session),
            Self::Prune(options) => options.run(session),
            Self::Rm(options) => options.run(session),
        }
    }
}

/// Connect a container to a network
#[derive(Debug, clap::Args)]
pub struct Connect {
    /// Another name of the container in this network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Options of the driver (there are none)
    #[arg(long, value_name = "OPTION")]
    driver_opt: Vec<String>,
    /// The priority of its gateway; only 0
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    gw_priority: i64,
    /// IPv4 address
    #[arg(long, value_name = "IP")]
    ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address
    #[arg(long, value_name = "IP")]
    ip6: Option<std::net::Ipv6Addr>,
    /// Add a link to another container; not supported, containers find each other by name
    #[arg(long, value_name = "CONTAINER")]
    link: Vec<String>,
    /// Link-local addresses
    #[arg(long, value_name = "IP")]
    link_local_ip: Vec<IpAddr>,
    /// The network, by name or ID
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container, by name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Connect {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let refused = [
            ("--link", !self.link.is_empty(), "containers of a network find each other by name"),
            ("--driver-opt", !self.driver_opt.is_empty(), "the driver has no options for an endpoint"),
            ("--gw-priority", self.gw_priority != 0, "the first network that has a way out is the gateway"),
        ];
        for (flag, given, why) in refused {
            if given {
                return Err(Failure::Input(format!("{flag} is not supported: {why}")));
            }
        }
        let wish = EndpointWish {
            aliases: self.alias,
            ipv4: self.ip.map(Into::into),
            ipv6: self.ip6.map(Into::into),
            mac: None,
            link_local: self.link_local_ip,
        };
        let request = ConnectRequest { network: self.network, container: self.container, wish };
        Ok(session.engine()?.connect_network(&request)?)
    }
}

/// Create a network
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Let containers be attached by hand (that is always possible)
    #[arg(long)]
    attachable: bool,
    /// Auxiliary addresses of the driver; not supported
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
    /// The network to take the configuration from; not supported
    #[arg(long, value_name = "NETWORK")]
    config_from: Option<String>,
    /// Create a configuration only; not supported
    #[arg(long)]
    config_only: bool,
    /// The driver: bridge
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Address of the bridge, for each subnet
    #[arg(long, value_name = "IP")]
    gateway: Vec<IpAddr>,
    /// Make the network one of a swarm; not supported
    #[arg(long)]
    ingress: bool,
    /// Allow no way out of the network
    #[arg(long)]
    internal: bool,
    /// Addresses that containers get by themselves, for each subnet
    #[arg(long, value_name = "SUBNET")]
    ip_range: Vec<Subnet>,
    /// The driver that manages addresses: default
    #[arg(long, value_name = "DRIVER", default_value = "default", value_parser = ["default"])]
    ipam_driver: String,
    /// Options of that driver; not supported
    #[arg(long, value_name = "KEY=VALUE")]
    ipam_opt: Vec<String>,
    /// Give IPv4 addresses
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        default_value = "true", default_missing_value = "true")]
    ipv4: bool,
    /// Give IPv6 addresses too
    #[arg(long)]
    ipv6: bool,
    /// Set meta data on the network
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    label: Vec<(String, String)>,
    /// Set an option of the driver: mtu, or com.docker.network.bridge.name, enable_ip_masquerade,
    /// enable_icc, host_binding_ipv4
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::label)]
    opt: Vec<(String, String)>,
    /// The network's scope: local
    #[arg(long, value_name = "SCOPE", default_value = "local", value_parser = ["local"])]
    scope: String,
    /// Subnet in CIDR notation; one of each version of IP
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<Subnet>,
    /// Its name
    #[arg(value_name = "NETWORK")]
    name: String,
}

impl Create {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let refused = [
            (
                "--aux-address",
                !self.aux_address.is_empty(),
                "onggi gives no address away by itself but to containers",
            ),
            ("--config-from", self.config_from.is_some(), "there are no configurations without a network"),
            ("--config-only", self.config_only, "there are no configurations without a network"),
            ("--ingress", self.ingress, "there is no swarm"),
            ("--ipam-opt", !self.ipam_opt.is_empty(), "the driver has no options"),
            ("--ipv4=false", !self.ipv4, "a network has IPv4, and IPv6 if wished"),
        ];
        for (flag, given, why) in refused {
            if given {
                return Err(Failure::Input(format!("{flag} is not supported: {why}")));
            }
        }
        if self.driver != "bridge" {
            let why = "onggi has networks of the kind bridge, and --network host and none for containers";
            return Err(Failure::Input(format!("the driver {:?} is not supported: {why}", self.driver)));
        }
        let ipv4 = self.range(true)?;
        let ipv6 = self.range(false)?;
        let wants_ipv6 = self.ipv6 || ipv6.subnet.is_some();
        let wish = NetworkWish {
            name: self.name,
            ipv4,
            ipv6: wants_ipv6.then_some(ipv6),
            internal: self.internal,
            options: self.opt.into_iter().collect(),
            labels: self.label.into_iter().collect(),
            created: String::new(),
        };
        let network = session.engine()?.create_network(wish)?;
        session.print(&format!("{}\n", network.id))
    }

    /// What was said about one version of IP.
    fn range(&self, ipv4: bool) -> Result<RangeWish, Failure> {
        let version = if ipv4 { "IPv4" } else { "IPv6" };
        let several = |flag| {
            Failure::Input(format!(
                "{flag} is given more than once for {version}; a network has one subnet of it"
            ))
        };
        let mut subnets = self.subnet.iter().filter(|subnet| subnet.is_ipv4() == ipv4);
        let mut gateways = self.gateway.iter().filter(|gateway| gateway.is_ipv4() == ipv4);
        let mut ranges = self.ip_range.iter().filter(|range| range.is_ipv4() == ipv4);
        let wish = RangeWish {
            subnet: subnets.next().copied(),
            gateway: gateways.next().copied(),
            ip_range: ranges.next().copied(),
        };
        for (flag, more) in [
            ("--subnet", subnets.next().is_some()),
            ("--gateway", gateways.next().is_some()),
            ("--ip-range", ranges.next().is_some()),
        ] {
            if more {
                return Err(several(flag));
            }
        }
        if wish.subnet.is_none() && (wish.gateway.is_some() || wish.ip_range.is_some()) {
            return Err(Failure::Input(format!(
                "--gateway and --ip-range of {version} need a --subnet of it"
            )));
        }
        Ok(wish)
    }
}

/// Disconnect a container from a network
#[derive(Debug, clap::Args)]
pub struct Disconnect {
    /// Also if there is no such container any more
    #[arg(short, long)]
    force: bool,
    /// The network, by name or ID
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container, by name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Disconnect {
    fn run(self, session: &Session) -> Result<(), Failure> {
        Ok(session.engine()?.disconnect_network(&self.network, &self.container, self.force)?)
    }
}

/// Show everything about networks
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Format the output: `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// The scope to look in: local
    #[arg(long, value_name = "SCOPE", value_parser = ["", "local"])]
    scope: Option<String>,
    /// Verbose output for diagnostics (there is none)
    #[arg(short, long)]
    verbose: bool,
    /// Networks by name or ID
    #[arg(value_name = "NETWORK", required = true)]
    names: Vec<String>,
}

impl Inspect {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let (mut values, mut failed) = (Vec::new(), None);
        for name in &self.names {
            match engine.network(name) {
                Ok(details) => values.push(value(&details)),
                Err(error) => {
                    if let Some(earlier) = failed.replace(error) {
                        Failure::Engine(earlier).report();
                    }
                }
            }
        }
        session.print(&json::objects(self.format.as_deref(), &values)?)?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// The object that `docker network inspect` prints.
pub(super) fn value(details: &NetworkDetails) -> Value {
    let network = &details.definition;
    let config = |range: &onggi_engine::network::NetworkRange| {
        let mut object = Map::new();
        object.insert("Subnet".into(), json!(range.subnet.to_string()));
        if let Some(ip_range) = range.ip_range {
            object.insert("IPRange".into(), json!(ip_range.to_string()));
        }
        object.insert("Gateway".into(), json!(range.gateway));
        Value::Object(object)
    };
    let prefix = |address: Option<IpAddr>| {
        let range = address.and_then(|address| network.range(address.is_ipv4()));
        address
            .zip(range)
            .map(|(address, range)| format!("{address}/{}", range.subnet.prefix()))
            .unwrap_or_default()
    };
    let container = |endpoint: &Endpoint| {
        let object = json!({
            "Name": endpoint.name,
            "EndpointID": of_container::endpoint_id(network, endpoint),
            "MacAddress": endpoint.mac.to_string(),
            "IPv4Address": prefix(endpoint.ipv4()),
            "IPv6Address": prefix(endpoint.ipv6()),
        });
        (endpoint.container.clone(), object)
    };
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": details.driver,
        "EnableIPv4": network.range(true).is_some(),
        "EnableIPv6": network.range(false).is_some(),
        "IPAM": {
            "Driver": "default",
            "Options": Value::Null,
            "Config": network.ranges.iter().map(config).collect::<Vec<_>>(),
        },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": details.endpoints.iter().map(container).collect::<Map<String, Value>>(),
        "Options": network.options,
        "Labels": network.labels,
    })
}

const LISTING: Listing = Listing {
    columns: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
};

/// List networks
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show only what matches: dangling, driver, id, label, name, scope, type
    #[arg(short, long, value_name = "FILTER", value_parser = values::label)]
    filter: Vec<(String, String)>,
    /// Format the output: `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// Show IDs only
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    fn run(self, session: &Session) -> Result<(), Failure> {
        check_filters(&self.filter, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let mut all = session.engine()?.list_networks()?;
        all.retain(|details| matches(details, &self.filter));
        let id = |details: &NetworkDetails| {
            let id = &details.definition.id;
            if self.no_trunc { id.clone() } else { details.definition.short_id().to_owned() }
        };
        if self.quiet {
            return session.print(&all.iter().map(|details| id(details) + "\n").collect::<String>());
        }
        let rows: Vec<Value> = all
            .iter()
            .map(|details| {
                let network = &details.definition;
                let labels: Vec<String> =
                    network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                json!({
                    "ID": id(details),
                    "Name": network.name,
                    "Driver": details.driver,
                    "Scope": "local",
                    "IPv4": network.range(true).is_some().to_string(),
                    "IPv6": network.range(false).is_some().to_string(),
                    "Internal": network.internal.to_string(),
                    "Labels": labels.join(","),
                    "CreatedAt": network.created,
                })
            })
            .collect();
        session.print(&LISTING.render(self.format.as_deref(), &rows).map_err(Failure::template)?)
    }
}

fn check_filters(filters: &[(String, String)], known: &[&str]) -> Result<(), Failure> {
    match filters.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, _)) => {
            Err(Failure::Input(format!("invalid filter '{key}' (known: {})", known.join(", "))))
        }
        None => Ok(()),
    }
}

/// Filters of one key are alternatives, filters of different keys must all hold; labels must all be there.
fn matches(details: &NetworkDetails, filters: &[(String, String)]) -> bool {
    let network = &details.definition;
    let builtin = network.is_default() || details.driver != "bridge";
    let holds = |key: &str, value: &str| match key {
        "id" => network.id.starts_with(value),
        "name" => network.name.contains(value),
        "driver" => details.driver == value,
        "scope" => value == "local",
        "type" => value == if builtin { "builtin" } else { "custom" },
        "dangling" => (value == "true" || value == "1") == (!builtin && details.endpoints.is_empty()),
        "label" => match value.split_once('=') {
            Some((label, wanted)) => network.labels.get(label).is_some_and(|have| have == wanted),
            None => network.labels.contains_key(value),
        },
        _ => false,
    };
    filters.iter().all(|(key, value)| {
        holds(key, value)
            || (key != "label" && filters.iter().any(|(other, value)| other == key && holds(key, value)))
    })
}

/// Remove all unused networks
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Remove only what matches: label, label!, until
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let filters = Filters::parse(&self.filter, &["label", "label!", "until"])?;
        let engine = session.engine()?;
        let mut unused = engine.list_networks()?;
        unused.retain(|details| {
            details.driver == "bridge" && !details.definition.is_default() && details.endpoints.is_empty()
        });
        let question = "WARNING! This will remove all custom networks not used by at least one container.";
        if !self.force && !session.confirm(question)? {
            return Ok(());
        }
        let mut text = String::new();
        for details in unused {
            let network = details.definition;
            let created = network.created.parse().ok();
            if !filters.match_labels_and_age(&network.labels, created)? {
                continue;
            }
            match engine.remove_network(&network.name) {
                Ok(()) => text += &format!("{}\n", network.name),
                // Somebody connected a container, or removed it, meanwhile.
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        session.print(&format!("Deleted Networks:\n{text}\n"))
    }
}

/// Remove networks that no running container uses
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Do not complain about networks that do not exist
    #[arg(short, long)]
    force: bool,
    /// Networks by name or ID
    #[arg(value_name = "NETWORK", required = true)]
    names: Vec<String>,
}

impl Rm {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let mut failed = None;
        for name in &self.names {
            match engine.remove_network(name) {
                Ok(()) => session.print(&format!("{name}\n"))?,
                Err(error) if self.force && error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    if let Some(earlier) = failed.replace(error) {
                        Failure::Engine(earlier).report();
                    }
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
