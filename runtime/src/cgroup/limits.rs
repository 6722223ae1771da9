//! `linux.resources` as files and values, for either version.

use std::fmt::{Display, Write};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
    LinuxThrottleDevice,
};

use crate::error::{Error, Result};

/// One value in one file of one controller; an empty controller is a file that
/// every directory has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
}

struct List(Vec<Limit>);

impl List {
    fn add(&mut self, controller: &'static str, file: impl Into<String>, value: impl Display) {
        self.0.push(Limit { controller, file: file.into(), value: format!("{value}") });
    }
}

/// All limits, in the order in which the files must be written.
pub(super) fn limits(resources: &LinuxResources, unified: bool) -> Result<Vec<Limit>> {
    let mut list = List(Vec::new());
    if let Some(devices) = resources.devices().as_ref().filter(|_| !unified) {
        for rule in device_rules(devices) {
            let file = if rule.0 { "devices.allow" } else { "devices.deny" };
            list.add("devices", file, rule.1);
        }
    }
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
        list.add("hugetlb", format!("hugetlb.{}.{end}", plain(page.page_size())?), page.limit());
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
                "this host's controllers are version 1",
            ));
        }
        let controller = ["memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma", "misc"]
            .into_iter()
            .find(|name| file.split('.').next() == Some(*name))
            .unwrap_or("");
        list.add(controller, plain(file)?, value);
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
            (Some(swap), _) if swap < 0 => list.add("memory", "memory.swap.max", "max"),
            (Some(_), _) => {
                return Err(Error::invalid("memory.swap", "needs memory.limit"));
            }
            (None, _) => {}
        }
        if let Some(reservation) = memory.reservation().filter(|v| *v != 0) {
            list.add("memory", "memory.low", unlimited(reservation, 0));
        }
        if memory.swappiness().is_some() || memory.kernel_tcp().is_some_and(|v| v != 0) {
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
    if let Some(shares) = cpu.shares().filter(|v| *v != 0) {
        if unified {
            list.add("cpu", "cpu.weight", weight_of_shares(shares));
        } else {
            list.add("cpu", "cpu.shares", shares);
        }
    }
    if unified {
        if quota.is_some() || period.is_some() {
            let quota = quota.map_or("max".to_owned(), |quota| unlimited(quota, 1));
            let period = period.map(|period| format!(" {period}")).unwrap_or_default();
            list.add("cpu", "cpu.max", format!("{quota}{period}"));
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
    if let Some(idle) = cpu.idle() {
        list.add("cpu", "cpu.idle", idle);
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            list.add("cpuset", file, value);
        }
    }
    Ok(())
}

/// 2..262144 shares to a weight of 1..10000, both ends kept.
fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

fn io_limits(list: &mut List, io: &LinuxBlockIo, unified: bool) -> Result<()> {
    let bfq = |file: &str| std::path::Path::new("/sys/fs/cgroup/blkio").join(file).exists();
    if let Some(weight) = io.weight().filter(|v| *v != 0) {
        if unified {
            // 10..1000 to 1..10000
            list.add(
                "io",
                "io.weight",
                format!("default {}", 1 + (u64::from(weight).max(10) - 10) * 9999 / 990),
            );
        } else {
            let plain = !bfq("blkio.bfq.weight");
            list.add("blkio", if plain { "blkio.weight" } else { "blkio.bfq.weight" }, weight);
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
            let (controller, file) =
                if unified { ("io", "io.weight") } else { ("blkio", "blkio.weight_device") };
            list.add(controller, file, format!("{name} {weight}"));
        }
        if let Some(weight) = device.leaf_weight() {
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

/// Device rules in the kernel's words, `(allow, rule)`: the specification's, then
/// what every container may use (the standard nodes, terminals, `mknod`).
pub(super) fn device_rules(rules: &[LinuxDeviceCgroup]) -> Vec<(bool, String)> {
    const STANDARD: [&str; 10] = [
        "c *:* m",
        "b *:* m",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:2 rwm",
        "c 136:* rwm",
    ];
    if rules.is_empty() {
        return Vec::new();
    }
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
    let mut list: Vec<(bool, String)> = rules
        .iter()
        .map(|rule| {
            let kind = match rule.typ() {
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
                Some(LinuxDeviceType::B) => "b",
                _ => "a",
            };
            let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
            (rule.allow(), format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor())))
        })
        .collect();
    list.extend(STANDARD.iter().map(|rule| (true, (*rule).to_owned())));
    list
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
        assert_eq!(of(r#"{"memory":{"limit":-1,"swap":-1}}"#, true).unwrap()[0], pair("memory.max", "max"));
    }

    #[test]
    fn cpu_and_pids() {
        let json =
            r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1"},"pids":{"limit":32}}"#;
        let v2 = of(json, true).unwrap();
        assert_eq!(
            v2,
            [
                pair("cpu.weight", "39"),
                pair("cpu.max", "50000 100000"),
                pair("cpuset.cpus", "0-1"),
                pair("pids.max", "32")
            ]
        );
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(262_144), 10_000);
        assert_eq!(of(r#"{"pids":{"limit":-1}}"#, false).unwrap(), [pair("pids.max", "max")]);
    }

    #[test]
    fn unified_names_are_checked() {
        assert!(of(r#"{"unified":{"../x":"1"}}"#, true).is_err());
        assert!(of(r#"{"unified":{"memory.high":"1"}}"#, false).is_err());
        assert_eq!(of(r#"{"unified":{"memory.high":"1"}}"#, true).unwrap(), [pair("memory.high", "1")]);
    }

    #[test]
    fn device_rules_in_order() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]"#,
        )
        .unwrap();
        let list = device_rules(&rules);
        assert_eq!(list[0], (false, "a *:* rwm".to_owned()));
        assert_eq!(list[1], (true, "c 10:229 rw".to_owned()));
        assert!(list.len() > 5);
    }
}
