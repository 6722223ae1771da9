//! Files by URL and repositories, kept between builds: fetched again only when the server says that they changed.
//!
//! ```text
//!   cache/build/sources/<hash of the URL>.json   what the server said: {"digest":…,"etag":…,"modified":…,"time":…}
//!   cache/build/sources/<digest>                 the file
//!   cache/build/git/<hash of the remote>/        a repository with the commits that were asked for
//! ```

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use onggi_build::Fetched;
use onggi_build::graph::{Git, Http};
use onggi_oci::{Digest, Hasher};
use onggi_registry_client::Validators;
use onggi_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::fetch::{Got, run_git};
use super::lock::Lock;
use crate::Engine;
use crate::error::{Error, Result};

/// Larger files are fetched each time.
const MAX_KEPT: u64 = 4 << 30;
/// The most that is read of what a server said.
const MAX_NOTE: u64 = 1 << 20;

/// What a server said of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    digest: Digest,
    etag: Option<String>,
    modified: Option<String>,
    /// The file's time, in seconds since 1970.
    time: Option<i64>,
}

impl Engine {
    fn kept(&self, kind: &str) -> Result<PathBuf> {
        let dir = onggi_build::cache::Cache::of(self.store()?)?.dir().join(kind);
        match fs::create_dir(&dir) {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::Write { path: dir, source })
            }
            _ => Ok(dir),
        }
    }

    /// `ADD` of a URL: the file as it was kept, if it is still that.
    pub(super) fn add_url(&self, http: &Http, into: &Path, lock: Option<&Lock>) -> Result<Fetched> {
        let locked = lock.and_then(|lock| lock.url(&http.url));
        let dir = self.kept("sources")?;
        let note_path = dir.join(format!("{}.json", Digest::sha256(http.url.as_bytes()).hex()));
        let note = read_note(&note_path).filter(|note| dir.join(note.digest.hex()).exists());
        // With a digest nobody need be asked.
        let wanted = locked.or(http.checksum.as_ref());
        if let Some(note) = &note
            && wanted == Some(&note.digest)
            && let Some(fetched) = copy_kept(&dir, note, into)?
        {
            return Ok(fetched);
        }
        let known =
            note.as_ref().map(|note| Validators { etag: note.etag.clone(), modified: note.modified.clone() });
        let fetched = match (self.fetch_unless(&http.url, into, &known.unwrap_or_default())?, &note) {
            (Got::New(fetched, validators, digest, size), _) => {
                if (validators != Validators::default() || wanted.is_some()) && size <= MAX_KEPT {
                    let Validators { etag, modified } = validators;
                    keep(
                        &dir,
                        into,
                        &note_path,
                        &Note { digest: digest.clone(), etag, modified, time: fetched.modified },
                    )?;
                }
                Fetched { digest: Some(digest), ..fetched }
            }
            (Got::Same, Some(note)) => {
                let Some(fetched) = copy_kept(&dir, note, into)? else {
                    // Damaged: as if it had never been here.
                    let _ = fs::remove_file(&note_path);
                    return self.add_url(http, into, lock);
                };
                fetched
            }
            (Got::Same, None) => return Err(Error::Interrupted),
        };
        if let (Some(locked), Some(found)) = (locked, &fetched.digest)
            && locked != found
        {
            let problem = format!("it is {found} now");
            return Err(Error::Locked { what: http.url.clone(), locked: locked.to_string(), problem });
        }
        Ok(fetched)
    }

    /// Checks a repository out below `into`, an empty directory; gives the commit.
    ///
    /// The repository is fetched with everything of the user's configuration switched off that could
    /// run a program, and its subdirectory is found inside of the checkout (CVE-2026-33747).
    pub(super) fn checkout(&self, git: &Git, into: &Path, lock: Option<&Lock>) -> Result<String> {
        let reference = git.reference.as_deref().unwrap_or("HEAD");
        for (word, what) in [(git.remote.as_str(), "a remote"), (reference, "a reference")] {
            if word.starts_with('-') {
                let words = format!("{what} does not begin with '-'");
                return Err(Error::Git { remote: git.remote.clone(), words });
            }
        }
        let bare = self.kept("git")?.join(&Digest::sha256(git.remote.as_bytes()).hex()[..32]);
        let _lock = begin(&bare)?;
        let locked = lock.and_then(|lock| lock.commit(git));
        let commit = match locked {
            Some(commit) => commit.to_owned(),
            None if is_commit(reference) => reference.to_ascii_lowercase(),
            None => resolve(&bare, &git.remote, reference)?,
        };
        fetch_commit(&bare, &git.remote, reference, &commit).map_err(|error| match locked {
            Some(locked) => Error::Locked {
                what: format!("{}#{reference}", git.remote),
                locked: locked.into(),
                problem: format!("that commit can't be fetched: {error}"),
            },
            None => error,
        })?;
        if let Some(expected) = &git.checksum
            && !commit.starts_with(&expected.to_ascii_lowercase())
        {
            return Err(Error::Git {
                remote: git.remote.clone(),
                words: format!("expected the commit {expected}, {reference} is {commit}"),
            });
        }
        let work = into.with_extension("git-work");
        fs::create_dir(&work).map_err(|source| Error::Write { path: work.clone(), source })?;
        let run = |arguments: &[&str]| run_git(&work, arguments);
        let kept = bare.to_string_lossy().into_owned();
        run(&["init", "--quiet", "."])?;
        run(&["remote", "add", "origin", &git.remote])?;
        run(&[
            "-c",
            "protocol.file.allow=always",
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            &kept,
            &commit,
        ])?;
        run(&["checkout", "--quiet", "--detach", &commit])?;
        if !git.skip_submodules && work.join(".gitmodules").exists() {
            run(&["submodule", "update", "--quiet", "--init", "--recursive", "--depth=1"])?;
        }
        if !git.keep_git_dir {
            fs::remove_dir_all(work.join(".git"))
                .map_err(|source| Error::Write { path: work.join(".git"), source })?;
        }
        take(&work, git.subdir.as_deref(), into)?;
        Ok(commit)
    }
}

