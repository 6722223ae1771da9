//! `onggi.lock`: what the sources of a build were, so that they stay that.
//!
//! ```text
//!   {"version": 1,
//!    "images": {"docker.io/library/debian:12": "sha256:…"},         what the tag meant, for all platforms
//!    "urls":   {"https://example.org/a.tar.gz": "sha256:…"},
//!    "git":    {"https://example.org/a.git#v1": "<commit>"}}
//! ```
//!
//! It lies beside the files of the context. A source that is in it must be what it says; one that isn't is added. What programs
//! of RUN fetch by themselves is not in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use onggi_build::graph::{Git, Graph, ImagePlace, Op, VertexId};
use onggi_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use super::context::Opened;
use super::images::Bases;
use crate::error::{Error, Result};

/// Its name.
const NAME: &str = "onggi.lock";
/// The largest one that is read.
const MAX_LOCK: u64 = 4 << 20;
const VERSION: u32 = 1;

/// What the lock file is for in a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Sources are what it says; new ones are added.
    Use,
    /// It says what sources are now.
    Update,
}

/// A lock file, open.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    mode: LockMode,
    file: LockFile,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    version: u32,
    #[serde(default)]
    images: BTreeMap<String, Digest>,
    #[serde(default)]
    urls: BTreeMap<String, Digest>,
    #[serde(default)]
    git: BTreeMap<String, String>,
}

impl Lock {
    /// The lock file of a context.
    pub(super) fn open(opened: &Opened, given: &str, mode: LockMode) -> Result<Self> {
        let Some(dir) = opened.dir.as_deref().filter(|_| Path::new(given).is_dir()) else {
            return Err(Error::flag(
                "--lock",
                "the context is no directory, so there is no place for onggi.lock",
            ));
        };
        let path = dir.join(NAME);
        let bad = |problem: String| Error::BuildFile { file: NAME.into(), problem };
        let file = match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => LockFile::default(),
            Err(source) => return Err(Error::Read { path, source }),
            Ok(meta) if meta.len() > MAX_LOCK => {
                return Err(bad(format!("it is larger than {MAX_LOCK} bytes")));
            }
            Ok(_) => {
                let text = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
                let file: LockFile = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
                if file.version != VERSION {
                    return Err(bad(format!("its version is {}, and only {VERSION} is known", file.version)));
                }
                let commit = |text: &String| {
                    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
                };
                if let Some((source, commit)) = file.git.iter().find(|(_, text)| !commit(text)) {
                    return Err(bad(format!("{commit:?} of {source} is no commit")));
                }
                file
            }
        };
        Ok(Self { path, mode, file })
    }

    fn used(&self) -> Option<&LockFile> {
        (self.mode == LockMode::Use).then_some(&self.file)
    }

    /// What an image must be.
    pub(super) fn image(&self, reference: &Reference) -> Option<Digest> {
        if reference.digest().is_some() {
            return None;
        }
        self.used()?.images.get(&reference.to_string()).cloned()
    }

    /// What a file must be.
    pub(super) fn url(&self, url: &str) -> Option<&Digest> {
        self.used()?.urls.get(url)
    }

    /// What commit a repository's reference must be.
    pub(super) fn commit(&self, git: &Git) -> Option<&str> {
        self.used()?.git.get(&name_of(git)).map(String::as_str)
    }

    /// Writes down what the sources of a build were.
    pub(super) fn renew(
        &self,
        graph: &Graph,
        bases: &Bases<'_>,
        sources: &BTreeMap<VertexId, String>,
    ) -> Result<()> {
        let mut file = LockFile { version: VERSION, ..self.file.clone() };
        for (number, vertex) in graph.vertices.iter().enumerate() {
            let was = sources.get(&VertexId(number));
            match &vertex.op {
                Op::Image(image) if image.place == ImagePlace::Registry => {
                    let reference = image.reference.parse::<Reference>()?.with_default_tag();
                    if let (None, Some(digest)) = (reference.digest(), bases.target(image)) {
                        file.images.insert(reference.to_string(), digest);
                    }
                }
                Op::Http(http) => {
                    if let Some(digest) = was.and_then(|digest| digest.parse().ok()) {
                        file.urls.insert(http.url.clone(), digest);
                    }
                }
                Op::Git(git) => {
                    if let Some(commit) = was {
                        file.git.insert(name_of(git), commit.clone());
                    }
                }
                _ => {}
            }
        }
        if file == self.file {
            return Ok(());
        }
        let failed = |source| Error::Write { path: self.path.clone(), source };
        let text = serde_json::to_string_pretty(&file).unwrap_or_default() + "\n";
        let beside = self.path.with_extension(format!("lock.{}.tmp", std::process::id()));
        fs::write(&beside, text).and_then(|()| fs::rename(&beside, &self.path)).map_err(failed)
    }
}

/// A repository at a reference, as a context is written.
fn name_of(git: &Git) -> String {
    format!("{}#{}", git.remote, git.reference.as_deref().unwrap_or("HEAD"))
}
