//! `RUN --mount`: what a program sees for the time of its run.
//!
//! ```text
//!   cache/build/mounts/<hex of the id>/lock      held while a program uses it
//!   cache/build/mounts/<hex of the id>/tree/     what it has
//!   cache/build/mounts/<hex of the id>-2/…       the same for a second user of a private one
//! ```
//!
//! Sources are resolved in their tree by whoever mounts them, by descriptor; the program of another
//! step that swaps a link in meanwhile gets nothing but an error.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use onggi_image::layer::OverlayXattr;
use onggi_image::store::Layer;
use onggi_oci::Digest;

use super::facts::{Opened, locate};
use crate::copy::{Ids, perform};
use crate::error::{Error, Result};
use crate::graph::{CacheMount, Copy, Exec, FileAction, Mount, MountKind, SecretTarget, Sharing, VertexId};
use crate::host::{Host, ReadyKind, ReadyMount};
use crate::tree::{Tree, is_dir};

/// How many users of a private cache can work at once.
const MAX_PRIVATE: usize = 1000;

/// What an input of a step is.
#[derive(Clone, Debug)]
pub(super) enum MountSource {
    /// Layers.
    Stack(Vec<Layer>),
    /// A directory of the host.
    Directory { path: PathBuf, exclude: Vec<String>, owner: Option<Ids> },
}

/// Everything that a program sees beside its root.
pub(super) struct Prepared {
    pub(super) ready: Vec<ReadyMount>,
    /// `NAME=value`
    pub(super) secrets: Vec<String>,
    /// Caches in use.
    pub(super) locks: Vec<File>,
}

pub(super) fn prepare(
    exec: &Exec,
    sources: &BTreeMap<VertexId, MountSource>,
    dir: &Path,
    caches: &Path,
    xattr: OverlayXattr,
    host: &dyn Host,
) -> Result<Prepared> {
    let mut prepared = Prepared { ready: Vec::new(), secrets: Vec::new(), locks: Vec::new() };
    for (number, mount) in exec.mounts.iter().enumerate() {
        let scratch = dir.join(format!("mount-{number}"));
        fs::create_dir(&scratch).map_err(Error::io("make the directory", &scratch))?;
        one(&mut prepared, mount, sources, &scratch, caches, xattr, host)?;
    }
    // Outer ones first.
    prepared.ready.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(prepared)
}

fn one(
    prepared: &mut Prepared,
    mount: &Mount,
    sources: &BTreeMap<VertexId, MountSource>,
    scratch: &Path,
    caches: &Path,
    xattr: OverlayXattr,
    host: &dyn Host,
) -> Result<()> {
    let mut directory = true;
    let kind = match &mount.kind {
        MountKind::Tmpfs(tmpfs) => ReadyKind::Tmpfs { size: tmpfs.size },
        MountKind::Bind { from, source, writable } => {
            let source_tree = from.and_then(|from| sources.get(&from));
            let (found, kind) = bind(source_tree, source, *writable, scratch, xattr)?;
            directory = found;
            kind
        }
        MountKind::Cache(cache) => {
            let (lock, path) = open_cache(cache, sources, caches, xattr)?;
            prepared.locks.push(lock);
            ReadyKind::Directory { root: path, path: PathBuf::new(), writable: !cache.read_only }
        }
        MountKind::Secret(secret) => {
            let Some(content) = host.secret(&secret.id)? else {
                if secret.required {
                    return Err(Error::Invalid {
                        what: "secret",
                        text: secret.id.clone(),
                        problem: format!("it is required; give it with --secret id={},src=FILE", secret.id),
                    });
                }
                return Ok(());
            };
            let (file, variable) = match &secret.target {
                SecretTarget::File => (true, None),
                SecretTarget::Env(name) => (false, Some(name)),
                SecretTarget::FileAndEnv(name) => (true, Some(name)),
            };
            if let Some(name) = variable {
                let value = String::from_utf8(content.clone()).map_err(|_| Error::Invalid {
                    what: "secret",
                    text: secret.id.clone(),
                    problem: "it is no text, so it can't be a variable".into(),
                })?;
                prepared.secrets.push(format!("{name}={value}"));
            }
            if !file {
                return Ok(());
            }
            directory = false;
            ReadyKind::File { content, mode: secret.mode.unwrap_or(0o400), uid: secret.uid, gid: secret.gid }
        }
        MountKind::Ssh(ssh) => {
            let Some(path) = host.ssh_agent(&ssh.id)? else {
                if ssh.required {
                    return Err(Error::Invalid {
                        what: "ssh agent",
                        text: ssh.id.clone(),
                        problem: format!("it is required; give it with --ssh {}", ssh.id),
                    });
                }
                return Ok(());
            };
            prepared.secrets.push(format!("SSH_AUTH_SOCK={}", mount.target));
            directory = false;
            ReadyKind::Socket { path, mode: ssh.mode.unwrap_or(0o600), uid: ssh.uid, gid: ssh.gid }
        }
    };
    prepared.ready.push(ReadyMount { target: PathBuf::from(&mount.target), directory, kind });
    Ok(())
}

