//! How much a container may use: Docker's limits and its rules about them, as `linux.resources` and
//! resource limits of the runtime specification.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemoryBuilder, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
    LinuxWeightDevice, LinuxWeightDeviceBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};
use rustix::fs::{FileType, major, minor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How many processes a container may have if nothing is said: Podman's number. More than programs
/// that are not servers of thousands need, and far below what stops a host.
pub const DEFAULT_PIDS: i64 = 2048;
/// Docker's least memory limit: below, a container can't even start.
const MIN_MEMORY: i64 = 6 << 20;
/// The period of the kernel's CPU quotas if nothing is said, in microseconds.
const CPU_PERIOD: i64 = 100_000;
const NANO: i64 = 1_000_000_000;

/// A limit for a block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// The device's path on the host.
    pub path: PathBuf,
    /// Bytes or operations in a second, or a weight.
    pub rate: u64,
}

/// A resource limit of processes (setrlimit(2)); `u64::MAX` is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Docker's name, such as `nofile`.
    pub name: String,
    /// In force.
    pub soft: u64,
    /// What it can be raised to.
    pub hard: u64,
}

/// The wishes; sizes in bytes. What is `None` is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory.
    pub memory: Option<i64>,
    /// Memory and swap together; -1 for unlimited swap.
    pub memory_swap: Option<i64>,
    /// What is left to the container when memory is short.
    pub memory_reservation: Option<i64>,
    /// How readily its pages are swapped out, 0 to 100; -1 leaves it to the kernel.
    pub memory_swappiness: Option<i64>,
    /// Whether it waits instead of being killed when memory is used up.
    pub oom_kill_disable: bool,
    /// Who is killed first when the host's memory is used up, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// CPUs in thousand millionths.
    pub nano_cpus: Option<i64>,
    /// Weight against other containers.
    pub cpu_shares: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds in each period.
    pub cpu_quota: Option<i64>,
    /// Microseconds of a period of real-time scheduling (version 1 of control groups).
    pub cpu_rt_period: Option<i64>,
    /// Microseconds of real-time scheduling in each period.
    pub cpu_rt_runtime: Option<i64>,
    /// Which CPUs: `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// Which memory nodes.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; 0 or less for no limit, `None` for [`DEFAULT_PIDS`].
    pub pids_limit: Option<i64>,
    /// Weight of its I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Weights for one device.
    pub blkio_weight_device: Vec<DeviceRate>,
    /// Bytes read in a second.
    pub read_bps: Vec<DeviceRate>,
    /// Bytes written in a second.
    pub write_bps: Vec<DeviceRate>,
    /// Reads in a second.
    pub read_iops: Vec<DeviceRate>,
    /// Writes in a second.
    pub write_iops: Vec<DeviceRate>,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// The control group that the container's own is made in.
    pub cgroup_parent: Option<String>,
}

