//! `onggi oci`: the OCI runtime interface, flag for flag as runc's, so that
//! containerd, Podman, CRI-O and Docker can use this binary as their runtime.
//! A link named `onggi-runtime` behaves as `onggi oci`.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use onggi_runtime::Error;
use onggi_runtime::oci::{Runtime, Systemd};

/// The name of the link that stands for `onggi oci`.
pub const LINK: &str = "onggi-runtime";

/// Exit status of a command that failed, as runc's.
const FAILED: u8 = 1;
/// That of `exec`, whose other statuses are the program's.
const EXEC_FAILED: u8 = 255;

/// OCI runtime interface
#[derive(Debug, Parser)]
#[command(name = "onggi oci", version)]
struct Oci {
    /// Directory for the state of containers
    #[arg(long, global = true, default_value = onggi_runtime::oci::DEFAULT_ROOT)]
    root: PathBuf,
    /// File that errors are also written to
    #[arg(long, global = true)]
    log: Option<PathBuf>,
    /// Format of that file
    #[arg(long, global = true, default_value = "text")]
    log_format: LogFormat,
    /// Also log which version runs
    #[arg(long, global = true)]
    debug: bool,
    /// Have systemd make the control groups; the bundle's cgroupsPath is slice:prefix:name
    #[arg(long, global = true)]
    systemd_cgroup: bool,
    /// Ignore missing authority over control groups: true, false or auto
    #[arg(long = "rootless", id = "oci_rootless", value_name = "MODE", default_value = "auto")]
    rootless: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Create),
    Delete(delete::Delete),
    Events(events::Events),
    Exec(exec::Exec),
    Features(features::Features),
    Kill(kill::Kill),
    List(list::List),
    Pause(pause::Pause),
    Ps(ps::Ps),
    Resume(pause::Resume),
    Run(run::Run),
    Spec(spec::Spec),
    Start(start::Start),
    State(state::State),
    Update(update::Update),
}

/// What a subcommand returns: the exit status.
type Outcome = Result<u8, Error>;

/// The arguments for [`main`] if the command line is for the runtime interface:
/// `onggi oci …`, or anything said to the link.
pub fn requested(arguments: impl IntoIterator<Item = OsString>) -> Option<Vec<OsString>> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|name| PathBuf::from(name).file_name().map(ToOwned::to_owned));
    if name.is_some_and(|name| name == LINK) {
        return Some(arguments);
    }
    if arguments.get(1).is_some_and(|word| word == "oci") {
        arguments.remove(0);
        return Some(arguments);
    }
    None
}

/// Runs the command of these arguments, the first of which is a program name.
#[expect(clippy::print_stderr, reason = "errors of a runtime go to its caller's standard error")]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let oci = match Oci::try_parse_from(arguments) {
        Ok(oci) => oci,
        Err(usage) => {
            let _ = usage.print();
            return ExitCode::from(if usage.use_stderr() { FAILED } else { 0 });
        }
    };
    let log = Log { file: oci.log.clone(), format: oci.log_format };
    if oci.debug {
        let version = env!("CARGO_PKG_VERSION");
        log.line("debug", &format!("onggi oci {version}, state in {}", oci.root.display()));
    }
    let outcome = run(&oci);
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let message = words(&error);
            eprintln!("onggi oci: {message}");
            log.line("error", &message);
            ExitCode::from(match (&oci.command, &error) {
                (Command::Run(_), Error::Exec { .. }) => error.exit_code(),
                (Command::Exec(_), _) => EXEC_FAILED,
                _ => FAILED,
            })
        }
    }
}

/// The service manager of whoever calls, where D-Bus says that its bus is.
fn systemd() -> Systemd {
    let of_user = !rustix::process::geteuid().is_root();
    let named = |name: &str| std::env::var(name).ok().filter(|address| !address.is_empty());
    let bus = if of_user {
        named("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
            let uid = rustix::process::getuid().as_raw();
            let run = named("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}"));
            format!("unix:path={run}/bus")
        })
    } else {
        named("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".into())
    };
    Systemd { bus, of_user }
}

