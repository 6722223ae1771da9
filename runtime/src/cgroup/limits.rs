//! `linux.resources` as files and values, for either version.

use std::fmt::{Display, Write};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use crate::error::{Error, Result};

/// One value in one file of one controller; an empty controller is a file that
/// every directory has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
    /// What holds where this kernel has no such file.
    pub(super) otherwise: Otherwise,
}

/// What to do where a file is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// The limit can't be set: an error.
    Fail,
    /// Nothing: there is then nothing that could be used without limit.
    Leave,
    /// The same wish is said to another file.
    Write(String, String),
}

struct List(Vec<Limit>);

impl List {
    fn add(&mut self, controller: &'static str, file: impl Into<String>, value: impl Display) {
        self.add_or(controller, file, value, Otherwise::Fail);
    }

    fn add_or(
        &mut self,
        controller: &'static str,
        file: impl Into<String>,
        value: impl Display,
        otherwise: Otherwise,
    ) {
        self.0.push(Limit { controller, file: file.into(), value: format!("{value}"), otherwise });
    }
}

/// All limits but those of devices, in the order in which the files must be written.
pub(super) fn limits(resources: &LinuxResources, unified: bool) -> Result<Vec<Limit>> {
    let mut list = List(Vec::new());
    if let Some(memory) = resources.memory() {
        memory_limits(&mut list, memory, unified)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(&mut list, cpu, unified)?;
    }
    if let Some(pids) = resources.pids() {
        list.add("pids", "pids.max", unlimited(pids.limit().max(-1), 1));
    }
    if let Some(io) = resources.block_io() {
        io_limits(&mut list, io, unified)?;
    }
    for page in resources.hugepage_limits().iter().flatten() {
        let end = if unified { "max" } else { "limit_in_bytes" };
        let size = plain(page.page_size())?;
        list.add("hugetlb", format!("hugetlb.{size}.{end}"), page.limit());
        // Pages that are reserved and not used yet are counted apart, since Linux 5.7.
        list.add_or("hugetlb", format!("hugetlb.{size}.rsvd.{end}"), page.limit(), Otherwise::Leave);
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let mut value = plain(device)?.to_owned();
        for (name, number) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(number) = number {
                let _ = write!(value, " {name}={number}");
            }
        }
        list.add("rdma", "rdma.max", value);
    }
    if let Some(network) = resources.network() {
        let priorities = network.priorities().as_deref().unwrap_or_default();
        if unified && (network.class_id().is_some() || !priorities.is_empty()) {
            return Err(Error::unsupported("linux.resources.network", "version 2 has no such controller"));
        }
        if let Some(class) = network.class_id() {
            list.add("net_cls", "net_cls.classid", class);
        }
        for one in priorities {
            list.add("net_prio", "net_prio.ifpriomap", format!("{} {}", one.name(), one.priority()));
        }
    }
    for (file, value) in resources.unified().iter().flatten() {
        if !unified {
            return Err(Error::unsupported(
                "linux.resources.unified",
                "invalid configuration for a host whose controllers are version 1",
            ));
        }
        let controller = ["memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma", "misc"]
            .into_iter()
            .find(|name| file.split('.').next() == Some(*name));
        // Who is in the group and what is handed down is not a limit.
        let Some(controller) = controller.or(file.starts_with("cgroup.max.").then_some("")) else {
            return Err(Error::invalid(
                "linux.resources.unified",
                format!("{file:?} is not a file of a controller"),
            ));
        };
        // Files such as io.max take one line a write.
        for line in value.lines() {
            list.add(controller, plain(file)?, line);
        }
    }
    Ok(list.0)
}

/// A name that becomes part of a file name.
fn plain(name: &str) -> Result<&str> {
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(Error::invalid("linux.resources", format!("{name:?} is not a name")));
    }
    Ok(name)
}

/// `max` for numbers below `least`.
fn unlimited(value: i64, least: i64) -> String {
    if value < least { "max".to_owned() } else { value.to_string() }
}

