//! Short-lived children of a supervisor: each does one thing, says how it went, and ends.
//!
//! ```text
//!   worker → supervisor    S pid +descriptors   the program runs: its terminal first if it has one, then what is held
//!                          F status text        it could not be started
//!                          N next code          the end of the program is dealt with: see `policy`
//!                          P verdict            how well it is
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use onggi_runtime::Stdio;
use onggi_runtime::cgroup::Cgroup;
use onggi_sys::clone::SingleThreaded;
use onggi_sys::process::close_range;
use rustix::process::Pid;

use super::health::{self, Plan, Verdict};
use super::policy::{self, Next};
use super::wire::{FAILED, STARTED, Wire};
use crate::Engine;
use crate::containers::mark::Mark;
use crate::containers::record::Record;
use crate::containers::start::{Keeper, Running, Start};
use crate::containers::state::{self, State};
use crate::containers::sweep::remove_files;
use crate::error::{Error, Result};
use crate::run::{groups, mounts};

const NEXT: u8 = b'N';
const PROBED: u8 = b'P';

/// What a worker is for.
#[derive(Debug)]
pub(super) enum Task {
    /// Start the program; whether its policy does.
    Start { again: bool, stdio: Option<[OwnedFd; 3]> },
    /// The program ended so.
    Finish { code: u8 },
    /// It could not be started.
    Fail { status: u8, message: String },
    /// The policy is called off.
    GiveUp,
    /// Look whether it is well.
    Probe { program: Pid, plan: Plan, late: bool },
}

/// What a worker said.
#[derive(Debug)]
pub(super) enum Outcome {
    Started {
        program: Pid,
        fds: Vec<OwnedFd>,
    },
    Failed {
        status: u8,
        message: String,
    },
    Next {
        next: Next,
    },
    Probed {
        verdict: Verdict,
    },
    /// It ended without a word.
    Nothing,
}

/// A worker at work.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) pid: Pid,
    /// Whether it only looks.
    pub(super) probing: bool,
    wire: Wire,
}

impl Worker {
    /// Starts one, which does not keep `closed` open.
    pub(super) fn start(
        engine: &Engine,
        mark: &Mark,
        id: &str,
        task: Task,
        closed: &[RawFd],
    ) -> Result<Self> {
        let failed = |source| Error::Process { op: "start a process of the container's supervisor", source };
        let probing = matches!(task, Task::Probe { .. });
        let (ours, theirs) = Wire::pair().map_err(failed)?;
        let single = SingleThreaded::check().map_err(failed)?;
        let pid = single
            .fork(move || {
                for fd in closed {
                    let _ = close_range(fd.unsigned_abs(), fd.unsigned_abs());
                }
                let told = Work { engine, mark, id }.perform(task, &theirs);
                i32::from(told.is_err())
            })
            .map_err(failed)?;
        Ok(Self { pid, probing, wire: ours })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }

    /// What it said, waiting for that.
    pub(super) fn outcome(&self, buffer: &mut Vec<u8>) -> Outcome {
        let Ok(Some(message)) = self.wire.receive(buffer) else { return Outcome::Nothing };
        match (message.kind, message.body) {
            (STARTED, body) => {
                let pid = <[u8; 4]>::try_from(body).ok().map(i32::from_ne_bytes).and_then(Pid::from_raw);
                pid.map_or(Outcome::Nothing, |program| Outcome::Started { program, fds: message.fds })
            }
            (FAILED, [status, text @ ..]) => {
                Outcome::Failed { status: *status, message: String::from_utf8_lossy(text).into_owned() }
            }
            (NEXT, [next, ..]) => Outcome::Next {
                next: match next {
                    b'p' => Next::Pause,
                    b'n' => Next::AtOnce,
                    _ => Next::End,
                },
            },
            (PROBED, [verdict, ..]) => Outcome::Probed { verdict: Verdict::of_byte(*verdict) },
            _ => Outcome::Nothing,
        }
    }
}

/// In a worker.
struct Work<'a> {
    engine: &'a Engine,
    mark: &'a Mark,
    id: &'a str,
}

