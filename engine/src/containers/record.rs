//! What was asked of a container, whole: everything that a start needs.
//!
//! ```text
//!   <root>/containers/<id>/config.json    this record, changed by one rename
//!   { "id", "name", "created",
//!     "image": { "reference", "id", "manifest", "layers", "config" },
//!     "arguments", "request": { all wishes, with their defaults }, "hostIds", "hostIdsBecause", "cgroup" }
//! ```
//!
//! The digests in it keep the image from garbage collection; its config is a copy, so that a start
//! needs neither the image's name nor its manifest. How the container is doing is no part of it: see
//! [`super::state`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use onggi_oci::{ContainerConfig, DiffId, Digest};
use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::run::{MountPoint, Restart, RunRequest};

const FILE: &str = "config.json";
/// The most that is read of a record: arguments and environment are bounded by the kernel.
const MAX_RECORD: u64 = 16 << 20;
/// The signal that asks a program to end if neither image nor caller say another.
const STOP_SIGNAL: &str = "SIGTERM";
/// Seconds that it has for that: Docker's number.
const STOP_TIMEOUT: i64 = 10;

/// The image that a container was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageOfContainer {
    /// As it was named.
    pub reference: String,
    /// Its ID.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<DiffId>,
    /// What it says about containers.
    pub config: ContainerConfig,
}

/// A container, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// What of.
    pub image: ImageOfContainer,
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// All wishes.
    pub request: RunRequest,
    /// Whether it has the IDs of whoever starts it.
    pub host_ids: bool,
    /// The wish that implied the host's IDs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ids_because: Option<String>,
    /// Its control group, below each tree.
    pub cgroup: PathBuf,
    /// What it sees besides its image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountPoint>,
}

impl Record {
    /// The image's labels, and the caller's over them.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.image.config.labels.clone();
        labels.extend(self.request.notes.labels.clone());
        labels
    }

    /// The signal that asks its program to end: a name or a number.
    pub fn stop_signal(&self) -> &str {
        let wished = self.request.notes.stop_signal.as_deref();
        wished.or(self.image.config.stop_signal.as_deref()).unwrap_or(STOP_SIGNAL)
    }

    /// Seconds that its program has to end after that signal; negative for no end.
    pub fn stop_timeout(&self) -> i64 {
        self.request.notes.stop_timeout.or(self.image.config.stop_timeout).unwrap_or(STOP_TIMEOUT)
    }

    /// Whether its program has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.request.terminal.is_some()
    }

    /// Whether its standard input closes with that of whoever was attached first.
    pub fn closes_input_once(&self) -> bool {
        self.request.interactive && self.request.streams.input
    }

    /// Whether it is ever started again by itself.
    pub fn restarts(&self) -> bool {
        self.request.restart != Restart::No
    }

    /// The record in a container's directory; `None` if there is none that can be read.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        read_json(&dir.join(FILE))
    }

    /// Writes the record, at once for every reader.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        write_json(dir, FILE, self)
    }

    /// Changes a record, one process after another.
    pub(crate) fn edit(dir: &Path, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<Self> {
        let failed = |source| Error::Write { path: dir.join(FILE), source };
        let lock = File::open(dir).map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        let mut record = Self::read(dir)?.ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
        change(&mut record)?;
        record.write(dir)?;
        Ok(record)
    }
}

/// A small JSON document; `None` if it is missing or damaged.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut bytes).map_err(failed)?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Replaces a document in `dir`. It may hold secrets of an environment, so it is its owner's alone.
pub(super) fn write_json(dir: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let (path, beside) = (dir.join(name), dir.join(format!(".{name}")));
    let bytes = serde_json::to_vec(value).expect("plain values always serialise");
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let written = file.and_then(|mut file| file.write_all(&bytes)).and_then(|()| fs::rename(&beside, &path));
    written.map_err(|source| Error::Write { path, source })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record of nothing in particular.
    pub(in crate::containers) fn example(id: &str, name: &str) -> Record {
        Record {
            id: id.into(),
            name: name.into(),
            created: "2026-01-01T00:00:00Z".into(),
            image: ImageOfContainer {
                reference: "app".into(),
                id: Digest::sha256(b"config"),
                manifest: Digest::sha256(b"manifest"),
                layers: Vec::new(),
                config: ContainerConfig::default(),
            },
            arguments: vec!["sh".into()],
            request: RunRequest::default(),
            host_ids: false,
            host_ids_because: None,
            cgroup: "onggi/x".into(),
            mounts: Vec::new(),
        }
    }

    #[test]
    fn a_record_reads_back_and_a_torn_one_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let mut record = example(&"ab".repeat(32), "web");
        record.request.restart = Restart::OnFailure(Some(3));
        record.request.env = vec!["A=1".into()];
        record.request.log.options.insert("max-size".into(), "1m".into());
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap().as_ref(), Some(&record));
        let edited = Record::edit(dir.path(), |record| {
            record.name = "other".into();
            Ok(())
        });
        assert_eq!(edited.unwrap().name, "other");
        assert_eq!(Record::read(dir.path()).unwrap().unwrap().name, "other");
        fs::write(dir.path().join(FILE), "{\"id\":").unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn the_caller_is_asked_before_the_image() {
        let mut record = example("ab", "web");
        assert_eq!((record.stop_signal(), record.stop_timeout()), ("SIGTERM", 10));
        record.image.config.stop_signal = Some("SIGINT".into());
        record.image.config.labels.insert("a".into(), "image".into());
        assert_eq!(record.stop_signal(), "SIGINT");
        record.request.notes.stop_signal = Some("9".into());
        record.request.notes.labels.insert("a".into(), "caller".into());
        assert_eq!((record.stop_signal(), record.labels()["a"].as_str()), ("9", "caller"));
    }
}
