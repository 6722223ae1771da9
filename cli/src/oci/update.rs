//! `update`

use std::path::PathBuf;

use clap::Args;
use onggi_runtime::Error;
use onggi_runtime::oci::Runtime;
use serde_json::{Map, Value, json};

use super::Outcome;

/// Change the limits of a container
#[derive(Debug, Args)]
pub struct Update {
    /// JSON file with `linux.resources`, or - for standard input
    #[arg(short, long)]
    resources: Option<PathBuf>,
    /// Memory in bytes
    #[arg(long, allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Soft limit of memory in bytes
    #[arg(long, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// Memory and swap in bytes; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Relative share of the CPU
    #[arg(long)]
    cpu_share: Option<u64>,
    /// Time on the CPU a period, in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Period in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// CPUs
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Number of processes; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Id of the container
    id: String,
}

impl Update {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        let mut document = match &self.resources {
            Some(path) => read(path)?,
            None => Value::Object(Map::new()),
        };
        let numbers = [
            ("memory", "limit", self.memory.map(Value::from)),
            ("memory", "reservation", self.memory_reservation.map(Value::from)),
            ("memory", "swap", self.memory_swap.map(Value::from)),
            ("cpu", "shares", self.cpu_share.map(Value::from)),
            ("cpu", "quota", self.cpu_quota.map(Value::from)),
            ("cpu", "period", self.cpu_period.map(Value::from)),
            ("cpu", "cpus", self.cpuset_cpus.clone().map(Value::from)),
            ("cpu", "mems", self.cpuset_mems.clone().map(Value::from)),
            ("pids", "limit", self.pids_limit.map(Value::from)),
            ("blockIO", "weight", self.blkio_weight.map(Value::from)),
        ];
        for (group, key, value) in numbers {
            if let (Some(value), Some(document)) = (value, document.as_object_mut()) {
                let group = document.entry(group).or_insert_with(|| json!({}));
                if let Some(group) = group.as_object_mut() {
                    group.insert(key.to_owned(), value);
                }
            }
        }
        let resources = serde_json::from_value(document)
            .map_err(|error| Error::Invalid { what: "resources".into(), why: error.to_string() })?;
        runtime.update(&self.id, &resources)?;
        Ok(0)
    }
}

fn read(path: &PathBuf) -> Result<Value, Error> {
    let object = || path.display().to_string();
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|source| Error::Io { operation: "read", object: object(), source })?;
    serde_json::from_str(&text).map_err(|error| Error::Invalid { what: object(), why: error.to_string() })
}
