//! Failures in front of the user: one sentence, one hint, Docker's exit status. The only place where
//! errors of the libraries become words of the command line.

use std::io;
use std::process::ExitCode;

use onggi_engine::Error as EngineError;
use onggi_engine::oci::ErrorKind;
use onggi_engine::registry::Error as RegistryError;

use crate::arguments;
use crate::output::human;

/// Why a command did not do what it was told.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense.
    Usage(clap::Error),
    /// A flag of `run` that does not exist.
    Flag(String),
    /// The engine could not.
    Engine(EngineError),
    /// `run` could not start the container: Docker reserves 125 to 127 for that.
    Run(EngineError),
    /// `exec` could not start the program: 126 and 127 for that, else 1.
    Exec(EngineError),
    /// The answer could not be written.
    Output(io::Error),
    /// A file, stream or terminal of the caller's did not work: what was tried, and the cause.
    Local(String, io::Error),
    /// The input contradicts itself or lacks something: a whole sentence.
    Input(String),
    /// Everything was said already.
    Silent(u8),
}

/// The exit status for a container that could not be made or started.
const CANNOT_RUN: u8 = 125;
/// As a shell: killed by SIGPIPE.
const BROKEN_PIPE: u8 = 141;

impl Failure {
    /// A failed operation on something of the caller's.
    pub fn local(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local(what.into(), source)
    }

    /// A template that cannot be read or does not fit.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub fn template(error: crate::output::template::Error) -> Self {
        Self::Input(error.to_string())
    }

    /// Says what went wrong and gives the exit status.
    #[expect(clippy::print_stderr, reason = "this is where failures are printed")]
    pub fn report(self) -> ExitCode {
        let status = self.status();
        match &self {
            Self::Usage(error) => {
                let _ = error.print();
            }
            Self::Flag(flag) => {
                eprintln!("onggi: unknown flag: {flag}\n\nRun 'onggi run --help' for more information");
            }
            Self::Engine(error) | Self::Run(error) | Self::Exec(error) => {
                // Names from outside stand in it, and what registries said.
                eprintln!("onggi: {}", human::visible(&error.to_string()));
                if let Some(hint) = hint(error) {
                    eprintln!("hint: {hint}");
                }
            }
            // Whoever read our output has gone; there is nobody to tell.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Self::Output(error) => eprintln!("onggi: cannot write the output: {error}"),
            Self::Local(what, error) => eprintln!("onggi: cannot {}: {error}", human::visible(what)),
            Self::Input(sentence) => eprintln!("onggi: {}", human::visible(sentence)),
            Self::Silent(_) => {}
        }
        ExitCode::from(status)
    }

    fn status(&self) -> u8 {
        match self {
            Self::Usage(error) => arguments::usage_status(error),
            Self::Flag(_) => CANNOT_RUN,
            Self::Run(error) => error.exit_status().unwrap_or(CANNOT_RUN),
            Self::Exec(error) => error.exit_status().filter(|status| *status != CANNOT_RUN).unwrap_or(1),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => BROKEN_PIPE,
            Self::Engine(_) | Self::Output(_) | Self::Local(..) | Self::Input(_) => 1,
            Self::Silent(status) => *status,
        }
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// What the user can do about it, where that is not in the sentence already.
fn hint(error: &EngineError) -> Option<String> {
    match error {
        EngineError::Registry(error) => registry_hint(error),
        EngineError::ForeignPlatform { .. } => Some(
            "install the package qemu-user-static (with binfmt-support), or name another image with --platform".into(),
        ),
        EngineError::Image(_) if error.kind() == ErrorKind::Corrupt => {
            Some("if it is about what is in the store, `onggi system check --repair` mends it".into())
        }
        _ => disk_hint(error),
    }
}

/// What to do about a disk that takes nothing more.
fn disk_hint(error: &EngineError) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if let Some(error) = one.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    return Some(
                        "the file system is full: df and df -i say whether of blocks or of inodes, `onggi system df` what \
                         onggi keeps, and `onggi system prune` frees what nothing uses"
                            .into(),
                    );
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    return Some("mount it writable, or choose another place by --root".into());
                }
                _ => {}
            }
            // An error may be wrapped in one that only carries it.
            cause = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
            continue;
        }
        cause = one.source();
    }
    None
}

fn registry_hint(error: &RegistryError) -> Option<String> {
    Some(match error {
        RegistryError::Denied { host, .. } => {
            format!(
                "log in with `onggi login {host}`, or check that the account may do this and the name is right"
            )
        }
        RegistryError::LoginFailed { .. } => "check user name and password, or use an access token".into(),
        RegistryError::UntrustedCertificate { host, .. } => {
            format!("put the certificate of its authority into /etc/onggi/certs.d/{host}/ca.crt")
        }
        RegistryError::ServerSpeaksHttp { host } => {
            format!("if plain HTTP to this host is safe, allow it with --insecure-registry {host}")
        }
        RegistryError::UnknownHost { .. } | RegistryError::Unreachable { .. } => {
            "check the name, the network and the proxy settings (HTTPS_PROXY, NO_PROXY)".into()
        }
        RegistryError::ManifestNotFound { .. } | RegistryError::RepositoryNotFound { .. } => {
            "check the name and the tag; a private repository needs `onggi login`".into()
        }
        _ => return None,
    })
}
