//! A container whose parent is the command itself: no supervisor, no copy of its streams.
//!
//! That is for what is gone when it ends and has no name (`run --rm`): a command in a container's clothes. Its
//! program has the caller's own streams: what it writes to both is in order, a pipe is a pipe with its
//! SIGPIPE, and nothing is copied, nor written to a log that nobody asked for.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use onggi_runtime::{Foreground, Stdio};

use super::create::Made;
use super::start::{Keeper, Running, Start};
use super::state::State;
use super::sweep::remove_files;
use crate::Engine;
use crate::error::{Error, Result};
use crate::run::{RunRequest, Streams, groups, mounts};

impl Engine {
    /// Runs the container to its end, removes it, and returns its exit status.
    pub(crate) fn run_in_foreground(&self, made: Made, forward_signals: bool) -> Result<u8> {
        let ended = self.start_and_wait(&made, forward_signals);
        let Made { mark, record, dir, id_file, .. } = made;
        let removed = if record.request.remove || ended.is_err() {
            self.names().release(&record.name, &record.id);
            remove_files(self.store()?, &dir, &record.mounts)
        } else {
            Ok(())
        };
        match &ended {
            Ok(code) => {
                let _ = mark.tell_exit(*code);
                self.note_container(&record, &["die"], &[("exitCode", &code.to_string())]);
            }
            // There is no such container.
            Err(_) => {
                let _ = id_file.map(fs::remove_file);
            }
        }
        if removed.is_ok() && (record.request.remove || ended.is_err()) {
            self.note_container(&record, &["destroy"], &[]);
        }
        drop(mark);
        // How the program ended is worth more than how the cleaning went.
        let code = ended?;
        removed.map(|()| code)
    }

    fn start_and_wait(&self, made: &Made, forward_signals: bool) -> Result<u8> {
        let request = &made.record.request;
        let start = Start { engine: self, record: &made.record, dir: &made.dir, layers: &made.layers };
        let Running { mut process, ids, connection } = start.spawn(stdio(request)?, Keeper::Caller)?;
        made.mark.tell(process.pid())?;
        self.note_container(&made.record, &["start"], &[]);
        let mut state = State::default();
        state.begin();
        if !request.remove {
            state.write(&made.dir)?;
        }
        let group = process.take_cgroup();
        let status = process.wait_foreground(&Foreground {
            input: request.streams.input && request.interactive,
            forward_signals,
            ..Foreground::default()
        });
        state.oom_killed = group.as_ref().is_some_and(groups::was_out_of_memory);
        let removed = group.map_or(Ok(()), |group| group.remove());
        drop(ids);
        drop(connection);
        mounts::release(self, &made.record.mounts)?;
        let code = u8::try_from(status?.code()).unwrap_or(u8::MAX);
        if !request.remove {
            state.end(code);
            state.write(&made.dir)?;
        }
        removed?;
        Ok(code)
    }
}

/// The caller's streams that the program gets; nothing in place of the others.
fn stdio(request: &RunRequest) -> Result<Stdio> {
    match request.terminal {
        Some(size) => Ok(Stdio::Terminal(size)),
        None => streams(Streams { input: request.streams.input && request.interactive, ..request.streams }),
    }
}

/// The caller's own streams of those that are wished.
pub(crate) fn streams(wished: Streams) -> Result<Stdio> {
    if wished == (Streams { input: true, output: true, error: true }) {
        return Ok(Stdio::Inherit);
    }
    let failed = |source: std::io::Error| Error::Process { op: "copy its standard streams", source };
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
    let choose = |own: std::os::fd::BorrowedFd<'_>, wished| -> Result<OwnedFd> {
        if wished { own.try_clone_to_owned() } else { null.as_fd().try_clone_to_owned() }.map_err(failed)
    };
    Ok(Stdio::Given([
        choose(std::io::stdin().as_fd(), wished.input)?,
        choose(std::io::stdout().as_fd(), wished.output)?,
        choose(std::io::stderr().as_fd(), wished.error)?,
    ]))
}
