//! The supervisor of one container: the process that stays when the command which started it has gone.
//!
//! ```text
//!   command ──fork──► supervisor (own session, /dev/null, parent of all that is orphaned below it)
//!      ▲                 │  poll: program, its output, log, those attached, timers          watch
//!      │ STARTED/FAILED  │
//!      └─────────────────┤ fork ──► worker: starts the program, hands it over, ends         worker
//!                        │ fork ──► worker: clears up after it, decides what is next, ends
//!                        │ fork ──► worker: looks whether it is well, ends                  health
//! ```
//!
//! Whatever takes memory (specifications, filters, JSON) happens in workers, whose memory goes with them;
//! the program becomes the supervisor's own child when its worker ends. What stays is small: one
//! process with one thread per container, and no program of another's.

mod client;
mod health;
mod listener;
mod policy;
mod watch;
pub(crate) mod wire;
mod worker;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use onggi_image::store::Storage;
use onggi_sys::clone::SingleThreaded;
use onggi_sys::process::{CStrings, close_range, exec_fd, inherited, set_standard};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;

use super::mark::Mark;
use super::record::Record;
use super::state::clear_wish;
use crate::error::{Error, Result};
use crate::{Engine, Settings};
use health::Plan;
use watch::{Facts, Supervisor};
use wire::{FAILED, STARTED, WANTS_INPUT, WANTS_OUTPUT, Wire};

pub(crate) use health::Plan as HealthPlan;
pub(crate) use listener::reach;
pub(crate) use watch::LOOK;

/// The first word of a supervisor's command line, by which the program knows what it is.
pub const SUPERVISOR: &str = "onggi-supervisor";

/// What a caller of [`Engine::launch`] stays for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Bytes for standard input will come.
    pub(crate) input: bool,
    /// What the program writes is wanted.
    pub(crate) output: bool,
}

impl Engine {
    /// Starts a container under a supervisor of its own; returns when its program runs, with the
    /// connection over which the caller is attached.
    ///
    /// The mark is handed over; of a container that could not be started nothing runs.
    pub(crate) fn launch(&self, mark: Mark, record: &Record, attachment: Attachment) -> Result<Wire> {
        let failed = |source| Error::Process { op: "start the container's supervisor", source };
        clear_wish(&self.container_dir(&record.id));
        let (ours, theirs) = Wire::pair().map_err(failed)?;
        let single = SingleThreaded::check().map_err(failed)?;
        single
            .fork(|| {
                let kept = [theirs.as_fd(), mark.as_fd()];
                for fd in kept {
                    let _ = rustix::io::fcntl_setfd(fd, FdFlags::empty());
                }
                let kept = kept.map(|fd| fd.as_raw_fd());
                let error = self.become_supervisor(record, kept, attachment);
                let text = format!("cannot start the container's supervisor: {error}");
                let _ = theirs.send(FAILED, &[&[125], text.as_bytes()].concat(), &[]);
                1
            })
            .map_err(failed)?;
        mark.hand_over();
        drop(theirs);
        await_start(&ours)?;
        Ok(ours)
    }

    /// Executes this program anew, so that the supervisor has none of the memory that its caller needed.
    /// Returns only with an error.
    fn become_supervisor(&self, record: &Record, kept: [RawFd; 2], attachment: Attachment) -> std::io::Error {
        let words = || -> std::io::Result<(OwnedFd, CStrings, CStrings)> {
            detach(&kept)?;
            let own = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let flags = if attachment.input { WANTS_INPUT } else { 0 }
                | if attachment.output { WANTS_OUTPUT } else { 0 };
            let text = |text: &str| text.as_bytes().to_vec();
            let path = |path: &PathBuf| path.clone().into_os_string().into_vec();
            let arguments = CStrings::new([
                text(SUPERVISOR),
                text(&record.name),
                text(&record.id),
                path(&self.settings().root),
                path(&self.settings().runroot),
                text(&self.settings().publish_address.to_string()),
                text(&format!("{},{},{flags}", kept[0], kept[1])),
            ]);
            let bad = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
            // newuidmap is looked for in it. The rest of the caller's environment is not its business.
            let search = std::env::var_os("PATH").map(|path| [b"PATH=".to_vec(), path.into_vec()].concat());
            let environment = CStrings::new(search);
            Ok((own, arguments.map_err(bad)?, environment.map_err(bad)?))
        };
        match words() {
            Ok((own, arguments, environment)) => exec_fd(own.as_fd(), &arguments, &environment),
            Err(error) => error,
        }
    }
}

