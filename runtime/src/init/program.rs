//! The last step: becoming the program, or saying why that can't be.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use onggi_sys::process::{close_on_exec_from, exec};
use onggi_sys::signal::{SignalSet, reset_dispositions, set_mask};
use rustix::fs::{Access, AtFlags, CWD, FileType, StatVfsMountFlags};
use rustix::io::Errno;

use super::{failed, lossy};
use crate::channel::Report;
use crate::error::{ExecProblem, Stage};
use crate::plan::ProcessPlan;

/// What a process sets for itself before it becomes the program: a session and a terminal, signals.
pub(crate) fn prepare(controlling: bool) -> Result<(), Report> {
    // A session of its own: the host's terminal can't signal the container
    // behind our back, nor the container steal it.
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(failed(Stage::Terminal, "session")(error)),
    }
    if controlling {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
            .map_err(failed(Stage::Terminal, "controlling terminal"))?;
    }
    reset_dispositions();
    set_mask(&SignalSet::empty()).map_err(failed(Stage::Terminal, "signal mask"))
}

/// No descriptor but the standard ones and `preserved` from 3 up outlives the exec. What is opened
/// from here on is close-on-exec by itself.
pub(crate) fn close_descriptors(preserved: u32) -> Result<(), Report> {
    close_on_exec_from(3u32.saturating_add(preserved)).map_err(failed(Stage::Descriptors, ""))
}

/// Replaces this process by the program, sought in each directory of the search path if it has no
/// slash; returns only with the reason why not.
pub(crate) fn execute(process: &ProcessPlan) -> ExecProblem {
    let Some(program) = process.arguments.strings().first() else {
        return ExecProblem::Missing { program: String::new() };
    };
    let try_exec = |path: &CString| exec(path, &process.arguments, &process.environment);
    if program.as_bytes().contains(&b'/') {
        let error = try_exec(program);
        return diagnose(program, &error, process.uid);
    }
    let mut denied = None;
    for directory in process.search_path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let mut path = directory.as_bytes().to_vec();
        path.push(b'/');
        path.extend_from_slice(program.as_bytes());
        let Ok(path) = CString::new(path) else { continue };
        let error = try_exec(&path);
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            // Missing here, or there with a missing interpreter.
            Some(Errno::NOENT) => match diagnose(&path, &error, process.uid) {
                ExecProblem::Missing { .. } => {}
                other => return other,
            },
            Some(Errno::NOTDIR) => {}
            Some(Errno::ACCESS) => {
                let problem = diagnose(&path, &error, process.uid);
                if !matches!(problem, ExecProblem::Directory { .. } | ExecProblem::Missing { .. }) {
                    denied.get_or_insert(problem);
                }
            }
            _ => return diagnose(&path, &error, process.uid),
        }
    }
    denied.unwrap_or_else(|| ExecProblem::NotInPath {
        program: lossy(program),
        path: process.search_path.clone(),
    })
}

/// Whether there is any file that the program's name could mean; asked at
/// `create`, whose callers expect to hear then that there is none.
pub(super) fn must_exist(process: &ProcessPlan) -> Result<(), Report> {
    let Some(program) = process.arguments.strings().first() else { return Ok(()) };
    let there = |path: &[u8]| !matches!(rustix::fs::stat(path), Err(Errno::NOENT | Errno::NOTDIR));
    if program.as_bytes().contains(&b'/') {
        if there(program.as_bytes()) {
            return Ok(());
        }
        return Err(Report::Exec(ExecProblem::Missing { program: lossy(program) }));
    }
    let found = process.search_path.split(':').any(|directory| {
        let directory = if directory.is_empty() { "." } else { directory };
        there(&[directory.as_bytes(), b"/", program.as_bytes()].concat())
    });
    if found {
        return Ok(());
    }
    Err(Report::Exec(ExecProblem::NotInPath { program: lossy(program), path: process.search_path.clone() }))
}

/// Looks why `execve` of this path failed.
fn diagnose(path: &CString, error: &io::Error, uid: u32) -> ExecProblem {
    let program = lossy(path);
    let other = |errno: i32| ExecProblem::Other { program: program.clone(), errno };
    let errno = error.raw_os_error().unwrap_or(5);
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT | Errno::NOTDIR => match read_head(path) {
            Some(head) => missing_part(&program, &head, errno),
            None => ExecProblem::Missing { program },
        },
        Errno::ACCESS => refused(path, program, uid),
        Errno::NOEXEC => match read_head(path) {
            Some(head) => match elf_machine(&head) {
                Some(found) if found != host_machine() => ExecProblem::Architecture {
                    program,
                    found: machine_name(found),
                    host: machine_name(host_machine()),
                },
                _ => ExecProblem::Format { program },
            },
            None => ExecProblem::Format { program },
        },
        Errno::TOOBIG => ExecProblem::TooLong { program },
        _ => other(errno),
    }
}

