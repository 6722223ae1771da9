//! The build context: where the files of `COPY` come from, and the build file.
//!
//! | given as | becomes |
//! |---|---|
//! | a directory | itself; only what instructions reach is read |
//! | `-` | a build file, or an archive of a context, on standard input |
//! | a file that is an archive | unpacked below the store's `ingest/` |
//! | a URL | a build file or an archive |
//! | `https://….git#ref:dir`, `git@…`, `git://…` | a checkout |

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use onggi_build::dockerfile;
use onggi_build::graph::Git;
use onggi_build::ignore;
use onggi_image::store::Lease;
use onggi_sys::path::Root;
use rustix::fs::{FileType, Mode, OFlags};

use super::request::{BuildFile, BuildRequest};
use crate::Engine;
use crate::error::{Error, Result};

/// What a build works with.
#[derive(Debug)]
pub(super) struct Opened {
    /// The directory; `None` if there is none (only a build file was given).
    pub(super) dir: Option<PathBuf>,
    /// The build file's text.
    pub(super) text: String,
    /// Its name, for messages.
    pub(super) file: String,
    /// Patterns of the ignore file.
    pub(super) ignore: Vec<String>,
    /// The commit, if it is a repository.
    pub(super) commit: Option<String>,
}

impl Engine {
    /// Opens the context and reads the build file.
    pub(super) fn open_context(&self, request: &BuildRequest, lease: &Lease) -> Result<Opened> {
        let given = request.context.as_str();
        let (mut only_file, mut commit) = (None, None);
        let dir = if given == "-" {
            let mut input = Vec::new();
            request
                .input
                .as_ref()
                .map_or(Ok(0), |input_file| {
                    Read::take(input_file, dockerfile::MAX_DOCKERFILE).read_to_end(&mut input)
                })
                .map_err(|source| Error::Process { op: "read the context from standard input", source })?;
            match request.input.as_ref() {
                Some(rest) if looks_like_archive(&input) => {
                    Some(unpack(lease, Cursor::new(input).chain(rest))?)
                }
                _ => {
                    only_file = Some(input);
                    None
                }
            }
        } else if let Some(git) = dockerfile::plan::git_reference(given) {
            let git = git.map_err(|problem| Error::Git { remote: given.into(), words: problem })?;
            let git = Git { keep_git_dir: git.keep_git_dir.unwrap_or(false), ..git.git };
            let dir = lease.directory("context")?;
            commit = Some(self.checkout(&git, &dir, None)?);
            Some(dir)
        } else if given.starts_with("http://") || given.starts_with("https://") {
            let dir = lease.directory("download")?;
            let path = dir.join("file");
            self.fetch_url(given, &path)?;
            let mut start = Vec::new();
            let mut file = File::open(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
            file.by_ref()
                .take(dockerfile::MAX_DOCKERFILE)
                .read_to_end(&mut start)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            if looks_like_archive(&start) {
                Some(unpack(lease, Cursor::new(start).chain(file))?)
            } else {
                only_file = Some(start);
                None
            }
        } else {
            let path = Path::new(given);
            let meta = fs::metadata(path).map_err(|source| Error::Context { path: path.into(), source })?;
            if meta.is_dir() {
                Some(fs::canonicalize(path).map_err(|source| Error::Context { path: path.into(), source })?)
            } else {
                let file = File::open(path).map_err(|source| Error::Context { path: path.into(), source })?;
                Some(unpack(lease, file)?)
            }
        };
        let (text, file) = match (&request.file, only_file) {
            (BuildFile::Text(text, name), _) => (text.clone().into_bytes(), name.clone()),
            (BuildFile::Named(name), None) => (self.read_file(name, dir.as_deref(), given)?, name.clone()),
            (BuildFile::Named(name), Some(_)) => (self.read_file(name, None, given)?, name.clone()),
            (BuildFile::Default, Some(bytes)) => (bytes, "Dockerfile".to_owned()),
            (BuildFile::Default, None) => {
                let dir = dir.as_deref().unwrap_or(Path::new("."));
                let name = default_name(dir);
                (read_inside(dir, name)?, name.to_owned())
            }
        };
        // Comments in old Dockerfiles are not always UTF-8.
        let text = String::from_utf8_lossy(&text).into_owned();
        let ignore = match &dir {
            Some(dir) => ignore_patterns(dir, &request.file, &file, given)?,
            None => Vec::new(),
        };
        Ok(Opened { dir, text, file, ignore, commit })
    }

    /// A build file by name: as a path of the caller's, else below the context.
    fn read_file(&self, name: &str, dir: Option<&Path>, given: &str) -> Result<Vec<u8>> {
        if name.starts_with("http://") || name.starts_with("https://") {
            let lease = self.store()?.lease("fetch a build file")?;
            let path = lease.directory("download")?.join("file");
            self.fetch_url(name, &path)?;
            return read_bounded(&path);
        }
        let is_local = dir.is_none() || Path::new(given).is_dir();
        if is_local && Path::new(name).exists() {
            return read_bounded(Path::new(name));
        }
        match dir {
            Some(dir) => read_inside(dir, name),
            None => read_bounded(Path::new(name)),
        }
    }
}

/// `Dockerfile`, else `Containerfile`, else `onggi.yaml`.
fn default_name(dir: &Path) -> &'static str {
    ["Dockerfile", "dockerfile", "Containerfile", "onggi.yaml", "onggi.yml"]
        .into_iter()
        .find(|name| dir.join(name).is_file())
        .unwrap_or("Dockerfile")
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(dockerfile::MAX_DOCKERFILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Reads a file of the context; links stay inside of it.
fn read_inside(dir: &Path, name: &str) -> Result<Vec<u8>> {
    let failed = |source: std::io::Error| Error::BuildFile {
        file: name.into(),
        problem: if source.kind() == std::io::ErrorKind::NotFound {
            format!("failed to read dockerfile: open {name}: no such file or directory")
        } else {
            source.to_string()
        },
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(dir, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = Root::new(root.as_fd()).open(Path::new(name), flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::BuildFile { file: name.into(), problem: "it is no regular file".into() });
    }
    let mut bytes = Vec::new();
    File::from(file).take(dockerfile::MAX_DOCKERFILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// `<build file>.dockerignore` counts before `.dockerignore` of the context.
fn ignore_patterns(dir: &Path, given: &BuildFile, file: &str, context: &str) -> Result<Vec<String>> {
    let beside = match given {
        BuildFile::Named(name) if Path::new(context).is_dir() && Path::new(name).exists() => {
            read_optional(&PathBuf::from(format!("{name}.dockerignore")))?
        }
        _ => None,
    };
    let text = match beside {
        Some(text) => Some(text),
        None => match read_inside(dir, &format!("{file}.dockerignore")) {
            Ok(text) => Some(text),
            Err(_) => read_inside(dir, ".dockerignore").ok(),
        },
    };
    let Some(text) = text else { return Ok(Vec::new()) };
    if text.len() as u64 > ignore::MAX_IGNORE_FILE {
        return Err(Error::BuildFile { file: ".dockerignore".into(), problem: "it is too large".into() });
    }
    Ok(ignore::patterns(&String::from_utf8_lossy(&text)))
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.into(), source }),
        Ok(_) => read_bounded(path).map(Some),
    }
}

fn unpack(lease: &Lease, archive: impl Read) -> Result<PathBuf> {
    let dir = lease.directory("context")?;
    onggi_build::unpack_context(archive, &dir)?;
    Ok(dir)
}

/// Whether bytes are the beginning of an archive: compressed, or with a tar header.
fn looks_like_archive(start: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] =
        [&[0x1f, 0x8b], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z', 0], &[0x28, 0xb5, 0x2f, 0xfd]];
    MAGIC.iter().any(|magic| start.starts_with(magic)) || start.get(257..262) == Some(b"ustar")
}
