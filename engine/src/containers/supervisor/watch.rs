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

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use onggi_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Attachment;
use super::client::{Client, Said};
use super::health::{Plan, Verdict};
use super::listener::{self, Listener};
use super::policy::{self, Next};
use super::wire::{
    CLOSE, DETACH, ERROR, EXITED, FAILED, HAS_INPUT, HAS_TERMINAL, HELLO, INPUT, KILL, MAX_BODY, OUTPUT,
    RESIZE, STARTED, Wire,
};
use super::worker::{Outcome, Task, Worker};
use crate::Engine;
use crate::containers::mark::Mark;
use crate::containers::record::Record;
use crate::containers::signals;
use crate::containers::state::{self, Wish};
use crate::error::{Error, Result};
use crate::logs::{Facts as LogFacts, LogWriter, Stream};
use crate::run::OnUnhealthy;

/// How long those who are attached may take for the last words.
const FAREWELL: Duration = Duration::from_secs(30);
/// `SIGUSR1`: look whether somebody wants something.
pub(crate) const LOOK: i32 = 10;
/// `SIGCHLD`
const CHILD: i32 = 17;
/// What would end a supervisor: it notes them, and goes on.
const CAUGHT: &[i32] = &[1, 2, 3, LOOK, 12, 13, 14, signals::TERM, CHILD];
/// End of transmission: what a user types at the end.
const END_OF_INPUT: u8 = 4;

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

/// What goes to a program.
#[derive(Debug, Default)]
struct Input {
    fd: Option<OwnedFd>,
    pending: Vec<u8>,
    /// Close it when that is written.
    closing: bool,
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

    /// Has the program started.
    fn begin(&mut self, again: bool) -> Result<()> {
        self.phase = Phase::Starting;
        self.pipes = None;
        self.input = Input::default();
        let stdio = if self.facts.terminal { None } else { Some(self.make_pipes()?) };
        self.work(Task::Start { again, stdio })
    }

    /// The program's ends of three pipes; the others are kept.
    fn make_pipes(&mut self) -> Result<[OwnedFd; 3]> {
        let failed = |errno: Errno| Error::Process { op: "make a pipe", source: errno.into() };
        let input = if self.facts.interactive {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
            never_wait(&write).map_err(failed)?;
            self.input.fd = Some(write);
            read
        } else {
            rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
                .map_err(failed)?
        };
        let (output, output_end) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let (error, error_end) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        self.pipes = Some([output, error]);
        Ok([input, output_end, error_end])
    }

    fn work(&mut self, task: Task) -> Result<()> {
        // A worker that runs for long would keep them open behind our back.
        let mut closed: Vec<RawFd> = self.clients.iter().map(|client| client.fd().as_raw_fd()).collect();
        closed.push(self.listener.as_fd().as_raw_fd());
        closed.extend(self.input.fd.as_ref().map(AsRawFd::as_raw_fd));
        self.worker = Some(Worker::start(self.engine, self.mark, self.id, task, &closed)?);
        Ok(())
    }

    fn worker_is_done(&mut self) -> Result<()> {
        let Some(worker) = self.worker.take() else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = worker.outcome(&mut buffer);
        self.buffer = buffer;
        // What it started becomes our own child when it has ended.
        let _ = rustix::process::waitpid(Some(worker.pid), WaitOptions::empty());
        match (outcome, self.phase) {
            (Outcome::Started { program, fds }, _) => self.started(program, fds)?,
            (Outcome::Failed { status, message }, _) => self.start_failed(status, message)?,
            (Outcome::Next { next }, Phase::Ending { code }) => self.next(next, code)?,
            (Outcome::Next { .. }, _) => self.over(None),
            (Outcome::Probed { verdict }, Phase::Running) => self.probed(verdict),
            (Outcome::Probed { .. }, _) => {}
            (Outcome::Nothing, Phase::Starting) => {
                self.start_failed(
                    125,
                    "a process that was to start the container ended unexpectedly".into(),
                )?;
            }
            (Outcome::Nothing, Phase::Ending { code }) if !worker.probing => self.over(Some(code)),
            (Outcome::Nothing, _) => {}
        }
        // A look at its health was in the way.
        if let Phase::Ending { code } = self.phase
            && self.worker.is_none()
        {
            self.work(Task::Finish { code })?;
        }
        // It may have ended as the worker's child.
        self.reap()?;
        if self.phase == Phase::Running {
            // From here on there is little to do.
            self.buffer = Vec::new();
            let _ = onggi_sys::memory::forget_unused_pages();
        }
        Ok(())
    }

