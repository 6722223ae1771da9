//! What a supervisor does all day: waits for its program, carries its output to the log and to those
//! who are attached, and sees to what comes after.
//!
//! ```text
//!   Starting ─► Running ─► Ending ─┬─► Over
//!      ▲          (worker: clear   └─► Pausing (the policy's pause; a wish to stop ends it)
//!      └────────────── up) ────────────────┘
//! ```
//!
//! One thread, one poll, no wait in between but for the disk. Memory is bounded: a chunk of output and
//! what a client did not take yet, which holds the next chunk back.

mod phases;
mod streams;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use onggi_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;

use super::Attachment;
use super::client::Client;
use super::health::{Plan, Verdict};
use super::listener::Listener;
use super::wire::{HELLO, Wire};
use super::worker::Worker;
use crate::Engine;
use crate::containers::mark::Mark;
use crate::containers::record::Record;
use crate::containers::signals;
use crate::error::{Error, Result};
use crate::logs::{Facts as LogFacts, LogWriter};
use crate::run::OnUnhealthy;
use streams::Input;

/// How long those who are attached may take for the last words.
const FAREWELL: Duration = Duration::from_secs(30);
/// `SIGUSR1`: look whether somebody wants something.
pub(crate) const LOOK: i32 = 10;
/// `SIGCHLD`
const CHILD: i32 = 17;
/// What would end a supervisor: it notes them, and goes on.
const CAUGHT: &[i32] = &[1, 2, 3, LOOK, 12, 13, 14, signals::TERM, CHILD];

/// What does not change while a supervisor lives.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) terminal: bool,
    pub(super) interactive: bool,
    /// Whether the program's input closes when that of an attached client does.
    pub(super) input_once: bool,
    pub(super) health: Option<Plan>,
    pub(super) on_unhealthy: OnUnhealthy,
    pub(super) stop_signal: i32,
    /// Seconds; negative for no end.
    pub(super) stop_timeout: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    /// The program has ended so; a worker clears up.
    Ending {
        code: u8,
    },
    Pausing {
        until: Instant,
    },
    Over,
}

/// A program that runs, and what goes with it.
#[derive(Debug)]
struct Program {
    pid: Pid,
    pidfd: OwnedFd,
    /// Standard output and error, or the terminal alone.
    output: [Option<OwnedFd>; 2],
    /// Held until it ends.
    _held: Vec<OwnedFd>,
    since: Instant,
}

