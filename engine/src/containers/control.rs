//! What is done to a container that runs: asked to end, killed, frozen, started anew, waited for.
//!
//! None of this opens the store before it has to: an ordinary user has authority over his containers
//! only outside of the user namespace that he enters with it.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use onggi_runtime::cgroup::Cgroup;
use onggi_sys::signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::AsFd;

use super::details::ContainerDetails;
use super::record::Record;
use super::signals::{self, KILL};
use super::state::{Status, Wish, clear_wish, set_wish};
use super::supervisor::LOOK;
use crate::Engine;
use crate::error::{Error, Result};

/// How long a caretaker may take to clear up after its program, and a frozen group to freeze.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(3);

/// How a container is asked to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopRequest {
    /// Seconds until it is killed, in place of its own; negative for never.
    pub timeout: Option<i64>,
    /// The signal, in place of its own.
    pub signal: Option<String>,
}

impl Engine {
    /// Asks a container to end, kills it if it doesn't, and waits for that. One that does not run is
    /// left as it is, and is not started again.
    pub fn stop_container(&self, text: &str, request: &StopRequest) -> Result<()> {
        let details = self.container(text)?;
        let stop = Stop::new(&details.record, request)?;
        match details.status {
            Status::Created | Status::Exited | Status::Removing => return Ok(()),
            Status::Running | Status::Paused | Status::Restarting => {}
        }
        set_wish(&details.dir, Wish::Stop)?;
        self.end_program(&details, &stop)?;
        self.await_end(&details.record.id)?;
        self.note_container(&details.record, &["stop"], &[]);
        Ok(())
    }

    /// Sends a signal to a container's program.
    pub fn kill_container(&self, text: &str, signal: &str) -> Result<()> {
        let number = number_of("--signal", signal)?;
        let details = self.container(text)?;
        // One that ended for this is not started again.
        let ends = number == KILL || signals::number(details.record.stop_signal()) == Some(number);
        let Some(program) = details.pid.and_then(handle) else {
            if details.status == Status::Restarting && ends {
                set_wish(&details.dir, Wish::Stop)?;
                self.poke(&details.record.id);
                return self.await_end(&details.record.id);
            }
            return Err(Error::NotRunning { id: details.record.id });
        };
        if ends {
            set_wish(&details.dir, Wish::Stop)?;
        }
        self.note_container(&details.record, &["kill"], &[("signal", &number.to_string())]);
        send(&program, number)?;
        if details.status == Status::Paused && number == KILL {
            self.freeze(&details.record, false)?;
        }
        Ok(())
    }