    fn started(&mut self, pid: Pid, fds: Vec<OwnedFd>) -> Result<()> {
        let failed = |errno: Errno| Error::Process { op: "watch the container", source: errno.into() };
        let mut fds = fds.into_iter();
        let output = if self.facts.terminal {
            let terminal = fds.next();
            if let Some(terminal) = &terminal {
                never_wait(terminal).map_err(failed)?;
                self.input.fd = rustix::io::fcntl_dupfd_cloexec(terminal, 3).ok();
            }
            [terminal, None]
        } else {
            self.pipes.take().map_or([None, None], |[output, error]| [Some(output), Some(error)])
        };
        self.program = Some(Program {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?,
            output,
            _held: fds.collect(),
            since: Instant::now(),
        });
        self.mark.tell(pid)?;
        self.phase = Phase::Running;
        self.kill_at = None;
        self.health = Verdict::Starting;
        self.probe_at =
            self.facts.health.as_ref().map(|plan| Instant::now() + plan.pause(Duration::ZERO, self.health));
        self.tell_all(STARTED, &[]);
        // Somebody may have wished it to end before there was anything to end.
        if state::wish(&self.engine.container_dir(self.id)) == Some(Wish::Stop) {
            self.ask_to_end();
        }
        Ok(())
    }

    fn start_failed(&mut self, status: u8, message: String) -> Result<()> {
        let body = [&[status], message.as_bytes()].concat();
        self.tell_all(FAILED, body.get(..MAX_BODY).unwrap_or(&body));
        self.phase = Phase::Ending { code: status };
        self.work(Task::Fail { status, message })
    }

