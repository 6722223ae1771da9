//! A process that does one step: a fork of the solver, which has one thread, so that the step may
//! clone containers itself.
//!
//! ```text
//!   worker ──log──────► what its program says, as it comes
//!          ──answer───► {"Ok":…} or {"Err":{"message":…}}, once, at the end
//! ```
//!
//! It dies with the solver.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use onggi_oci::ErrorKind;
use onggi_sys::clone::SingleThreaded;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::VertexId;

/// How often it is looked again whether a thread that ended is really gone.
const THREAD_LOOKS: u32 = 200;

/// A step under way.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) vertex: VertexId,
    /// Where it works.
    pub(super) dir: PathBuf,
    pid: Pid,
    log: Option<OwnedFd>,
    answer: Option<OwnedFd>,
    said: Vec<u8>,
}

/// What went wrong in the worker.
#[derive(Serialize, Deserialize)]
enum Answer<T> {
    Ok(T),
    Exit { command: String, code: i32 },
    Err { message: String, kind: Kind },
}

/// [`ErrorKind`] on its way through a pipe.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kind {
    NotFound,
    Conflict,
    Denied,
    Unsupported,
    Corrupt,
    Remote,
    Io,
    Invalid,
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::Remote => Self::Remote,
            ErrorKind::Invalid => Self::Invalid,
            _ => Self::Io,
        }
    }
}

impl From<Kind> for ErrorKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::NotFound => Self::NotFound,
            Kind::Conflict => Self::Conflict,
            Kind::Denied => Self::Denied,
            Kind::Unsupported => Self::Unsupported,
            Kind::Corrupt => Self::Corrupt,
            Kind::Remote => Self::Remote,
            Kind::Io => Self::Io,
            Kind::Invalid => Self::Invalid,
        }
    }
}

/// One thread: one that has ended may still be seen for a moment.
fn single_threaded() -> std::io::Result<SingleThreaded> {
    let mut looks = 0;
    loop {
        match SingleThreaded::check() {
            Err(error)
                if error.raw_os_error() == Some(Errno::DEADLK.raw_os_error()) && looks < THREAD_LOOKS =>
            {
                looks += 1;
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            other => return other,
        }
    }
}

impl Worker {
    /// Starts a process that does `work`.
    pub(super) fn start<T: Serialize>(
        vertex: VertexId,
        dir: PathBuf,
        shown: &Path,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T>,
    ) -> Result<Self> {
        let failed = || Error::io::<std::io::Error>("start a process for a step of", shown);
        let (log, log_in) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed()(error.into()))?;
        let (answer, answer_in) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed()(error.into()))?;
        let single = single_threaded().map_err(failed())?;
        let parent = rustix::process::getpid();
        let pid = single.fork(|| {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            if rustix::process::getppid() != Some(parent) {
                return 1;
            }
            // Directories and files get the modes that are asked for.
            rustix::process::umask(rustix::fs::Mode::empty());
            let answer = match work(log_in.as_fd()) {
                Ok(made) => Answer::Ok(made),
                Err(Error::Exit { command, code }) => Answer::Exit { command, code },
                Err(error) => Answer::Err { message: error.to_string(), kind: error.kind().into() },
            };
            let bytes = serde_json::to_vec(&answer).unwrap_or_default();
            i32::from(File::from(answer_in).write_all(&bytes).is_err())
        });
        let pid = pid.map_err(failed())?;
        Ok(Self { vertex, dir, pid, log: Some(log), answer: Some(answer), said: Vec::new() })
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.log.iter().chain(&self.answer).map(AsFd::as_fd)
    }

    /// Reads what there is, by which of the descriptors are ready; gives what the step says.
    pub(super) fn read(&mut self, ready: &mut impl Iterator<Item = bool>) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        if let Some(log) = &self.log
            && ready.next() == Some(true)
            && !read_some(log, &mut output)?
        {
            self.log = None;
        }
        if let Some(answer) = &self.answer
            && ready.next() == Some(true)
            && !read_some(answer, &mut self.said)?
        {
            self.answer = None;
        }
        Ok(output)
    }

    /// Whether it has said everything.
    pub(super) fn has_ended(&self) -> bool {
        self.log.is_none() && self.answer.is_none()
    }

    /// Ends it, and the container that it has.
    pub(super) fn kill(&self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }

    /// Waits for its end, whatever it says.
    pub(super) fn collect_quietly(self) {
        while matches!(waitpid(Some(self.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    }

    /// Its answer. The process may still be leaving: who asks has to [wait](Self::collect_quietly) for it some
    /// time.
    pub(super) fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        if let Some(answer) = self.answer.take() {
            let _ = File::from(answer).read_to_end(&mut self.said);
        }
        match serde_json::from_slice(&self.said) {
            Ok(Answer::Ok(made)) => Ok(made),
            Ok(Answer::Exit { command, code }) => Err(Error::Exit { command, code }),
            Ok(Answer::Err { message, kind }) => Err(Error::Worker { message, kind: kind.into() }),
            Err(_) => Err(Error::Worker {
                message: "the process of this step ended without an answer: it was killed, perhaps for want of memory"
                    .into(),
                kind: ErrorKind::Io,
            }),
        }
    }

    /// Whether the process is gone, and waited for.
    pub(super) fn is_gone(&self) -> bool {
        !matches!(waitpid(Some(self.pid), WaitOptions::NOHANG), Ok(None) | Err(Errno::INTR))
    }

    /// Waits for its end, and gives its answer.
    pub(super) fn collect<T: DeserializeOwned>(mut self) -> Result<T> {
        let answer = self.answer();
        self.collect_quietly();
        answer
    }
}

/// Reads once; `false` at the end.
fn read_some(fd: &OwnedFd, into: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 16 << 10];
    match rustix::io::read(fd, &mut buffer) {
        Ok(0) => Ok(false),
        Ok(count) => {
            into.extend_from_slice(&buffer[..count]);
            Ok(true)
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        Err(error) => Err(Error::io("read from", "the process of a step")(error)),
    }
}
