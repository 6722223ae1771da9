//! Who runs a container now.
//!
//! ```text
//!   <runroot>/containers/<id>     a file, locked (flock) by the container's caretaker, and in it
//!     "<program> <its start> <caretaker>"    while it has a program: two pids, and field 22 of proc_pid_stat(5)
//!     "0 0 <caretaker>", or nothing yet      while it has none: being made, started, or about to start again
//!     "exit <status>"                        at the end, for whoever waits with the file open
//!                                            each filled up with spaces to 63 bytes and a newline
//! ```
//!
//! A lock ends with its process, however that ends, so a file without a lock tells of a caretaker that
//! was killed. Its container may go on: then the number and the start time in the file are those of a
//! living process, and the container still counts as running. After a reboot the whole directory is missing.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use crate::error::{Error, Result};

/// Room for three numbers: two of 10 digits, one of 20.
const TEXT: usize = 64;
/// How long somebody else may hold the mark of a container that has no program: to look, to make or
/// to remove it.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Says that this process is a container's caretaker. Dropping it says that it is no more.
#[derive(Debug)]
pub(crate) struct Mark {
    path: PathBuf,
    /// Locked as long as it is open anywhere.
    lock: File,
    /// Whether another process is the caretaker from now on.
    handed_over: bool,
}

