//! Hooks of a bundle (runtime-spec, "POSIX-platform Hooks").

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_spec::runtime::{Hook, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where in a container's life a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookStage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl HookStage {
    fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// A container's status (runtime-spec, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; the program hasn't started.
    Created,
    /// The program runs.
    Running,
    /// The program is frozen.
    Paused,
    /// The program has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// What hooks read on their standard input, and `state` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the runtime specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Its status.
    pub status: Status,
    /// Its first process on the host; 0 when it has ended.
    pub pid: i32,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Annotations of the bundle.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// As much of what a hook that failed wrote is told as makes a few sentences.
const MAX_WORDS: usize = 2048;

/// The hooks of a bundle and the state that they are told.
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    hooks: oci_spec::runtime::Hooks,
    state: State,
}

impl Hooks {
    /// `None` if the bundle has no hook at all.
    pub(crate) fn of(id: &str, bundle: &Path, spec: &Spec) -> Option<Self> {
        let hooks = spec.hooks().clone()?;
        let annotations = spec.annotations().iter().flatten();
        let state = State {
            oci_version: spec.version().clone(),
            id: id.to_owned(),
            status: Status::Creating,
            pid: 0,
            bundle: bundle.to_owned(),
            annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
        };
        Some(Self { hooks, state })
    }

    /// Runs those of one stage, in order; the first that fails ends it.
    pub(crate) fn run(&self, stage: HookStage, pid: i32, status: Status) -> Result<()> {
        self.run_with(stage, pid, status, &[])
    }

    /// The same; a hook that names no environment has this one.
    pub(crate) fn run_with(
        &self,
        stage: HookStage,
        pid: i32,
        status: Status,
        environment: &[CString],
    ) -> Result<()> {
        let list = match stage {
            HookStage::Prestart => self.hooks.prestart(),
            HookStage::CreateRuntime => self.hooks.create_runtime(),
            HookStage::CreateContainer => self.hooks.create_container(),
            HookStage::StartContainer => self.hooks.start_container(),
            HookStage::Poststart => self.hooks.poststart(),
            HookStage::Poststop => self.hooks.poststop(),
        };
        let state = State { status, pid, ..self.state.clone() };
        for (index, hook) in list.iter().flatten().enumerate() {
            run_one(hook, &state, environment).map_err(|why| Error::Hook {
                stage: stage.name(),
                index,
                path: hook.path().clone(),
                why,
            })?;
        }
        Ok(())
    }
}

fn run_one(hook: &Hook, state: &State, environment: &[CString]) -> std::result::Result<(), String> {
    if !hook.path().is_absolute() {
        return Err("its path is not absolute".into());
    }
    let mut command = Command::new(hook.path());
    if let Some((name, arguments)) = hook.args().as_ref().and_then(|list| list.split_first()) {
        command.arg0(name).args(arguments);
    }
    command.env_clear();
    match hook.env() {
        Some(own) => {
            for variable in own {
                let (name, value) = variable.split_once('=').ok_or("a variable has no value")?;
                command.env(name, value);
            }
        }
        None => {
            for variable in environment.iter().map(|variable| variable.to_bytes()) {
                let mut parts = variable.splitn(2, |byte| *byte == b'=').map(OsStr::from_bytes);
                if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    command.env(name, value);
                }
            }
        }
    }
    let said = |error: std::io::Error| error.to_string();
    // A file and no pipe: what a hook leaves running may keep it.
    let words = rustix::fs::memfd_create("hook", MemfdFlags::CLOEXEC).map_err(|error| said(error.into()))?;
    let into = || words.try_clone().map(Stdio::from).map_err(said);
    command.stdin(Stdio::piped()).stdout(into()?).stderr(into()?);
    let mut child = command.spawn().map_err(said)?;
    if let Some(mut input) = child.stdin.take() {
        let text = serde_json::to_vec(state).map_err(|error| error.to_string())?;
        // One that doesn't read its input is no failure.
        let _ = input.write_all(&text);
    }
    if let Some(seconds) = hook.timeout() {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("it has no process id")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| said(error.into()))?;
        let limit = rustix::time::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let pidfd = pidfd.as_fd();
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        if ended.map_err(|error| said(error.into()))? == 0 {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it ran longer than its time-out of {seconds} s"));
        }
    }
    let status = child.wait().map_err(said)?;
    if status.success() {
        return Ok(());
    }
    let mut text = vec![0; MAX_WORDS];
    let length = rustix::io::pread(&words, &mut text, 0).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default()).trim().to_owned();
    Err(if text.is_empty() { status.to_string() } else { format!("{status}: {text}") })
}
