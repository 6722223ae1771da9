//! Removing containers.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, pidfd_open, pidfd_send_signal};

use super::mark::Mark;
use super::record::Record;
use super::state::{Wish, set_wish};
use super::sweep::remove_files;
use crate::Engine;
use crate::error::{Error, Result};
use crate::run::groups;

/// How long a killed container may take to be cleared away by its caretaker.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

impl Engine {
    /// Removes a container, with `force` also one that runs, with `volumes` also its anonymous volumes.
    pub fn remove_container(&self, text: &str, force: bool, volumes: bool) -> Result<()> {
        // Before the store is opened: an ordinary user has authority over his containers only outside
        // of the user namespace that he enters with it.
        let record = self.find_container(text)?;
        if self.look(&record.id).is_alive() {
            if !force {
                return Err(Error::StillRunning { name: text.into() });
            }
            // It may remove itself at this moment.
            let _ = set_wish(&self.container_dir(&record.id), Wish::Stop);
            self.poke(&record.id);
            self.kill_and_wait(&record)?;
        }
        let store = self.store()?;
        let mark = match Mark::take(&self.settings().runroot, &record.id) {
            Err(Error::StillRunning { .. }) => return Err(Error::StillRunning { name: text.into() }),
            other => other?,
        };
        let dir = self.container_dir(&record.id);
        // Somebody else may have done it meanwhile, or have renamed it.
        let record = Record::read(&dir)?.unwrap_or(record);
        // What a caretaker that was killed left; else there is nothing.
        groups::sweep(&record.cgroup);
        self.release_network(&record)?;
        remove_files(store, &dir, if volumes { &record.mounts } else { &[] })?;
        self.names().release(&record.name, &record.id);
        self.note_container(&record, &["destroy"], &[]);
        drop(mark);
        Ok(())
    }

    fn kill_and_wait(&self, record: &Record) -> Result<()> {
        let start = Instant::now();
        loop {
            let seen = self.look(&record.id);
            if !seen.is_alive() {
                return Ok(());
            }
            // One that is just starting has no first process yet.
            if let Some(program) = seen.program {
                kill(program)?;
                groups::thaw(&record.cgroup);
            }
            if start.elapsed() > PATIENCE {
                return Err(Error::Process {
                    op: "wait for the container's end",
                    source: std::io::ErrorKind::TimedOut.into(),
                });
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn kill(process: Pid) -> Result<()> {
    let killed = pidfd_open(process, rustix::process::PidfdFlags::empty())
        .and_then(|pidfd| pidfd_send_signal(&pidfd, Signal::KILL));
    match killed {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::Process { op: "kill the container's first process", source: errno.into() }),
    }
}