impl Resources {
    /// The flags that need a control group, as given.
    pub(crate) fn asked(&self) -> Vec<&'static str> {
        let cpuset = self.cpuset_cpus.is_some() || self.cpuset_mems.is_some();
        [
            (self.memory.is_some(), "--memory"),
            (self.memory_swap.is_some(), "--memory-swap"),
            (self.memory_reservation.is_some(), "--memory-reservation"),
            (self.memory_swappiness.is_some_and(|value| value >= 0), "--memory-swappiness"),
            (self.oom_kill_disable, "--oom-kill-disable"),
            (self.nano_cpus.is_some(), "--cpus"),
            (self.cpu_shares.is_some(), "--cpu-shares"),
            (self.cpu_period.is_some(), "--cpu-period"),
            (self.cpu_quota.is_some(), "--cpu-quota"),
            (self.cpu_rt_period.is_some(), "--cpu-rt-period"),
            (self.cpu_rt_runtime.is_some(), "--cpu-rt-runtime"),
            (cpuset, "--cpuset-cpus or --cpuset-mems"),
            (self.pids_limit.is_some_and(|limit| limit > 0), "--pids-limit"),
            (self.blkio_weight.is_some() || !self.blkio_weight_device.is_empty(), "--blkio-weight"),
            (!self.read_bps.is_empty(), "--device-read-bps"),
            (!self.write_bps.is_empty(), "--device-write-bps"),
            (!self.read_iops.is_empty(), "--device-read-iops"),
            (!self.write_iops.is_empty(), "--device-write-iops"),
            (self.cgroup_parent.is_some(), "--cgroup-parent"),
        ]
        .into_iter()
        .filter_map(|(asked, flag)| asked.then_some(flag))
        .collect()
    }

    /// These with what `wanted` says in their place.
    pub(crate) fn changed_by(&self, wanted: &Self) -> Self {
        let mut new = self.clone();
        macro_rules! take {
            ($($field:ident),*) => { $(if wanted.$field.is_some() { new.$field.clone_from(&wanted.$field); })* };
        }
        take!(memory, memory_swap, memory_reservation, memory_swappiness, nano_cpus, cpu_shares, cpu_period);
        take!(cpu_quota, cpu_rt_period, cpu_rt_runtime, cpuset_cpus, cpuset_mems, pids_limit, blkio_weight);
        // Two ways to say the same: the later one counts.
        if wanted.nano_cpus.is_some() {
            (new.cpu_period, new.cpu_quota) = (wanted.cpu_period, wanted.cpu_quota);
        } else if wanted.cpu_period.is_some() || wanted.cpu_quota.is_some() {
            new.nano_cpus = None;
        }
        new
    }

    /// Checks the wishes as Docker does, in its words.
    pub fn check(&self) -> Result<()> {
        let bad = |flag: &str, problem: &str| Err(Error::flag(flag, problem));
        let memory = self.memory.unwrap_or(0);
        if self.memory.is_some_and(|memory| memory < MIN_MEMORY && memory != 0) {
            return bad("--memory", "Minimum memory limit allowed is 6MB");
        }
        match self.memory_swap {
            Some(swap) if swap < -1 => return bad("--memory-swap", "expected a size, or -1 for no limit"),
            Some(swap) if swap > 0 && memory == 0 => {
                return bad(
                    "--memory-swap",
                    "You should always set the Memory limit when using Memoryswap limit",
                );
            }
            Some(swap) if swap > 0 && swap < memory => {
                return bad("--memory-swap", "Minimum memoryswap limit should be larger than memory limit");
            }
            _ => {}
        }
        if self.memory_swappiness.is_some_and(|value| !(-1..=100).contains(&value)) {
            return bad("--memory-swappiness", "valid memory swappiness range is 0-100");
        }
        if let Some(reservation) = self.memory_reservation.filter(|value| *value != 0) {
            if reservation < MIN_MEMORY {
                return bad("--memory-reservation", "Minimum memory reservation allowed is 6MB");
            }
            if memory > 0 && memory < reservation {
                return bad("--memory", "Minimum memory limit can not be less than memory reservation limit");
            }
        }
        if self.oom_score_adj.is_some_and(|value| !(-1000..=1000).contains(&value)) {
            return bad("--oom-score-adj", "range for oom score adj is [-1000, 1000]");
        }
        self.check_cpu()?;
        if self.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
            return bad("--blkio-weight", "Range of blkio weight is from 10 to 1000");
        }
        if self.blkio_weight_device.iter().any(|one| !(10..=1000).contains(&one.rate)) {
            return bad("--blkio-weight-device", "Range of blkio weight is from 10 to 1000");
        }
        self.rlimits().map(drop)
    }

    fn check_cpu(&self) -> Result<()> {
        let bad = |flag: &str, problem: &str| Err(Error::flag(flag, problem));
        if self.nano_cpus.is_some() && self.cpu_period.is_some() {
            return bad("--cpus", "Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if self.nano_cpus.is_some() && self.cpu_quota.is_some() {
            return bad("--cpus", "Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
        if let Some(cpus) = self.nano_cpus.filter(|value| *value != 0) {
            let have = cpu_list(&std::fs::read_to_string(ONLINE_CPUS).unwrap_or_default())
                .map_or(1, |list| list.len());
            // A hundredth of a CPU is the least that the kernel takes of the usual period.
            if cpus < NANO / 100 || cpus > i64::try_from(have).unwrap_or(1).saturating_mul(NANO) {
                return bad(
                    "--cpus",
                    &format!(
                        "Range of CPUs is from 0.01 to {have}.00, as there are only {have} CPUs available"
                    ),
                );
            }
        }
        if self.cpu_shares.is_some_and(|value| value < 0) {
            return bad("--cpu-shares", "shares must not be negative");
        }
        if self.cpu_period.is_some_and(|value| value != 0 && !(1000..=1_000_000).contains(&value)) {
            let problem =
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)";
            return bad("--cpu-period", problem);
        }
        if self.cpu_quota.is_some_and(|value| value > 0 && value < 1000) {
            return bad("--cpu-quota", "CPU cfs quota can not be less than 1ms (i.e. 1000)");
        }
        let sets = [
            ("--cpuset-cpus", &self.cpuset_cpus, ONLINE_CPUS),
            ("--cpuset-mems", &self.cpuset_mems, "/sys/devices/system/node/online"),
        ];
        for (flag, wanted, online) in sets {
            let Some(wanted) = wanted else { continue };
            let have = std::fs::read_to_string(online).unwrap_or_default();
            let Some(list) = cpu_list(wanted) else {
                return bad(flag, &format!("Invalid value {wanted:?} (expected 0-3 or 0,1)"));
            };
            // Without NUMA the kernel has no such file, and one node.
            let have = if have.trim().is_empty() { "0" } else { have.trim() };
            let there = cpu_list(have).unwrap_or_default();
            if list.iter().any(|one| !there.contains(one)) {
                return bad(flag, &format!("not available here - requested {wanted}, available: {have}"));
            }
        }
        Ok(())
    }

    /// As the runtime takes them. `limit_pids` says whether the default applies; `swap` whether this
    /// host counts swap, so that twice the memory can be the default of both together.
    pub(crate) fn to_linux(
        &self,
        limit_pids: bool,
        swap: bool,
        devices: Option<Vec<LinuxDeviceCgroup>>,
    ) -> Result<LinuxResources> {
        let mut linux = LinuxResourcesBuilder::default().build().map_err(Error::specification)?;
        linux.set_devices(devices);
        let pids = self.pids_limit.or(limit_pids.then_some(DEFAULT_PIDS)).filter(|limit| *limit > 0);
        if let Some(limit) = pids {
            linux.set_pids(Some(
                LinuxPidsBuilder::default().limit(limit).build().map_err(Error::specification)?,
            ));
        }
        if self.memory.is_some()
            || self.memory_reservation.is_some()
            || self.memory_swappiness.is_some()
            || self.oom_kill_disable
        {
            let mut memory = LinuxMemoryBuilder::default().build().map_err(Error::specification)?;
            let limit = self.memory.filter(|value| *value > 0);
            let both = self.memory_swap.filter(|value| *value != 0);
            let default = || limit.filter(|_| swap).map(|limit| limit.saturating_mul(2));
            memory.set_limit(limit);
            memory.set_swap(both.filter(|_| limit.is_some()).or_else(default));
            memory.set_reservation(self.memory_reservation);
            memory.set_swappiness(self.memory_swappiness.and_then(|value| u64::try_from(value).ok()));
            memory.set_disable_oom_killer(self.oom_kill_disable.then_some(true));
            linux.set_memory(Some(memory));
        }
        let quota = self.nano_cpus.map(|cpus| cpus / (NANO / CPU_PERIOD)).or(self.cpu_quota);
        let period = self.nano_cpus.map(|_| CPU_PERIOD).or(self.cpu_period);
        let cpuset = self.cpuset_cpus.is_some() || self.cpuset_mems.is_some();
        let real_time = self.cpu_rt_period.is_some() || self.cpu_rt_runtime.is_some();
        if quota.is_some() || period.is_some() || self.cpu_shares.is_some() || real_time || cpuset {
            let mut cpu = LinuxCpuBuilder::default().build().map_err(Error::specification)?;
            cpu.set_quota(quota);
            cpu.set_period(period.and_then(|value| u64::try_from(value).ok()));
            cpu.set_realtime_period(self.cpu_rt_period.and_then(|value| u64::try_from(value).ok()));
            cpu.set_realtime_runtime(self.cpu_rt_runtime);
            cpu.set_shares(self.cpu_shares.and_then(|value| u64::try_from(value).ok()));
            cpu.set_cpus(self.cpuset_cpus.clone());
            cpu.set_mems(self.cpuset_mems.clone());
            linux.set_cpu(Some(cpu));
        }
        linux.set_block_io(self.block_io()?);
        Ok(linux)
    }

    fn block_io(&self) -> Result<Option<oci_spec::runtime::LinuxBlockIo>> {
        let throttles = [&self.read_bps, &self.write_bps, &self.read_iops, &self.write_iops];
        let weights = &self.blkio_weight_device;
        if self.blkio_weight.is_none() && weights.is_empty() && throttles.iter().all(|list| list.is_empty()) {
            return Ok(None);
        }
        let mut io = LinuxBlockIoBuilder::default().build().map_err(Error::specification)?;
        io.set_weight(self.blkio_weight);
        let weights: Vec<_> = weights.iter().map(weight).collect::<Result<_>>()?;
        io.set_weight_device(Some(weights).filter(|list| !list.is_empty()));
        let list = |flag: &'static str, rates: &[DeviceRate]| -> Result<Option<Vec<LinuxThrottleDevice>>> {
            let list: Vec<_> = rates.iter().map(|one| throttle(flag, one)).collect::<Result<_>>()?;
            Ok(Some(list).filter(|list| !list.is_empty()))
        };
        io.set_throttle_read_bps_device(list("--device-read-bps", &self.read_bps)?);
        io.set_throttle_write_bps_device(list("--device-write-bps", &self.write_bps)?);
        io.set_throttle_read_iops_device(list("--device-read-iops", &self.read_iops)?);
        io.set_throttle_write_iops_device(list("--device-write-iops", &self.write_iops)?);
        Ok(Some(io))
    }

    /// `--ulimit` as the runtime takes it; the last of a name wins.
    pub(crate) fn rlimits(&self) -> Result<Vec<PosixRlimit>> {
        let mut list: Vec<PosixRlimit> = Vec::new();
        for one in &self.ulimits {
            let Some(kind) = rlimit_kind(&one.name) else {
                return Err(Error::flag("--ulimit", format!("invalid ulimit type: {}", one.name)));
            };
            if one.soft > one.hard {
                let problem = format!(
                    "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                    one.soft, one.hard
                );
                return Err(Error::flag("--ulimit", problem));
            }
            let limit = PosixRlimitBuilder::default().typ(kind).soft(one.soft).hard(one.hard).build();
            list.retain(|other| other.typ() != kind);
            list.push(limit.map_err(Error::specification)?);
        }
        Ok(list)
    }
}

