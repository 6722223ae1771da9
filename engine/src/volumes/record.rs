//! A volume on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use serde::{Deserialize, Serialize};

use super::{VolumeRequest, local};
use crate::containers::new_id;
use crate::error::{Error, Result};

const FILE: &str = "volume.json";
/// What containers see.
pub(super) const DATA: &str = "_data";
/// The most that is read of a record.
const MAX_RECORD: u64 = 1 << 20;
/// Longer names are no file names.
const MAX_NAME: usize = 255;
/// The label by which Docker knows a volume that nobody named.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What people call it.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// For filters.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `type`, `o` and `device`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// The directory that containers see, unless the options say otherwise.
    #[serde(skip)]
    pub mountpoint: PathBuf,
}

impl Volume {
    /// Whether nobody gave it a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// Held while volumes are given to a container or taken away.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "the lock ends when the file is closed")] File);

impl Lock {
    /// Several may hold it: no volume is removed meanwhile.
    pub(crate) fn shared(volumes: &Path) -> Result<Self> {
        Self::take(volumes, FlockOperation::LockShared)
    }

    /// Only one may hold it: nobody gets a volume meanwhile.
    pub(crate) fn exclusive(volumes: &Path) -> Result<Self> {
        Self::take(volumes, FlockOperation::LockExclusive)
    }

    fn take(volumes: &Path, operation: FlockOperation) -> Result<Self> {
        let path = volumes.join(".lock");
        let open = || fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(volumes).and_then(|()| open())
            }
            other => other,
        };
        let locked = file.and_then(|file| {
            rustix::fs::flock(&file, operation)?;
            Ok(file)
        });
        locked.map(Self).map_err(|source| Error::Write { path, source })
    }
}

/// Checks a volume's name: Docker's rule, which also keeps it one component of a path.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && (2..=MAX_NAME).contains(&name.len())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good { Ok(()) } else { Err(Error::VolumeName { name: name.into() }) }
}

/// The volume of this name, made if there is none.
pub(crate) fn ensure(volumes: &Path, request: &VolumeRequest, _: &Lock) -> Result<Volume> {
    if let Some(name) = &request.name {
        check_name(name)?;
        if let Some(volume) = read(volumes, name)? {
            return Ok(volume);
        }
    }
    local::check(&request.options)?;
    let mut labels = request.labels.clone();
    if request.name.is_none() {
        labels.insert(ANONYMOUS.into(), String::new());
    }
    let name = request.name.clone().map_or_else(new_id, Ok)?;
    let volume = Volume {
        mountpoint: volumes.join(&name).join(DATA),
        created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        options: request.options.clone(),
        labels,
        name,
    };
    let beside = volumes.join(format!(".new-{}", new_id()?));
    let target = volumes.join(&volume.name);
    let made = write(&beside, &volume)
        .and_then(|()| Ok(rustix::fs::renameat_with(CWD, &beside, CWD, &target, RenameFlags::NOREPLACE)?));
    if made.is_ok()
        && let Some(root) = volumes.parent()
    {
        crate::events::note(root, "volume", "create", &volume.name, &[("driver", "local")]);
    }
    match made {
        // Losing it in a crash of the machine loses what was to be kept, unless nobody keeps it.
        Ok(()) if volume.is_anonymous() => Ok(volume),
        Ok(()) => {
            let flushed = File::open(volumes).and_then(|dir| dir.sync_all());
            flushed.map_err(|source| Error::Write { path: volumes.into(), source })?;
            Ok(volume)
        }
        Err(error) => {
            let _ = fs::remove_dir_all(&beside);
            match read(volumes, &volume.name)? {
                // Another process was faster.
                Some(other) if error.kind() == ErrorKind::AlreadyExists => Ok(other),
                _ => Err(Error::Write { path: target, source: error }),
            }
        }
    }
}

fn write(dir: &Path, volume: &Volume) -> io::Result<()> {
    fs::create_dir_all(dir.join(DATA))?;
    let mut file = File::create(dir.join(FILE))?;
    file.write_all(&serde_json::to_vec(volume)?)?;
    if volume.is_anonymous() { Ok(()) } else { file.sync_all() }
}

/// The volume of this name; `None` if there is none.
pub(super) fn read(volumes: &Path, name: &str) -> Result<Option<Volume>> {
    if check_name(name).is_err() {
        return Ok(None);
    }
    let path = volumes.join(name).join(FILE);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(MAX_RECORD).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(Error::Read { path, source }),
    }
    let volume: Volume = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Read { path, source: io::Error::new(ErrorKind::InvalidData, error) })?;
    Ok(Some(Volume { name: name.into(), mountpoint: volumes.join(name).join(DATA), ..volume }))
}

/// All volumes, by name.
pub(super) fn all(volumes: &Path) -> Result<Vec<Volume>> {
    let entries = match fs::read_dir(volumes) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: volumes.into(), source }),
    };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        all.extend(read(volumes, &entry.file_name().to_string_lossy())?);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Takes the volume away at once, then deletes what was in it; and what an earlier removal left.
pub(super) fn remove(volumes: &Path, name: &str, _: &Lock) -> Result<()> {
    let old = volumes.join(format!(".old-{}", new_id()?));
    fs::rename(volumes.join(name), &old)
        .map_err(|source| Error::Write { path: volumes.join(name), source })?;
    // Only the holder of the exclusive lock is here, so all of these are leftovers.
    for entry in
        fs::read_dir(volumes).map_err(|source| Error::Read { path: volumes.into(), source })?.flatten()
    {
        let left = entry.file_name();
        if left.as_encoded_bytes().starts_with(b".old-") || left.as_encoded_bytes().starts_with(b".new-") {
            fs::remove_dir_all(entry.path()).map_err(|source| Error::Write { path: entry.path(), source })?;
        }
    }
    Ok(())
}
