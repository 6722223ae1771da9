//! `onggi update`: changes limits and restart policy of containers, also while they run.

use onggi_engine::containers::UpdateRequest;
use onggi_engine::run::{Resources, Restart};

use super::each;
use super::run::values;
use crate::failure::Failure;
use crate::session::Session;

/// Update configuration of containers
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Limit the CPU CFS (Completely Fair Scheduler) period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_period: Option<i64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Limit the CPU real-time period, in microseconds (version 1 of control groups)
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    cpu_rt_period: Option<i64>,
    /// Limit the CPU real-time runtime, in microseconds (version 1 of control groups)
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    cpu_rt_runtime: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short, long, value_name = "SHARES", allow_negative_numbers = true)]
    cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER", value_parser = values::cpus)]
    cpus: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = values::size)]
    memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES", value_parser = values::size)]
    memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = values::swap, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Restart policy to apply when a container ends: no, on-failure[:MAX], always or unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = values::restart)]
    restart: Option<Restart>,
    /// Containers by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let resources = Resources {
            blkio_weight: self.blkio_weight,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_rt_period: self.cpu_rt_period,
            cpu_rt_runtime: self.cpu_rt_runtime,
            cpu_shares: self.cpu_shares,
            nano_cpus: self.cpus,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            memory: self.memory,
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            pids_limit: self.pids_limit,
            ..Resources::default()
        };
        if resources == Resources::default() && self.restart.is_none() {
            return Err(Failure::Input("you must provide one or more flags when using this command".into()));
        }
        let request = UpdateRequest { resources, restart: self.restart };
        each::container(session, &self.containers, |engine, container| {
            engine.update_container(container, &request).map(|()| None)
        })
    }
}
