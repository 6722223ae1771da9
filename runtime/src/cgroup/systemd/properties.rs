//! Limits as properties of a unit, by the names that systemd.resource-control(5) gives them.
//!
//! | limit | version 2 | version 1 |
//! |---|---|---|
//! | memory | `MemoryMax`, `MemoryLow`, `MemorySwapMax` | `MemoryLimit` |
//! | cpu | `CPUWeight`, `CPUQuotaPerSecUSec`, `CPUQuotaPeriodUSec` | `CPUShares`, and the same quota |
//! | cpuset | `AllowedCPUs`, `AllowedMemoryNodes` | |
//! | pids | `TasksMax` | the same |
//! | block I/O | `IOWeight` | `BlockIOWeight` |

use oci_spec::runtime::{LinuxBlockIo, LinuxResources};

use super::bus::Value;
use crate::cgroup::limits::{DEFAULT_PERIOD, weight_of_io, weight_of_shares};
use crate::error::{Error, Result};

/// systemd's "infinity".
const NO_LIMIT: u64 = u64::MAX;
const SECOND: u64 = 1_000_000;
/// systemd rounds a quota up to one percent of a CPU.
const QUOTA_STEP: u64 = 10_000;

/// What has a property; everything is written into the group besides.
pub(super) fn of(resources: Option<&LinuxResources>, unified: bool) -> Result<Vec<(&'static str, Value)>> {
    let Some(resources) = resources else { return Ok(Vec::new()) };
    let mut list = Vec::new();
    let mut add = |name, value| list.push((name, Value::U64(value)));
    let bytes = |value: i64| u64::try_from(value).unwrap_or(NO_LIMIT);
    if let Some(memory) = resources.memory() {
        if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
            add(if unified { "MemoryMax" } else { "MemoryLimit" }, bytes(limit));
        }
        if let (Some(low), true) = (memory.reservation().filter(|low| *low != 0), unified) {
            add("MemoryLow", bytes(low));
        }
        if let (Some(swap), true) = (memory.swap().filter(|swap| *swap != 0), unified) {
            // That of the specification counts memory too.
            let own = match memory.limit() {
                Some(limit) if swap > 0 && limit > 0 => bytes(swap.saturating_sub(limit).max(0)),
                _ => NO_LIMIT,
            };
            add("MemorySwapMax", own);
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            let idle = cpu.idle() == Some(1);
            match unified {
                // 0 stands for "idle".
                true => add("CPUWeight", if idle { 0 } else { weight_of_shares(shares) }),
                false => add("CPUShares", shares),
            }
        }
        if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
            let period = cpu.period().filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD);
            let a_second = match u64::try_from(quota) {
                Ok(quota) => (quota.saturating_mul(SECOND) / period).next_multiple_of(QUOTA_STEP),
                Err(_) => NO_LIMIT,
            };
            add("CPUQuotaPerSecUSec", a_second);
        }
        if let Some(period) = cpu.period().filter(|period| *period != 0) {
            add("CPUQuotaPeriodUSec", period);
        }
    }
    if let Some(limit) = resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
        add("TasksMax", bytes(limit));
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(LinuxBlockIo::weight).filter(|one| *one != 0)
    {
        match unified {
            true => add("IOWeight", weight_of_io(weight)),
            false => add("BlockIOWeight", weight.into()),
        }
    }
    if let (Some(cpu), true) = (resources.cpu(), unified) {
        let sets = [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())];
        for (name, set) in sets {
            if let Some(set) = set.as_ref().filter(|set| !set.is_empty()) {
                list.push((name, Value::Bytes(mask(name, set)?)));
            }
        }
    }
    Ok(list)
}

/// The largest CPU or memory node that is believed: the kernel's own limit is 8192.
const MAX_INDEX: usize = 8191;

/// `0-2,7` as bits, the lowest first.
fn mask(name: &str, set: &str) -> Result<Vec<u8>> {
    let bad = || Error::invalid(name, format!("{set:?} is no list of numbers and ranges"));
    let mut bytes = Vec::new();
    for part in set.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) =
            (first.trim().parse().map_err(|_| bad())?, last.trim().parse().map_err(|_| bad())?);
        if first > last || last > MAX_INDEX {
            return Err(bad());
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0_u8);
        for index in first..=last {
            if let Some(byte) = bytes.get_mut(index / 8) {
                *byte |= 1 << (index % 8);
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_names_of_their_version() {
        let json = r#"{"memory":{"limit":1000,"swap":3000,"reservation":500},"pids":{"limit":-1},
            "cpu":{"shares":1024,"quota":50001,"period":100000,"cpus":"0-1,9"},"blockIO":{"weight":500}}"#;
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let number = |name, value| (name, Value::U64(value));
        assert_eq!(
            of(Some(&resources), true).unwrap(),
            [
                number("MemoryMax", 1000),
                number("MemoryLow", 500),
                number("MemorySwapMax", 2000),
                number("CPUWeight", 100),
                number("CPUQuotaPerSecUSec", 510_000),
                number("CPUQuotaPeriodUSec", 100_000),
                number("TasksMax", u64::MAX),
                number("IOWeight", 4950),
                ("AllowedCPUs", Value::Bytes(vec![3, 2])),
            ]
        );
        assert_eq!(
            of(Some(&resources), false).unwrap(),
            [
                number("MemoryLimit", 1000),
                number("CPUShares", 1024),
                number("CPUQuotaPerSecUSec", 510_000),
                number("CPUQuotaPeriodUSec", 100_000),
                number("TasksMax", u64::MAX),
                number("BlockIOWeight", 500),
            ]
        );
        for bad in ["x", "3-1", "99999", "1-"] {
            assert!(mask("AllowedCPUs", bad).is_err(), "{bad}");
        }
    }
}
