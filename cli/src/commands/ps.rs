//! `onggi ps`: lists containers.

use jiff::Timestamp;
use onggi_engine::Engine;
use onggi_engine::containers::{ContainerDetails, Status};
use serde_json::{Value, json};

use super::network::of_container;
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::Listing;
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
        ("Labels", "LABELS"),
    ],
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
};
/// As Docker cuts them.
const SHORT_ID: usize = 12;
const SHORT_COMMAND: usize = 20;

/// List containers
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Show all containers, also those that ended
    #[arg(short, long)]
    all: bool,
    /// Show only what matches: ancestor, exited, id, label, name, status
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format the output: `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the N youngest containers, also those that ended
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Show the youngest container, also if it ended
    #[arg(short, long)]
    latest: bool,
    /// Show whole IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show IDs only
    #[arg(short, long)]
    quiet: bool,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let filters = self.filters()?;
        let by_state = filters.iter().any(|(key, _)| key == "status" || key == "exited");
        let last = if self.latest { Some(1) } else { self.last };
        let every = self.all || last.is_some() || by_state;
        let engine = session.engine()?;
        let all = engine.containers()?;
        let shown = all.iter().filter(|one| (every || one.status.has_program()) && matches(one, &filters));
        let shown = shown.take(last.unwrap_or(usize::MAX));
        if self.quiet {
            return session.print(&shown.map(|one| self.id(one) + "\n").collect::<String>());
        }
        let rows: Vec<Value> = shown.map(|one| self.row(&engine, one)).collect::<Result<_, _>>()?;
        session.print(&LISTING.render(self.format.as_deref(), &rows).map_err(Failure::template)?)
    }

    fn filters(&self) -> Result<Vec<(String, String)>, Failure> {
        const KNOWN: [&str; 6] = ["ancestor", "exited", "id", "label", "name", "status"];
        let read = |word: &String| match word.split_once('=') {
            Some((key, value)) if KNOWN.contains(&key) => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::Input(format!("invalid filter '{word}' (known: {})", KNOWN.join(", ")))),
        };
        self.filter.iter().map(read).collect()
    }

    fn id(&self, one: &ContainerDetails) -> String {
        let id = &one.record.id;
        if self.no_trunc { id.clone() } else { id.chars().take(SHORT_ID).collect() }
    }

    fn row(&self, engine: &Engine, one: &ContainerDetails) -> Result<Value, Failure> {
        let record = &one.record;
        let created = record.created.parse::<Timestamp>().ok();
        let command = record.arguments.join(" ");
        let command = if self.no_trunc { command.into() } else { human::ellipsis(&command, SHORT_COMMAND) };
        let labels: Vec<String> =
            record.labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
        Ok(json!({
            "ID": self.id(one),
            "Image": record.image.reference,
            "Command": format!("\"{command}\""),
            "RunningFor": human::ago(created.map(Timestamp::as_second), Timestamp::now().as_second()),
            "CreatedAt": created.map_or_else(|| "N/A".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S %z UTC").to_string()),
            "Status": status(one),
            "State": one.status.word(),
            "Ports": of_container::column(engine, one)?,
            "Names": record.name,
            "Labels": labels.join(","),
        }))
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
            if one.status == Status::Paused { format!("{up} (Paused)") } else { up }
        }
        Status::Restarting => format!("Restarting ({code}) {}", since(one.state.finished.as_ref())),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Exited => format!("Exited ({code}) {}", since(one.state.finished.as_ref())),
    }
}

/// Filters of one key are alternatives, filters of different keys must all hold; labels must all be there.
fn matches(one: &ContainerDetails, filters: &[(String, String)]) -> bool {
    let record = &one.record;
    let holds = |key: &str, value: &str| match key {
        "id" => record.id.starts_with(value),
        "name" => record.name.contains(value.trim_start_matches('/')),
        "label" => match value.split_once('=') {
            Some((label, wanted)) => record.labels().get(label).is_some_and(|have| have == wanted),
            None => record.labels().contains_key(value),
        },
        "status" => one.status.word() == value,
        "exited" => {
            one.status == Status::Exited && one.state.exit_code.is_some_and(|code| code.to_string() == value)
        }
        "ancestor" => {
            let hex = value.strip_prefix("sha256:").unwrap_or(value);
            record.image.reference == value || (hex.len() >= 4 && record.image.id.hex().starts_with(hex))
        }
        _ => false,
    };
    filters.iter().all(|(key, value)| {
        holds(key, value)
            || (key != "label" && filters.iter().any(|(other, value)| other == key && holds(key, value)))
    })
}
