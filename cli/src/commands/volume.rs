//! `onggi volume`: the group of commands about volumes.

use std::collections::BTreeMap;

use onggi_engine::oci::ErrorKind;
use onggi_engine::{Engine, Volume, VolumeRequest};
use serde_json::{Value, json};

use super::run::values;
use crate::failure::Failure;
use crate::output::listing::Listing;
use crate::output::{human, json};
use crate::session::Session;

/// Commands about volumes.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a volume
    Create(Create),
    /// Show everything about volumes
    Inspect(Inspect),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove unused volumes
    Prune(Prune),
    /// Remove volumes that no container uses
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create(options) => options.run(session),
            Self::Inspect(options) => options.run(session),
            Self::Ls(options) => options.run(session),
            Self::Prune(options) => options.run(session),
            Self::Rm(options) => options.run(session),
        }
    }
}

/// Create a volume
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The driver: local
    #[arg(short, long, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Set meta data on the volume
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    label: Vec<(String, String)>,
    /// Set an option of the driver: type, device and o, as mount(8) has them
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::label)]
    opt: Vec<(String, String)>,
    /// Its name; a random one if there is none
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

impl Create {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let request = VolumeRequest {
            name: self.name.filter(|name| !name.is_empty()),
            labels: self.label.into_iter().collect(),
            options: self.opt.into_iter().collect(),
        };
        let volume = session.engine()?.create_volume(&request)?;
        session.print(&format!("{}\n", volume.name))
    }
}

/// Show everything about volumes
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Format the output: `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Volumes by name
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

impl Inspect {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let (mut values, mut failed) = (Vec::new(), None);
        for name in &self.names {
            match engine.volume(name) {
                Ok(volume) => values.push(value(&volume)),
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

/// The object that `docker volume inspect` prints.
pub(super) fn value(volume: &Volume) -> Value {
    let map = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    json!({
        "CreatedAt": volume.created,
        "Driver": "local",
        "Labels": map(&volume.labels),
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": map(&volume.options),
        "Scope": "local",
    })
}

const LISTING: Listing = Listing {
    columns: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Availability", "AVAILABILITY"),
        ("Group", "GROUP"),
        ("Status", "STATUS"),
    ],
    table: "{{.Driver}}\t{{.Name}}",
};

/// List volumes
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show only what matches: dangling, driver, label, name
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format the output: `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show names only
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let filters = Filters::parse(&self.filter, &["dangling", "driver", "label", "name"])?;
        let engine = session.engine()?;
        let users = engine.volume_users()?;
        let is_used = |volume: &Volume| users.contains_key(&volume.name);
        let mut volumes = engine.volumes()?;
        volumes.retain(|volume| filters.accept(volume, is_used(volume)));
        if self.quiet {
            return session.print(&volumes.iter().map(|one| format!("{}\n", one.name)).collect::<String>());
        }
        let rows: Vec<Value> = volumes.iter().map(row).collect();
        session.print(&LISTING.render(self.format.as_deref(), &rows).map_err(Failure::template)?)
    }
}

fn row(volume: &Volume) -> Value {
    let labels: Vec<String> = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Driver": "local",
        "Name": volume.name,
        "Scope": "local",
        "Mountpoint": volume.mountpoint,
        "Labels": labels.join(","),
        // As Docker's `volume ls`, which measures nothing.
        "Links": "N/A",
        "Size": "N/A",
        "Availability": "N/A",
        "Group": "N/A",
        "Status": "N/A",
    })
}

/// Remove volumes that no container uses
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// A missing volume is no error
    #[arg(short, long)]
    force: bool,
    /// Volumes by name
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

impl Rm {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let mut failed = None;
        for name in &self.names {
            match engine.remove_volume(name) {
                Ok(()) => session.print(&format!("{name}\n"))?,
                Err(error) if self.force && error.kind() == ErrorKind::NotFound => {
                    session.print(&format!("{name}\n"))?;
                }
                // The others are removed all the same.
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

/// Remove unused volumes
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Remove all volumes that no container uses, not just those without a name
    #[arg(short, long)]
    all: bool,
    /// Remove only what matches: label, label!, all
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let filters = Filters::parse(&self.filter, &["label", "label!", "all"])?;
        let all = self.all || filters.truth("all") == Some(true);
        let question = match all {
            true => "This will remove all local volumes not used by at least one container.",
            false => "This will remove anonymous local volumes not used by at least one container.",
        };
        if !self.force && !session.confirm(&format!("WARNING! {question}"))? {
            return Ok(());
        }
        prune(&session.engine()?, session, &|volume| {
            (all || volume.is_anonymous()) && filters.accept(volume, false)
        })
    }
}

/// Removes the unused volumes that `wanted` accepts, and says which.
fn prune(engine: &Engine, session: &Session, wanted: &dyn Fn(&Volume) -> bool) -> Result<(), Failure> {
    let pruned = engine.prune_volumes(wanted)?;
    let mut text = String::new();
    if !pruned.names.is_empty() {
        text = format!("Deleted Volumes:\n{}\n\n", pruned.names.join("\n"));
    }
    session.print(&format!("{text}Total reclaimed space: {}\n", human::short_size(pruned.bytes)))
}

/// `--filter` of volumes: alternatives within a key, but all labels.
struct Filters(Vec<(String, String)>);

impl Filters {
    fn parse(words: &[String], known: &[&str]) -> Result<Self, Failure> {
        let read = |word: &String| match word.split_once('=') {
            // `label!=x` is the filter `label!`.
            Some((key, value)) if known.contains(&key) => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::Input(format!("invalid filter '{word}' (known: {})", known.join(", ")))),
        };
        let filters = Self(words.iter().map(read).collect::<Result<_, _>>()?);
        for key in ["dangling", "all"] {
            if filters.0.iter().any(|(have, _)| have == key) && filters.truth(key).is_none() {
                return Err(Failure::Input(format!("invalid filter '{key}': expected true or false")));
            }
        }
        Ok(filters)
    }

    fn truth(&self, key: &str) -> Option<bool> {
        let (_, value) = self.0.iter().rev().find(|(have, _)| have == key)?;
        match value.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }

    fn accept(&self, volume: &Volume, used: bool) -> bool {
        let has_label = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => volume.labels.get(key).is_some_and(|have| have == value),
            None => volume.labels.contains_key(wanted),
        };
        let values = |key: &'static str| {
            self.0.iter().filter(move |(have, _)| have == key).map(|(_, value)| value.as_str())
        };
        let any = |key: &'static str, holds: &dyn Fn(&str) -> bool| {
            values(key).next().is_none() || values(key).any(holds)
        };
        self.truth("dangling").is_none_or(|dangling| dangling != used)
            && any("driver", &|driver| driver == "local")
            && any("name", &|part| volume.name.contains(part))
            && values("label").all(has_label)
            && !values("label!").any(has_label)
    }
}