fn memory_limits(list: &mut List, memory: &LinuxMemory, unified: bool) -> Result<()> {
    let (limit, swap) = (memory.limit().filter(|v| *v != 0), memory.swap().filter(|v| *v != 0));
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap > 0
        && (limit < 0 || swap < limit)
    {
        return Err(Error::invalid(
            "memory.swap",
            "is memory and swap together, so it can't be below memory.limit",
        ));
    }
    if unified {
        if let Some(limit) = limit {
            list.add("memory", "memory.max", unlimited(limit, 0));
        }
        match (swap, limit) {
            (Some(swap), Some(limit)) if swap > 0 => list.add("memory", "memory.swap.max", swap - limit),
            // No limit of swap is what a kernel that doesn't count swap has.
            (Some(swap), _) if swap < 0 => {
                list.add_or("memory", "memory.swap.max", "max", Otherwise::Leave);
            }
            // As in version 1, where memory without a limit takes swap along.
            (None, Some(limit)) if limit < 0 => {
                list.add_or("memory", "memory.swap.max", "max", Otherwise::Leave);
            }
            (Some(_), _) => return Err(Error::invalid("memory.swap", "needs memory.limit")),
            (None, _) => {}
        }
        if let Some(reservation) = memory.reservation().filter(|v| *v != 0) {
            list.add("memory", "memory.low", unlimited(reservation, 0));
        }
        // u64::MAX is what containerd sends for "not set".
        let swappiness = memory.swappiness().filter(|value| *value != u64::MAX);
        if swappiness.is_some() || memory.kernel_tcp().is_some_and(|v| v != 0) {
            return Err(Error::unsupported(
                "memory.swappiness and memory.kernelTCP",
                "version 2 of control groups has neither",
            ));
        }
        if memory.disable_oom_killer() == Some(true) {
            return Err(Error::unsupported("memory.disableOOMKiller", "version 2 of control groups can't"));
        }
        return Ok(());
    }
    if let Some(limit) = limit {
        list.add("memory", "memory.limit_in_bytes", limit);
    }
    if let Some(swap) = swap {
        list.add("memory", "memory.memsw.limit_in_bytes", swap);
    }
    if let Some(reservation) = memory.reservation().filter(|v| *v != 0) {
        list.add("memory", "memory.soft_limit_in_bytes", reservation);
    }
    if let Some(kernel_tcp) = memory.kernel_tcp().filter(|v| *v != 0) {
        list.add("memory", "memory.kmem.tcp.limit_in_bytes", kernel_tcp);
    }
    match memory.swappiness() {
        // What containerd sends for "not set".
        None | Some(u64::MAX) => {}
        Some(value @ 0..=100) => list.add("memory", "memory.swappiness", value),
        Some(value) => return Err(Error::invalid("memory.swappiness", format!("{value} is not 0 to 100"))),
    }
    if memory.disable_oom_killer() == Some(true) {
        list.add("memory", "memory.oom_control", 1);
    }
    Ok(())
}

fn cpu_limits(list: &mut List, cpu: &LinuxCpu, unified: bool) -> Result<()> {
    let (quota, period) = (cpu.quota().filter(|v| *v != 0), cpu.period().filter(|v| *v != 0));
    // A group that only gets what nobody else wants has no weight.
    if let Some(idle) = cpu.idle() {
        list.add("cpu", "cpu.idle", idle);
    }
    if let Some(shares) = cpu.shares().filter(|v| *v != 0 && cpu.idle() != Some(1)) {
        if unified {
            list.add("cpu", "cpu.weight", weight_of_shares(shares));
        } else {
            list.add("cpu", "cpu.shares", shares);
        }
    }
    if unified {
        if quota.is_some() || period.is_some() {
            let quota = quota.map_or("max".to_owned(), |quota| unlimited(quota, 1));
            list.add("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD)));
        }
        if cpu.realtime_runtime().is_some_and(|v| v != 0) || cpu.realtime_period().is_some_and(|v| v != 0) {
            return Err(Error::unsupported("cpu.realtimeRuntime", "version 2 of control groups has none"));
        }
    } else {
        if let Some(period) = period {
            list.add("cpu", "cpu.cfs_period_us", period);
        }
        if let Some(quota) = quota {
            list.add("cpu", "cpu.cfs_quota_us", quota);
        }
        if let Some(period) = cpu.realtime_period().filter(|v| *v != 0) {
            list.add("cpu", "cpu.rt_period_us", period);
        }
        if let Some(runtime) = cpu.realtime_runtime().filter(|v| *v != 0) {
            list.add("cpu", "cpu.rt_runtime_us", runtime);
        }
    }
    if let Some(burst) = cpu.burst() {
        list.add("cpu", if unified { "cpu.max.burst" } else { "cpu.cfs_burst_us" }, burst);
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            list.add("cpuset", file, value);
        }
    }
    Ok(())
}

