//! Attached to a container under a supervisor, from the side of whoever is.
//!
//! ```text
//!   caller's terminal or pipes ◄─── O E ─── supervisor ◄── program
//!                              ──── I C W K ──►
//! ```
//!
//! Neither direction waits for the other: a program that writes before it reads, and a caller whose
//! output is slow, don't stop each other for ever.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use onggi_runtime::RawTerminal;
use onggi_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::tcgetwinsize;

use super::details::ContainerDetails;
use super::keys::{DetachKeys, Typed};
use super::record::Record;
use super::supervisor::wire::{
    ATTACH, CLOSE, DETACH, ERROR, EXITED, FAILED, HAS_TERMINAL, HELLO, INPUT, KILL, MAX_BODY, OUTPUT, RESIZE,
    WANTS_INPUT, WANTS_OUTPUT, Wire,
};
use super::supervisor::{not_started, reach};
use crate::Engine;
use crate::error::{Error, Result};
use crate::run::Streams;

/// `SIGWINCH`
const WINDOW: i32 = 28;
/// What is forwarded: all that a program can catch, but what tells of the caller itself.
const FORWARDED: &[i32] = &[1, 2, 3, 10, 12, 14, 15, 18, WINDOW, 29, 30];

/// What to attach, and how.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// Which of the caller's streams.
    pub streams: Streams,
    /// Whether signals that reach the caller go on to the program.
    pub forward_signals: bool,
    /// What ends the attachment when it is typed.
    pub detach_keys: DetachKeys,
}

/// How an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// With the program, which had this exit status.
    Ended(u8),
    /// The caller typed the detach keys.
    Detached,
}

impl Engine {
    /// Attaches the caller to a container that runs.
    pub fn attach(&self, text: &str, request: &AttachRequest) -> Result<Attached> {
        let details = self.container(text)?;
        if !details.status.has_program() {
            return Err(Error::NotRunning { id: details.record.id });
        }
        if details.status == super::Status::Paused {
            return Err(Error::IsPaused { name: text.into() });
        }
        let failed = |source| Error::Process { op: "reach the container's supervisor", source };
        let Some(wire) = self.supervisor_of(&details)? else {
            return Err(Error::NotRunning { id: details.record.id });
        };
        let mut flags = 0;
        if request.streams.input {
            flags |= WANTS_INPUT;
        }
        if request.streams.output || request.streams.error {
            flags |= WANTS_OUTPUT;
        }
        wire.send(ATTACH, &[flags], &[]).map_err(failed)?;
        self.note_container(&details.record, &["attach"], &[]);
        self.stay_attached(&wire, &details.record, request)
    }

    /// Stays attached to a container's end, or until the detach keys are typed.
    pub(crate) fn stay_attached(
        &self,
        wire: &Wire,
        record: &Record,
        request: &AttachRequest,
    ) -> Result<Attached> {
        let attached = stay(wire, record.has_terminal(), request)?;
        if attached == Attached::Detached {
            self.note_container(record, &["detach"], &[]);
        }
        Ok(attached)
    }

    /// The supervisor of a container; `None` of one that has neither program nor supervisor.
    ///
    /// # Errors
    /// [`Error::InForeground`] and [`Error::Unattended`] of one that runs without.
    pub(crate) fn supervisor_of(&self, details: &ContainerDetails) -> Result<Option<Wire>> {
        let id = &details.record.id;
        let failed = |source| Error::Process { op: "reach the container's supervisor", source };
        let wire = reach(&self.settings().runroot, id).map_err(failed)?;
        if wire.is_some() {
            return Ok(wire);
        }
        // It may have ended just now.
        let seen = self.look(id);
        if seen.program.is_some() {
            return Err(if seen.attended {
                Error::InForeground { id: id.clone() }
            } else {
                Error::Unattended { id: id.clone() }
            });
        }
        Ok(None)
    }

    /// Waits for the end of a container's program; its exit status.
    pub fn wait_container(&self, text: &str) -> Result<u8> {
        let details = self.container(text)?;
        let id = &details.record.id;
        let runs =
            details.status.has_program() || (details.attended && details.status == super::Status::Created);
        if !runs {
            return Ok(details.state.exit_code.unwrap_or_default());
        }
        let failed = |source| Error::Process { op: "reach the container's supervisor", source };
        if let Some(wire) = reach(&self.settings().runroot, id).map_err(failed)? {
            let mut buffer = Vec::new();
            while let Some(message) = wire.receive(&mut buffer).map_err(failed)? {
                if let (EXITED, [code, ..]) = (message.kind, message.body) {
                    return Ok(*code);
                }
            }
        } else if let Some(waiting) = super::mark::Waiting::begin(&self.settings().runroot, id)
            && let Some(code) = waiting.end()
        {
            return Ok(code);
        }
        // Nobody told: its caretaker was killed, or it ended just now.
        self.wait_for_death(id)?;
        match self.container(id) {
            Ok(details) => Ok(details.state.exit_code.unwrap_or(super::state::UNSEEN)),
            Err(Error::NoContainer { .. }) => Ok(super::state::UNSEEN),
            Err(error) => Err(error),
        }
    }
}