/// A supervisor at work.
#[derive(Debug)]
pub(super) struct Supervisor<'a> {
    engine: &'a Engine,
    mark: &'a Mark,
    id: &'a str,
    facts: Facts,
    log: LogWriter,
    listener: Listener,
    signals: OwnedFd,
    clients: Vec<Client>,
    phase: Phase,
    program: Option<Program>,
    input: Input,
    worker: Option<Worker>,
    /// Pipes of the program that is being started.
    pipes: Option<[OwnedFd; 2]>,
    pause: Duration,
    /// When to look at its health, to kill what did not stop.
    probe_at: Option<Instant>,
    kill_at: Option<Instant>,
    health: Verdict,
    /// The host is going down: nothing is started again.
    leaving: bool,
    buffer: Vec<u8>,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        mark: &'a Mark,
        id: &'a str,
        facts: Facts,
        log: LogWriter,
        caller: Wire,
        attachment: Attachment,
    ) -> Result<Self> {
        let failed = |source| Error::Process { op: "watch for signals", source };
        let set = SignalSet::of(CAUGHT);
        signal::block(&set).map_err(failed)?;
        let signals = signal::descriptor(&set).map_err(failed)?;
        Ok(Self {
            engine,
            mark,
            id,
            facts,
            log,
            listener: Listener::open(&engine.settings().runroot, id)?,
            signals,
            clients: vec![Client::known(caller, attachment.input, attachment.output)],
            phase: Phase::Starting,
            program: None,
            input: Input::default(),
            worker: None,
            pipes: None,
            pause: Duration::ZERO,
            probe_at: None,
            kill_at: None,
            health: Verdict::default(),
            leaving: false,
            buffer: Vec::new(),
        })
    }

    /// To the end.
    pub(super) fn run(mut self) -> Result<()> {
        self.begin(false)?;
        let mut farewell = None;
        loop {
            if self.phase == Phase::Over {
                let until = *farewell.get_or_insert_with(|| Instant::now() + FAREWELL);
                if Instant::now() >= until || !self.clients.iter().any(Client::is_behind) {
                    return Ok(());
                }
            }
            self.turn(farewell)?;
            self.clients.retain(|client| !client.gone);
        }
    }

    /// Waits for anything, and deals with all that is there.
    fn turn(&mut self, farewell: Option<Instant>) -> Result<()> {
        let ready = self.wait(farewell)?;
        if ready.worker {
            self.worker_is_done()?;
        }
        if ready.signals {
            self.take_signals()?;
        }
        for (at, readable, writable) in ready.clients {
            if writable && let Some(client) = self.clients.get_mut(at) {
                client.flush();
            }
            if readable {
                self.hear(at);
            }
        }
        if ready.input {
            self.feed();
        }
        for at in 0..2 {
            if ready.output[at] {
                self.carry(at);
            }
        }
        if ready.listener
            && let Ok(Some(connection)) = self.listener.accept()
        {
            let mut client = Client::new(connection);
            client.tell(HELLO, &[self.flags()]);
            self.clients.push(client);
        }
        self.keep_time()
    }

    fn wait(&self, farewell: Option<Instant>) -> Result<Ready> {
        let behind = self.clients.iter().any(Client::is_behind);
        let full = !self.input.pending.is_empty();
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(
                &self.listener,
                if self.phase == Phase::Over { PollFlags::empty() } else { PollFlags::IN },
            ),
        ];
        // Where each of the others is in the list.
        let (mut worker, mut input, mut output) = (None, None, [None, None]);
        let worker_fd = self.worker.as_ref().map(Worker::fd);
        if let Some(fd) = &worker_fd {
            worker = Some(fds.len());
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
        if let Some(fd) = self.input.fd.as_ref().filter(|_| full) {
            input = Some(fds.len());
            fds.push(PollFd::new(fd, PollFlags::OUT));
        }
        if let Some(program) = self.program.as_ref().filter(|_| !behind) {
            for (slot, fd) in output.iter_mut().zip(&program.output) {
                if let Some(fd) = fd {
                    *slot = Some(fds.len());
                    fds.push(PollFd::new(fd, PollFlags::IN));
                }
            }
        }
        let first_client = fds.len();
        let client_fds: Vec<_> = self.clients.iter().map(Client::fd).collect();
        for (client, fd) in self.clients.iter().zip(&client_fds) {
            let mut events = PollFlags::empty();
            if !full {
                events |= PollFlags::IN;
            }
            if client.is_behind() {
                events |= PollFlags::OUT;
            }
            fds.push(PollFd::new(fd, events));
        }
        let pausing = match self.phase {
            Phase::Pausing { until } => Some(until),
            _ => None,
        };
        let probe = self.probe_at.filter(|_| self.worker.is_none());
        let first = [pausing, probe, self.kill_at, farewell].into_iter().flatten().min();
        let timeout = first.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 })
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::Process { op: "wait for the container", source: errno.into() });
            }
        }
        let is = |at: Option<usize>| at.and_then(|at| fds.get(at)).is_some_and(|fd| !fd.revents().is_empty());
        let clients = (0..self.clients.len()).map(|at| {
            let events = fds.get(first_client + at).map_or(PollFlags::empty(), PollFd::revents);
            let readable = events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
            (at, readable, events.contains(PollFlags::OUT))
        });
        Ok(Ready {
            signals: is(Some(0)),
            listener: is(Some(1)),
            worker: is(worker),
            input: is(input),
            output: output.map(is),
            clients: clients.filter(|(_, readable, writable)| *readable || *writable).collect(),
        })
    }
}

/// What there is to deal with.
struct Ready {
    signals: bool,
    listener: bool,
    worker: bool,
    input: bool,
    output: [bool; 2],
    /// Which, whether it said something, whether it has room.
    clients: Vec<(usize, bool, bool)>,
}

/// The log that a container's output goes to.
pub(super) fn open_log(engine: &Engine, record: &Record) -> Result<LogWriter> {
    let (labels, image_id) = (record.labels(), record.image.id.to_string());
    let env = [&record.image.config.env[..], &record.request.env[..]].concat();
    let options = record.request.log.resolve(&LogFacts {
        id: &record.id,
        name: &record.name,
        image_id: &image_id,
        image: &record.image.reference,
        labels: &labels,
        env: &env,
    })?;
    LogWriter::open(&engine.container_dir(&record.id), &record.id, &options)
}