fn weight(one: &DeviceRate) -> Result<LinuxWeightDevice> {
    let (major, minor) = block_device("--blkio-weight-device", &one.path)?;
    let weight = u16::try_from(one.rate).unwrap_or(u16::MAX);
    let built = LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build();
    built.map_err(Error::specification)
}

fn throttle(flag: &'static str, one: &DeviceRate) -> Result<LinuxThrottleDevice> {
    let (major, minor) = block_device(flag, &one.path)?;
    let built = LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(one.rate).build();
    built.map_err(Error::specification)
}

/// The number of a block device.
fn block_device(flag: &'static str, path: &Path) -> Result<(i64, i64)> {
    let stat = rustix::fs::stat(path).map_err(|errno| {
        Error::flag(flag, format!("cannot look at {}: {}", path.display(), std::io::Error::from(errno)))
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return Err(Error::flag(flag, format!("{} is no block device", path.display())));
    }
    Ok((major(stat.st_rdev).into(), minor(stat.st_rdev).into()))
}

fn rlimit_kind(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    })
}

const ONLINE_CPUS: &str = "/sys/devices/system/cpu/online";

/// The kernel's lists: `0-3,5`. The bound keeps a typing error from filling memory.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    const MAX_CPUS: u32 = 8192;
    let mut list = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= MAX_CPUS {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in a list of cases")]
    fn problem(resources: Resources) -> String {
        resources.check().unwrap_err().to_string()
    }

    #[test]
    fn dockers_rules_hold() {
        let none = Resources::default;
        let mib = |n: i64| Some(n << 20);
        assert!(problem(Resources { memory: mib(5), ..none() }).contains("6MB"));
        assert!(problem(Resources { memory_swap: mib(64), ..none() }).contains("always set"));
        let less = Resources { memory: mib(64), memory_swap: mib(32), ..none() };
        assert!(problem(less).contains("larger than memory"));
        let reserved = Resources { memory: mib(64), memory_reservation: mib(128), ..none() };
        assert!(problem(reserved).contains("reservation"));
        assert!(problem(Resources { memory_swappiness: Some(101), ..none() }).contains("0-100"));
        assert!(problem(Resources { oom_score_adj: Some(1001), ..none() }).contains("1000"));
        let both = Resources { nano_cpus: Some(NANO / 2), cpu_quota: Some(1000), ..none() };
        assert!(problem(both).contains("Conflicting options"));
        assert!(problem(Resources { nano_cpus: Some(1 << 60), ..none() }).contains("Range of CPUs"));
        assert!(problem(Resources { cpu_period: Some(10), ..none() }).contains("period"));
        assert!(problem(Resources { cpu_quota: Some(10), ..none() }).contains("quota"));
        assert!(problem(Resources { cpuset_cpus: Some("x".into()), ..none() }).contains("Invalid value"));
        assert!(problem(Resources { cpuset_cpus: Some("8000".into()), ..none() }).contains("available"));
        assert!(problem(Resources { blkio_weight: Some(9), ..none() }).contains("10 to 1000"));
        let ulimit = Ulimit { name: "nofile".into(), soft: 2, hard: 1 };
        assert!(problem(Resources { ulimits: vec![ulimit], ..none() }).contains("hard limit"));
        none().check().unwrap();
    }

    #[test]
    fn limits_become_the_runtimes() {
        let wished = Resources { memory: Some(64 << 20), nano_cpus: Some(NANO / 2), ..Resources::default() };
        let linux = wished.to_linux(true, true, None).unwrap();
        let memory = linux.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
        let cpu = linux.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(50_000), Some(100_000)));
        assert_eq!(linux.pids().as_ref().unwrap().limit(), DEFAULT_PIDS);
        assert_eq!(wished.to_linux(false, false, None).unwrap().memory().unwrap().swap(), None);
        let unlimited = Resources { pids_limit: Some(-1), ..Resources::default() };
        assert!(unlimited.to_linux(true, true, None).unwrap().pids().is_none());
        assert!(unlimited.asked().is_empty());
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(cpu_list("2-1"), None);
        assert_eq!(cpu_list("0-4294967295"), None);
        assert_eq!(cpu_list(""), None);
    }
}