impl Mark {
    /// Becomes the caretaker of a container without a program, waiting a while for whoever looks at it.
    ///
    /// # Errors
    /// [`Error::StillRunning`] if it has a program; [`Error::Busy`] if somebody else holds it.
    pub(crate) fn take(runroot: &Path, id: &str) -> Result<Self> {
        let dir = marks(runroot);
        let path = dir.join(id);
        let failed = |source| Error::Write { path: path.clone(), source };
        let start = Instant::now();
        loop {
            let lock = match open(&path, OFlags::CREATE) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(&dir).map_err(failed)?;
                    open(&path, OFlags::CREATE)
                }
                other => other,
            };
            let lock = lock.map_err(failed)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    // A sweep that saw the file before it was locked has removed it.
                    if rustix::fs::fstat(&lock).is_ok_and(|stat| stat.st_nlink == 0) {
                        continue;
                    }
                    if program_in(&text_of(&lock)).is_some() {
                        return Err(Error::StillRunning { name: id.into() });
                    }
                    return Ok(Self { path, lock, handed_over: false });
                }
                Err(Errno::WOULDBLOCK) => {
                    if program_in(&text_of(&lock)).is_some() {
                        return Err(Error::StillRunning { name: id.into() });
                    }
                }
                Err(errno) => return Err(failed(errno.into())),
            }
            if start.elapsed() > PATIENCE {
                return Err(Error::Busy { id: id.into() });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The mark of a container whose caretaker this process was made.
    pub(crate) fn adopt(runroot: &Path, id: &str, lock: OwnedFd) -> Self {
        Self { path: marks(runroot).join(id), lock: lock.into(), handed_over: false }
    }

    /// Tells others which process is the container's first, and that this one looks after it.
    pub(crate) fn tell(&self, program: Pid) -> Result<()> {
        let start = start_time(program).unwrap_or_default();
        self.put(&format!("{} {start} {}", program.as_raw_nonzero(), getpid().as_raw_nonzero()))
    }

    /// The same for the caretaker whose child this process is: should that be killed before it hears of
    /// the program, others still know.
    pub(crate) fn tell_for_parent(&self, program: Pid) -> Result<()> {
        let start = start_time(program).unwrap_or_default();
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        self.put(&format!("{} {start} {parent}", program.as_raw_nonzero()))
    }

    /// Tells others that the container has no program, and that this process looks after it.
    pub(crate) fn tell_none(&self) -> Result<()> {
        self.put(&format!("0 0 {}", getpid().as_raw_nonzero()))
    }

    /// Tells those who wait how the program ended. The mark goes when it is dropped.
    pub(crate) fn tell_exit(&self, code: u8) -> Result<()> {
        self.put(&format!("exit {code}"))
    }

    fn put(&self, text: &str) -> Result<()> {
        // One write, always of the same length: whoever looks meanwhile sees the old text or the new one.
        let text = format!("{text:<width$}\n", width = TEXT - 1);
        let written = rustix::io::pwrite(&self.lock, text.as_bytes(), 0);
        written.map(drop).map_err(|errno| Error::Write { path: self.path.clone(), source: errno.into() })
    }

    /// Nobody is the caretaker any more. For a process that ends without dropping anything.
    pub(crate) fn end(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Lets others take the container while this process still says farewell.
    pub(crate) fn unlock(&self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }

    /// Another process, which shares the open file, is the caretaker from now on.
    pub(crate) fn hand_over(mut self) {
        self.handed_over = true;
    }
}

impl AsFd for Mark {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if !self.handed_over {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a mark tells.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Whether there is a mark.
    pub(crate) exists: bool,
    /// Whether its caretaker lives.
    pub(crate) attended: bool,
    /// The container's first process, if it lives.
    pub(crate) program: Option<Pid>,
    /// The caretaker, if it lives and said so.
    pub(crate) caretaker: Option<Pid>,
    /// When the mark was written last: the start of the program if there is one.
    pub(crate) since: Option<SystemTime>,
}

impl Seen {
    /// Whether anything of the container lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.attended || self.program.is_some()
    }
}

/// Looks at a container's mark.
pub(crate) fn look(runroot: &Path, id: &str) -> Seen {
    let Ok(file) = open(&marks(runroot).join(id), OFlags::empty()) else { return Seen::default() };
    let attended = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
    if !attended {
        // Nobody shall find it locked because we look.
        let _ = flock(&file, FlockOperation::Unlock);
    }
    let text = text_of(&file);
    Seen {
        exists: true,
        attended,
        program: program_in(&text),
        caretaker: caretaker_in(&text).filter(|_| attended),
        since: file.metadata().and_then(|meta| meta.modified()).ok(),
    }
}

/// The end of a container, for one who waits.
#[derive(Debug)]
pub(crate) struct Waiting(File);

impl Waiting {
    /// Begins to wait; `None` if nobody looks after the container.
    pub(crate) fn begin(runroot: &Path, id: &str) -> Option<Self> {
        let file = open(&marks(runroot).join(id), OFlags::empty()).ok()?;
        look(runroot, id).attended.then_some(Self(file))
    }

    /// Waits until the caretaker ends; the exit status if it told one.
    pub(crate) fn end(self) -> Option<u8> {
        while flock(&self.0, FlockOperation::LockShared) == Err(Errno::INTR) {}
        text_of(&self.0).strip_prefix("exit ")?.trim_end().parse().ok()
    }
}

/// IDs of all marks, and whether their directory exists: it does not after a reboot.
pub(crate) fn all(runroot: &Path) -> Result<Option<Vec<String>>> {
    let dir = marks(runroot);
    match fs::read_dir(&dir) {
        Ok(entries) => {
            Ok(Some(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: dir, source }),
    }
}

/// Makes the directory of marks.
pub(crate) fn make_directory(runroot: &Path) -> Result<()> {
    let dir = marks(runroot);
    fs::create_dir_all(&dir).map_err(|source| Error::Write { path: dir, source })
}

fn marks(runroot: &Path) -> PathBuf {
    runroot.join("containers")
}

fn open(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?.into())
}

/// From the beginning, whatever was read or written before.
fn text_of(file: &File) -> String {
    let mut bytes = [0; TEXT];
    let count = rustix::io::pread(file, &mut bytes, 0).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned()
}

fn program_in(text: &str) -> Option<Pid> {
    let mut words = text.split_ascii_whitespace();
    let program = Pid::from_raw(words.next()?.parse().ok()?)?;
    let start: u64 = words.next()?.parse().ok()?;
    // The number may be another process's by now.
    (start_time(program) == Some(start)).then_some(program)
}

fn caretaker_in(text: &str) -> Option<Pid> {
    Pid::from_raw(text.split_ascii_whitespace().nth(2)?.parse().ok()?)
}

/// When a process that is no zombie started, in clock ticks after boot.
pub(crate) fn start_time(process: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // Field 22; the state was field 3.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_of_its_caretaker_and_its_program() {
        let runroot = tempfile::tempdir().unwrap();
        let seen = || look(runroot.path(), "c");
        assert!(!seen().exists && !seen().is_alive());
        let mark = Mark::take(runroot.path(), "c").unwrap();
        assert!(seen().attended && seen().program.is_none());
        mark.tell(getpid()).unwrap();
        assert_eq!((seen().program, seen().caretaker), (Some(getpid()), Some(getpid())));
        assert!(matches!(Mark::take(runroot.path(), "c"), Err(Error::StillRunning { .. })));
        let waiting = Waiting::begin(runroot.path(), "c").unwrap();
        mark.tell_exit(7).unwrap();
        assert!(seen().program.is_none());
        drop(mark);
        assert_eq!(waiting.end(), Some(7));
        assert!(!seen().exists);
        assert!(Waiting::begin(runroot.path(), "c").is_none());
    }

    #[test]
    fn a_program_outlives_its_caretaker() {
        let runroot = tempfile::tempdir().unwrap();
        let mark = Mark::take(runroot.path(), "c").unwrap();
        mark.tell(getpid()).unwrap();
        mark.hand_over();
        let seen = look(runroot.path(), "c");
        assert!(!seen.attended && seen.is_alive());
        assert!(matches!(Mark::take(runroot.path(), "c"), Err(Error::StillRunning { .. })));
    }

    #[test]
    fn a_number_that_another_process_has_by_now_is_no_program() {
        let start = start_time(getpid()).unwrap();
        let own = getpid().as_raw_nonzero();
        assert!(program_in(&format!("{own} {start} 1\n")).is_some());
        assert!(program_in(&format!("{own} {} 1\n", start + 1)).is_none());
        assert!(program_in("0 0 17\n").is_none() && program_in("exit 3\n").is_none());
        assert_eq!(caretaker_in("0 0 17\n"), Pid::from_raw(17));
    }
}