fn bind(
    source: Option<&MountSource>,
    path: &str,
    writable: bool,
    scratch: &Path,
    xattr: OverlayXattr,
) -> Result<(bool, ReadyKind)> {
    match source {
        Some(MountSource::Stack(layers)) if !layers.is_empty() => {
            let opened = MountSource::Stack(layers.clone()).open(xattr)?;
            let path = locate(&opened.source(), path)?;
            let directory = opened.tree.lstat(&path)?.is_none_or(|stat| is_dir(&stat));
            let scratch = writable.then(|| scratch.to_owned());
            Ok((directory, ReadyKind::Stack { layers: layers.clone(), path, scratch }))
        }
        Some(source @ MountSource::Directory { .. }) => {
            // A copy, which shares the blocks where the filesystem can: what is ignored is not in
            // it, everything belongs to root, and what is written is thrown away.
            let opened = source.open(xattr)?;
            let tree = scratch.join("tree");
            fs::DirBuilder::new()
                .mode(0o755)
                .create(&tree)
                .map_err(Error::io("make the directory", &tree))?;
            let path = copy_in(&opened, path, &tree)?;
            Ok((path.as_os_str().is_empty(), ReadyKind::Directory { root: tree, path, writable }))
        }
        _ => {
            let tree = scratch.join("tree");
            fs::DirBuilder::new()
                .mode(0o755)
                .create(&tree)
                .map_err(Error::io("make the directory", &tree))?;
            Ok((true, ReadyKind::Directory { root: tree, path: PathBuf::new(), writable }))
        }
    }
}

/// Copies a file, or what is in a directory; gives the path of the copy below `tree`.
fn copy_in(opened: &Opened, path: &str, tree: &Path) -> Result<PathBuf> {
    let source = opened.source();
    let real = locate(&source, path)?;
    let directory = opened.tree.lstat(&real)?.is_some_and(|stat| is_dir(&stat));
    let name = real.file_name().map(PathBuf::from).unwrap_or_default();
    let copy = Copy {
        source: format!("/{}", real.display()),
        destination: if directory { "/".into() } else { format!("/{}", name.display()) },
        follow_links: true,
        contents_only: true,
        ..Copy::default()
    };
    perform(&FileAction::Copy(Box::new(copy)), &Tree::open_host(tree)?, Some(&source), false)?;
    Ok(if directory { PathBuf::new() } else { name })
}

/// Takes a cache as its sharing says; gives its lock and its directory.
fn open_cache(
    cache: &CacheMount,
    sources: &BTreeMap<VertexId, MountSource>,
    caches: &Path,
    xattr: OverlayXattr,
) -> Result<(File, PathBuf)> {
    let name = Digest::sha256(cache.id.as_bytes()).hex()[..32].to_owned();
    for number in 1..=MAX_PRIVATE {
        let dir = if number == 1 { caches.join(&name) } else { caches.join(format!("{name}-{number}")) };
        let failed = || Error::io("open the cache", &dir);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed())?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))
            .map_err(failed())?;
        match cache.sharing {
            Sharing::Shared => lock.lock_shared().map_err(failed())?,
            Sharing::Locked => lock.lock().map_err(failed())?,
            Sharing::Private => match lock.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => continue,
                Err(fs::TryLockError::Error(error)) => return Err(failed()(error)),
            },
        }
        let tree = dir.join("tree");
        if !tree.exists() {
            begin_cache(cache, sources, &dir, &tree, xattr)?;
        }
        let _ = fs::write(dir.join("id"), &cache.id);
        return Ok((lock, tree));
    }
    Err(Error::Limit { what: "the number of users of a private cache", limit: MAX_PRIVATE as u64 })
}

/// Makes a cache's directory, with what it begins with; others see it when it is whole.
fn begin_cache(
    cache: &CacheMount,
    sources: &BTreeMap<VertexId, MountSource>,
    dir: &Path,
    tree: &Path,
    xattr: OverlayXattr,
) -> Result<()> {
    let beside = dir.join(format!("new-{}", std::process::id()));
    let failed = || Error::io("make the cache", &beside);
    fs::DirBuilder::new().mode(cache.mode.unwrap_or(0o755) & 0o7777).create(&beside).map_err(failed())?;
    std::os::unix::fs::chown(&beside, Some(cache.uid), Some(cache.gid)).map_err(failed())?;
    if let Some(source) = cache.from.and_then(|from| sources.get(&from)) {
        copy_in(&source.open(xattr)?, &cache.source, &beside)?;
    }
    match fs::rename(&beside, tree) {
        // Somebody who shares it was faster.
        Err(_) if tree.exists() => fs::remove_dir_all(&beside).map_err(failed()),
        other => other.map_err(failed()),
    }
}
