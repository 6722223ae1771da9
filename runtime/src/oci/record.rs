//! State files.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::specification::load_spec;
use crate::cgroup::{Cgroup, Systemd};
use crate::error::{Error, Result};
use crate::hooks::{Hooks, State, Status};

/// What is kept of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) pid: i32,
    /// When that process started, in clock ticks since boot: process ids return.
    pub(super) start_time: u64,
    pub(super) bundle: PathBuf,
    pub(super) cgroup: Option<PathBuf>,
    /// The unit that systemd made for the container, and the manager's bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<UnitOf>,
    pub(super) created: String,
    pub(super) owner: u32,
}

/// A unit of systemd.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UnitOf {
    pub(super) name: String,
    pub(super) bus: String,
    pub(super) of_user: bool,
}

impl UnitOf {
    pub(super) fn systemd(&self) -> Systemd {
        Systemd { bus: self.bus.clone(), of_user: self.of_user }
    }
}

/// One line of `list`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Version of the runtime specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Its first process on the host; 0 when it has ended.
    pub pid: i32,
    /// Its status.
    pub status: Status,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root filesystem's directory.
    pub rootfs: PathBuf,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Annotations of the bundle.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// The user who made it.
    pub owner: u32,
}

/// Longer ids don't fit where they become file names.
const MAX_ID: usize = 128;

/// An id is a file name and no path.
pub(super) fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > MAX_ID || id.starts_with('.') || !id.chars().all(allowed) {
        let why =
            format!("{id:?} must be 1 to {MAX_ID} letters, digits or \"_+-.\" and not begin with a dot");
        return Err(Error::invalid("container id", why));
    }
    Ok(())
}

/// The start time of a process that lives; `None` for one that ended, even if
/// nobody collected it.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Record {
    pub(super) fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// A pidfd of the first process; it is checked after it was opened.
    pub(super) fn pidfd(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        self.alive().then_some(pidfd)
    }

    pub(super) fn cgroup(&self) -> Result<Option<Cgroup>> {
        self.cgroup.as_deref().map(Cgroup::open).transpose()
    }
}

impl Runtime {
    pub(super) fn directory(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        Ok(self.root.join(id))
    }

    pub(super) fn record(&self, id: &str) -> Result<Record> {
        let path = self.directory(id)?.join("state.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound { what: format!("container {id}") });
            }
            Err(error) => return Err(Error::io("read", path.display().to_string())(error)),
        };
        serde_json::from_slice(&text)
            .map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))
    }

    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let directory = self.directory(&record.id)?;
        let (path, new) = (directory.join("state.json"), directory.join("state.json.new"));
        let step = || Error::io("write", path.display().to_string());
        let text = serde_json::to_vec(record).map_err(|error| step()(io::Error::from(error)))?;
        std::fs::write(&new, text).map_err(step())?;
        std::fs::rename(&new, &path).map_err(step())
    }

    pub(super) fn spec(&self, id: &str) -> Result<Spec> {
        load_spec(&self.directory(id)?.join("config.json"), &mut |_| {})
    }

    pub(super) fn status(&self, record: &Record) -> Result<Status> {
        if !record.alive() {
            return Ok(Status::Stopped);
        }
        if self.directory(&record.id)?.join("start.sock").exists() {
            return Ok(Status::Created);
        }
        let frozen = record.cgroup()?.is_some_and(|cgroup| cgroup.is_frozen());
        Ok(if frozen { Status::Paused } else { Status::Running })
    }

    /// The state of a container (runtime-spec, "Query State").
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`].
    pub fn state(&self, id: &str) -> Result<State> {
        let record = self.record(id)?;
        let status = self.status(&record)?;
        let spec = self.spec(id)?;
        Ok(State {
            oci_version: spec.version().clone(),
            id: id.to_owned(),
            status,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            bundle: record.bundle,
            annotations: spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }

    /// All containers, by id; directories that are half made are left out.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<Listed>> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", self.root.display().to_string())(error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut list: Vec<Listed> = names
            .filter_map(|id| {
                let (record, state) = (self.record(&id).ok()?, self.state(&id).ok()?);
                let root = self.spec(&id).ok()?.root().as_ref().map(|root| root.path().clone());
                Some(Listed {
                    oci_version: state.oci_version,
                    id: state.id,
                    pid: state.pid,
                    status: state.status,
                    rootfs: state.bundle.join(root.unwrap_or_default()),
                    bundle: state.bundle,
                    created: record.created,
                    annotations: state.annotations,
                    owner: record.owner,
                })
            })
            .collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(list)
    }
}

pub(super) fn hooks(record: &Record, spec: &Spec) -> Option<Hooks> {
    Hooks::of(&record.id, &record.bundle, spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for good in ["a", "A1_b+c-d.e", "0"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "a\0", &"x".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn start_times() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(own).is_some_and(|time| time > 0));
        assert_eq!(start_time(i32::MAX), None);
    }
}