/// Is a supervisor, to its container's end, if the command line says so; the exit status then. The process that holds an
/// ordinary user's networks ([`onggi_network::holder`]) begins here too.
///
/// To be called by the program before anything else: what was handed down is open under the numbers
/// that the command line names.
pub fn supervise(words: impl IntoIterator<Item = OsString>) -> Option<u8> {
    let words: Vec<OsString> = words.into_iter().collect();
    if let Some(status) = onggi_network::holder::hold(&words) {
        return Some(status);
    }
    let [first, _, id, root, runroot, address, numbers] = &words[..] else { return None };
    if first != SUPERVISOR {
        return None;
    }
    let (id, numbers) = (id.to_str()?, numbers.to_str()?);
    let numbers: Vec<i32> = numbers.split(',').map_while(|word| word.parse().ok()).collect();
    let [wire, mark, flags] = numbers[..] else { return Some(125) };
    let (Ok(wire), Ok(mark)) = (inherited(wire), inherited(mark)) else { return Some(125) };
    let settings = Settings {
        root: root.into(),
        runroot: runroot.into(),
        publish_address: address.to_str()?.parse().ok()?,
        // A supervisor makes no layers.
        storage: Storage::default(),
        registry: onggi_registry_client::Options::default(),
    };
    let wire = Wire::new(wire);
    let flags = u8::try_from(flags).unwrap_or_default();
    let attachment = Attachment { input: flags & WANTS_INPUT != 0, output: flags & WANTS_OUTPUT != 0 };
    let Err(error) = watch_over(&Engine::new(settings), id, mark, &wire, attachment) else { return Some(0) };
    let text = error.to_string();
    let _ = wire.send(FAILED, &[&[error.exit_status().unwrap_or(125)], text.as_bytes()].concat(), &[]);
    Some(1)
}

fn watch_over(engine: &Engine, id: &str, mark: OwnedFd, wire: &Wire, attachment: Attachment) -> Result<()> {
    let mark = Mark::adopt(&engine.settings().runroot, id, mark);
    mark.tell_none()?;
    let record = Record::read(&engine.container_dir(id))?;
    let record = record.ok_or_else(|| Error::NoContainer { name: id.into() })?;
    let facts = Facts {
        terminal: record.has_terminal(),
        interactive: record.request.interactive,
        input_once: record.closes_input_once(),
        health: Plan::of(&record),
        on_unhealthy: record.request.health.on_unhealthy,
        stop_signal: super::signals::number(record.stop_signal()).unwrap_or(super::signals::TERM),
        stop_timeout: record.stop_timeout(),
    };
    let log = watch::open_log(engine, &record)?;
    drop(record);
    let copy = wire.as_fd().try_clone_to_owned();
    let caller = copy.map_err(|source| Error::Process { op: "keep the caller's connection", source })?;
    let outcome = Supervisor::new(engine, &mark, id, facts, log, Wire::new(caller), attachment)?.run();
    // It is given back already, or, after a failure, it tells of a program without a supervisor.
    mark.hand_over();
    outcome
}

/// Waits until the program runs.
fn await_start(wire: &Wire) -> Result<()> {
    let failed = |source| Error::Process { op: "talk to the container's supervisor", source };
    let mut buffer = Vec::new();
    match wire.receive(&mut buffer).map_err(failed)? {
        Some(message) if message.kind == STARTED => Ok(()),
        Some(message) if message.kind == FAILED => Err(not_started(message.body)),
        _ => Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

/// What a supervisor or worker said of a start that failed: a status, and a sentence.
pub(crate) fn not_started(body: &[u8]) -> Error {
    let (status, text) = body.split_first().unwrap_or((&125, b"its supervisor ended unexpectedly"));
    Error::NotStarted { status: *status, message: String::from_utf8_lossy(text).into_owned() }
}

/// Leaves everything of the caller's but these descriptors, which the next program gets.
fn detach(kept: &[RawFd]) -> std::io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::process::chdir("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for target in 0..=2 {
        set_standard(null.as_fd(), target)?;
    }
    drop(null);
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.unsigned_abs()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}
