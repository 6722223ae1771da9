//! What is kept of a container.
//!
//! ```text
//!   <root>/containers/<id>/
//!     config.json                     this record; the digests in it keep the image from pruning
//!     process.json                    its process, for others that join it (see `exec`)
//!     upper/ work/                    the container's own layer
//!     hostname hosts resolv.conf      bind-mounted over the image's
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use onggi_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use super::mounts::MountPoint;
use crate::error::{Error, Result};

const FILE: &str = "config.json";
/// The most that is read of a record.
const MAX_RECORD: u64 = 16 << 20;

/// A container, as its directory tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// The image as it was named.
    pub image: String,
    /// The image's ID.
    pub image_id: Digest,
    /// The manifest that the layers came from.
    pub manifest: Digest,
    /// Whether it goes when its program ends.
    pub remove: bool,
    /// Its first process's arguments.
    pub arguments: Vec<String>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// How its program ended; `None` before that, or if nobody saw it.
    pub exit_status: Option<u8>,
    /// When its program ended, RFC 3339.
    #[serde(default)]
    pub finished: Option<String>,
    /// Whether something in it was killed because its memory was used up.
    #[serde(default)]
    pub oom_killed: bool,
    /// Whether it has the IDs of whoever started it.
    #[serde(default)]
    pub host_ids: bool,
    /// The wish that implied the host's IDs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ids_because: Option<String>,
    /// Its control group, below each tree.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// What it sees besides its image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountPoint>,
    /// For filters.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For the runtime.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The signal that asks it to end.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Seconds that it has for that.
    #[serde(default)]
    pub stop_timeout: Option<i64>,
}

impl Record {
    /// The record in a container's directory; `None` if there is none that can be read.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let failed = |source| Error::Read { path: path.clone(), source };
        let file = match fs::File::open(&path) {
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

    /// All records below `containers`; what can't be read is left out.
    pub(super) fn all(containers: &Path) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(containers) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::Read { path: containers.into(), source }),
        };
        let mut all = Vec::new();
        for entry in entries.flatten() {
            all.extend(Self::read(&entry.path())?);
        }
        Ok(all)
    }

    /// The mount points of all containers, with their IDs.
    pub(super) fn all_mounts(containers: &Path) -> Result<Vec<(String, Vec<MountPoint>)>> {
        Ok(Self::all(containers)?.into_iter().map(|record| (record.id, record.mounts)).collect())
    }

    /// The container that a name, an ID or the beginning of an ID means.
    pub(super) fn find(containers: &Path, text: &str) -> Result<Self> {
        let missing = || Error::NoContainer { name: text.into() };
        let mut found: Option<Self> = None;
        for record in Self::all(containers)? {
            if record.name.as_deref() == Some(text) || record.id == text {
                return Ok(record);
            }
            if !text.is_empty() && record.id.starts_with(text) {
                if found.is_some() {
                    return Err(Error::AmbiguousContainer { name: text.into() });
                }
                found = Some(record);
            }
        }
        found.ok_or_else(missing)
    }

    /// Writes the record, at once for every reader.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let beside = dir.join(".config.json");
        let bytes = serde_json::to_vec(self).expect("plain values always serialise");
        let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &path));
        written.map_err(|source| Error::Write { path, source })
    }
}

/// Checks a container's name: Docker's rule.
pub(super) fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good { Ok(()) } else { Err(Error::ContainerName { name: name.into() }) }
}

/// Makes sure that no other container below `containers` has the name.
pub(super) fn check_unused(containers: &Path, name: &str) -> Result<()> {
    let failed = |source| Error::Read { path: containers.into(), source };
    for entry in fs::read_dir(containers).map_err(failed)?.flatten() {
        if let Some(other) = Record::read(&entry.path())?
            && other.name.as_deref() == Some(name)
        {
            return Err(Error::NameInUse { name: name.into(), id: other.id });
        }
    }
    Ok(())
}

/// The name of an image in a message: familiar if it is a name, as it is if it is an ID.
pub(super) fn familiar(image: &str) -> String {
    image.parse::<Reference>().map_or_else(|_| image.to_owned(), |name| name.familiar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "a1", "web-1.x_y", "9z"] {
            check_name(good).unwrap();
        }
        for bad in ["", "a", "-a", "a/b", "../x", "a b", ".a", "ä1"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_record_reads_back_and_a_torn_one_counts_as_none() {
        let containers = tempfile::tempdir().unwrap();
        let dir = containers.path().join("c");
        fs::create_dir(&dir).unwrap();
        assert_eq!(Record::read(&dir).unwrap(), None);
        let record = Record {
            id: "ab".repeat(32),
            name: Some("web".into()),
            image: "app".into(),
            image_id: Digest::sha256(b"config"),
            manifest: Digest::sha256(b"manifest"),
            remove: true,
            arguments: vec!["sh".into()],
            created: "2026-01-01T00:00:00Z".into(),
            exit_status: Some(3),
            finished: None,
            oom_killed: false,
            host_ids: false,
            host_ids_because: None,
            cgroup: None,
            mounts: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            stop_signal: None,
            stop_timeout: None,
        };
        record.write(&dir).unwrap();
        assert_eq!(Record::read(&dir).unwrap().as_ref(), Some(&record));
        for text in ["web", "ab", &record.id] {
            assert_eq!(Record::find(containers.path(), text).unwrap().id, record.id, "{text}");
        }
        for text in ["", "we", "b"] {
            assert!(
                matches!(Record::find(containers.path(), text), Err(Error::NoContainer { .. })),
                "{text}"
            );
        }
        assert!(matches!(check_unused(containers.path(), "web"), Err(Error::NameInUse { .. })));
        check_unused(containers.path(), "other").unwrap();
        fs::write(dir.join(FILE), "{\"id\":").unwrap();
        assert_eq!(Record::read(&dir).unwrap(), None);
    }
}