    /// Collects whoever has ended: the program, workers, orphans.
    fn reap(&mut self) -> Result<()> {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.program.as_ref().is_some_and(|program| program.pid == pid) {
                self.ended(code_of(status))?;
            }
        }
        Ok(())
    }

    fn ended(&mut self, code: u8) -> Result<()> {
        // What it wrote last is still in the pipes.
        for at in 0..2 {
            while self.carry_what_is_there(at) {}
        }
        let _ = self.log.end(Stream::Stdout);
        let _ = self.log.end(Stream::Stderr);
        if let Some(program) = self.program.take() {
            self.pause = policy::pause(self.pause, program.since.elapsed());
        }
        self.input = Input::default();
        self.probe_at = None;
        self.kill_at = None;
        self.phase = Phase::Ending { code };
        if self.worker.is_none() {
            self.work(Task::Finish { code })?;
        }
        Ok(())
    }

    /// What follows, now that nothing is left of the program.
    fn next(&mut self, next: Next, code: u8) -> Result<()> {
        match next {
            Next::End => self.over(Some(code)),
            _ if self.leaving => {
                self.phase = Phase::Pausing { until: Instant::now() };
                self.work(Task::GiveUp)?;
            }
            Next::AtOnce => {
                self.mark.tell_none()?;
                self.dismiss(code);
                self.pause = Duration::ZERO;
                self.begin(false)?;
            }
            Next::Pause => {
                self.mark.tell_none()?;
                self.dismiss(code);
                self.phase = Phase::Pausing { until: Instant::now() + self.pause };
                self.look_for_wishes()?;
            }
        }
        Ok(())
    }

    /// There is nothing more to do.
    fn over(&mut self, code: Option<u8>) {
        listener::close(&self.engine.settings().runroot, self.id);
        if let Some(code) = code {
            let _ = self.mark.tell_exit(code);
        }
        // Before anybody hears of it: what he does next finds nobody in the way.
        self.mark.end();
        self.mark.unlock();
        if let Some(code) = code {
            self.dismiss(code);
        }
        self.phase = Phase::Over;
    }

    /// Tells everybody that the program has ended. Whoever wants to hear of the next one comes again.
    fn dismiss(&mut self, code: u8) {
        self.tell_all(EXITED, &[code]);
        for client in &mut self.clients {
            client.output = false;
            client.input = false;
        }
    }

    fn tell_all(&mut self, kind: u8, body: &[u8]) {
        for client in &mut self.clients {
            client.tell(kind, body);
        }
    }

    fn take_signals(&mut self) -> Result<()> {
        while let Ok(Some(number)) = signal::next(self.signals.as_fd()) {
            match number {
                LOOK => self.look_for_wishes()?,
                signals::TERM => {
                    self.leaving = true;
                    match self.phase {
                        Phase::Running => self.ask_to_end(),
                        Phase::Pausing { .. } if self.worker.is_none() => self.work(Task::GiveUp)?,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        self.reap()
    }

    /// Somebody may have wished that it stops, or starts, while there is nothing that runs.
    fn look_for_wishes(&mut self) -> Result<()> {
        if !matches!(self.phase, Phase::Pausing { .. }) || self.worker.is_some() {
            return Ok(());
        }
        match state::wish(&self.engine.container_dir(self.id)) {
            Some(Wish::Stop) => self.work(Task::GiveUp),
            Some(Wish::Restart) => {
                state::clear_wish(&self.engine.container_dir(self.id));
                self.begin(false)
            }
            None => Ok(()),
        }
    }

    /// Asks the program to end, and kills it if it doesn't.
    fn ask_to_end(&mut self) {
        self.signal(self.facts.stop_signal);
        if let Ok(seconds) = u64::try_from(self.facts.stop_timeout) {
            self.kill_at = Some(Instant::now() + Duration::from_secs(seconds));
        }
    }

    fn signal(&self, number: i32) {
        if let Some(program) = &self.program {
            let _ = signal::send_pidfd(program.pidfd.as_fd(), number);
        }
    }

    fn keep_time(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = None;
            self.signal(signals::KILL);
        }
        if let Phase::Pausing { until } = self.phase
            && now >= until
            && self.worker.is_none()
        {
            return self.begin(true);
        }
        if self.probe_at.is_some_and(|at| now >= at)
            && self.worker.is_none()
            && let (Some(program), Some(plan)) = (&self.program, &self.facts.health)
        {
            let late = program.since.elapsed() >= plan.start_period;
            let task = Task::Probe { program: program.pid, plan: plan.clone(), late };
            self.probe_at = None;
            self.work(task)?;
        }
        Ok(())
    }

    fn probed(&mut self, verdict: Verdict) {
        self.health = verdict;
        if let (Some(program), Some(plan)) = (&self.program, &self.facts.health) {
            self.probe_at = Some(Instant::now() + plan.pause(program.since.elapsed(), verdict));
        }
        if verdict != Verdict::BecameUnhealthy {
            return;
        }
        let dir = self.engine.container_dir(self.id);
        let wished = match self.facts.on_unhealthy {
            OnUnhealthy::None => return,
            OnUnhealthy::Kill => {
                self.signal(signals::KILL);
                return;
            }
            OnUnhealthy::Restart => state::set_wish(&dir, Wish::Restart),
            OnUnhealthy::Stop => state::set_wish(&dir, Wish::Stop),
        };
        if wished.is_ok() {
            self.ask_to_end();
        }
    }

    fn flags(&self) -> u8 {
        let terminal = if self.facts.terminal { HAS_TERMINAL } else { 0 };
        terminal | if self.input.fd.is_some() { HAS_INPUT } else { 0 }
    }

    /// Reads once what the program wrote.
    fn carry(&mut self, at: usize) {
        let Some(program) = &mut self.program else { return };
        let Some(fd) = program.output.get(at).and_then(Option::as_ref) else { return };
        let mut bytes = [0; MAX_BODY];
        match rustix::io::read(fd, &mut bytes) {
            // EIO: nobody has the other side of the terminal any more.
            Ok(0) | Err(Errno::IO) => {
                if let Some(slot) = program.output.get_mut(at) {
                    *slot = None;
                }
            }
            Ok(count) => {
                let bytes = bytes.get(..count).unwrap_or_default();
                let (stream, kind) = if at == 0 { (Stream::Stdout, OUTPUT) } else { (Stream::Stderr, ERROR) };
                // The writer counts what it could not write, and says so in the log.
                let _ = self.log.write(stream, bytes);
                for client in self.clients.iter_mut().filter(|client| client.output) {
                    client.tell(kind, bytes);
                }
            }
            Err(_) => {}
        }
    }

    /// The same if there is anything; whether there was.
    fn carry_what_is_there(&mut self, at: usize) -> bool {
        let Some(fd) = self.program.as_ref().and_then(|program| program.output.get(at)?.as_ref()) else {
            return false;
        };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let there = poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::IN);
        if there {
            self.carry(at);
        }
        there
    }

    /// Takes one message of a client.
    fn hear(&mut self, at: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let said = self.clients.get_mut(at).map_or(Ok(Said::Gone), |client| client.hear(&mut buffer));
        match said {
            Ok(Said::Message(INPUT)) => {
                if self.input.fd.is_some() && !self.input.closing {
                    self.input.pending.extend_from_slice(&buffer);
                    self.feed();
                }
            }
            Ok(Said::Message(CLOSE)) => self.input_ends(at),
            Ok(Said::Message(RESIZE)) => self.resize(&buffer),
            Ok(Said::Message(KILL)) => {
                if let [number, ..] = buffer[..] {
                    self.signal(i32::from(number));
                }
            }
            Ok(Said::Message(DETACH)) => {
                if let Some(client) = self.clients.get_mut(at) {
                    client.input = false;
                    client.gone = true;
                }
            }
            Ok(Said::Message(_) | Said::Nothing) => {}
            Ok(Said::Gone) | Err(_) => {
                self.input_ends(at);
                if let Some(client) = self.clients.get_mut(at) {
                    client.gone = true;
                }
            }
        }
        self.buffer = buffer;
    }

    /// A client that fed the program has no more.
    fn input_ends(&mut self, at: usize) {
        let fed = self.clients.get_mut(at).is_some_and(|client| std::mem::take(&mut client.input));
        if fed && self.facts.input_once {
            if self.facts.terminal {
                self.input.pending.push(END_OF_INPUT);
            } else {
                self.input.closing = true;
            }
            self.feed();
        }
    }

    fn resize(&self, body: &[u8]) {
        let Some(terminal) = self.program.as_ref().and_then(|program| program.output[0].as_ref()) else {
            return;
        };
        if let [a, b, c, d] = *body
            && self.facts.terminal
        {
            let (rows, columns) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = tcsetwinsize(terminal, size);
        }
    }

    /// Gives the program what it takes of its input.
    fn feed(&mut self) {
        let input = &mut self.input;
        let Some(fd) = &input.fd else {
            input.pending.clear();
            return;
        };
        while !input.pending.is_empty() {
            match rustix::io::write(fd, &input.pending) {
                Ok(count) => drop(input.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads any more.
                Err(_) => {
                    *input = Input::default();
                    return;
                }
            }
        }
        if input.closing {
            *input = Input::default();
        }
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

fn never_wait(fd: &OwnedFd) -> rustix::io::Result<()> {
    fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)
}

/// As shells count.
fn code_of(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(i32::from(u8::MAX))).unwrap_or(u8::MAX)
}