fn run(oci: &Oci) -> Outcome {
    let runtime = Runtime::new(&oci.root).systemd(oci.systemd_cgroup.then(systemd));
    let log = Log { file: oci.log.clone(), format: oci.log_format };
    let runtime = runtime.on_warning(move |words| log.line("warning", words));
    match &oci.command {
        Command::Create(command) => command.run(&runtime),
        Command::Delete(command) => command.run(&runtime),
        Command::Events(command) => command.run(&runtime),
        Command::Exec(command) => command.run(&runtime),
        Command::Features(command) => command.run(),
        Command::Kill(command) => command.run(&runtime),
        Command::List(command) => command.run(&runtime),
        Command::Pause(command) => command.run(&runtime),
        Command::Ps(command) => command.run(&runtime),
        Command::Resume(command) => command.run(&runtime),
        Command::Run(command) => command.run(&runtime),
        Command::Spec(command) => command.run(),
        Command::Start(command) => command.run(&runtime),
        Command::State(command) => command.run(&runtime),
        Command::Update(command) => command.run(&runtime),
    }
}

/// The error, in the words by which Docker and Podman tell 126 from 127, and others what runc would mean.
fn words(error: &Error) -> String {
    match error {
        Error::Exec { problem } => {
            let words =
                if problem.exit_code() == 127 { "no such file or directory" } else { "permission denied" };
            format!("exec {}: {words} ({problem})", problem.program())
        }
        Error::State { operation: "exec in", id, state } if state == "paused" => {
            format!("cannot exec in a paused container: resume {id} first, or use --ignore-paused")
        }
        Error::State { operation: "kill", state, .. } if state == "stopped" => {
            format!("{error} (container not running)")
        }
        Error::NotFound { what } if what.starts_with("container ") => {
            format!("container does not exist: {what}")
        }
        _ => error.to_string(),
    }
}

/// Where a runtime says what it has to say.
struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
}

impl Log {
    /// Writes a line to the log; of errors standard error has heard already.
    #[expect(clippy::print_stderr, reason = "where a runtime's log goes if no file is named")]
    fn line(&self, level: &str, message: &str) {
        let time = jiff::Timestamp::now().to_string();
        let line = match self.format {
            LogFormat::Json => serde_json::json!({"level": level, "msg": message, "time": time}).to_string(),
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
        };
        let file =
            self.file.as_ref().map(|path| std::fs::OpenOptions::new().create(true).append(true).open(path));
        match file {
            Some(Ok(mut file)) => drop(writeln!(file, "{line}")),
            None if level != "error" => eprintln!("{line}"),
            Some(Err(_)) | None => {}
        }
    }
}

/// Prints a line; a closed pipe is nobody's error.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A user as `UID[:GID]`.
fn parse_user(text: &str) -> Result<(u32, u32), String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is not an id"));
    Ok((number(uid)?, number(gid)?))
}

/// A signal by number or name, with or without `SIG`.
fn parse_signal(text: &str) -> Result<i32, String> {
    #[rustfmt::skip]
    const NAMES: [(&str, i32); 31] = [
        ("HUP", 1), ("INT", 2), ("QUIT", 3), ("ILL", 4), ("TRAP", 5), ("ABRT", 6), ("BUS", 7), ("FPE", 8),
        ("KILL", 9), ("USR1", 10), ("SEGV", 11), ("USR2", 12), ("PIPE", 13), ("ALRM", 14), ("TERM", 15),
        ("STKFLT", 16), ("CHLD", 17), ("CONT", 18), ("STOP", 19), ("TSTP", 20), ("TTIN", 21), ("TTOU", 22),
        ("URG", 23), ("XCPU", 24), ("XFSZ", 25), ("VTALRM", 26), ("PROF", 27), ("WINCH", 28), ("IO", 29),
        ("PWR", 30), ("SYS", 31),
    ];
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(format!("there is no signal {number}"))
        };
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = NAMES.iter().find(|(name, _)| *name == bare).map(|(_, number)| *number);
    found.ok_or_else(|| format!("there is no signal {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Oci::command().debug_assert();
    }

    #[test]
    fn signals_and_users() {
        assert_eq!(parse_signal("SIGTERM"), Ok(15));
        assert_eq!(parse_signal("kill"), Ok(9));
        assert_eq!(parse_signal("64"), Ok(64));
        assert!(parse_signal("65").is_err() && parse_signal("NOPE").is_err() && parse_signal("-1").is_err());
        assert_eq!(parse_user("5:6"), Ok((5, 6)));
        assert_eq!(parse_user("5"), Ok((5, 0)));
        assert!(parse_user("4294967296").is_err());
    }
}
