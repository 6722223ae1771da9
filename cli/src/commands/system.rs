//! `onggi system`: looks after the store.

use onggi_engine::Engine;
use onggi_engine::image::store::{CheckOptions, Count, Depth, Fault, Format, Mend, Problem, disk_usage};
use onggi_engine::oci::Reference;
use serde_json::{Value, json};

use super::{events, info, prune};
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::Listing;
use crate::session::Session;

/// Commands about the store.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start the containers whose restart policy says so, after a start of the host
    Boot(Boot),
    /// Verify the store against its digests
    Check(Check),
    /// Give all layers another format
    Convert(Convert),
    /// Show what takes how much space on disk
    Df(Df),
    /// Show what happens to containers, images and volumes, as it happens
    Events(events::Options),
    /// Show what onggi found on this machine
    Info(info::Options),
    /// Remove everything that is not used
    Prune(prune::Options),
    /// Print a systemd unit that starts containers with the host
    Unit(Unit),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Boot(options) => options.run(session),
            Self::Check(options) => options.run(session),
            Self::Convert(options) => options.run(session),
            Self::Df(options) => options.run(session),
            Self::Events(options) => options.run(session),
            Self::Info(options) => options.run(session),
            Self::Prune(options) => options.run(session),
            Self::Unit(options) => options.run(session),
        }
    }
}

/// Start the containers whose restart policy says so, after a start of the host
#[derive(Debug, clap::Args)]
pub struct Boot {}

impl Boot {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let mut failed = None;
        for (name, started) in session.engine()?.boot()? {
            match started {
                Ok(()) => session.print(&format!("{name}\n"))?,
                // The others are started all the same.
                Err(error) => {
                    session.warn(&format!("{name} could not be started"));
                    if let Some(earlier) = failed.replace(error) {
                        Failure::Engine(earlier).report();
                    }
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Print a systemd unit that starts containers with the host
#[derive(Debug, clap::Args)]
pub struct Unit {}

impl Unit {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(Failure::local("find the own program"))?;
        let engine = session.engine()?;
        let settings = engine.settings();
        let words = [program.as_path(), &settings.root, &settings.runroot].map(quoted);
        let [program, root, runroot] = words;
        let target = if onggi_engine::is_rootless() { "default.target" } else { "multi-user.target" };
        // When the host goes down, systemd ends the supervisors, and these end their containers first.
        session.print(&format!(
            "[Unit]\nDescription=Containers of onggi with a restart policy\nAfter=network-online.target\n\
             Wants=network-online.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
             ExecStart={program} --root {root} --runroot {runroot} system boot\n\n[Install]\nWantedBy={target}\n"
        ))
    }
}

/// As systemd reads words: in quotes, with its specifiers doubled.
fn quoted(path: &std::path::Path) -> String {
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    format!("\"{text}\"")
}

/// Verify the store against its digests
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Mend what can be mended from what is here
    #[arg(long)]
    repair: bool,
    /// Look only at names and sizes
    #[arg(long, conflicts_with = "deep")]
    quick: bool,
    /// Unpack every layer again beside and compare every file
    #[arg(long)]
    deep: bool,
}

impl Check {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let depth = match (self.quick, self.deep) {
            (true, _) => Depth::Quick,
            (_, true) => Depth::Deep,
            _ => Depth::Full,
        };
        let report = session.engine()?.check(CheckOptions { depth, repair: self.repair })?;
        let mut text = String::new();
        for fault in &report.faults {
            text += &fault_line(fault);
        }
        text += &format!(
            "{} blobs ({} hashed), {} layers, {} names: {}\n",
            report.blobs,
            human::short_size(report.hashed),
            report.layers,
            report.refs,
            match (report.faults.len(), report.is_clean()) {
                (0, _) => "no fault".into(),
                (count, true) => format!("{count} faults, all mended"),
                (count, false) => format!("{count} faults"),
            }
        );
        let engine = session.engine()?;
        let networks = engine.check_networks(self.repair)?;
        for (what, mended) in &networks {
            let mend = match (mended, self.repair) {
                (true, _) => "mended",
                (false, true) => "not mended",
                (false, false) => "`onggi system check --repair` mends what can be",
            };
            text += &format!("networks: {what}; {mend}\n");
        }
        session.print(&text)?;
        for chain in engine.firewall_drops()? {
            session.note(&format!(
                "onggi: note: the firewall's chain \"{chain}\" drops what is forwarded; unless it lets interfaces \
                 \"onggi*\" through, containers on networks reach nothing outside (docs/network.md)"
            ));
        }
        let clean = report.is_clean() && networks.iter().all(|(_, mended)| *mended);
        if clean { Ok(()) } else { Err(Failure::Silent(1)) }
    }
}

fn fault_line(fault: &Fault) -> String {
    let mend = match &fault.mend {
        Mend::Done(what) => format!("mended: {what}"),
        Mend::Offered(what) => format!("with --repair {what}"),
        Mend::Fetch(digest, places) if places.is_empty() => format!("blob {digest} must be pulled again"),
        Mend::Fetch(digest, places) => {
            let places: Vec<String> = places.iter().map(Reference::familiar_name).collect();
            format!("blob {digest} must be pulled again ({} had it)", places.join(", "))
        }
        _ => "pull, load or build the image again".into(),
    };
    format!("{}: {}; {mend}\n", problem(&fault.problem), human::visible(&fault.detail))
}

fn problem(problem: &Problem) -> String {
    match problem {
        Problem::Blob(digest) => format!("blob {digest}"),
        Problem::Layer(diff_id) => format!("layer {diff_id}"),
        Problem::Ref(name) => format!("name {}", human::visible(name)),
        Problem::Index => "index.json".into(),
        Problem::Stray(path) => human::visible(&path.to_string_lossy()).into_owned(),
        other => format!("{other:?}"),
    }
}

/// Give all layers another format
///
/// Containers may run meanwhile. Directories that they have mounted are removed by a later prune.
#[derive(Debug, clap::Args)]
pub struct Convert {
    /// dir, a directory tree; erofs, one file that is mounted (root only)
    #[arg(value_name = "FORMAT", value_parser = format)]
    format: Format,
}

/// A format that layers can be converted to.
fn format(text: &str) -> Result<Format, String> {
    match text {
        "dir" => Ok(Format::Dir),
        "erofs" => Ok(Format::Erofs),
        other => Err(format!("{other:?} is no format of layers; there are dir and erofs")),
    }
}

impl Convert {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let converted = session.engine()?.convert(self.format)?;
        let mut text = format!(
            "{} layers converted to {}, {} were before\n",
            converted.layers, self.format, converted.already
        );
        if converted.kept > 0 {
            text += &format!(
                "{} directories stay beside until no container uses them: `onggi system prune` removes them then\n",
                converted.kept
            );
        }
        session.print(&text)
    }
}

