//! What killed processes and restarts of the host left: files of containers that were to go with
//! their program, control groups, marks, names.
//!
//! The next command that makes, starts or lists containers comes by here. Without marks of the dead it
//! costs a look at each mark.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use onggi_image::store::Store;

use super::mark::{self, Mark};
use super::record::Record;
use super::state::{State, UNSEEN};
use crate::Engine;
use crate::error::{Error, Result};
use crate::run::{MountPoint, groups};
use crate::volumes;

/// How many containers a start looks at. With more of them a dead one may wait for a later start, or for a
/// command that looks at all.
const MARKS_AT_A_START: usize = 16;

impl Engine {
    /// Clears away what is left of containers whose caretaker and program are dead.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.sweep_up_to(usize::MAX)
    }

    /// The same for those whose work must not grow with the number of containers: a few at a time, other
    /// ones each time.
    pub(crate) fn sweep_some(&self) -> Result<()> {
        self.sweep_up_to(MARKS_AT_A_START)
    }

    fn sweep_up_to(&self, most: usize) -> Result<()> {
        let Some(mut marks) = mark::all(&self.settings().runroot)? else {
            // The first look after a restart of the host.
            for id in self.container_ids()? {
                self.sweep_one(&id)?;
            }
            return mark::make_directory(&self.settings().runroot);
        };
        if marks.len() > most {
            let first = usize::try_from(std::process::id()).unwrap_or_default() % marks.len();
            marks.rotate_left(first);
        }
        for id in marks.into_iter().take(most) {
            if !self.look(&id).is_alive() {
                self.sweep_one(&id)?;
            }
        }
        self.end_forgotten_holder()
    }

    /// Whether there is anything for [`sweep`](Self::sweep) to do.
    pub(crate) fn needs_sweep(&self) -> Result<bool> {
        match mark::all(&self.settings().runroot)? {
            None => Ok(!self.container_ids()?.is_empty()),
            Some(marks) => {
                Ok(marks.iter().any(|id| !self.look(id).is_alive()) || self.has_forgotten_holder())
            }
        }
    }

    /// One container that nobody looks after; somebody else may come first.
    fn sweep_one(&self, id: &str) -> Result<()> {
        let store = self.store()?;
        let mark = match Mark::take(&self.settings().runroot, id) {
            Err(Error::StillRunning { .. } | Error::Busy { .. }) => return Ok(()),
            other => other?,
        };
        let dir = self.container_dir(id);
        let record = Record::read(&dir)?;
        if let Some(record) = &record {
            groups::sweep(&record.cgroup);
        }
        match &record {
            Some(record) => self.release_network(record)?,
            None => self.release_networks_of(id)?,
        }
        match record {
            Some(record) if !record.request.remove => {
                let mut state = State::read(&dir)?;
                if state.claims_to_run() || state.restarting {
                    let code = state.exit_code.unwrap_or(UNSEEN);
                    state.end(code);
                    state.restarting = false;
                    if code == UNSEEN {
                        state.error = Some("nobody saw how its program ended".into());
                    }
                    state.write(&dir)?;
                    self.note_container(&record, &["die"], &[("exitCode", &code.to_string())]);
                }
            }
            Some(record) => {
                remove_files(store, &dir, &record.mounts)?;
                self.names().release(&record.name, id);
                self.note_container(&record, &["die"], &[("exitCode", &UNSEEN.to_string())]);
                self.note_container(&record, &["destroy"], &[]);
            }
            // A name that it claimed is taken over by whoever wants it.
            None => remove_files(store, &dir, &[])?,
        }
        drop(mark);
        Ok(())
    }
}

/// How often a directory is emptied in which somebody else still writes.
const REMOVALS: u32 = 8;

/// Removes a container's files, and of its mounts the anonymous volumes that nobody else knows.
pub(crate) fn remove_files(store: &Store, dir: &Path, mounts: &[MountPoint]) -> Result<()> {
    for attempt in 1.. {
        match fs::remove_dir_all(dir) {
            Ok(()) => break,
            // Somebody removes the same: nothing is left at the second look.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !dir.exists() {
                    break;
                }
            }
            // Somebody noted a wish meanwhile.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && attempt < REMOVALS => {}
            Err(source) => return Err(Error::Write { path: dir.into(), source }),
        }
    }
    volumes::remove_anonymous(store, mounts)
}
