//! Files by URL and checkouts of repositories.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use onggi_build::Fetched;
use onggi_build::graph::{Git, Http};
use onggi_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, AsRawFd};

use crate::Engine;
use crate::error::{Error, Result};

/// The largest file that is fetched by URL: larger ones are mistakes.
const MAX_DOWNLOAD: u64 = 64 << 30;
/// How much of what git said is told.
const MAX_WORDS: usize = 2000;

impl Engine {
    /// Fetches a file to `into`.
    pub(super) fn fetch_url(&self, url: &str, into: &Path) -> Result<Fetched> {
        let client = self.client()?;
        let mut file = File::create_new(into).map_err(|source| Error::Write { path: into.into(), source })?;
        let failed = |source| Error::Write { path: into.into(), source };
        let modified = crate::network_runtime()?.block_on(async {
            let mut download = client.download(url).await?;
            let mut size = 0;
            while let Some(bytes) = download.chunk().await? {
                size += bytes.len() as u64;
                if size > MAX_DOWNLOAD {
                    let problem = format!("more than {MAX_DOWNLOAD} bytes");
                    return Err(Error::BuildFile { file: url.into(), problem });
                }
                file.write_all(&bytes).map_err(failed)?;
            }
            Ok::<_, Error>(download.modified().map(str::to_owned))
        })?;
        file.flush().map_err(failed)?;
        let modified = modified.as_deref().and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        Ok(Fetched { modified: modified.map(|time| time.timestamp().as_second()) })
    }

    /// As the graph says.
    pub(super) fn fetch_http(&self, http: &Http, into: &Path) -> Result<Fetched> {
        self.fetch_url(&http.url, into)
    }
}

/// Checks a repository out below `into`, an empty directory.
///
/// The repository is fetched with everything of the user's configuration switched off that could
/// run a program, and its subdirectory is found inside of the checkout (CVE-2026-33747).
pub(super) fn checkout(git: &Git, into: &Path) -> Result<()> {
    let work = into.with_extension("git-work");
    fs::create_dir(&work).map_err(|source| Error::Write { path: work.clone(), source })?;
    let run = |arguments: &[&str]| run_git(&work, arguments);
    run(&["init", "--quiet", "."])?;
    if git.remote.starts_with('-') {
        return Err(Error::Git {
            remote: git.remote.clone(),
            words: "a remote does not begin with '-'".into(),
        });
    }
    run(&["remote", "add", "origin", &git.remote])?;
    let reference = git.reference.as_deref().unwrap_or("HEAD");
    if reference.starts_with('-') {
        return Err(Error::Git {
            remote: git.remote.clone(),
            words: "a reference does not begin with '-'".into(),
        });
    }
    let is_commit = reference.len() == 40 && reference.bytes().all(|b| b.is_ascii_hexdigit());
    let shallow = run(&["fetch", "--quiet", "--depth=1", "--no-tags", "origin", reference]);
    match shallow {
        Ok(_) => {}
        // Not every server gives a commit that no branch points to; then everything is fetched.
        Err(_) if is_commit => {
            run(&["fetch", "--quiet", "--tags", "origin"])?;
        }
        Err(error) => return Err(error),
    }
    let commit = if is_commit { reference } else { "FETCH_HEAD" };
    run(&["checkout", "--quiet", "--detach", commit])?;
    if let Some(expected) = &git.checksum {
        let found = run(&["rev-parse", "HEAD"])?;
        let found = found.trim();
        if !found.starts_with(expected.as_str()) {
            return Err(Error::Git {
                remote: git.remote.clone(),
                words: format!("expected the commit {expected}, {reference} is {found}"),
            });
        }
    }
    if !git.skip_submodules && work.join(".gitmodules").exists() {
        run(&["submodule", "update", "--quiet", "--init", "--recursive", "--depth=1"])?;
    }
    if !git.keep_git_dir {
        fs::remove_dir_all(work.join(".git"))
            .map_err(|source| Error::Write { path: work.join(".git"), source })?;
    }
    take(&work, git.subdir.as_deref(), into)
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

/// Runs git in a directory; gives what it wrote.
pub(super) fn run_git(dir: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args([
            "-c",
            "protocol.ext.allow=never",
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "core.fsmonitor=false",
        ])
        .args(["-c", "safe.directory=*", "-c", "advice.detachedHead=false"])
        .args(arguments)
        .current_dir(dir)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Process { op: "run git, which repositories as contexts need", source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    Err(Error::Git { remote: arguments.join(" "), words })
}

/// When the last commit of the repository that a directory belongs to was made, in seconds since
/// 1970; `None` if it belongs to none.
pub(super) fn commit_time(dir: &Path) -> Option<i64> {
    let has_repository = dir.ancestors().any(|above| above.join(".git").exists());
    if !has_repository {
        return None;
    }
    run_git(dir, &["log", "-1", "--format=%ct"]).ok()?.trim().parse().ok()
}
