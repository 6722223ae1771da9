//! Flags about how much a container may use.

use onggi_engine::run::{DeviceRate, Resources, Ulimit};

use super::values;

/// How much a container may use.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
#[group(skip)]
pub struct Options {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Block IO weight (relative device weight)
    #[arg(long, value_name = "PATH:WEIGHT", value_parser = values::weight)]
    blkio_weight_device: Vec<DeviceRate>,
    /// Parent control group of the container's
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
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
    /// Limit read rate (bytes per second) from a device
    #[arg(long, value_name = "PATH:RATE", value_parser = values::bytes_rate)]
    device_read_bps: Vec<DeviceRate>,
    /// Limit read rate (IO per second) from a device
    #[arg(long, value_name = "PATH:RATE", value_parser = values::operations_rate)]
    device_read_iops: Vec<DeviceRate>,
    /// Limit write rate (bytes per second) to a device
    #[arg(long, value_name = "PATH:RATE", value_parser = values::bytes_rate)]
    device_write_bps: Vec<DeviceRate>,
    /// Limit write rate (IO per second) to a device
    #[arg(long, value_name = "PATH:RATE", value_parser = values::operations_rate)]
    device_write_iops: Vec<DeviceRate>,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = values::size)]
    memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES", value_parser = values::size)]
    memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = values::swap, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Tune container memory swappiness (0 to 100; -1 leaves it to the kernel)
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    memory_swappiness: Option<i64>,
    /// Disable OOM Killer
    #[arg(long)]
    oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    oom_score_adj: Option<i32>,
    /// Tune container pids limit (set -1 for unlimited) [default: 2048]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = values::positive_size)]
    shm_size: Option<u64>,
    /// Ulimit options
    #[arg(long, value_name = "TYPE=SOFT[:HARD]", value_parser = values::ulimit)]
    ulimit: Vec<Ulimit>,
}

impl Options {
    pub fn into_resources(self) -> Resources {
        Resources {
            // Zero is "not limited" in all of these.
            memory: self.memory.filter(|value| *value != 0),
            memory_swap: self.memory_swap.filter(|value| *value != 0),
            memory_reservation: self.memory_reservation.filter(|value| *value != 0),
            memory_swappiness: self.memory_swappiness,
            oom_kill_disable: self.oom_kill_disable,
            oom_score_adj: self.oom_score_adj,
            nano_cpus: self.cpus.filter(|value| *value != 0),
            cpu_shares: self.cpu_shares.filter(|value| *value != 0),
            cpu_period: self.cpu_period.filter(|value| *value != 0),
            cpu_quota: self.cpu_quota.filter(|value| *value != 0),
            cpu_rt_period: self.cpu_rt_period.filter(|value| *value != 0),
            cpu_rt_runtime: self.cpu_rt_runtime.filter(|value| *value != 0),
            cpuset_cpus: self.cpuset_cpus.filter(|value| !value.is_empty()),
            cpuset_mems: self.cpuset_mems.filter(|value| !value.is_empty()),
            pids_limit: self.pids_limit,
            blkio_weight: self.blkio_weight.filter(|value| *value != 0),
            blkio_weight_device: self.blkio_weight_device,
            read_bps: self.device_read_bps,
            write_bps: self.device_write_bps,
            read_iops: self.device_read_iops,
            write_iops: self.device_write_iops,
            ulimits: self.ulimit,
            shm_size: self.shm_size.filter(|value| *value != 0),
            cgroup_parent: self.cgroup_parent.filter(|value| !value.is_empty()),
        }
    }
}
