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
    /// Memory in bytes, or with the unit k, m, g or t
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    memory: Option<i64>,
    /// Soft limit of memory
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    memory_reservation: Option<i64>,
    /// Memory and swap; -1 for no limit
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
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
    /// Time that may be saved up for later, in microseconds
    #[arg(long)]
    cpu_burst: Option<u64>,
    /// Whether it gets only what others leave (1) or not (0)
    #[arg(long)]
    cpu_idle: Option<i64>,
    /// Real-time period in microseconds
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Real-time part of the period in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
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
            ("cpu", "burst", self.cpu_burst.map(Value::from)),
            ("cpu", "idle", self.cpu_idle.map(Value::from)),
            ("cpu", "realtimePeriod", self.cpu_rt_period.map(Value::from)),
            ("cpu", "realtimeRuntime", self.cpu_rt_runtime.map(Value::from)),
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

/// Bytes as runc takes them: a number, and a unit of 1024 bytes, 1024² and so on.
fn size(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a size such as 50m, or -1");
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, shift) = match lower.find(|c: char| c.is_ascii_alphabetic()) {
        None => (lower, 0),
        Some(at) => {
            let (number, unit) = lower.split_at(at);
            let position = ["", "k", "m", "g", "t"].iter().position(|one| *one == unit).ok_or_else(wrong)?;
            (number, u32::try_from(position).unwrap_or_default() * 10)
        }
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes >= -1).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("50M", 52_428_800), ("-1", -1), ("7", 7), ("2kb", 2048), ("1g", 1 << 30), ("8b", 8)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "1x", "1.5m", "-2", "-1m", "9223372036854775807k"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
