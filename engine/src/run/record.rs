//! What is kept of a container.
//!
//! ```text
//!   <root>/containers/<id>/
//!     config.json                     this record; the digests in it keep the image from pruning
//!     upper/ work/                    the container's own layer
//!     hostname hosts resolv.conf      bind-mounted over the image's
//! ```

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use onggi_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const FILE: &str = "config.json";
/// The most that is read of a record.
const MAX_RECORD: u64 = 16 << 20;

/// A container, as its directory tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
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
        };
        record.write(&dir).unwrap();
        assert_eq!(Record::read(&dir).unwrap(), Some(record));
        assert!(matches!(check_unused(containers.path(), "web"), Err(Error::NameInUse { .. })));
        check_unused(containers.path(), "other").unwrap();
        fs::write(dir.join(FILE), "{\"id\":").unwrap();
        assert_eq!(Record::read(&dir).unwrap(), None);
    }
}
