//! What a running container uses, asked of the kernel: its processes, and counters of its control group.
//!
//! | | version 2 | version 1 | without a group of its own |
//! |---|---|---|---|
//! | CPU time | `cpu.stat` | `cpuacct.usage` | times of its processes |
//! | memory | `memory.current` less `inactive_file` | the same of `memory.usage_in_bytes` | their resident sets |
//! | block I/O | `io.stat` | `blkio.throttle.io_service_bytes` | not known |
//! | network | `/proc/<program>/net/dev`, without loopback | | |

use std::fs;
use std::time::{Duration, Instant};

use onggi_runtime::cgroup::Cgroup;
use rustix::process::Pid;

use crate::Engine;
use crate::containers::ContainerDetails;
use crate::error::{Error, Result};

/// Counters of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// When they were read.
    pub at: Instant,
    /// CPU time so far.
    pub cpu: Duration,
    /// Bytes of memory, without files that could be dropped at once.
    pub memory: u64,
    /// Bytes that it may use: its limit, else the host's memory.
    pub memory_limit: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to them.
    pub written: u64,
    /// Processes and threads.
    pub tasks: u64,
}

impl Usage {
    /// The share of one CPU since an earlier moment, in percent: above 100 with several CPUs.
    pub fn cpu_percent(&self, before: &Self) -> f64 {
        let span = self.at.saturating_duration_since(before.at).as_secs_f64();
        let used = self.cpu.saturating_sub(before.cpu).as_secs_f64();
        if span > 0.0 { used / span * 100.0 } else { 0.0 }
    }
}

impl Engine {
    /// The processes of a container, as numbers of this process's pid namespace, for whoever wants to see
    /// them.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; those of reading the control group.
    pub fn top(&self, details: &ContainerDetails) -> Result<Vec<i32>> {
        let processes = self.processes(details)?;
        self.note_container(&details.record, &["top"], &[]);
        Ok(processes)
    }

    fn processes(&self, details: &ContainerDetails) -> Result<Vec<i32>> {
        let first = details.pid.ok_or_else(|| Error::NotRunning { id: details.record.id.clone() })?;
        let group = Cgroup::open(&details.record.cgroup)?;
        let mut all = group.processes()?;
        if all.is_empty() {
            all = descendants(first);
        }
        all.sort_unstable();
        Ok(all)
    }

    /// What a container uses now; `None` if it does not run.
    ///
    /// # Errors
    /// Those of reading the control group.
    pub fn container_usage(&self, details: &ContainerDetails) -> Result<Option<Usage>> {
        let Some(first) = details.pid else { return Ok(None) };
        let group = Cgroup::open(&details.record.cgroup)?;
        let number = |file: &str| group.read(file).and_then(|text| text.trim().parse::<u64>().ok());
        let stat = |file: &str, key: &str| group.read(file).and_then(|text| field(&text, key));
        let at = Instant::now();
        let total = host_memory();
        let (received, sent) = network(first);
        let grouped = stat("cpu.stat", "usage_usec")
            .map(Duration::from_micros)
            .or_else(|| number("cpuacct.usage").map(Duration::from_nanos));
        let Some(cpu) = grouped else {
            return Ok(Some(of_processes(&self.processes(details)?, at, total, (received, sent))));
        };
        let inactive = stat("memory.stat", "inactive_file")
            .into_iter()
            .chain(stat("memory.stat", "total_inactive_file"));
        let memory = number("memory.current").or_else(|| number("memory.usage_in_bytes")).unwrap_or_default();
        let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"));
        let (read, written) = if let Some(text) = group.read("io.stat") {
            (sum(&text, "rbytes="), sum(&text, "wbytes="))
        } else {
            let text = group.read("blkio.throttle.io_service_bytes").unwrap_or_default();
            (operations(&text, "Read"), operations(&text, "Write"))
        };
        Ok(Some(Usage {
            at,
            cpu,
            memory: memory.saturating_sub(inactive.max().unwrap_or_default()),
            memory_limit: limit.filter(|limit| *limit < total).unwrap_or(total),
            received,
            sent,
            read,
            written,
            tasks: number("pids.current").unwrap_or(self.processes(details)?.len() as u64),
        }))
    }
}

/// A process and all that came from it.
fn descendants(first: Pid) -> Vec<i32> {
    let mut parents: Vec<(i32, i32)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![first.as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(pid, of)| *of == parent && *pid != parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

fn of_processes(processes: &[i32], at: Instant, total: u64, (received, sent): (u64, u64)) -> Usage {
    /// Clock ticks in a second, on every Linux.
    const TICKS: u64 = 100;
    let (mut ticks, mut memory, mut tasks) = (0, 0, 0);
    for pid in processes {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit_once(") ").map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        // Fields 14, 15 (times) and 20 (threads) of proc_pid_stat(5); the first here is 3.
        let number =
            |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        ticks += number(14) + number(15);
        tasks += number(20);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        memory += resident.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 1024;
    }
    Usage {
        at,
        cpu: Duration::from_millis(ticks * (1000 / TICKS)),
        memory,
        memory_limit: total,
        received,
        sent,
        read: 0,
        written: 0,
        tasks,
    }
}

/// The number behind a word at the beginning of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The sum of `KEY=number` over all lines.
fn sum(text: &str, key: &str) -> u64 {
    text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
}

/// The sum of `8:0 Read 4096` over all devices.
fn operations(text: &str, kind: &str) -> u64 {
    let number = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some(kind)).then(|| words.next()?.parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(number).sum()
}

/// Bytes received and sent in the network namespace of a process, without loopback.
fn network(of: Pid) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{}/net/dev", of.as_raw_nonzero())).unwrap_or_default();
    let mut sums = (0, 0);
    for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() != "lo" {
            let counters: Vec<u64> =
                counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            sums.0 += counters.first().copied().unwrap_or_default();
            sums.1 += counters.get(8).copied().unwrap_or_default();
        }
    }
    sums
}

/// The host's memory in bytes.
fn host_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_versions_are_read() {
        assert_eq!(field("usage_usec 42\nuser_usec 1\n", "usage_usec"), Some(42));
        assert_eq!(field("inactive_file_x 1\ninactive_file 7\n", "inactive_file"), Some(7));
        let io = "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=0\n";
        assert_eq!((sum(io, "rbytes="), sum(io, "wbytes=")), (15, 20));
        let io = "8:0 Read 10\n8:0 Write 20\n8:16 Read 5\nTotal 35\n";
        assert_eq!((operations(io, "Read"), operations(io, "Write")), (15, 20));
    }

    #[test]
    fn this_process_is_seen_without_a_group() {
        let own = rustix::process::getpid();
        let processes = descendants(own);
        assert_eq!(processes[0], own.as_raw_nonzero().get());
        let usage = of_processes(&processes, Instant::now(), host_memory(), (0, 0));
        assert!(usage.memory > 100_000 && usage.memory < usage.memory_limit && usage.tasks > 0, "{usage:?}");
    }
}
