//! One directory of one tree: made, written to, emptied, removed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::limits::{Limit, Otherwise};
use crate::error::{Error, Result};

/// Makes the directory, or takes one that is there. `true`: it is new.
pub(super) fn make(directory: &Path) -> Result<(OwnedFd, bool)> {
    let step = || Error::io("make the control group", directory.display().to_string());
    let mode = Mode::from_raw_mode(0o755);
    for _ in 0..16 {
        let new = match rustix::fs::mkdir(directory, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            // The parent is missing, or another container's end just removed it.
            Err(Errno::NOENT) => {
                std::fs::create_dir_all(directory.parent().unwrap_or(directory)).map_err(step())?;
                continue;
            }
            Err(error) => return Err(step()(error.into())),
        };
        match open(directory) {
            Err(Errno::NOENT) => {}
            other => return other.map(|fd| (fd, new)).map_err(|error| step()(error.into())),
        }
    }
    Err(step()(Errno::NOENT.into()))
}

pub(super) fn open(directory: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// How deep a container may nest groups in its own before they are left to it.
const MAX_DEPTH: usize = 32;

/// The directory and all below, the deepest last.
fn with_all_below(directory: &Path) -> Vec<PathBuf> {
    fn walk(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
        found.push(directory.to_owned());
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if depth < MAX_DEPTH {
                walk(&entry.path(), depth + 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, 0, &mut found);
    found
}

/// Processes that were killed leave their group a moment later.
const PATIENCE: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// Kills what is in it and removes it, with the groups that the container made in it.
pub(super) fn remove(directory: &Path) -> Result<()> {
    for attempt in 0..PATIENCE {
        match rustix::fs::rmdir(directory) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => {}
            Err(error) => {
                return Err(Error::io("remove the control group", directory.display().to_string())(error));
            }
        }
        if attempt == 0 {
            kill_all(directory);
        }
        for below in with_all_below(directory).iter().skip(1).rev() {
            let _ = rustix::fs::rmdir(below);
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::io("remove the control group", directory.display().to_string())(Errno::BUSY))
}

/// Version 2 has a file for it; in version 1 one process after another.
pub(super) fn kill_all(directory: &Path) {
    if write(&directory.join("cgroup.kill"), b"1").is_ok() {
        return;
    }
    for pid in all_processes(directory).unwrap_or_default() {
        let _ = onggi_sys::signal::send(pid, 9);
    }
}

/// The processes in the directory itself.
pub(super) fn processes(directory: &Path) -> io::Result<Vec<i32>> {
    let text = std::fs::read_to_string(directory.join("cgroup.procs"))?;
    // 0 is a process of another pid namespace.
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

/// The processes in the directory and in those that the container made below.
pub(super) fn all_processes(directory: &Path) -> io::Result<Vec<i32>> {
    let mut list = processes(directory)?;
    for below in with_all_below(directory).iter().skip(1) {
        // It may be gone by now.
        list.extend(processes(below).unwrap_or_default());
    }
    Ok(list)
}

pub(super) fn write(path: &Path, value: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value)?;
    Ok(())
}

/// Sets one limit.
pub(super) fn set(directory: &Path, limit: &Limit) -> Result<()> {
    let one = |file: &str, value: &str| {
        let written = write(&directory.join(file), value.as_bytes());
        written.map_err(|error| (error, file.to_owned(), value.to_owned()))
    };
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let outcome = match (one(&limit.file, &limit.value), &limit.otherwise) {
        (Err((error, ..)), Otherwise::Leave) if missing(&error) => return Ok(()),
        (Err((error, ..)), Otherwise::Write(file, value)) if missing(&error) => one(file, value),
        (outcome, _) => outcome,
    };
    match outcome {
        Ok(()) => Ok(()),
        Err((error, file, _)) if missing(&error) => Err(Error::unsupported(
            format!("the limit {file}"),
            if limit.controller.is_empty() {
                "this kernel has no such control group file".to_owned()
            } else {
                format!("this kernel has no such file of the {} controller", limit.controller)
            },
        )),
        Err((error, file, value)) => Err(Error::io("set", format!("{file} to {value:?}"))(error)),
    }
}

/// How long a group may take to stop: processes that wait for a disk stop when it answers.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);
const FREEZE_PAUSE: Duration = Duration::from_millis(1);

/// Stops all processes of a version 2 directory and waits until they stand, or lets them go on.
pub(super) fn freeze(directory: &Path, frozen: bool) -> Result<()> {
    let stands = || {
        let text = std::fs::read_to_string(directory.join("cgroup.events")).unwrap_or_default();
        text.lines().any(|line| line == "frozen 1")
    };
    let words = if frozen { "1" } else { "0" };
    freeze_by(&directory.join("cgroup.freeze"), words, "0", || !frozen || stands())
}

/// The same in version 1. A process that is born at the wrong moment must be stopped by a second write.
pub(super) fn freeze_legacy(directory: &Path, frozen: bool) -> Result<()> {
    let file = directory.join("freezer.state");
    let stands = || {
        let done = std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == "FROZEN");
        if !done {
            let _ = write(&file, b"FROZEN");
        }
        done
    };
    freeze_by(&file, if frozen { "FROZEN" } else { "THAWED" }, "THAWED", || !frozen || stands())
}

fn freeze_by(file: &Path, words: &str, back: &str, done: impl Fn() -> bool) -> Result<()> {
    let step = || Error::io("write", file.display().to_string());
    write(file, words.as_bytes()).map_err(step())?;
    let start = Instant::now();
    while !done() {
        if start.elapsed() > FREEZE_PATIENCE {
            write(file, back.as_bytes()).map_err(step())?;
            return Err(Error::io("pause all processes by", file.display().to_string())(Errno::TIMEDOUT));
        }
        std::thread::sleep(FREEZE_PAUSE);
    }
    Ok(())
}
