//! A running process: its exit status, and the caller's side of its terminal.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use onggi_sys::clone::Child;
use onggi_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this status, 0 to 255.
    Exited(i32),
    /// A signal of this number ended it.
    Killed(i32),
}

impl ExitStatus {
    /// As shells count: the status, or 128 + the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => 128 + signal,
        }
    }

    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What [`Process::wait_foreground`] does besides waiting.
#[derive(Clone, Debug)]
pub struct Foreground {
    /// What is typed at the caller's terminal goes to the container's. Without, the caller's
    /// terminal keeps its mode, so that ctrl-c is a signal.
    pub input: bool,
    /// Signals that reach this process go on to the container's.
    pub forward_signals: bool,
    /// Bytes that, typed at the terminal, end the attachment
    /// (Docker's default is ctrl-p ctrl-q); none for never.
    pub detach_keys: Vec<u8>,
}

impl Default for Foreground {
    fn default() -> Self {
        Self { input: true, forward_signals: true, detach_keys: Vec::new() }
    }
}

/// A process in a container, a child of the caller.
///
/// Dropping it leaves the process running.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pty: Option<OwnedFd>,
    notify: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    plain_lines: bool,
}

impl Process {
    pub(crate) fn new(
        child: Child,
        pty: Option<OwnedFd>,
        notify: Option<OwnedFd>,
        cgroup: Option<Cgroup>,
    ) -> Self {
        Self { child, pty, notify, cgroup, plain_lines: false }
    }

    /// Says that its terminal leaves line ends as they are, so that the caller's has to return the carriage.
    pub(crate) fn plain_lines(mut self, plain: bool) -> Self {
        self.plain_lines = plain;
        self
    }

