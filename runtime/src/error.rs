//! What can go wrong, in sentences.

use std::io;
use std::path::PathBuf;

use onggi_oci::ErrorKind;
use serde::{Deserialize, Serialize};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between a specification and an exit status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The specification, an id or an argument contradicts itself or the rules.
    #[error("{what}: {why}")]
    Invalid {
        /// The field, as it is called in `config.json`.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A valid wish that this host or this program can't fulfil.
    #[error("{what} is not supported: {why}")]
    Unsupported {
        /// The wish.
        what: String,
        /// The reason and, where there is one, the remedy.
        why: String,
    },
    /// A step of the parent failed.
    #[error("cannot {operation} {object}: {source}")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// A step inside the new container failed.
    #[error("cannot {stage}{}{object}: {source}{}", if object.is_empty() { "" } else { " " }, stage.hint(source))]
    Setup {
        /// Which step.
        stage: Stage,
        /// On what; may be empty.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// The program can't be executed.
    #[error("{problem}")]
    Exec {
        /// Why.
        problem: ExecProblem,
    },
    /// The container's first process ended before it became the program, and
    /// left no report: it was killed.
    #[error("the container's first process was ended during set-up ({status})")]
    Ended {
        /// How it ended.
        status: crate::ExitStatus,
    },
    /// A container could reach and overwrite this program's own file; the caller
    /// must call [`shield`](crate::shield) first.
    #[error("the container could overwrite {program}: the caller did not shield it")]
    Exposed {
        /// The file of this program.
        program: PathBuf,
    },
    /// A hook of the bundle failed.
    #[error("error running {stage} hook #{index}: {path}: {why}")]
    Hook {
        /// The name of the list that it is in.
        stage: &'static str,
        /// Its place in that list, from 0.
        index: usize,
        /// Its program.
        path: PathBuf,
        /// How it failed.
        why: String,
    },
    /// The service manager didn't do what it was asked.
    #[error("systemd refused {call}: {words} (at {address})")]
    Refused {
        /// The method.
        call: String,
        /// The bus.
        address: String,
        /// The manager's words.
        words: String,
    },
    /// A container or process that isn't there.
    #[error("{what} does not exist")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The container is in a state in which this can't be done.
    #[error("cannot {operation} container {id}: it is {state}")]
    State {
        /// What was tried.
        operation: &'static str,
        /// On which container.
        id: String,
        /// The state it is in.
        state: String,
    },
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), why: why.into() }
    }

    /// For `map_err`: this operation on this object.
    pub(crate) fn io<E: Into<io::Error>>(
        operation: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let object = object.into();
        move |source| Self::Io { operation, object, source: source.into() }
    }

    /// The kind of the error, the same in all crates.
    pub fn kind(&self) -> ErrorKind {
        let of = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            io::ErrorKind::AlreadyExists => ErrorKind::Conflict,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        match self {
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Io { source, .. } | Self::Setup { source, .. } => of(source),
            Self::Exec { problem } => {
                if problem.exit_code() == 127 {
                    ErrorKind::NotFound
                } else {
                    ErrorKind::Denied
                }
            }
            Self::Ended { .. } | Self::Hook { .. } | Self::Refused { .. } => ErrorKind::Io,
            Self::Exposed { .. } => ErrorKind::Denied,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::State { .. } => ErrorKind::Conflict,
        }
    }

    /// The exit code that Docker's command line gives: 127 where the program is
    /// missing, 126 where it can't be executed, 125 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exec { problem } => problem.exit_code(),
            _ => 125,
        }
    }
}

/// A step of the set-up inside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of each is in `phrase`")]
pub enum Stage {
    Handshake,
    ControlGroup,
    Identity,
    JoinNamespace,
    NewNamespace,
    Keyring,
    Propagation,
    MakeFilesystem,
    OpenSource,
    MountPoint,
    Attach,
    MountOptions,
    CopyUp,
    DeviceNode,
    DeviceLink,
    PivotRoot,
    Sysctl,
    Mask,
    ReadOnly,
    HostName,
    Loopback,
    Terminal,
    Rlimit,
    Scheduling,
    WorkingDirectory,
    Groups,
    Capabilities,
    NoNewPrivileges,
    Seccomp,
    Descriptors,
    Reaper,
    Hook,
    SecurityLabel,
}

