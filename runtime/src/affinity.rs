//! The CPUs of a process that joins a container (runtime-spec, `process.execCPUAffinity`).

use oci_spec::runtime::Process;
use rustix::thread::CpuSet;

use crate::error::{Error, Result};

/// Before and after it is in the container's control groups; `None` leaves it to the kernel. For a
/// container's first process the specification gives both no meaning.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    pub(crate) before: Option<CpuSet>,
    pub(crate) after: Option<CpuSet>,
}

impl Affinity {
    pub(crate) fn of(process: &Process) -> Result<Self> {
        let Some(wanted) = process.exec_cpu_affinity() else { return Ok(Self::default()) };
        let set = |what: &str, list: &Option<String>| {
            let list = list.as_deref().filter(|list| !list.is_empty());
            list.map(|list| {
                cpus(list).ok_or_else(|| {
                    let what = format!("process.execCPUAffinity.{what}");
                    Error::invalid(what, format!("{list:?} is not a list of CPUs such as 0-3,7"))
                })
            })
            .transpose()
        };
        Ok(Self {
            before: set("initial", wanted.initial())?,
            after: set("final", wanted.cpu_affinity_final())?,
        })
    }
}

impl Affinity {
    /// Whether a further process has CPUs of its own.
    pub(crate) fn is_chosen(&self) -> bool {
        self.before.is_some() || self.after.is_some()
    }
}

/// Every CPU that the control group of the calling thread has: the kernel leaves out the others.
pub(crate) fn use_all_cpus() -> rustix::io::Result<()> {
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::MAX_CPU {
        all.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &all)
}

/// A list such as `0-3,7`.
fn cpus(list: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if first > last || last >= CpuSet::MAX_CPU {
            return None;
        }
        for cpu in first..=last {
            set.set(cpu);
        }
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        let set = cpus("0-2,5").unwrap();
        assert_eq!((set.count(), set.is_set(1), set.is_set(4), set.is_set(5)), (4, true, false, true));
        for bad in ["", "x", "2-1", "1-", "99999999", "0-4294967295"] {
            assert!(cpus(bad).is_none(), "{bad}");
        }
    }
}
