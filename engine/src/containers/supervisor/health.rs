//! Whether a container is well: its health check, and one probe of it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use onggi_runtime::Stdio;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::Engine;
use crate::containers::record::Record;
use crate::containers::signals::KILL;
use crate::containers::state::{HealthStatus, Probe, State, now};
use crate::error::{Error, Result};
use crate::run::ExecRequest;

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// How many probes are remembered, and how much of what each printed: Docker's numbers.
const KEPT_PROBES: usize = 5;
const KEPT_OUTPUT: usize = 4096;

/// How a container's health is looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The program and its arguments; 0 is healthy.
    pub(crate) test: Vec<String>,
    /// Between two probes.
    pub(crate) interval: Duration,
    /// A probe that takes longer has failed.
    pub(crate) timeout: Duration,
    /// Failures in this time after the start do not count.
    pub(crate) start_period: Duration,
    /// Between two probes in that time.
    pub(crate) start_interval: Duration,
    /// So many failures in a row make it unhealthy.
    pub(crate) retries: u32,
}

impl Plan {
    /// The caller's wishes over the image's.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let (wish, config) = (&record.request.health, &record.image.config);
        let image = config.healthcheck.clone().unwrap_or_default();
        if wish.disabled {
            return None;
        }
        let shell = |command: &str| {
            let shell = config.shell.clone().filter(|shell| !shell.is_empty());
            let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
            words.push(command.to_owned());
            words
        };
        let test = match (&wish.command, image.test.split_first()) {
            (Some(command), _) => shell(command),
            (None, Some((kind, rest))) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
            (None, Some((kind, [command, ..]))) if kind == "CMD-SHELL" => shell(command),
            _ => return None,
        };
        let of_image = |nanoseconds: i64| {
            u64::try_from(nanoseconds).ok().filter(|value| *value > 0).map(Duration::from_nanos)
        };
        let choose = |wished: Option<Duration>, image: i64, default: Duration| {
            wished.filter(|value| !value.is_zero()).or_else(|| of_image(image)).unwrap_or(default)
        };
        Some(Self {
            test,
            interval: choose(wish.interval, image.interval, INTERVAL),
            timeout: choose(wish.timeout, image.timeout, TIMEOUT),
            start_period: choose(wish.start_period, image.start_period, Duration::ZERO),
            start_interval: choose(wish.start_interval, image.start_interval, START_INTERVAL),
            retries: wish
                .retries
                .filter(|count| *count > 0)
                .or_else(|| u32::try_from(image.retries).ok().filter(|count| *count > 0))
                .unwrap_or(RETRIES),
        })
    }

    /// When to look again, so long after the start.
    pub(super) fn pause(&self, since_start: Duration, status: Verdict) -> Duration {
        if status == Verdict::Starting && since_start < self.start_period {
            self.start_interval.min(self.interval)
        } else {
            self.interval
        }
    }
}

/// What a probe leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not known yet.
    #[default]
    Starting,
    /// Well.
    Healthy,
    /// Unwell, as it was.
    Unhealthy,
    /// Unwell from now on.
    BecameUnhealthy,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Starting, Self::Healthy, Self::Unhealthy, Self::BecameUnhealthy];

    pub(super) fn byte(self) -> u8 {
        b'0' + self as u8
    }

    pub(super) fn of_byte(byte: u8) -> Self {
        Self::ALL.into_iter().find(|one| one.byte() == byte).unwrap_or_default()
    }
}

/// Looks once and notes what was seen. `late`: failures count.
pub(super) fn probe(engine: &Engine, id: &str, program: Pid, plan: &Plan, late: bool) -> Result<Verdict> {
    let start = now();
    let (exit_code, output) = match look(engine, id, program, plan) {
        Ok(seen) => seen,
        Err(error) => (-1, error.to_string()),
    };
    let dir = engine.container_dir(id);
    let mut state = State::read(&dir)?;
    let probe = Probe { start, end: now(), exit_code, output };
    let before = state.health.as_ref().map(|health| health.status);
    let verdict = judge(&mut state, probe, plan.retries, late);
    state.write(&dir)?;
    let now = state.health.as_ref().map(|health| health.status);
    if let (Some(status), Some(record)) = (now.filter(|_| now != before), Record::read(&dir)?) {
        engine.note_container(&record, &[&format!("health_status: {}", status.word())], &[]);
    }
    Ok(verdict)
}

