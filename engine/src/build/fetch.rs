//! Files by URL, and git as a program.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use onggi_build::Fetched;
use onggi_oci::{Algorithm, Digest, Hasher};
use onggi_registry_client::Validators;

use crate::Engine;
use crate::error::{Error, Result};

/// The largest file that is fetched by URL: larger ones are mistakes.
const MAX_DOWNLOAD: u64 = 64 << 30;
/// How much of what git said is told.
const MAX_WORDS: usize = 2000;

/// What came of fetching a file that may be known already.
#[derive(Debug)]
pub(super) enum Got {
    /// The file, what the server says of it, its digest and its size.
    New(Fetched, Validators, Digest, u64),
    /// It is what it was.
    Same,
}

impl Engine {
    /// Fetches a file to `into`.
    pub(super) fn fetch_url(&self, url: &str, into: &Path) -> Result<Fetched> {
        match self.fetch_unless(url, into, &Validators::default())? {
            Got::New(fetched, ..) => Ok(fetched),
            Got::Same => Err(Error::Interrupted),
        }
    }

    /// The same, unless it is what it was when the server said this of it.
    pub(super) fn fetch_unless(&self, url: &str, into: &Path, known: &Validators) -> Result<Got> {
        let client = self.client()?;
        let mut file = File::create_new(into).map_err(|source| Error::Write { path: into.into(), source })?;
        let failed = |source| Error::Write { path: into.into(), source };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut size = 0;
        let got = crate::network_runtime()?.block_on(async {
            let Some(mut download) = client.download_unless(url, known).await? else { return Ok(None) };
            while let Some(bytes) = download.chunk().await? {
                size += bytes.len() as u64;
                if size > MAX_DOWNLOAD {
                    let problem = format!("more than {MAX_DOWNLOAD} bytes");
                    return Err(Error::BuildFile { file: url.into(), problem });
                }
                hasher.update(&bytes);
                file.write_all(&bytes).map_err(failed)?;
            }
            Ok::<_, Error>(Some(download.validators()))
        })?;
        let Some(validators) = got else { return Ok(Got::Same) };
        file.flush().map_err(failed)?;
        let modified = validators.modified.as_deref().and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        let modified = modified.map(|time| time.timestamp().as_second());
        Ok(Got::New(Fetched { modified, digest: None }, validators, hasher.finish(), size))
    }
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
        .args(["-c", "safe.directory=*", "-c", "advice.detachedHead=false", "-c", "log.showSignature=false"])
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

/// The version control of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vcs {
    /// The commit. Whether files were changed since is not told, as buildx doesn't unless asked: to compare
    /// them git would run the filters that the repository's configuration names.
    pub(super) revision: String,
    /// Where the repository was cloned from, without a password.
    pub(super) source: Option<String>,
}

/// The commit and origin of the repository that a directory belongs to; `None` if it belongs to none, or to one without a
/// commit.
pub(super) fn vcs(dir: &Path) -> Option<Vcs> {
    commit_time(dir)?;
    let revision = run_git(dir, &["rev-parse", "HEAD"]).ok()?.trim().to_owned();
    let remote =
        ["origin", "upstream"].iter().find_map(|name| run_git(dir, &["remote", "get-url", name]).ok());
    Some(Vcs { revision, source: remote.map(|url| without_password(url.trim())) })
}

/// `https://user:password@host/path` without who may read it.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("http")) else {
        return url.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_remote_has_no_password() {
        assert_eq!(without_password("https://me:t0ken@a.example/b@c.git"), "https://a.example/b@c.git");
        assert_eq!(without_password("https://me@a.example"), "https://a.example");
        assert_eq!(without_password("git@a.example:b.git"), "git@a.example:b.git");
    }
}
