//! From a start to what comes after the end: the program, and whoever starts it and clears up after it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use onggi_sys::signal;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open};

use super::streams::{Input, never_wait};
use super::{LOOK, Phase, Program, Supervisor};
use crate::containers::signals;
use crate::containers::state::{self, Wish};
use crate::containers::supervisor::health::Verdict;
use crate::containers::supervisor::listener;
use crate::containers::supervisor::policy::{self, Next};
use crate::containers::supervisor::wire::{FAILED, MAX_BODY, STARTED};
use crate::containers::supervisor::worker::{Outcome, Task, Worker};
use crate::error::{Error, Result};
use crate::logs::Stream;
use crate::run::OnUnhealthy;

impl Supervisor<'_> {
    /// Has the program started.
    pub(super) fn begin(&mut self, again: bool) -> Result<()> {
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

    pub(super) fn worker_is_done(&mut self) -> Result<()> {
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

    pub(super) fn take_signals(&mut self) -> Result<()> {
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

    pub(super) fn signal(&self, number: i32) {
        if let Some(program) = &self.program {
            let _ = signal::send_pidfd(program.pidfd.as_fd(), number);
        }
    }

    pub(super) fn keep_time(&mut self) -> Result<()> {
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
}

/// As shells count.
fn code_of(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(i32::from(u8::MAX))).unwrap_or(u8::MAX)
}
