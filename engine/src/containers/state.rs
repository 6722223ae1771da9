//! How a container is doing.
//!
//! ```text
//!   <root>/containers/<id>/state.json   what its caretaker saw last; missing before the first start
//!   <root>/containers/<id>/wish         somebody asked it to end (`stop`) or to start anew (`restart`)
//!   <runroot>/containers/<id>           who runs it now: see `mark`
//! ```
//!
//! The file is written by one process at a time: whoever holds the lock of the mark. What it says of
//! a running container is believed only as long as the mark and the kernel say so too: see [`Status`].

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::record::{read_json, write_json};
use crate::error::{Error, Result};

const FILE: &str = "state.json";
/// What a program that nobody saw ending is said to have ended with: Docker's number.
pub(super) const UNSEEN: u8 = 255;

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It was made and never started.
    Created,
    /// Its program runs.
    Running,
    /// Its program is frozen.
    Paused,
    /// Its program ended and is about to be started again.
    Restarting,
    /// It is being removed.
    Removing,
    /// Its program ended.
    Exited,
}

impl Status {
    /// Docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
        }
    }

    /// Whether it has a program, frozen or not.
    pub fn has_program(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// Whether a container is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// As many probes in a row failed as it takes.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One look at a container's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// When it began, RFC 3339.
    pub start: String,
    /// When it ended, RFC 3339.
    pub end: String,
    /// 0 for healthy; -1 for a probe that took too long or could not be started.
    pub exit_code: i32,
    /// The beginning of what it printed.
    pub output: String,
}

/// A container's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last probes, the oldest first.
    pub log: Vec<Probe>,
}

/// What a container's caretaker saw last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct State {
    /// When its program was started last, RFC 3339; `None` before the first time.
    pub started: Option<String>,
    /// When its program ended last, RFC 3339; `None` before that, or if nobody saw it.
    pub finished: Option<String>,
    /// How its program ended last; `None` while it runs and before.
    pub exit_code: Option<u8>,
    /// Why it could not be started, or what else went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether something in it was killed because its memory was used up.
    pub oom_killed: bool,
    /// How often its restart policy started it again.
    pub restart_count: u32,
    /// Whether its policy is about to start it again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restarting: bool,
    /// Its health, if that is looked after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

impl State {
    /// The state in a container's directory; the initial one if there is none.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        Ok(read_json(&dir.join(FILE))?.unwrap_or_default())
    }

    /// Writes it, at once for every reader.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        write_json(dir, FILE, self)
    }

    /// Whether it says that the program runs.
    pub(super) fn claims_to_run(&self) -> bool {
        self.started.is_some() && self.exit_code.is_none()
    }

    /// The program has started.
    pub(super) fn begin(&mut self) {
        self.started = Some(now());
        self.exit_code = None;
        self.finished = None;
        self.error = None;
        self.oom_killed = false;
        self.restarting = false;
        self.health = None;
    }

    /// The program has ended.
    pub(super) fn end(&mut self, code: u8) {
        self.finished = Some(now());
        self.exit_code = Some(code);
    }
}

/// The moment, as records write it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// What somebody wants of a container whose program runs, or is about to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To end, and stay so.
    Stop,
    /// To end, and start at once.
    Restart,
}

const WISH: &str = "wish";

/// Notes what somebody wants.
pub(crate) fn set_wish(dir: &Path, wish: Wish) -> Result<()> {
    let text = match wish {
        Wish::Stop => "stop",
        Wish::Restart => "restart",
    };
    let (path, beside) = (dir.join(WISH), dir.join(".wish"));
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &path));
    written.map_err(|source| Error::Write { path, source })
}

/// What somebody wants.
pub(crate) fn wish(dir: &Path) -> Option<Wish> {
    match std::fs::read_to_string(dir.join(WISH)).ok()?.as_str() {
        "stop" => Some(Wish::Stop),
        "restart" => Some(Wish::Restart),
        _ => None,
    }
}

/// Nobody wants anything any more.
pub(crate) fn clear_wish(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(WISH));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_from_start_to_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::read(dir.path()).unwrap();
        assert_eq!(state, State::default());
        assert!(!state.claims_to_run());
        state.begin();
        state.write(dir.path()).unwrap();
        assert!(State::read(dir.path()).unwrap().claims_to_run());
        state.end(3);
        state.write(dir.path()).unwrap();
        let read = State::read(dir.path()).unwrap();
        assert_eq!((read.exit_code, read.claims_to_run()), (Some(3), false));
        assert_eq!(wish(dir.path()), None);
        for one in [Wish::Stop, Wish::Restart] {
            set_wish(dir.path(), one).unwrap();
            assert_eq!(wish(dir.path()), Some(one));
        }
        clear_wish(dir.path());
        assert_eq!(wish(dir.path()), None);
    }
}