impl Work<'_> {
    fn perform(&self, task: Task, wire: &Wire) -> std::io::Result<()> {
        let next = |next: Result<Next>| {
            let byte = match next {
                Ok(Next::Pause) => b'p',
                Ok(Next::AtOnce) => b'n',
                // What went wrong is in the state, as far as that could be written.
                Ok(Next::End) | Err(_) => b'e',
            };
            wire.send(NEXT, &[byte], &[])
        };
        match task {
            Task::Start { again, stdio } => match self.start(again, stdio) {
                Ok((program, fds)) => {
                    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                    wire.send(STARTED, &program.as_raw_nonzero().get().to_ne_bytes(), &fds)
                }
                Err(error) => {
                    let mut body = vec![error.exit_status().unwrap_or(125)];
                    body.extend(error.to_string().bytes().take(super::wire::MAX_BODY - 1));
                    wire.send(FAILED, &body, &[])
                }
            },
            Task::Finish { code } => next(self.finish(code)),
            Task::Fail { status, message } => next(self.fail(status, message)),
            Task::GiveUp => next(self.give_up()),
            Task::Probe { program, plan, late } => {
                let verdict = health::probe(self.engine, self.id, program, &plan, late);
                wire.send(PROBED, &[verdict.unwrap_or_default().byte()], &[])
            }
        }
    }

    fn record(&self) -> Result<Record> {
        Record::read(&self.engine.container_dir(self.id))?
            .ok_or_else(|| Error::NoContainer { name: self.id.into() })
    }

    fn start(&self, again: bool, stdio: Option<[OwnedFd; 3]>) -> Result<(Pid, Vec<OwnedFd>)> {
        let record = self.record()?;
        let dir = self.engine.container_dir(self.id);
        let layers = self.engine.layers_of(&record)?;
        let stdio = match stdio {
            Some(fds) => Stdio::Given(fds),
            None => Stdio::Terminal(record.request.terminal.unwrap_or_default()),
        };
        let start = Start { engine: self.engine, record: &record, dir: &dir, layers: &layers };
        let Running { mut process, ids, connection } = start.spawn(stdio, Keeper::Supervisor)?;
        self.mark.tell_for_parent(process.pid())?;
        let mut state = State::read(&dir)?;
        state.begin();
        state.restart_count = if again { state.restart_count + 1 } else { 0 };
        state.health = Plan::of(&record).map(|_| state::Health::default());
        let written = state.write(&dir);
        if written.is_err() {
            let _ = process.signal(9);
        }
        written?;
        self.engine.note_container(&record, &["start"], &[]);
        let mut fds: Vec<OwnedFd> = process.take_terminal().into_iter().collect();
        fds.extend(ids.into_locks());
        fds.extend(connection.into_locks());
        Ok((process.pid(), fds))
    }

    fn finish(&self, code: u8) -> Result<Next> {
        let dir = self.engine.container_dir(self.id);
        let record = self.record()?;
        let mut state = State::read(&dir)?;
        state.end(code);
        if let Ok(group) = Cgroup::open(&record.cgroup) {
            state.oom_killed = groups::was_out_of_memory(&group);
        }
        if state.oom_killed {
            self.engine.note_container(&record, &["oom"], &[]);
        }
        self.engine.note_container(&record, &["die"], &[("exitCode", &code.to_string())]);
        let next = policy::next(record.request.restart, state::wish(&dir), code, state.restart_count);
        self.clear_up(&record, state, next)
    }

    /// A start that failed is not tried again.
    fn fail(&self, status: u8, message: String) -> Result<Next> {
        let record = self.record()?;
        let mut state = State::read(&self.engine.container_dir(self.id))?;
        state.exit_code = Some(status);
        self.engine.note_container(&record, &["die"], &[("exitCode", &status.to_string())]);
        state.error = Some(message);
        self.clear_up(&record, state, Next::End)
    }

    fn give_up(&self) -> Result<Next> {
        let record = self.record()?;
        let state = State::read(&self.engine.container_dir(self.id))?;
        self.clear_up(&record, state, Next::End)
    }

    /// Leaves nothing but the record, its state and its files; nor those if they are not to stay.
    fn clear_up(&self, record: &Record, mut state: State, next: Next) -> Result<Next> {
        let dir = self.engine.container_dir(self.id);
        groups::sweep(&record.cgroup);
        let network = self.engine.release_network(record);
        let released = mounts::release(self.engine, &record.mounts).and(network);
        if next == Next::End && record.request.remove {
            let removed = remove_files(self.engine.store()?, &dir, &record.mounts);
            self.engine.names().release(&record.name, &record.id);
            self.engine.note_container(record, &["destroy"], &[]);
            return removed.map(|()| next);
        }
        state.restarting = next != Next::End;
        if let Err(error) = released {
            state.error = Some(error.to_string());
        }
        if next == Next::AtOnce {
            state::clear_wish(&dir);
        }
        state.write(&dir).map(|()| next)
    }
}
