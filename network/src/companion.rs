//! Processes that serve one container and end with it: nobody has to wait for them, and they have
//! nothing of their caller's but what they were given.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use onggi_sys::clone::SingleThreaded;
use onggi_sys::process::{close_range, set_standard, set_title};
use rustix::process::{WaitOptions, waitpid};

use crate::error::{Error, Result};

/// Starts a process that does `serve` with these descriptors, and is called `title`. `op` says for errors
/// what is started.
///
/// The calling process must have one thread.
///
/// # Errors
/// [`Error::System`].
pub(crate) fn start(
    op: &'static str,
    title: &CStr,
    kept: &[BorrowedFd<'_>],
    serve: impl FnOnce(),
) -> Result<()> {
    let failed = Error::system::<std::io::Error>;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(failed("open /dev/null"))?;
    let single = SingleThreaded::check().map_err(failed(op))?;
    let child = single.fork(move || {
        // The grandchild is nobody's: neither the caller nor a supervisor has to reap it.
        let Ok(single) = SingleThreaded::check() else { return 1 };
        let forked = single.fork(move || {
            let kept: Vec<_> = kept.iter().copied().chain([null.as_fd()]).collect();
            if detach(&kept, null.as_fd(), title).is_err() {
                return 1;
            }
            serve();
            0
        });
        i32::from(forked.is_err())
    });
    let child = child.map_err(failed(op))?;
    let status = waitpid(Some(child), WaitOptions::empty()).map_err(Error::system(op))?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        _ => Err(failed(op)(std::io::ErrorKind::Other.into())),
    }
}

/// Leaves the terminal, the standard streams and every descriptor but those, and is called so from now on.
pub(crate) fn detach(kept: &[BorrowedFd<'_>], null: BorrowedFd<'_>, title: &CStr) -> std::io::Result<()> {
    rustix::process::setsid()?;
    for standard in 0..3 {
        set_standard(null, standard)?;
    }
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    numbers.sort_unstable();
    let mut next = 3;
    for number in numbers.into_iter().filter(|number| *number > 2) {
        if number > next {
            close_range(next, number - 1)?;
        }
        next = number + 1;
    }
    close_range(next, u32::MAX)?;
    rustix::process::chdir("/")?;
    // What the caller's command line says is not for everybody's eyes.
    set_title(title)
}
