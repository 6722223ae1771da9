//! The half of a copy that works in a running container: a child that has the container's IDs and its root
//! directory, no authority over the host, and no descriptor but a pipe.
//!
//! ```text
//!   this process                      child
//!   files of the host ◄── archive ──► files of the container, seen as its root sees them
//!                     ◄── outcome ─── (JSON)
//! ```
//!
//! It joins the user namespace only: names are resolved below the container's root directory by descriptor, so
//! volumes are where the container has them, and nothing in its tree of mounts is trusted.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use onggi_sys::clone::{Namespaces, SingleThreaded, enter};
use onggi_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Pid, Uid, WaitOptions, waitpid};

use super::fault::CopyFault;

/// Runs `theirs` in a child that is root of the container, and `ours` here, with a pipe between them.
/// `outward`: the archive comes from the container.
pub(super) fn both(
    target: Pid,
    outward: bool,
    theirs: impl FnOnce(&Root<'_>, File) -> Result<(), CopyFault>,
    ours: impl FnOnce(File) -> Result<(), CopyFault>,
) -> Result<(), CopyFault> {
    let failed = |op| CopyFault::system::<Errno>(op, "the container");
    let proc = format!("/proc/{}", target.as_raw_nonzero());
    let open = |name: &str, flags| -> Result<OwnedFd, CopyFault> {
        let path = format!("{proc}/{name}");
        let opened = rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty());
        opened.map_err(CopyFault::system("open", path))
    };
    let root = open("root", OFlags::PATH | OFlags::DIRECTORY)?;
    let namespace = open("ns/user", OFlags::RDONLY)?;
    let inode = |path: &str| {
        rustix::fs::stat(path).map(|stat| stat.st_ino).map_err(CopyFault::system("look at", path))
    };
    let joins = inode("/proc/self/ns/user")? != inode(&format!("{proc}/ns/user"))?;
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed("make a pipe to"));
    let ((read, write), (report, outcome)) = (pipe()?, pipe()?);
    let (their_end, our_end) = if outward { (write, read) } else { (read, write) };
    let single = SingleThreaded::check().map_err(CopyFault::system("join", "the container"))?;
    let child = single
        .fork({
            let (root, namespace, their_end, outcome) =
                (root.as_fd(), namespace.as_fd(), their_end.as_fd(), outcome.as_fd());
            move || {
                let result = (|| {
                    let kept = [root, namespace, their_end, outcome];
                    close_others(&kept).map_err(failed("prepare the copy in"))?;
                    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
                        .map_err(failed("prepare the copy in"))?;
                    if joins {
                        enter(namespace, Namespaces::USER)
                            .map_err(CopyFault::system("join", "the container"))?;
                        let (uid, gid) = (Uid::ROOT, Gid::ROOT);
                        // A user who may not drop groups keeps them.
                        let _ = rustix::thread::set_thread_groups(&[]);
                        rustix::thread::set_thread_res_gid(gid, gid, gid)
                            .map_err(failed("become root of"))?;
                        rustix::thread::set_thread_res_uid(uid, uid, uid)
                            .map_err(failed("become root of"))?;
                    }
                    rustix::process::umask(Mode::empty());
                    let data = their_end
                        .try_clone_to_owned()
                        .map_err(CopyFault::system("copy in", "the container"))?;
                    theirs(&Root::new(root), File::from(data))
                })();
                let said = serde_json::to_vec(&result).unwrap_or_default();
                i32::from(rustix::io::write(outcome, &said).is_err())
            }
        })
        .map_err(CopyFault::system("start a process in", "the container"))?;
    drop((their_end, outcome));
    let here = ours(File::from(our_end));
    let mut said = Vec::new();
    let _ = File::from(report).read_to_end(&mut said);
    let _ = waitpid(Some(child), WaitOptions::empty());
    let there: Result<(), CopyFault> = serde_json::from_slice(&said).unwrap_or(Err(CopyFault::Lost));
    combine(here, there)
}

/// The same without a container that runs: both halves here, the container's tree mounted.
pub(super) fn threads(
    outward: bool,
    theirs: impl FnOnce(File) -> Result<(), CopyFault> + Send,
    ours: impl FnOnce(File) -> Result<(), CopyFault>,
) -> Result<(), CopyFault> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(CopyFault::system("make a pipe to", "the container"))?;
    let (their_end, our_end) = if outward { (write, read) } else { (read, write) };
    std::thread::scope(|scope| {
        let there = std::thread::Builder::new()
            .name("copy".into())
            .spawn_scoped(scope, || theirs(File::from(their_end)));
        let there = there.map_err(CopyFault::system("copy in", "the container"))?;
        let here = ours(File::from(our_end));
        combine(here, there.join().unwrap_or(Err(CopyFault::Lost)))
    })
}

/// Of two halves that failed, the one that broke the pipe knows why; the other only saw it break.
fn combine(here: Result<(), CopyFault>, there: Result<(), CopyFault>) -> Result<(), CopyFault> {
    match (here, there) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(fault), Ok(())) | (Ok(()), Err(fault)) => Err(fault),
        (Err(here), Err(there)) => Err(if is_consequence(&there) { here } else { there }),
    }
}

fn is_consequence(fault: &CopyFault) -> bool {
    match fault {
        CopyFault::Lost | CopyFault::Archive { .. } => true,
        CopyFault::Pack { problem, .. } => problem.contains("Broken pipe"),
        CopyFault::System { errno, .. } => *errno == Errno::PIPE.raw_os_error(),
        _ => false,
    }
}

/// Closes every descriptor above the standard ones but these.
fn close_others(kept: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers {
        if number > first {
            let closed = onggi_sys::process::close_range(first, number - 1);
            closed.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        first = first.max(number + 1);
    }
    onggi_sys::process::close_range(first, u32::MAX)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