/// What goes to the supervisor and did not fit yet. That the supervisor has gone is told by what comes
/// from it, so a failure to send is none here.
#[derive(Default)]
struct Outbox(VecDeque<(u8, Vec<u8>)>);

impl Outbox {
    fn is_full(&self) -> bool {
        !self.0.is_empty()
    }

    fn send(&mut self, wire: &Wire, kind: u8, body: &[u8]) {
        if self.is_full() || !wire.try_send(kind, body).unwrap_or(true) {
            self.0.push_back((kind, body.to_vec()));
        }
    }

    fn flush(&mut self, wire: &Wire) {
        while let Some((kind, body)) = self.0.front() {
            if !wire.try_send(*kind, body).unwrap_or(true) {
                return;
            }
            self.0.pop_front();
        }
    }
}

/// Is attached until the program ends or the caller leaves.
pub(crate) fn stay(wire: &Wire, terminal: bool, request: &AttachRequest) -> Result<Attached> {
    let step = |op: &'static str| move |source| Error::Process { op, source };
    let forwarded = if request.forward_signals { FORWARDED } else { &[WINDOW] };
    let set = SignalSet::of(forwarded);
    let mask = signal::block(&set).map_err(step("wait for signals"))?;
    let signals = signal::descriptor(&set).map_err(step("wait for signals"))?;
    let raw = (terminal && request.streams.input).then(RawTerminal::enter);
    let raw = raw.transpose().map_err(step("change the terminal's mode"))?;
    let outcome = Attachment { wire, terminal, request, outbox: Outbox::default() }.run(&signals);
    drop(raw);
    signal::set_mask(&mask).map_err(step("wait for signals"))?;
    outcome
}

struct Attachment<'a> {
    wire: &'a Wire,
    terminal: bool,
    request: &'a AttachRequest,
    outbox: Outbox,
}

impl Attachment<'_> {
    fn run(mut self, signals: &std::os::fd::OwnedFd) -> Result<Attached> {
        let failed = |source| Error::Process { op: "stay attached to the container", source };
        self.send_size();
        let mut input = self.request.streams.input;
        let mut keys = self.request.detach_keys.clone();
        let (mut buffer, mut bytes) = (Vec::new(), vec![0; MAX_BODY]);
        loop {
            let own_input = stdin();
            let wire_fd = self.wire.as_fd();
            let mut events = PollFlags::IN;
            if self.outbox.is_full() {
                events |= PollFlags::OUT;
            }
            let mut fds = vec![PollFd::new(&wire_fd, events), PollFd::new(signals, PollFlags::IN)];
            if input && !self.outbox.is_full() {
                fds.push(PollFd::new(&own_input, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other.map_err(|errno| failed(errno.into()))?,
            };
            let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            if ready[1].contains(PollFlags::IN) {
                self.forward(signals);
            }
            if ready.get(2).is_some_and(|events| !events.is_empty()) {
                match rustix::io::read(own_input, &mut bytes) {
                    Ok(count) if count > 0 => {
                        let typed = bytes.get(..count).unwrap_or_default();
                        let (kept, left) =
                            if self.terminal { keys.feed(typed) } else { (typed.to_vec(), Typed::On) };
                        if !kept.is_empty() {
                            self.outbox.send(self.wire, INPUT, &kept);
                        }
                        if left == Typed::Detach {
                            let _ = self.wire.send(DETACH, &[], &[]);
                            return Ok(Attached::Detached);
                        }
                    }
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    // The end, or a terminal that went away.
                    _ => {
                        input = false;
                        self.outbox.send(self.wire, CLOSE, &[]);
                    }
                }
            }
            if self.outbox.is_full() && ready[0].contains(PollFlags::OUT) {
                self.outbox.flush(self.wire);
            }
            if ready[0].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                let Some(message) = self.wire.receive(&mut buffer).map_err(failed)? else {
                    return Err(Error::SupervisorGone);
                };
                let (kind, body) = (message.kind, message.body);
                match kind {
                    OUTPUT if self.request.streams.output => write_all(stdout(), body).map_err(failed)?,
                    ERROR if self.request.streams.error => write_all(stderr(), body).map_err(failed)?,
                    EXITED => return Ok(Attached::Ended(body.first().copied().unwrap_or_default())),
                    FAILED => return Err(not_started(body)),
                    HELLO => self.terminal = body.first().is_some_and(|flags| flags & HAS_TERMINAL != 0),
                    _ => {}
                }
            }
        }
    }

    fn forward(&mut self, signals: &std::os::fd::OwnedFd) {
        while let Ok(Some(number)) = signal::next(signals.as_fd()) {
            if number == WINDOW {
                self.send_size();
            } else if let Ok(number) = u8::try_from(number) {
                self.outbox.send(self.wire, KILL, &[number]);
            }
        }
    }

    fn send_size(&self) {
        if !self.terminal {
            return;
        }
        if let Ok(size) = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())) {
            let body = [size.ws_row.to_ne_bytes(), size.ws_col.to_ne_bytes()].concat();
            let _ = self.wire.try_send(RESIZE, &body);
        }
    }
}

fn write_all(to: std::os::fd::BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)?;
            }
            // Nobody reads what we write; the program still has to be waited for.
            Err(Errno::PIPE) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