    /// Ends a container's program and starts it again; one that does not run is started.
    pub fn restart_container(&self, text: &str, request: &StopRequest) -> Result<()> {
        let details = self.container(text)?;
        let (id, stop) = (&details.record.id, Stop::new(&details.record, request)?);
        if !details.status.has_program() && details.status != Status::Restarting {
            return self.start(text, None).map(drop);
        }
        if !details.attended {
            // Its supervisor was killed: it gets a new one.
            self.stop_container(text, request)?;
            return self.start(text, None).map(drop);
        }
        self.supervisor_of(&details)?;
        set_wish(&details.dir, Wish::Restart)?;
        self.end_program(&details, &stop)?;
        let start = Instant::now();
        loop {
            let seen = self.look(id);
            if seen.program.is_some() && seen.program != details.pid {
                self.note_container(&details.record, &["restart"], &[]);
                return Ok(());
            }
            if !seen.is_alive() || start.elapsed() > PATIENCE {
                clear_wish(&details.dir);
                let message = self.container(id)?.state.error;
                let message = message.unwrap_or_else(|| "its supervisor did not start it again".into());
                return Err(Error::NotStarted { status: 1, message });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Freezes all processes of a container.
    pub fn pause_container(&self, text: &str) -> Result<()> {
        let details = self.container(text)?;
        match details.status {
            Status::Paused => Err(Error::IsPaused { name: text.into() }),
            Status::Running => {
                self.freeze(&details.record, true)?;
                self.note_container(&details.record, &["pause"], &[]);
                Ok(())
            }
            _ => Err(Error::NotRunning { id: details.record.id }),
        }
    }

    /// Lets the processes of a container go on.
    pub fn unpause_container(&self, text: &str) -> Result<()> {
        let details = self.container(text)?;
        match details.status {
            Status::Paused => {
                self.freeze(&details.record, false)?;
                self.note_container(&details.record, &["unpause"], &[]);
                Ok(())
            }
            _ => Err(Error::NotPaused { name: text.into() }),
        }
    }

    fn freeze(&self, record: &Record, frozen: bool) -> Result<()> {
        let group = Cgroup::open(&record.cgroup)?;
        group.freeze(frozen)?;
        let start = Instant::now();
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        // Version 2 says when it is done; version 1 is by then.
        while group
            .read("cgroup.events")
            .is_some_and(|text| text.contains("frozen ") && !text.contains(wanted))
        {
            if start.elapsed() > PATIENCE {
                return Err(Error::Process {
                    op: "freeze or thaw the container",
                    source: std::io::ErrorKind::TimedOut.into(),
                });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Asks the program to end, and kills it after a while. What a wish says must be noted before.
    fn end_program(&self, details: &ContainerDetails, stop: &Stop) -> Result<()> {
        let Some(program) = details.pid.and_then(handle) else {
            self.poke(&details.record.id);
            return Ok(());
        };
        self.note_container(&details.record, &["kill"], &[("signal", &stop.signal.to_string())]);
        send(&program, stop.signal)?;
        if details.status == Status::Paused {
            self.freeze(&details.record, false)?;
        }
        if !ends_within(&program, stop.patience)? {
            self.note_container(&details.record, &["kill"], &[("signal", &KILL.to_string())]);
            send(&program, KILL)?;
            ends_within(&program, Some(PATIENCE))?;
        }
        Ok(())
    }

    /// Makes a supervisor look at the wishes.
    pub(super) fn poke(&self, id: &str) {
        if let Some(caretaker) = self.look(id).caretaker.and_then(handle) {
            let _ = signal::send_pidfd(caretaker.as_fd(), LOOK);
        }
    }

    /// Waits until nothing of a container lives and its state says so.
    pub(super) fn await_end(&self, id: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let seen = self.look(id);
            if !seen.is_alive() {
                break;
            }
            if start.elapsed() > PATIENCE {
                return Err(Error::Process {
                    op: "wait for the container's end",
                    source: std::io::ErrorKind::TimedOut.into(),
                });
            }
            std::thread::sleep(PAUSE);
        }
        // Of one whose supervisor was killed nobody else writes down that it ended.
        if self.look(id).exists { self.sweep() } else { Ok(()) }
    }

    /// Waits until a container has neither a program nor anybody who looks after it.
    pub(super) fn wait_for_death(&self, id: &str) -> Result<()> {
        loop {
            let seen = self.look(id);
            if !seen.is_alive() {
                return Ok(());
            }
            match seen.program.and_then(handle) {
                Some(program) => drop(ends_within(&program, None)?),
                None => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// How to end a program.
struct Stop {
    signal: i32,
    /// `None` for ever.
    patience: Option<Duration>,
}

impl Stop {
    fn new(record: &Record, request: &StopRequest) -> Result<Self> {
        let signal = match &request.signal {
            Some(text) => number_of("--signal", text)?,
            None => signals::number(record.stop_signal()).unwrap_or(signals::TERM),
        };
        let seconds = request.timeout.unwrap_or_else(|| record.stop_timeout());
        Ok(Self { signal, patience: u64::try_from(seconds).ok().map(Duration::from_secs) })
    }
}

fn number_of(flag: &str, text: &str) -> Result<i32> {
    signals::number(text).ok_or_else(|| Error::flag(flag, format!("invalid signal: {text}")))
}

/// A descriptor of a process, which no other process can become.
pub(super) fn handle(process: Pid) -> Option<OwnedFd> {
    pidfd_open(process, PidfdFlags::empty()).ok()
}

/// Sends a signal; one that has ended takes it without an error.
pub(super) fn send(process: &OwnedFd, number: i32) -> Result<()> {
    match signal::send_pidfd(process.as_fd(), number) {
        Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
            Err(Error::Process { op: "send a signal to the container", source: error })
        }
        _ => Ok(()),
    }
}

/// Waits for a process to end; whether it did in time.
fn ends_within(process: &OwnedFd, patience: Option<Duration>) -> Result<bool> {
    let until = patience.and_then(|patience| Instant::now().checked_add(patience));
    loop {
        let left = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 })
        });
        match poll(&mut [PollFd::new(process, PollFlags::IN)], left.as_ref()) {
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::Process { op: "wait for the container's end", source: errno.into() });
            }
            Ok(count) => return Ok(count > 0),
        }
    }
}
