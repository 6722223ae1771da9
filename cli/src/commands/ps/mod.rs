//! `onggi ps`: lists containers.

mod filter;

use std::collections::BTreeSet;

use jiff::Timestamp;
use onggi_engine::Engine;
use onggi_engine::containers::{ContainerDetails, Health, HealthStatus, Status};
use onggi_engine::run::{MountKind, Network};
use serde_json::{Value, json};

use super::network::of_container;
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::Listing;
use crate::output::template::quoted;
use crate::session::Session;

const LISTING: Listing = Listing {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Status", "STATUS"),
        ("State", "STATE"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
    ],
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
};
const TABLE_WITH_SIZES: &str = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";
/// As Docker cuts them.
const SHORT_ID: usize = 12;
const SHORT_COMMAND: usize = 20;
const SHORT_MOUNT: usize = 15;

/// List containers
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Show all containers, also those that ended
    #[arg(short, long)]
    all: bool,
    /// Show only what matches: ancestor, before, exited, expose, health, id, is-task, label, name, network,
    /// publish, since, status, volume
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format the output: `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the N youngest containers, also those that ended
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "-1",
        allow_negative_numbers = true,
        hide_default_value = true
    )]
    last: i64,
    /// Show the youngest container, also if it ended
    #[arg(short, long)]
    latest: bool,
    /// Show whole IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Show how much space they take
    #[arg(short, long)]
    size: bool,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let all = engine.containers()?;
        let filters = filter::Filters::parse(&self.filter, &engine)?;
        // Less than none is no limit.
        let last =
            if self.latest { Some(1) } else { usize::try_from(self.last).ok().filter(|last| *last > 0) };
        let every = self.all || last.is_some() || filters.by_state;
        let shown = all.iter().filter(|one| {
            let runs = one.status.has_program() || one.status == Status::Restarting;
            (every || runs) && filters.accept(one)
        });
        let shown = shown.take(last.unwrap_or(usize::MAX));
        if self.quiet {
            return session.print(&shown.map(|one| self.id(one) + "\n").collect::<String>());
        }
        let sizes = self.size || self.format.as_ref().is_some_and(|format| format.contains(".Size"));
        let mut rows = Vec::new();
        for one in shown {
            rows.push(self.row(&engine, one, sizes)?);
        }
        let format = match self.format.as_deref() {
            None | Some("table") if self.size => Some(TABLE_WITH_SIZES),
            format => format,
        };
        session.print(&LISTING.render(format, &rows).map_err(Failure::template)?)
    }

    fn id(&self, one: &ContainerDetails) -> String {
        let id = &one.record.id;
        if self.no_trunc { id.clone() } else { id.chars().take(SHORT_ID).collect() }
    }

    fn row(&self, engine: &Engine, one: &ContainerDetails, sizes: bool) -> Result<Value, Failure> {
        let record = &one.record;
        let created = record.created.parse::<Timestamp>().ok();
        let command = shown(&record.arguments);
        let command = if self.no_trunc { command.into() } else { human::ellipsis(&command, SHORT_COMMAND) };
        let labels: Vec<String> =
            record.labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
        let size = if sizes {
            let size = engine.container_size(one)?;
            format!("{} (virtual {})", human::short_size(size.own), human::short_size(size.total))
        } else {
            "0B".to_owned()
        };
        let mounts: Vec<String> = record
            .mounts
            .iter()
            .map(|point| {
                let source = point.source.to_string_lossy();
                let name = point.name.as_deref().unwrap_or(&source);
                if self.no_trunc { name.to_owned() } else { human::ellipsis(name, SHORT_MOUNT).into_owned() }
            })
            .collect();
        let volumes = record.mounts.iter().filter(|point| point.kind == MountKind::Volume).count();
        Ok(json!({
            "ID": self.id(one),
            "Image": self.image(one),
            "Command": quoted(&command),
            "RunningFor": human::ago(created.map(Timestamp::as_second), Timestamp::now().as_second()),
            "CreatedAt": created.map_or_else(|| "N/A".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S %z UTC").to_string()),
            "Status": status(one),
            "State": one.status.word(),
            "Ports": of_container::column(engine, one)?,
            "Names": record.name,
            "Size": size,
            "Labels": labels.join(","),
            "Mounts": mounts.join(","),
            "LocalVolumes": volumes.to_string(),
            "Networks": network_names(one).join(","),
            "Platform": "linux",
        }))
    }

    /// As it was named, an ID cut.
    fn image(&self, one: &ContainerDetails) -> String {
        let image = &one.record.image;
        let hex = image.reference.strip_prefix("sha256:").unwrap_or(&image.reference);
        let is_id = !self.no_trunc && hex.len() > SHORT_ID && image.id.hex().starts_with(hex);
        if is_id { hex.chars().take(SHORT_ID).collect() } else { image.reference.clone() }
    }
}

/// The networks that it is in, by Docker's names.
fn network_names(one: &ContainerDetails) -> Vec<String> {
    match &one.record.request.network {
        Network::Container(_) => Vec::new(),
        Network::Default => vec!["bridge".into()],
        Network::Joined(list) => list.iter().map(|one| one.network.clone()).collect(),
        network => vec![of_container::mode(network)],
    }
}

/// Ports that are published, or that it says it listens on: number and protocol.
fn ports(one: &ContainerDetails, published: bool) -> BTreeSet<(u16, String)> {
    if published {
        let ports = one.record.request.publishing.ports.iter();
        return ports.map(|wish| (wish.container_port, wish.protocol.to_string())).collect();
    }
    let port = |text: String| {
        let (number, protocol) = text.split_once('/')?;
        Some((number.parse().ok()?, protocol.to_owned()))
    };
    of_container::exposed(one).into_iter().filter_map(port).collect()
}

/// ` (healthy)`, if that is looked after.
fn health(health: Option<&Health>) -> &'static str {
    match health.map(|health| health.status) {
        None => "",
        Some(HealthStatus::Starting) => " (health: starting)",
        Some(HealthStatus::Healthy) => " (healthy)",
        Some(HealthStatus::Unhealthy) => " (unhealthy)",
    }
}

fn status(one: &ContainerDetails) -> String {
    let since = |moment: Option<&String>| {
        let moment = moment.and_then(|text| text.parse::<Timestamp>().ok()).map(Timestamp::as_second);
        human::ago(moment, Timestamp::now().as_second())
    };
    let code = one.state.exit_code.unwrap_or_default();
    match one.status {
        Status::Created => "Created".to_owned(),
        Status::Running | Status::Paused => {
            let since = since(one.state.started.as_ref());
            let up = format!("Up {}", since.strip_suffix(" ago").unwrap_or(&since));
            if one.status == Status::Paused {
                format!("{up} (Paused)")
            } else {
                up + health(one.state.health.as_ref())
            }
        }
        Status::Restarting => format!("Restarting ({code}) {}", since(one.state.finished.as_ref())),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Exited => format!("Exited ({code}) {}", since(one.state.finished.as_ref())),
    }
}

/// A command line as Docker lists it: arguments with a space stand in quotes.
fn shown(arguments: &[String]) -> String {
    let of = |(number, argument): (usize, &String)| match number {
        0 => argument.clone(),
        _ if argument.contains(' ') => format!("'{argument}'"),
        _ => argument.clone(),
    };
    arguments.iter().enumerate().map(of).collect::<Vec<_>>().join(" ")
}
