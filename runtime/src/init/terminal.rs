//! Standard descriptors and the terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use onggi_sys::mount;
use onggi_sys::path::Root;
use onggi_sys::process::set_standard;
use rustix::fs::{Mode, OFlags, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::{Step, Streams, failed};
use crate::channel::{Channel, PTY};
use crate::container::WindowSize;
use crate::error::Stage;
use crate::plan::ProcessPlan;

/// `DEVPTS_SUPER_MAGIC`
const DEVPTS: i64 = 0x1cd1;

/// Makes a terminal in the container's own devpts, sends the master side to the
/// parent and puts the other one on `/dev/console`.
pub(super) fn open(
    root: &Root<'_>,
    process: &ProcessPlan,
    size: WindowSize,
    channel: &Channel,
) -> Step<OwnedFd> {
    let slave = make(root, process, size, channel).map_err(failed(Stage::Terminal, "/dev/pts/ptmx"))?;
    let console = || -> io::Result<()> {
        let tree = mount::clone_tree(slave.as_fd(), c"", false)?;
        let onto = root.make_file(Path::new("/dev/console"))?;
        mount::attach(tree.as_fd(), onto.as_fd())
    };
    console().map_err(failed(Stage::Terminal, "/dev/console"))?;
    Ok(slave)
}

pub(crate) fn make(
    root: &Root<'_>,
    process: &ProcessPlan,
    size: WindowSize,
    channel: &Channel,
) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = root.open(Path::new("/dev/pts/ptmx"), flags, Mode::empty())?;
    // An image or a volume could put anything there.
    #[expect(clippy::useless_conversion, reason = "f_type is i64 on some architectures only")]
    if i64::from(rustix::fs::fstatfs(&master)?.f_type) != DEVPTS {
        return Err(rustix::io::Errno::NODEV.into());
    }
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    if size.rows > 0 && size.columns > 0 {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size)?;
    }
    if process.plain_lines {
        let mut modes = tcgetattr(&master)?;
        modes.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(&master, OptionalActions::Now, &modes)?;
    }
    rustix::fs::fchown(&slave, Some(Uid::from_raw(process.uid)), None)?;
    channel.send(PTY, &[], Some(master.as_fd()))?;
    Ok(slave)
}

/// Puts the standard descriptors in place.
pub(crate) fn connect(streams: Streams, terminal: Option<&OwnedFd>) -> Step<()> {
    let step = || failed::<io::Error>(Stage::Terminal, "");
    match (streams, terminal) {
        (Streams::Inherit, _) | (Streams::Terminal(_), None) => {}
        (Streams::Terminal(_), Some(slave)) => {
            for target in 0..=2 {
                set_standard(slave.as_fd(), target).map_err(step())?;
            }
        }
        (Streams::Given(fds), _) => {
            for (target, fd) in (0..).zip(&fds) {
                set_standard(fd.as_fd(), target).map_err(step())?;
            }
            // Dropped here unless one of them is itself 0, 1 or 2.
            for fd in fds {
                if std::os::fd::AsRawFd::as_raw_fd(&fd) <= 2 {
                    std::mem::forget(fd);
                }
            }
        }
    }
    Ok(())
}
