//! `onggi stats`: what running containers use, as a table that is drawn anew each second.

use std::collections::HashMap;
use std::io::Write;
use std::thread;
use std::time::Duration;

use onggi_engine::Engine;
use onggi_engine::containers::ContainerDetails;
use onggi_engine::usage::Usage;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::Listing;
use crate::session::Session;

const LISTING: Listing = Listing {
    columns: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
};
const SHORT_ID: usize = 12;
/// Between two readings.
const INTERVAL: Duration = Duration::from_secs(1);
/// Moves to the corner and erases what follows.
const ERASE: &str = "\x1b[H\x1b[J";

/// Show what running containers use
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Show all containers, also those that don't run
    #[arg(short, long)]
    all: bool,
    /// Format the output: `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show one reading and end
    #[arg(long)]
    no_stream: bool,
    /// Show whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// Containers by name or ID; all that run if there are none
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let mut before: HashMap<String, Usage> = HashMap::new();
        for one in self.chosen(&engine)? {
            if let Some(usage) = engine.container_usage(&one)? {
                before.insert(one.record.id, usage);
            }
        }
        loop {
            thread::sleep(INTERVAL);
            let (mut rows, mut now) = (Vec::new(), HashMap::new());
            for one in self.chosen(&engine)? {
                let usage = engine.container_usage(&one)?;
                rows.push(self.row(&one, usage.as_ref(), before.get(&one.record.id)));
                if let Some(usage) = usage {
                    now.insert(one.record.id, usage);
                }
            }
            before = now;
            let text = LISTING.render(self.format.as_deref(), &rows).map_err(Failure::template)?;
            if self.no_stream {
                return session.print(&text);
            }
            session.print(&format!("{ERASE}{text}"))?;
            std::io::stdout().flush().map_err(Failure::Output)?;
        }
    }

    fn chosen(&self, engine: &Engine) -> Result<Vec<ContainerDetails>, Failure> {
        if self.containers.is_empty() {
            let mut all = engine.containers()?;
            all.retain(|one| self.all || one.status.has_program());
            return Ok(all);
        }
        let found: Result<Vec<_>, _> = self.containers.iter().map(|name| engine.container(name)).collect();
        Ok(found?)
    }

    fn row(&self, one: &ContainerDetails, usage: Option<&Usage>, before: Option<&Usage>) -> Value {
        let id = &one.record.id;
        let id = if self.no_trunc { id.clone() } else { id.chars().take(SHORT_ID).collect() };
        let Some(usage) = usage else {
            let none = "0B / 0B";
            return json!({
                "BlockIO": none, "CPUPerc": "0.00%", "Container": id, "ID": id, "MemPerc": "0.00%",
                "MemUsage": none, "Name": one.record.name, "NetIO": none, "PIDs": "0",
            });
        };
        let percent = |part: f64| format!("{part:.2}%");
        #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
        let share =
            if usage.memory_limit == 0 { 0.0 } else { usage.memory as f64 / usage.memory_limit as f64 };
        let pair = |a: u64, b: u64| format!("{} / {}", human::short_size(a), human::short_size(b));
        json!({
            "BlockIO": pair(usage.read, usage.written),
            "CPUPerc": percent(before.map_or(0.0, |before| usage.cpu_percent(before))),
            "Container": id,
            "ID": id,
            "MemPerc": percent(share * 100.0),
            "MemUsage": format!("{} / {}", human::binary_size(usage.memory), human::binary_size(usage.memory_limit)),
            "Name": one.record.name,
            "NetIO": pair(usage.received, usage.sent),
            "PIDs": usage.tasks.to_string(),
        })
    }
}
