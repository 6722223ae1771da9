//! `onggi container …`: everything about containers, also under the names that Docker gave them first.

use std::collections::BTreeMap;
use std::process::ExitCode;

use jiff::Timestamp;
use onggi_engine::containers::ContainerDetails;

use super::{
    attach, commit, cp, create, diff, exec, export, inspect, kill, logs, pause, port, ps, rename, restart,
    rm, run, start, stats, stop, top, unpause, update, wait,
};
use crate::commands::filter;
use crate::failure::Failure;
use crate::output::human;
use crate::session::Session;

/// Manage containers
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Attach local standard input, output, and error streams to a running container
    Attach(attach::Options),
    /// Make an image of what a container changed
    Commit(commit::Options),
    /// Copy files or directories between a container and the host
    Cp(cp::Options),
    /// Show what a container changed of its files
    Diff(diff::Options),
    /// Write all files of a container to a tar archive
    Export(export::Options),
    /// Show everything about containers
    Inspect(inspect::Container),
    /// Show what a container's program wrote
    Logs(logs::Options),
    /// Create a new container
    Create(Box<create::Options>),
    /// Run a command in a running container
    Exec(exec::Options),
    /// Kill running containers
    Kill(kill::Options),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Options),
    /// List port mappings or a specific mapping for the container
    Port(port::Options),
    /// Pause all processes within containers
    Pause(pause::Options),
    /// Remove all stopped containers
    Prune(Prune),
    /// Rename a container
    Rename(rename::Options),
    /// Restart containers
    Restart(restart::Options),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(rm::Options),
    /// Create and run a new container from an image
    Run(Box<run::Options>),
    /// Show what running containers use
    Stats(stats::Options),
    /// Show the processes of a container
    Top(top::Options),
    /// Start stopped containers
    Start(start::Options),
    /// Stop running containers
    Stop(stop::Options),
    /// Unpause all processes within containers
    Unpause(unpause::Options),
    /// Update configuration of containers
    Update(update::Options),
    /// Block until containers stop, then print their exit codes
    Wait(wait::Options),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        match self {
            Self::Attach(options) => return options.run(session),
            Self::Commit(options) => options.run(session),
            Self::Cp(options) => options.run(session),
            Self::Diff(options) => options.run(session),
            Self::Export(options) => options.run(session),
            Self::Inspect(options) => options.run(session),
            Self::Logs(options) => options.run(session),
            Self::Create(options) => options.run(session),
            Self::Exec(options) => return options.run(session),
            Self::Kill(options) => options.run(session),
            Self::Ls(options) => options.run(session),
            Self::Port(options) => options.run(session),
            Self::Rm(options) => options.run(session),
            Self::Stats(options) => options.run(session),
            Self::Top(options) => options.run(session),
            Self::Pause(options) => options.run(session),
            Self::Prune(options) => options.run(session),
            Self::Rename(options) => options.run(session),
            Self::Restart(options) => options.run(session),
            Self::Run(options) => return options.run(session),
            Self::Start(options) => return options.run(session),
            Self::Stop(options) => options.run(session),
            Self::Unpause(options) => options.run(session),
            Self::Update(options) => options.run(session),
            Self::Wait(options) => options.run(session),
        }
        .map(|()| ExitCode::SUCCESS)
    }
}

/// Remove all stopped containers
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Only what matches: `until=<moment or age>`, `label=…`, `label!=…`
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let filters = PruneFilters::parse(&self.filter)?;
        if !self.force && !session.confirm("WARNING! This will remove all stopped containers.")? {
            return Ok(());
        }
        let wanted = |one: &ContainerDetails| {
            let created = one.record.created.parse::<Timestamp>().ok();
            filters.accept(created, &one.record.labels())
        };
        let pruned = session.engine()?.prune_containers(&wanted)?;
        if !pruned.ids.is_empty() {
            session.print(&format!("Deleted Containers:\n{}\n\n", pruned.ids.join("\n")))?;
        }
        session.print(&format!("Total reclaimed space: {}\n", human::short_size(pruned.bytes)))
    }
}

/// What a prune is limited to: all of them must hold.
struct PruneFilters {
    until: Option<Timestamp>,
    /// A label, its value if that matters, and whether it must be there.
    labels: Vec<(String, Option<String>, bool)>,
}

impl PruneFilters {
    fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut filters = Self { until: None, labels: Vec::new() };
        for word in words {
            let label = |text: &str, wanted| match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned()), wanted),
                None => (text.to_owned(), None, wanted),
            };
            if let Some(text) = word.strip_prefix("until=") {
                filters.until = Some(filter::moment(text)?);
            } else if let Some(text) = word.strip_prefix("label!=") {
                filters.labels.push(label(text, false));
            } else if let Some(text) = word.strip_prefix("label=") {
                filters.labels.push(label(text, true));
            } else {
                let problem = format!("invalid filter {word:?} (known: until=…, label=…, label!=…)");
                return Err(Failure::Input(problem));
            }
        }
        Ok(filters)
    }

    fn accept(&self, created: Option<Timestamp>, labels: &BTreeMap<String, String>) -> bool {
        let old = self.until.is_none_or(|until| created.is_some_and(|created| created < until));
        let has = |key: &String, value: &Option<String>| {
            labels.get(key).is_some_and(|have| value.as_ref().is_none_or(|value| have == value))
        };
        old && self.labels.iter().all(|(key, value, wanted)| has(key, value) == *wanted)
    }
}