fn read_note(path: &Path) -> Option<Note> {
    if fs::metadata(path).ok()?.len() > MAX_NOTE {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Copies a kept file; `None` if it is no longer what it was.
fn copy_kept(dir: &Path, note: &Note, into: &Path) -> Result<Option<Fetched>> {
    let kept = dir.join(note.digest.hex());
    let failed = |source| Error::Write { path: into.into(), source };
    let _ = fs::remove_file(into);
    fs::copy(&kept, into).map_err(failed)?;
    let mut hasher = Hasher::new(note.digest.algorithm());
    std::io::copy(&mut File::open(into).map_err(failed)?, &mut hasher).map_err(failed)?;
    if hasher.finish() != note.digest {
        for path in [kept.as_path(), into] {
            let _ = fs::remove_file(path);
        }
        return Ok(None);
    }
    // The time of the last use, for who clears the cache.
    let _ = File::open(&kept).and_then(|file| file.set_modified(std::time::SystemTime::now()));
    Ok(Some(Fetched { modified: note.time, digest: Some(note.digest.clone()) }))
}

fn keep(dir: &Path, from: &Path, note_path: &Path, note: &Note) -> Result<()> {
    let failed = |source| Error::Write { path: note_path.into(), source };
    let beside = dir.join(format!("{}.{}.tmp", note.digest.hex(), std::process::id()));
    fs::copy(from, &beside).and_then(|_| fs::rename(&beside, dir.join(note.digest.hex()))).map_err(failed)?;
    let text = serde_json::to_vec(note).unwrap_or_default();
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, note_path)).map_err(failed)
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes the place of a repository if there is none, and keeps others from changing it meanwhile.
fn begin(bare: &Path) -> Result<File> {
    let path = bare.with_extension("lock");
    let failed = |source| Error::Write { path: path.clone(), source };
    let lock = File::create(&path).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if !bare.join("HEAD").exists() {
        let _ = fs::remove_dir_all(bare);
        fs::create_dir(bare).map_err(failed)?;
        run_git(bare, &["init", "--quiet", "--bare", "."])?;
        run_git(bare, &["config", "uploadpack.allowAnySHA1InWant", "true"])?;
    }
    Ok(lock)
}

/// The commit that a reference means at its remote, in git's own order (gitrevisions(7)).
fn resolve(bare: &Path, remote: &str, reference: &str) -> Result<String> {
    let peeled = format!("{reference}^{{}}");
    let text = run_git(bare, &["ls-remote", "--quiet", remote, reference, &peeled])?;
    let found: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('\t')).collect();
    for prefix in ["", "refs/", "refs/tags/", "refs/heads/"] {
        for name in [format!("{prefix}{peeled}"), format!("{prefix}{reference}")] {
            if let Some((commit, _)) =
                found.iter().find(|(commit, other)| *other == name && is_commit(commit))
            {
                return Ok((*commit).to_owned());
            }
        }
    }
    Err(Error::Git { remote: remote.into(), words: format!("couldn't find remote ref {reference}") })
}

/// Fetches a commit unless it is here.
fn fetch_commit(bare: &Path, remote: &str, reference: &str, commit: &str) -> Result<()> {
    let object = format!("{commit}^{{commit}}");
    let is_here = || run_git(bare, &["cat-file", "-e", &object]).is_ok();
    if is_here() {
        return Ok(());
    }
    let fetch = |what: &[&str]| {
        let words = ["fetch", "--quiet", "--no-tags", "--no-auto-gc", "--no-write-fetch-head"];
        run_git(bare, &words.iter().chain(what).copied().collect::<Vec<_>>())
    };
    // Not every server gives a commit by its name, or one that no branch points to.
    let by_name = fetch(&["--depth=1", remote, commit]);
    if by_name.is_err() && !is_commit(reference) {
        fetch(&["--depth=1", remote, reference])?;
    }
    if !is_here() {
        fetch(&[remote, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])?;
    }
    run_git(bare, &["update-ref", &format!("refs/onggi/{commit}"), commit])?;
    Ok(())
}

/// Moves what a path means inside of the checkout to its place.
fn take(work: &Path, subdir: Option<&str>, into: &Path) -> Result<()> {
    let failed = |source: std::io::Error| Error::Read { path: work.into(), source };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(work, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let subdir = Path::new(subdir.unwrap_or("/"));
    let found = Root::new(root.as_fd()).open(subdir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
    let found = found.map_err(|source| Error::Read { path: subdir.into(), source })?;
    let from = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(failed)?;
    fs::remove_dir(into).map_err(|source| Error::Write { path: into.into(), source })?;
    fs::rename(&from, into).map_err(|source| Error::Write { path: into.into(), source })?;
    let _ = fs::remove_dir_all(work);
    Ok(())
}
