//! Containers as those see them who look: what was asked, how it goes, and what the kernel says.
//!
//! Looking needs no store and no authority, waits for nobody, and is right also where a caretaker was
//! killed or the host was restarted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use onggi_runtime::cgroup::Cgroup;
use rustix::process::Pid;

use super::mark::{self, Seen};
use super::name::Names;
use super::record::Record;
use super::state::{State, Status, UNSEEN};
use crate::Engine;
use crate::error::{Error, Result};
use crate::run::MountPoint;

/// The length of a whole ID.
const ID_LENGTH: usize = 64;

/// A container and how it is doing.
#[derive(Clone, Debug)]
pub struct ContainerDetails {
    /// What was asked.
    pub record: Record,
    /// How it went so far; of one whose end nobody saw, as well as can be told.
    pub state: State,
    /// What it does now.
    pub status: Status,
    /// Its first process, in this process's pid namespace.
    pub pid: Option<Pid>,
    /// Whether somebody looks after its program: keeps its exit status, its logs, its restart policy.
    pub attended: bool,
    /// Its files: see the module.
    pub dir: PathBuf,
}

impl Engine {
    /// The container that a name, an ID or the beginning of an ID means.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::AmbiguousContainer`].
    pub fn container(&self, text: &str) -> Result<ContainerDetails> {
        let record = self.find_container(text)?;
        self.details(record)
    }

    /// All containers, the youngest first.
    pub fn containers(&self) -> Result<Vec<ContainerDetails>> {
        if self.needs_sweep()? {
            self.sweep()?;
        }
        let mut all = Vec::new();
        for id in self.container_ids()? {
            if let Some(record) = Record::read(&self.container_dir(&id))? {
                all.push(self.details(record)?);
            }
        }
        all.retain(|one| one.status != Status::Removing);
        all.sort_by(|a, b| b.record.created.cmp(&a.record.created));
        Ok(all)
    }

    /// The record that a name, an ID or the beginning of an ID means.
    pub(crate) fn find_container(&self, text: &str) -> Result<Record> {
        let missing = || Error::NoContainer { name: text.into() };
        // As Docker's inspect prints names.
        let text = text.strip_prefix('/').unwrap_or(text);
        let is_hex = !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex && text.len() == ID_LENGTH {
            return Record::read(&self.container_dir(text))?.ok_or_else(missing);
        }
        if let Some(id) = self.names().holder(text)
            && let Some(record) = Record::read(&self.container_dir(&id))?
            && record.name == text
        {
            return Ok(record);
        }
        if !is_hex {
            return Err(missing());
        }
        let mut found = None;
        for id in self.container_ids()?.into_iter().filter(|id| id.starts_with(text)) {
            if let Some(record) = Record::read(&self.container_dir(&id))?
                && found.replace(record).is_some()
            {
                return Err(Error::AmbiguousContainer { name: text.into() });
            }
        }
        found.ok_or_else(missing)
    }

    /// How the container is doing.
    pub(crate) fn details(&self, record: Record) -> Result<ContainerDetails> {
        let dir = self.container_dir(&record.id);
        let seen = self.look(&record.id);
        let mut state = State::read(&dir)?;
        let status = match seen {
            Seen { program: Some(_), .. } => {
                if !state.claims_to_run() {
                    // Whoever runs it in the foreground writes no state before the end.
                    state.begin();
                    state.started = seen
                        .since
                        .and_then(|time| jiff::Timestamp::try_from(time).ok())
                        .map(|t| t.to_string());
                }
                if is_frozen(&record) { Status::Paused } else { Status::Running }
            }
            Seen { attended: true, .. } if state.restarting => Status::Restarting,
            // Its program has just ended, which its caretaker is about to write down.
            Seen { attended: true, .. } if state.claims_to_run() => Status::Running,
            Seen { exists: true, attended: false, .. } if record.request.remove => Status::Removing,
            _ if state.claims_to_run() => {
                state.exit_code = Some(UNSEEN);
                Status::Exited
            }
            _ if state.started.is_none() && state.error.is_none() => Status::Created,
            _ => Status::Exited,
        };
        Ok(ContainerDetails { record, state, status, pid: seen.program, attended: seen.attended, dir })
    }

    /// Who runs a container.
    pub(crate) fn look(&self, id: &str) -> Seen {
        mark::look(&self.settings().runroot, id)
    }

    /// Where a container's files are.
    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.settings().root.join("containers").join(id)
    }

    /// The claims of names.
    pub(crate) fn names(&self) -> Names<'_> {
        Names { root: &self.settings().root, runroot: &self.settings().runroot }
    }

    /// The names of all containers' directories.
    pub(crate) fn container_ids(&self) -> Result<Vec<String>> {
        ids(&self.settings().root.join("containers"))
    }
}

fn ids(containers: &Path) -> Result<Vec<String>> {
    match fs::read_dir(containers) {
        Ok(entries) => Ok(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::Read { path: containers.into(), source }),
    }
}

/// The mount points of all containers, with their IDs.
pub(crate) fn all_mount_points(containers: &Path) -> Result<Vec<(String, Vec<MountPoint>)>> {
    let mut all = Vec::new();
    for id in ids(containers)? {
        if let Some(record) = Record::read(&containers.join(&id))? {
            all.push((id, record.mounts));
        }
    }
    Ok(all)
}

fn is_frozen(record: &Record) -> bool {
    Cgroup::open(&record.cgroup).is_ok_and(|group| group.is_frozen())
}