/// The kernel's period of CPU quotas, in microseconds.
pub(super) const DEFAULT_PERIOD: u64 = 100_000;

/// 2..262144 shares to a weight of 1..10000, so that both ends and the default (1024 to 100) fit: the
/// curve that runc, crun and systemd agreed on. A straight line would give the default a weight of 39.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    let shares = u32::try_from(shares.clamp(2, 262_144)).unwrap_or(262_144);
    let log = f64::from(shares).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // What is a whole number on paper is sometimes a little more in floating point.
    let weight = (10_f64.powf(exponent) - 1e-6).ceil().clamp(1.0, 10_000.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10,000")]
    let weight = weight as u64;
    weight
}

/// 10..1000 to 1..10000.
pub(super) fn weight_of_io(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

fn io_limits(list: &mut List, io: &LinuxBlockIo, unified: bool) -> Result<()> {
    if let Some(weight) = io.weight().filter(|v| *v != 0) {
        // The file of the scheduler that understands weights, if the host has that.
        if unified {
            let plain = Otherwise::Write("io.weight".into(), format!("default {}", weight_of_io(weight)));
            list.add_or("io", "io.bfq.weight", weight, plain);
        } else {
            let plain = Otherwise::Write("blkio.weight".into(), weight.to_string());
            list.add_or("blkio", "blkio.bfq.weight", weight, plain);
        }
    }
    if let Some(weight) = io.leaf_weight().filter(|v| *v != 0) {
        if unified {
            return Err(Error::unsupported("blockIO.leafWeight", "version 2 of control groups has none"));
        }
        list.add("blkio", "blkio.leaf_weight", weight);
    }
    for device in io.weight_device().iter().flatten() {
        let name = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            let value = format!("{name} {weight}");
            if unified {
                let plain = Otherwise::Write("io.weight".into(), format!("{name} {}", weight_of_io(weight)));
                list.add_or("io", "io.bfq.weight", value, plain);
            } else {
                let plain = Otherwise::Write("blkio.weight_device".into(), value.clone());
                list.add_or("blkio", "blkio.bfq.weight_device", value, plain);
            }
        }
        if let Some(weight) = device.leaf_weight() {
            if unified {
                return Err(Error::unsupported("blockIO.leafWeight", "version 2 of control groups has none"));
            }
            list.add("blkio", "blkio.leaf_weight_device", format!("{name} {weight}"));
        }
    }
    type Throttles<'a> = &'a Option<Vec<LinuxThrottleDevice>>;
    let throttles: [(Throttles<'_>, &str, &str); 4] = [
        (io.throttle_read_bps_device(), "rbps", "blkio.throttle.read_bps_device"),
        (io.throttle_write_bps_device(), "wbps", "blkio.throttle.write_bps_device"),
        (io.throttle_read_iops_device(), "riops", "blkio.throttle.read_iops_device"),
        (io.throttle_write_iops_device(), "wiops", "blkio.throttle.write_iops_device"),
    ];
    for (devices, key, file) in throttles {
        for device in devices.iter().flatten() {
            let name = format!("{}:{}", device.major(), device.minor());
            if unified {
                list.add("io", "io.max", format!("{name} {key}={}", device.rate()));
            } else {
                list.add("blkio", file, format!("{name} {}", device.rate()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, unified: bool) -> Result<Vec<(String, String)>> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        Ok(limits(&resources, unified)?.into_iter().map(|limit| (limit.file, limit.value)).collect())
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.to_owned(), value.to_owned())
    }

    #[test]
    fn memory_and_swap() {
        let json = r#"{"memory":{"limit":1000,"swap":3000,"reservation":500}}"#;
        let v1 = of(json, false).unwrap();
        assert_eq!(v1[0], pair("memory.limit_in_bytes", "1000"));
        assert_eq!(v1[1], pair("memory.memsw.limit_in_bytes", "3000"));
        let v2 = of(json, true).unwrap();
        assert_eq!(
            v2,
            [pair("memory.max", "1000"), pair("memory.swap.max", "2000"), pair("memory.low", "500")]
        );
        assert!(of(r#"{"memory":{"limit":1000,"swap":999}}"#, true).is_err());
        let none = [pair("memory.max", "max"), pair("memory.swap.max", "max")];
        assert_eq!(of(r#"{"memory":{"limit":-1,"swap":-1}}"#, true).unwrap(), none);
        assert_eq!(of(r#"{"memory":{"limit":-1}}"#, true).unwrap(), none);
        assert!(of(r#"{"memory":{"swap":1000}}"#, true).is_err());
        assert!(of(r#"{"memory":{"swappiness":10}}"#, true).is_err());
        assert_eq!(of(&format!(r#"{{"memory":{{"swappiness":{}}}}}"#, u64::MAX), true).unwrap(), []);
    }

    #[test]
    fn cpu_and_pids() {
        let json =
            r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1"},"pids":{"limit":32}}"#;
        let v2 = of(json, true).unwrap();
        assert_eq!(
            v2,
            [
                pair("cpu.weight", "100"),
                pair("cpu.max", "50000 100000"),
                pair("cpuset.cpus", "0-1"),
                pair("pids.max", "32")
            ]
        );
        let weights = [2, 3, 512, 1024, 2048, 262_144].map(weight_of_shares);
        assert_eq!(weights, [1, 2, 59, 100, 174, 10_000]);
        assert_eq!(of(r#"{"pids":{"limit":-1}}"#, false).unwrap(), [pair("pids.max", "max")]);
    }

    #[test]
    fn times_that_depend_on_each_other() {
        let cpu = |json: &str| of(&format!(r#"{{"cpu":{json}}}"#), true).unwrap();
        assert_eq!(cpu(r#"{"quota":-1}"#), [pair("cpu.max", "max 100000")]);
        assert_eq!(cpu(r#"{"period":50000}"#), [pair("cpu.max", "max 50000")]);
        assert_eq!(
            cpu(r#"{"quota":10000,"burst":5000}"#),
            [pair("cpu.max", "10000 100000"), pair("cpu.max.burst", "5000")]
        );
        assert_eq!(cpu(r#"{"idle":1,"shares":512}"#), [pair("cpu.idle", "1")]);
    }

    #[test]
    fn weights_and_rates_of_devices() {
        let json = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}]}}"#;
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let list = limits(&resources, true).unwrap();
        assert_eq!((list[0].file.as_str(), list[0].value.as_str()), ("io.bfq.weight", "500"));
        assert_eq!(list[0].otherwise, Otherwise::Write("io.weight".into(), "default 4950".into()));
        assert_eq!(list[1].otherwise, Otherwise::Write("io.weight".into(), "8:0 1".into()));
        assert_eq!((list[2].file.as_str(), list[2].value.as_str()), ("io.max", "8:0 rbps=1000"));
    }

    #[test]
    fn unified_names_are_checked() {
        for taken in ["cgroup.procs", "cgroup.subtree_control", "cgroup.kill", "x"] {
            assert!(of(&format!(r#"{{"unified":{{"{taken}":"1"}}}}"#), true).is_err(), "{taken}");
        }
        let two = of(r#"{"unified":{"io.max":"8:0 rbps=1\n8:16 wbps=2"}}"#, true).unwrap();
        assert_eq!(two, [pair("io.max", "8:0 rbps=1"), pair("io.max", "8:16 wbps=2")]);
        assert!(of(r#"{"unified":{"../x":"1"}}"#, true).is_err());
        assert!(of(r#"{"unified":{"memory.high":"1"}}"#, false).is_err());
        assert_eq!(of(r#"{"unified":{"memory.high":"1"}}"#, true).unwrap(), [pair("memory.high", "1")]);
    }
}