/// As much of a file as the kernel looks at for a script, and an ELF header with
/// its program headers.
const HEAD: usize = 4096;

fn read_head(path: &CString) -> Option<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    // Not blocking: it could be a FIFO.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path.as_c_str(), flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut head = vec![0; HEAD];
    let read = rustix::io::pread(&file, &mut head[..], 0).ok()?;
    head.truncate(read);
    Some(head)
}

/// The file is there, so something that it names is not.
fn missing_part(program: &str, head: &[u8], errno: i32) -> ExecProblem {
    let program = program.to_owned();
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let words = String::from_utf8_lossy(line);
        let interpreter = words.trim().split([' ', '\t']).next().unwrap_or_default().to_owned();
        if words.ends_with('\r') && !words.trim_end_matches('\r').trim().contains([' ', '\t']) {
            let interpreter = interpreter.trim_end_matches('\r').to_owned();
            return ExecProblem::CarriageReturn { program, interpreter };
        }
        return ExecProblem::ScriptInterpreter { program, interpreter };
    }
    match elf_interpreter(head) {
        Some(loader) => ExecProblem::Loader { program, loader },
        None => ExecProblem::Other { program, errno },
    }
}

fn refused(path: &CString, program: String, uid: u32) -> ExecProblem {
    let stat = match rustix::fs::stat(path.as_c_str()) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return ExecProblem::Missing { program },
        Err(_) => return ExecProblem::Denied { program, uid },
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return ExecProblem::Directory { program },
        FileType::RegularFile => {}
        _ => return ExecProblem::Format { program },
    }
    if let Ok(vfs) = rustix::fs::statvfs(path.as_c_str())
        && vfs.f_flag.contains(StatVfsMountFlags::NOEXEC)
    {
        return ExecProblem::NoExecMount { program };
    }
    if rustix::fs::accessat(CWD, path.as_c_str(), Access::EXEC_OK, AtFlags::EACCESS).is_err() {
        return ExecProblem::NotExecutable { program, mode: stat.st_mode & 0o7777 };
    }
    // The file itself may be run: its interpreter may not.
    let interpreter = read_head(path).and_then(|head| {
        let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
        let words = String::from_utf8_lossy(line).trim().to_owned();
        words.split([' ', '\t']).next().map(str::to_owned)
    });
    match interpreter {
        Some(interpreter) => {
            ExecProblem::Denied { program: format!("{program}: interpreter {interpreter}"), uid }
        }
        None => ExecProblem::Denied { program, uid },
    }
}

/// `e_machine` of an ELF file.
fn elf_machine(head: &[u8]) -> Option<u16> {
    if head.get(..4) != Some(b"\x7fELF") {
        return None;
    }
    let bytes: [u8; 2] = head.get(18..20)?.try_into().ok()?;
    match head.get(5) {
        Some(1) => Some(u16::from_le_bytes(bytes)),
        Some(2) => Some(u16::from_be_bytes(bytes)),
        _ => None,
    }
}

/// `PT_INTERP` of a 64- or 32-bit little-endian ELF file, if it is in the head.
fn elf_interpreter(head: &[u8]) -> Option<String> {
    const PT_INTERP: u64 = 3;
    elf_machine(head)?;
    let wide = head.get(4) == Some(&2);
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let (table, entry, count) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    for index in 0..count {
        let at = usize::try_from(table.checked_add(index.checked_mul(entry)?)?).ok()?;
        if number(at, 4)? == PT_INTERP {
            let offset = if wide { number(at.checked_add(8)?, 8)? } else { number(at.checked_add(4)?, 4)? };
            let name = head.get(usize::try_from(offset).ok()?..)?;
            let end = name.iter().position(|byte| *byte == 0)?;
            return Some(Path::new(std::ffi::OsStr::from_bytes(name.get(..end)?)).display().to_string());
        }
    }
    None
}

const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

fn host_machine() -> u16 {
    if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 }
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "386".into(),
        8 => "mips".into(),
        20 => "ppc".into(),
        21 => "ppc64".into(),
        22 => "s390x".into(),
        40 => "arm".into(),
        EM_X86_64 => "amd64".into(),
        EM_AARCH64 => "arm64".into(),
        243 => "riscv64".into(),
        258 => "loong64".into(),
        other => format!("ELF machine {other}"),
    }
}