/// Adds a probe to what is known.
fn judge(state: &mut State, probe: Probe, retries: u32, late: bool) -> Verdict {
    let health = state.health.get_or_insert_default();
    let before = health.status;
    if probe.exit_code == 0 {
        health.failing_streak = 0;
        health.status = HealthStatus::Healthy;
    } else if late || before != HealthStatus::Starting {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    health.log.push(probe);
    let surplus = health.log.len().saturating_sub(KEPT_PROBES);
    health.log.drain(..surplus);
    match (before, health.status) {
        (_, HealthStatus::Starting) => Verdict::Starting,
        (_, HealthStatus::Healthy) => Verdict::Healthy,
        (HealthStatus::Unhealthy, HealthStatus::Unhealthy) => Verdict::Unhealthy,
        (_, HealthStatus::Unhealthy) => Verdict::BecameUnhealthy,
    }
}

/// Runs the test: its exit status and what it printed.
fn look(engine: &Engine, id: &str, program: Pid, plan: &Plan) -> Result<(i32, String)> {
    let failed =
        |errno: rustix::io::Errno| Error::Process { op: "run the health check", source: errno.into() };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let copy =
        |fd: &OwnedFd| fd.try_clone().map_err(|source| Error::Process { op: "run the health check", source });
    let request = ExecRequest { container: id.into(), command: plan.test.clone(), ..ExecRequest::default() };
    let stdio = Stdio::Given([null, copy(&write)?, write]);
    let process = engine.join(id, program, &request, stdio)?;
    let deadline = Instant::now() + plan.timeout;
    let mut output = Vec::new();
    let mut file = File::from(read);
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            process.signal(KILL)?;
            let _ = process.wait();
            let text = format!("Health check exceeded timeout ({})", shown(plan.timeout));
            return Ok((-1, text));
        }
        let wanted = if open { PollFlags::IN } else { PollFlags::empty() };
        let pidfd = process.pidfd();
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN), PollFd::from_borrowed_fd(file.as_fd(), wanted)];
        let time = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut fds, Some(&time)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(failed)?,
        };
        let (ended, readable) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if open && readable {
            let mut bytes = [0; 1024];
            let count = file.read(&mut bytes).unwrap_or_default();
            open = count > 0;
            let room = KEPT_OUTPUT.saturating_sub(output.len());
            output.extend(bytes.iter().take(count.min(room)));
        } else if ended {
            // What it started may hold the pipe for ever.
            break;
        }
    }
    let code = process.wait()?.code();
    Ok((code, String::from_utf8_lossy(&output).into_owned()))
}

/// As Go shows durations, for whole seconds.
fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds if seconds < 60 => format!("{seconds}s"),
        seconds => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: &mut State, exit_code: i32, late: bool) -> Verdict {
        judge(state, Probe { exit_code, ..Probe::default() }, 2, late)
    }

    #[test]
    fn failures_count_after_the_start_and_a_success_forgets_them() {
        let mut state = State::default();
        assert_eq!(seen(&mut state, 1, false), Verdict::Starting);
        assert_eq!(seen(&mut state, 1, false), Verdict::Starting);
        assert_eq!(seen(&mut state, 1, true), Verdict::Starting);
        assert_eq!(seen(&mut state, 1, true), Verdict::BecameUnhealthy);
        assert_eq!(seen(&mut state, -1, true), Verdict::Unhealthy);
        assert_eq!(seen(&mut state, 0, true), Verdict::Healthy);
        // Once it was healthy, its start is over.
        assert_eq!(seen(&mut state, 1, false), Verdict::Healthy);
        assert_eq!(seen(&mut state, 1, false), Verdict::BecameUnhealthy);
        let health = state.health.unwrap();
        assert_eq!((health.failing_streak, health.log.len()), (2, KEPT_PROBES));
    }

    #[test]
    fn verdicts_travel_as_bytes() {
        for one in Verdict::ALL {
            assert_eq!(Verdict::of_byte(one.byte()), one);
        }
        assert_eq!(Verdict::of_byte(b'?'), Verdict::Starting);
    }
}
