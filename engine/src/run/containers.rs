//! Containers as commands see them: list, remove.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::record::Record;
use super::{groups, liveness};
use crate::Engine;
use crate::error::{Error, Result};

/// How long a killed container may take to be cleared away by its caretaker.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// A container, and whether it runs.
#[derive(Clone, Debug)]
pub struct ContainerSummary {
    /// What is kept of it.
    pub record: Record,
    /// Whether it runs.
    pub running: bool,
}

impl Engine {
    /// All containers, the youngest first.
    pub fn containers(&self) -> Result<Vec<ContainerSummary>> {
        let store = self.store()?;
        let records = Record::all(&store.containers_dir())?;
        let summary =
            |record: Record| ContainerSummary { running: liveness::is_running(store, &record.id), record };
        let mut all: Vec<_> = records.into_iter().map(summary).collect();
        all.sort_by(|a, b| b.record.created.cmp(&a.record.created));
        Ok(all)
    }

    /// Removes a container, with `force` also one that runs, with `volumes` also its anonymous volumes.
    pub fn remove_container(&self, text: &str, force: bool, volumes: bool) -> Result<()> {
        // Before the store is opened: an ordinary user has authority over his containers only outside
        // of the user namespace that he enters with it.
        let (root, runroot) = (&self.settings().root, &self.settings().runroot);
        let record = Record::find(&root.join("containers"), text)?;
        if liveness::is_marked(runroot, &record.id) {
            if !force {
                return Err(Error::StillRunning { name: text.into() });
            }
            self.kill_and_wait(&record)?;
        }
        // What a caretaker that was killed left; else there is nothing.
        if let Some(cgroup) = &record.cgroup {
            groups::sweep(cgroup);
        }
        let store = self.store()?;
        liveness::remove(store, &store.containers_dir().join(&record.id), volumes)
    }

    fn kill_and_wait(&self, record: &Record) -> Result<()> {
        let runroot = &self.settings().runroot;
        let start = Instant::now();
        while liveness::is_marked(runroot, &record.id) {
            // One that is just starting has no first process yet.
            if let Some(first) = liveness::first_process(runroot, &record.id) {
                kill(first)?;
            }
            if start.elapsed() > PATIENCE {
                return Err(Error::Process {
                    op: "wait for the container's end",
                    source: std::io::ErrorKind::TimedOut.into(),
                });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn kill(process: Pid) -> Result<()> {
    match rustix::process::kill_process(process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::Process { op: "kill the container's first process", source: errno.into() }),
    }
}