const LISTING: Listing = Listing {
    columns: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
};

/// Show what takes how much space on disk
#[derive(Debug, clap::Args)]
pub struct Df {
    /// Format the output: `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Df {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let mut usage = engine.usage()?;
        let running = containers(&engine, &mut usage.containers)?;
        let used = volumes(&engine, &mut usage.volumes)?;
        let row = |kind: &str, count: &Count, active: Option<u64>| -> Value {
            let share = (count.reclaimable * 100).checked_div(count.bytes).unwrap_or(0);
            json!({
                "Type": kind,
                "TotalCount": count.count.to_string(),
                "Active": active.map_or_else(|| "-".to_owned(), |n| n.to_string()),
                "Size": human::short_size(count.bytes),
                "Reclaimable": format!("{} ({share}%)", human::short_size(count.reclaimable)),
            })
        };
        let rows = [
            row("Images", &usage.images, Some(usage.active_images)),
            row("- Blobs", &usage.blobs, None),
            row("- Layers", &usage.layers, None),
            row("Containers", &usage.containers, Some(running)),
            row("Local Volumes", &usage.volumes, Some(used)),
            row("Build Cache", &usage.cache, None),
            row("Unfinished", &usage.ingest, None),
        ];
        let mut text = LISTING.render(self.format.as_deref(), &rows).map_err(Failure::template)?;
        if self.format.is_none() {
            text += &format!("\nOn disk: {}\n", human::short_size(usage.total));
        }
        session.print(&text)
    }
}

/// How many containers run; what the others take can be had back.
fn containers(engine: &Engine, count: &mut Count) -> Result<u64, Failure> {
    let mut running = 0;
    for one in engine.containers()? {
        if one.status.has_program() {
            running += 1;
        } else {
            count.reclaimable += disk_usage(&one.dir).map_err(onggi_engine::Error::from)?;
        }
    }
    Ok(running)
}

/// How many volumes a container has; what the others take can be had back.
fn volumes(engine: &Engine, count: &mut Count) -> Result<u64, Failure> {
    let users = engine.volume_users()?;
    let all = engine.volumes()?;
    // Its own files are no volume.
    count.count = all.len() as u64;
    for volume in all.iter().filter(|volume| !users.contains_key(&volume.name)) {
        count.reclaimable += disk_usage(&volume.mountpoint).map_err(onggi_engine::Error::from)?;
    }
    Ok(all.iter().filter(|volume| users.contains_key(&volume.name)).count() as u64)
}
