//! One JSON file of credentials: Docker's `config.json` and `auth.json` of containers-auth.json(5)
//! have the same form.
//!
//! ```text
//!   { "auths":       { "ghcr.io": { "auth": "dXNlcjpwYXNz", "identitytoken": "…" }, … },
//!     "credsStore":  "pass",
//!     "credHelpers": { "gcr.io": "gcloud" },
//!     …            }                       what we do not know stays as it is
//! ```

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde_json::{Map, Value, json};

use super::Credentials;
use super::docker_credential::Helper;
use crate::error::{Error, Result};

/// Such a file holds a few hundred bytes for each registry.
const MAX_FILE: u64 = 4 << 20;

pub(super) struct AuthFile {
    root: Map<String, Value>,
    path: std::path::PathBuf,
}

impl AuthFile {
    /// Reads the file; none if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { operation: "read", path: path.to_owned(), source }),
        };
        let mut text = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(|source| Error::File {
            operation: "read",
            path: path.to_owned(),
            source,
        })?;
        if text.len() as u64 > MAX_FILE {
            return Err(Error::TooLarge { object: path.display().to_string(), limit: MAX_FILE });
        }
        if text.trim_ascii().is_empty() {
            return Ok(Some(Self { root: Map::new(), path: path.to_owned() }));
        }
        match serde_json::from_slice(&text) {
            Ok(Value::Object(root)) => Ok(Some(Self { root, path: path.to_owned() })),
            Ok(_) => Err(broken(path, "it is not a JSON object")),
            Err(error) => Err(broken(path, &format!("it is not valid JSON: {error}"))),
        }
    }

    /// Changes the file under a lock on its directory, and replaces it in one step if the change
    /// made a difference.
    pub(super) fn update<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { operation, path, source }
        };
        make_directory(directory).map_err(failed("create", directory))?;
        let lock = File::open(directory).map_err(failed("open", directory))?;
        lock.lock().map_err(failed("lock", directory))?;
        let mut file = Self::read(&path)?.unwrap_or(Self { root: Map::new(), path: path.clone() });
        let before = file.root.clone();
        let result = change(&mut file)?;
        if file.root != before {
            write_private(&path, &file.to_bytes()).map_err(failed("write", &path))?;
        }
        Ok(result)
    }

    /// The helper that `credHelpers` or `credsStore` names for this key.
    pub(super) fn helper_for(&self, key: &str) -> Result<Option<Helper>> {
        let named = match self.root.get("credHelpers").and_then(|helpers| helpers.get(key)) {
            Some(name) => Some(name),
            None => self.root.get("credsStore"),
        };
        match named {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) if name.is_empty() => Ok(None),
            Some(Value::String(name)) => {
                Helper::named(name).map(Some).map_err(|problem| broken(&self.path, &problem))
            }
            Some(_) => Err(broken(&self.path, "the name of a credential helper is not a string")),
        }
    }

    /// The entry of `auths` for this key, which may stand there with a scheme and a path
    /// (`https://ghcr.io/v1/`) as old versions of Docker wrote it.
    pub(super) fn entry(&self, key: &str) -> Result<Option<Credentials>> {
        let Some(Value::Object(auths)) = self.root.get("auths") else { return Ok(None) };
        let found = auths.get(key).map(|value| (key, value)).or_else(|| {
            auths
                .iter()
                .find(|(name, _)| old_host(name) == Some(key))
                .map(|(name, value)| (name.as_str(), value))
        });
        let Some((name, entry)) = found else { return Ok(None) };
        self.decode(name, entry)
    }

    fn decode(&self, name: &str, entry: &Value) -> Result<Option<Credentials>> {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credentials::IdentityToken(token.to_owned())));
        }
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credentials::RegistryToken(token.to_owned())));
        }
        if let Some(auth) = text("auth") {
            let problem = |what: &str| broken(&self.path, &format!("the auth of {name:?} {what}"));
            let plain = STANDARD.decode(auth.trim()).map_err(|_| problem("is not base64"))?;
            let plain = String::from_utf8(plain).map_err(|_| problem("is not UTF-8"))?;
            let (username, password) =
                plain.split_once(':').ok_or_else(|| problem("is not base64 of user:password"))?;
            return Ok(Some(Credentials::Password {
                username: username.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            }));
        }
        match (text("username"), text("password")) {
            (Some(username), Some(password)) => Ok(Some(Credentials::Password {
                username: username.to_owned(),
                password: password.to_owned(),
            })),
            _ => Ok(None),
        }
    }

    pub(super) fn insert(&mut self, key: &str, credentials: &Credentials) -> Result<()> {
        let entry = match credentials {
            Credentials::Password { username, password } => {
                json!({ "auth": STANDARD.encode(format!("{username}:{password}")) })
            }
            Credentials::IdentityToken(token) => json!({ "identitytoken": token }),
            Credentials::RegistryToken(token) => json!({ "registrytoken": token }),
        };
        self.auths()?.insert(key.to_owned(), entry);
        Ok(())
    }

    /// Notes that a helper keeps this key, as Docker does: an empty entry.
    pub(super) fn mark(&mut self, key: &str) {
        if let Ok(auths) = self.auths() {
            auths.insert(key.to_owned(), json!({}));
        }
    }

    /// Removes the entry, and tells whether it held credentials.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let held = self.entry(key).ok().flatten().is_some();
        let Ok(auths) = self.auths() else { return false };
        auths.retain(|name, _| name != key && old_host(name) != Some(key));
        if auths.is_empty() {
            self.root.remove("auths");
        }
        held
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>> {
        match self.root.entry("auths").or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(auths) => Ok(auths),
            _ => Err(broken(&self.path, "auths is not a JSON object")),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(&self.root).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

/// The host of a key that carries a scheme.
fn old_host(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://"))?;
    Some(rest.split_once('/').map_or(rest, |(host, _)| host))
}

fn broken(path: &Path, problem: &str) -> Error {
    Error::Configuration { path: path.to_owned(), problem: problem.to_owned() }
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file by one that only its owner may read. The bytes are never readable by others, not
/// even for a moment: the new file has mode 0600 from its creation.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // The directory is locked, so the name is ours; a file of a process that died is overwritten.
    let temporary = directory.join(format!(".{name}.onggi-new"));
    let _ = rustix::fs::unlinkat(CWD, &temporary, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR)?);
    let written =
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    File::open(directory)?.sync_all()
}
