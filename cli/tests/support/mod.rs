//! What every test of the built binary needs: the binary, a store of its own, images, and words for what it did.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod hostile;
pub mod user;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use onggi_testkit::{TestImage, needs};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Far beyond what anything takes here, also on a loaded machine: what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(240);

/// The built command with a store, credentials and configuration of its own, gone when dropped.
pub struct Onggi {
    folder: TempDir,
    storage: Option<String>,
}

impl Onggi {
    pub fn new() -> Self {
        // Not /tmp: that is often a tmpfs, on which overlay and xattrs behave differently from a disk.
        let folder = tempfile::Builder::new().prefix("onggi-test.").tempdir_in("/var/tmp");
        let folder = folder.expect("a temporary folder");
        for name in ["docker", "home"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Self { folder, storage: None }
    }

    /// A store of root's with busybox-static by this name; `None` is a counted skip.
    pub fn with_busybox(name: &str) -> Option<Self> {
        if needs::root().is_missing() {
            return None;
        }
        let onggi = Self::new();
        let archive = busybox_archive(onggi.folder(), name)?;
        onggi.ok(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]);
        Some(onggi)
    }

    /// In which format layers are kept, as `ONGGI_STORAGE` names it.
    pub fn storage(&mut self, format: &str) {
        self.storage = Some(format.to_owned());
    }

    /// A folder for whatever the test needs beside the store.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub fn runroot(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Where layers that are files are mounted.
    pub fn mounts(&self) -> PathBuf {
        self.runroot().join("mounts")
    }

    /// The folder of `config.json`, as `DOCKER_CONFIG`.
    pub fn docker_config(&self) -> PathBuf {
        self.folder.path().join("docker")
    }

    /// The command with its environment set and nothing to read.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onggi"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path().join("home"))
            .env("ONGGI_ROOT", self.root())
            .env("ONGGI_RUNROOT", self.runroot())
            .env("DOCKER_CONFIG", self.docker_config())
            // Networks belong to the whole machine: tests that want one make a namespace for it first.
            .env("ONGGI_NETWORK", "none")
            .stdin(Stdio::null());
        command.envs(self.storage.iter().map(|format| ("ONGGI_STORAGE", format)));
        command
    }

    /// Runs to the end.
    pub fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        let mut command = self.command(args);
        Done::of(&mut command)
    }

    /// Runs, expects success, and gives what was printed, without the last newline.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        self.output(args).ok()
    }

    /// Runs, expects failure in words, and gives status and words.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        let done = self.output(args);
        done.assert_failed_in_words();
        done
    }

    /// Puts an image of the testkit into the store.
    #[track_caller]
    pub fn load(&self, image: &TestImage, name: &str) {
        let archive = self.folder().join("image.tar");
        std::fs::write(&archive, archive_of(image.layout(name))).expect("an archive");
        self.ok(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]);
    }

    /// The names that the store has.
    #[track_caller]
    pub fn images(&self) -> String {
        self.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"])
    }

    /// What is unfinished in the store.
    pub fn unfinished(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root().join("ingest")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Fails the test unless every blob, layer and ref of the store is whole.
    #[track_caller]
    pub fn assert_store_is_clean(&self) {
        self.ok(["system", "check"]);
    }
}

impl Drop for Onggi {
    fn drop(&mut self) {
        // What a killed command left mounted waits for the next one, which never comes.
        let _ = rustix::mount::unmount(self.mounts(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// A command that ended.
pub struct Done {
    shown: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// Runs to the end. What is not done within [`PATIENCE`] is killed, and so has no status.
    pub fn of(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.expect("the program starts");
        let pid = Pid::from_child(&child);
        let (ended, end) = mpsc::channel::<()>();
        let guard = thread::spawn(move || {
            if end.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let Output { status, stdout, stderr } = child.wait_with_output().expect("the program ends");
        drop(ended);
        guard.join().expect("the guard ends");
        Self {
            shown,
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "{} failed\nstdout: {}\nstderr: {}",
            self.shown,
            self.stdout,
            self.stderr
        );
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// A failure ends with a status, says something, and is no panic.
    #[track_caller]
    pub fn assert_failed_in_words(&self) {
        assert!(
            self.code.is_some_and(|code| code != 0),
            "{} should fail with a status, and gave {:?}\nstdout: {}\nstderr: {}",
            self.shown,
            self.code,
            self.stdout,
            self.stderr
        );
        assert!(!self.stderr.trim().is_empty(), "{} failed without a word", self.shown);
        assert!(!self.stderr.contains("panicked"), "{} panicked: {}", self.shown, self.stderr);
    }
}

/// An archive with these files.
pub fn archive_of(members: impl IntoIterator<Item = (String, impl AsRef<[u8]>)>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.as_ref().len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_ref()).expect("a member");
    }
    archive.into_inner().expect("an archive")
}

/// Runs another tool and expects success.
#[track_caller]
pub fn tool<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let path = needs::find_program(program).unwrap_or_else(|| program.into());
    Done::of(Command::new(path).args(args).stdin(Stdio::null())).ok()
}

/// Far beyond what anything takes here.
pub const WAIT: Duration = Duration::from_secs(60);

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < WAIT, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An archive as `docker save` writes it, with busybox-static as `NAME`; `None` (and a counted skip) where
/// busybox-static is not installed.
pub fn busybox_archive(folder: &Path, name: &str) -> Option<PathBuf> {
    if needs::programs(&["busybox"]).is_missing() {
        return None;
    }
    let archive = folder.join("busybox.tar");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/busybox-image");
    Done::of(Command::new(script).arg(&archive).arg(name)).ok();
    Some(archive)
}

/// An OCI layout made by other tools, see `bench/make-images`; the tag in it is `latest`. `None` (and a
/// counted skip) where the tools or the package mirror can't be had.
pub fn fixture(name: &str) -> Option<PathBuf> {
    if needs::root().is_missing()
        || needs::programs(&["mmdebstrap", "buildah", "skopeo", "busybox"]).is_missing()
    {
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/make-images");
    let done = Done::of(Command::new(script).arg(name));
    if done.code == Some(0) {
        return Some(done.stdout.trim().into());
    }
    let _ = needs::missing(&format!("the image {name}, which bench/make-images can't make: {}", done.stderr));
    None
}