    /// Its process id in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Its pidfd: readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// The caller's side of its terminal, if it has one. Taking it leaves
    /// [`wait_foreground`](Self::wait_foreground) with nothing to copy.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.pty.take()
    }

    /// The descriptor of seccomp notifications, if the filter has that action.
    pub fn take_notifications(&mut self) -> Option<OwnedFd> {
        self.notify.take()
    }

    /// The control groups that were given to [`Container`](crate::Container).
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// The control groups, for a caller who looks at them before he removes them.
    pub fn take_cgroup(&mut self) -> Option<Cgroup> {
        self.cgroup.take()
    }

    /// Sends it a signal; one that has ended takes it without an error.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn signal(&self, number: i32) -> Result<()> {
        match signal::send_pidfd(self.pidfd(), number) {
            Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
                Err(Error::io("signal", format!("process {}", self.pid().as_raw_nonzero()))(error))
            }
            _ => Ok(()),
        }
    }

    /// Waits for its end, and does nothing else. The control groups are removed.
    ///
    /// # Errors
    /// [`Error::Io`] if somebody else collected it.
    pub fn wait(mut self) -> Result<ExitStatus> {
        self.collect()
    }

    fn collect(&mut self) -> Result<ExitStatus> {
        let what = || format!("process {}", self.pid().as_raw_nonzero());
        let status = loop {
            match waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("wait for", what())(error)),
                Ok(None) => return Err(Error::NotFound { what: what() }),
                Ok(Some(status)) => break status,
            }
        };
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => ExitStatus::Exited(status),
            (None, Some(signal)) => ExitStatus::Killed(signal),
            (None, None) => ExitStatus::Exited(125),
        };
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove()?;
        }
        Ok(status)
    }

    /// Waits for its end as the foreground of the caller's terminal: copies
    /// between that and the container's terminal, follows the window's size,
    /// forwards signals.
    ///
    /// The caller's signal mask and terminal modes are as before when it returns.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn wait_foreground(mut self, options: &Foreground) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.attend(options)? {
                return Ok(status);
            }
        }
    }

    /// The same, until its end or until the detach keys are typed: `None` then, and the process is as before.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn attend(&mut self, options: &Foreground) -> Result<Option<ExitStatus>> {
        let step = |what: &'static str| Error::io("attach to", what);
        let forwarded = if options.forward_signals { FORWARDED } else { &[WINCH] };
        let set = SignalSet::of(forwarded);
        let mask = signal::block(&set).map_err(step("signals"))?;
        let signals = signal::descriptor(&set).map_err(step("signals"))?;
        let outcome = match self.pty.take() {
            None => self.watch(&signals).map(|()| true),
            Some(pty) => {
                let raw = options
                    .input
                    .then(|| RawTerminal::of(self.plain_lines))
                    .transpose()
                    .map_err(step("the terminal"))?;
                let outcome = self.attach(&pty, &signals, options);
                drop(raw);
                self.pty = Some(pty);
                outcome
            }
        };
        let status = match outcome.map_err(step("the container")) {
            Ok(true) => self.collect().map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        signal::set_mask(&mask).map_err(step("signals"))?;
        status
    }

    /// Until the end; nothing to copy.
    fn watch(&self, signals: &OwnedFd) -> io::Result<()> {
        loop {
            let mut fds =
                [PollFd::new(&self.child.pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if fds[1].revents().contains(PollFlags::IN) {
                self.forward(signals, None)?;
            }
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
        }
    }

    fn forward(&self, signals: &OwnedFd, pty: Option<&OwnedFd>) -> io::Result<()> {
        while let Some(number) = signal::next(signals.as_fd())? {
            if number == WINCH {
                if let (Some(pty), Ok(size)) = (pty, tcgetwinsize(rustix::stdio::stdin())) {
                    let _ = tcsetwinsize(pty, size);
                }
            } else {
                match signal::send_pidfd(self.pidfd(), number) {
                    Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Copies both ways until the end, or until the detach keys are typed: `false` then.
    fn attach(&self, pty: &OwnedFd, signals: &OwnedFd, options: &Foreground) -> io::Result<bool> {
        let mut input = options.input.then(Pending::default);
        let mut typed = 0;
        let mut output_open = true;
        let mut ended = false;
        loop {
            let waiting = input.as_ref().is_some_and(|pending| !pending.is_empty());
            let mut pty_events = PollFlags::IN;
            if waiting {
                pty_events |= PollFlags::OUT;
            }
            let stdin = rustix::stdio::stdin();
            let mut fds = vec![
                PollFd::new(&self.child.pidfd, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
                PollFd::new(pty, if output_open { pty_events } else { PollFlags::empty() }),
            ];
            if input.is_some() && !waiting && !ended {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            // Once it has ended only what the terminal still holds is read.
            let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut fds, ended.then_some(&now)) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            let ready = |index: usize| ready.get(index).copied().unwrap_or(PollFlags::empty());
            if ready(1).contains(PollFlags::IN) {
                self.forward(signals, Some(pty))?;
            }
            if waiting
                && ready(2).contains(PollFlags::OUT)
                && let Some(pending) = &mut input
            {
                pending.write(pty)?;
            }
            if ready(3).intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                let mut bytes = [0; 4096];
                match rustix::io::read(stdin, &mut bytes) {
                    Ok(0) => {
                        // The end of a pipe: what a user would type for it.
                        if let Some(pending) = &mut input {
                            pending.push(&[END_OF_TRANSMISSION]);
                            pending.write(pty)?;
                        }
                        input = None;
                    }
                    Ok(count) => {
                        let bytes = bytes.get(..count).unwrap_or_default();
                        if detached(bytes, &options.detach_keys, &mut typed) {
                            return Ok(false);
                        }
                        if let Some(pending) = &mut input {
                            pending.push(bytes);
                            pending.write(pty)?;
                        }
                    }
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(Errno::IO) => input = None,
                    Err(error) => return Err(error.into()),
                }
            }
            let mut copied = false;
            if output_open && ready(2).intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                let mut bytes = [0; 16 << 10];
                match rustix::io::read(pty, &mut bytes) {
                    // EIO: no process holds the other side any more.
                    Ok(0) | Err(Errno::IO) => output_open = false,
                    Ok(count) => {
                        copied = true;
                        write_all(rustix::stdio::stdout(), bytes.get(..count).unwrap_or_default())?;
                    }
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if ended && !copied {
                return Ok(true);
            }
            if !ready(0).is_empty() {
                ended = true;
            }
        }
    }
}

/// `SIGWINCH`
const WINCH: i32 = 28;

/// What `docker run` forwards: all that a program can catch, but not those that
/// tell of this process itself (SIGCHLD, faults, job control by the terminal).
const FORWARDED: &[i32] = &[1, 2, 3, 10, 12, 14, 15, 18, WINCH, 29, 30];

/// Ctrl-D
const END_OF_TRANSMISSION: u8 = 4;

/// Whether the detach keys were typed; `typed` remembers how many of them.
fn detached(bytes: &[u8], keys: &[u8], typed: &mut usize) -> bool {
    for byte in bytes {
        if keys.get(*typed) != Some(byte) {
            *typed = 0;
        }
        if keys.get(*typed) == Some(byte) {
            *typed += 1;
            if *typed == keys.len() {
                return true;
            }
        }
    }
    false
}

/// Input that the terminal did not take yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    written: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.written >= self.bytes.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn write(&mut self, pty: &OwnedFd) -> io::Result<()> {
        match rustix::io::write(pty, self.bytes.get(self.written..).unwrap_or_default()) {
            Ok(count) => self.written += count,
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Nobody reads any more; the end will come through the pidfd.
            Err(Errno::IO) => self.written = self.bytes.len(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The caller's terminal in raw mode, and back when dropped; nothing where there is no terminal.
#[derive(Debug)]
pub struct RawTerminal(Option<Termios>);

impl RawTerminal {
    /// Changes the mode of the terminal that is standard input.
    ///
    /// # Errors
    /// What `tcsetattr(3)` says.
    pub fn enter() -> io::Result<Self> {
        Self::of(false)
    }

    /// The same; `cooked_output` leaves it to this terminal to return the carriage at line ends.
    fn of(cooked_output: bool) -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = tcgetattr(stdin) else { return Ok(Self(None)) };
        let mut raw = before.clone();
        raw.make_raw();
        if cooked_output {
            raw.output_modes |= before.output_modes & (OutputModes::OPOST | OutputModes::ONLCR);
        }
        tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_in_one_or_two_reads() {
        let keys = [16, 17];
        let mut typed = 0;
        assert!(!detached(b"ab\x10", &keys, &mut typed));
        assert!(detached(b"\x11", &keys, &mut typed));
        assert!(detached(b"\x10\x10\x11", &keys, &mut 0));
        assert!(!detached(b"\x10x\x11", &keys, &mut 0));
        assert!(!detached(b"\x10\x11", &[], &mut 0));
    }
}
