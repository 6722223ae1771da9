//! A small init: process 1 of a container whose program doesn't want to be one.
//!
//! It forwards signals to the program, collects orphans, and ends with the
//! program's status. It runs under the same ids, capabilities and filter as the
//! program.

use onggi_sys::clone::SingleThreaded;
use onggi_sys::signal::{self, SignalSet};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use super::{Step, failed};
use crate::channel::{Channel, Report};
use crate::error::Stage;

/// `SIGCHLD`, which is for the reaper itself.
const CHILD: i32 = 17;

/// Forks; the child becomes the program by `program`, the parent stays as init.
pub(super) fn run(single: SingleThreaded, channel: &Channel, program: impl FnOnce() -> Report) -> Step<i32> {
    let all = SignalSet::full();
    signal::block(&all).map_err(failed(Stage::Reaper, ""))?;
    let child = single
        .fork(|| {
            let report = program();
            channel.report(&report);
            1
        })
        .map_err(failed(Stage::Reaper, ""))?;
    // The caller's command line is not the container's business. Without /proc it
    // can't be read from inside either.
    let _ = onggi_sys::process::set_title(c"init");
    // Also our end of the channel, so that the parent sees the end of file once
    // the program runs.
    onggi_sys::process::close_range(3, u32::MAX).map_err(failed(Stage::Reaper, ""))?;
    loop {
        match signal::wait(&all) {
            Ok(CHILD) => {
                if let Some(status) = reap(child) {
                    return Ok(status);
                }
            }
            Ok(other) => {
                let _ = signal::send(child.as_raw_nonzero().get(), other);
            }
            Err(_) => return Ok(125),
        }
    }
}

/// Collects all that ended; the program's status if it was among them.
fn reap(program: Pid) -> Option<i32> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == program {
            ended = Some(code(status));
        }
    }
    // Also if somebody else's SIGCHLD was merged with ours.
    if ended.is_none()
        && let Ok(Some((_, status))) = waitpid(Some(program), WaitOptions::NOHANG)
    {
        ended = Some(code(status));
    }
    ended
}

fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(125)
}