impl Stage {
    fn phrase(self) -> &'static str {
        match self {
            Self::Handshake => "talk to the container's first process",
            Self::ControlGroup => "join the control group",
            Self::Identity => "become the container's root user",
            Self::JoinNamespace => "join the namespace",
            Self::NewNamespace => "make a new namespace:",
            Self::Keyring => "make the session keyring",
            Self::Propagation => "separate the mounts of",
            Self::MakeFilesystem => "make the filesystem",
            Self::OpenSource => "open the mount source",
            Self::MountPoint => "make the mount point",
            Self::Attach => "mount on",
            Self::MountOptions => "set the mount options of",
            Self::CopyUp => "copy the image's files into the tmpfs on",
            Self::DeviceNode => "make the device node",
            Self::DeviceLink => "make the link",
            Self::PivotRoot => "enter the root filesystem",
            Self::Sysctl => "set the sysctl",
            Self::Mask => "mask",
            Self::ReadOnly => "make read-only",
            Self::HostName => "set the host name",
            Self::Loopback => "bring up the loopback interface",
            Self::Terminal => "set up the terminal",
            Self::Rlimit => "set the resource limit",
            Self::Scheduling => "set the scheduling",
            Self::WorkingDirectory => "change to the working directory",
            Self::Groups => "set the user and group ids",
            Self::Capabilities => "set the capabilities",
            Self::NoNewPrivileges => "forbid new privileges",
            Self::Seccomp => "install the system call filter",
            Self::Descriptors => "close the host's descriptors",
            Self::Reaper => "start the program under the init process",
            Self::Hook => "run the hook",
            Self::SecurityLabel => "set the security label",
        }
    }

    fn hint(self, source: &io::Error) -> &'static str {
        match (self, source.raw_os_error()) {
            (Self::Rlimit, Some(1)) => {
                " (a limit above the caller's own hard limit needs CAP_SYS_RESOURCE on the host)"
            }
            (Self::Scheduling, Some(1)) => {
                " (a process scheduler can't be used together with AllowedCPUs, CPUs of its own, if it is SCHED_DEADLINE; \
                 else it needs CAP_SYS_NICE)"
            }
            (Self::MakeFilesystem, Some(1)) => {
                " (inside a user namespace this needs a fully visible instance on the host side)"
            }
            (Self::MountPoint, Some(40)) => {
                " (it must be mounted on ordinary directory, and the image has a symbolic link there)"
            }
            (Self::MountPoint | Self::Attach, Some(20)) => {
                " (source and destination must both be directories or both be files)"
            }
            (Self::MountPoint, Some(30)) => " (the root filesystem is read-only and lacks it)",
            _ => "",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.phrase())
    }
}

/// Why a program can't be executed, as found by looking after `execve` failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ExecProblem {
    /// No such command in the directories of `PATH`.
    #[error("{program}: command not found in PATH ({path})")]
    NotInPath {
        /// The command.
        program: String,
        /// The search path.
        path: String,
    },
    /// No such file.
    #[error("{program}: no such file in the container")]
    Missing {
        /// The path.
        program: String,
    },
    /// The interpreter named behind `#!` is missing.
    #[error("{program}: its interpreter {interpreter} (first line of the script) is not in the container")]
    ScriptInterpreter {
        /// The script.
        program: String,
        /// The missing file.
        interpreter: String,
    },
    /// The line behind `#!` ends in CR LF.
    #[error(
        "{program}: its first line ends in CR LF (Windows), so the interpreter would be \"{interpreter}\\r\"; convert the file to LF line ends"
    )]
    CarriageReturn {
        /// The script.
        program: String,
        /// The interpreter that was meant.
        interpreter: String,
    },
    /// The dynamic loader named in the ELF header is missing.
    #[error(
        "{program}: its loader {loader} is not in the container (the program was linked for another C library; install that or link statically)"
    )]
    Loader {
        /// The program.
        program: String,
        /// The missing file.
        loader: String,
    },
    /// Made for another processor.
    #[error("{program}: built for {found}, but this machine is {host}")]
    Architecture {
        /// The program.
        program: String,
        /// What the ELF header says.
        found: String,
        /// This machine.
        host: String,
    },
    /// Neither an ELF file nor a script.
    #[error("{program}: not a program this kernel knows (no ELF header, no \"#!\" line)")]
    Format {
        /// The file.
        program: String,
    },
    /// No execute permission for this user.
    #[error("{program}: no execute permission (mode {mode:04o})")]
    NotExecutable {
        /// The file.
        program: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory on the way, or the file, isn't accessible for this user.
    #[error("{program}: permission denied for user {uid}")]
    Denied {
        /// The path.
        program: String,
        /// The user id.
        uid: u32,
    },
    /// It is a directory.
    #[error("{program}: is a directory")]
    Directory {
        /// The path.
        program: String,
    },
    /// Its filesystem is mounted `noexec`.
    #[error("{program}: its filesystem is mounted noexec")]
    NoExecMount {
        /// The path.
        program: String,
    },
    /// Arguments and environment are larger than the kernel takes.
    #[error("{program}: arguments and environment are too long")]
    TooLong {
        /// The path.
        program: String,
    },
    /// Anything else that the kernel said.
    #[error("{program}: cannot be executed: {}", io::Error::from_raw_os_error(*errno))]
    Other {
        /// The path.
        program: String,
        /// The error number.
        errno: i32,
    },
}

impl ExecProblem {
    /// The command or path that can't be executed.
    pub fn program(&self) -> &str {
        match self {
            Self::NotInPath { program, .. }
            | Self::Missing { program }
            | Self::ScriptInterpreter { program, .. }
            | Self::CarriageReturn { program, .. }
            | Self::Loader { program, .. }
            | Self::Architecture { program, .. }
            | Self::Format { program }
            | Self::NotExecutable { program, .. }
            | Self::Denied { program, .. }
            | Self::Directory { program }
            | Self::NoExecMount { program }
            | Self::TooLong { program }
            | Self::Other { program, .. } => program,
        }
    }

    /// 127 where something is missing, 126 where it is there and can't be run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotInPath { .. }
            | Self::Missing { .. }
            | Self::ScriptInterpreter { .. }
            | Self::CarriageReturn { .. }
            | Self::Loader { .. } => 127,
            _ => 126,
        }
    }
}
