//! `onggi run`: runs a command in a new container, in the foreground.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use onggi_engine::oci::Platform;
use onggi_engine::run::{Bind, Network, PullPolicy, RunRequest, UserNamespace, WindowSize};

use crate::failure::Failure;
use crate::output::progress::{Sink, Transfers};
use crate::session::Session;

/// Run a command in a new container
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Overwrite the image's ENTRYPOINT
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Set an environment variable; NAME alone takes it from the caller
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Add groups to the user, by name or number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Run a small init that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Network of the container: none (loopback only, the default until networks exist) or host
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "none", value_parser = network)]
    network: Network,
    /// The platform wanted if the image has several, as os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// When to pull the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = pull_policy)]
    pull: PullPolicy,
    /// Print nothing of a pull
    #[arg(short, long)]
    quiet: bool,
    /// Mount the container's root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// User (and group) to run as, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Whose user IDs the container has: private (its own, the default) or host
    #[arg(long, value_name = "MODE", default_value = "private", value_parser = user_namespace)]
    userns: UserNamespace,
    /// Bind-mount a host path: SOURCE:TARGET[:OPTIONS]
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET")]
    volume: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The image, then the command and its arguments
    #[arg(value_name = "IMAGE [COMMAND] [ARG...]", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        let mut words = self.words.into_iter();
        let image = words.next().unwrap_or_default();
        // What looks like a flag in the image's place is a flag that does not exist.
        if image.starts_with('-') {
            return Err(Failure::Flag(image));
        }
        if self.tty && self.interactive && !std::io::stdin().is_terminal() {
            return Err(Failure::Input("the input device is not a TTY".into()));
        }
        let cwd = std::env::current_dir().map_err(Failure::local("find the current directory"))?;
        let binds = self.volume.iter().map(|text| Bind::parse(text, &cwd)).collect::<Result<_, _>>();
        let request = RunRequest {
            image,
            command: words.collect(),
            entrypoint: self.entrypoint.map(|e| if e.is_empty() { vec![] } else { vec![e] }),
            env: super::environment::collect(&self.env_file, self.env)?,
            group_add: self.group_add,
            hostname: self.hostname,
            init: self.init,
            interactive: self.interactive,
            name: self.name,
            network: self.network,
            platform: self.platform,
            pull: self.pull,
            read_only: self.read_only,
            remove: self.rm,
            terminal: self.tty.then(window_size),
            user: self.user,
            user_namespace: self.userns,
            binds: binds.map_err(Failure::Run)?,
            workdir: self.workdir,
        };
        let engine = session.engine()?;
        let status = engine
            .run(&request, &|| Box::new(Transfers::new(Sink::Stderr, self.quiet)))
            .map_err(Failure::Run)?;
        Ok(ExitCode::from(status))
    }
}

fn network(text: &str) -> Result<Network, String> {
    match text {
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        _ => Err("networks with addresses do not exist yet: none and host do".into()),
    }
}

fn pull_policy(text: &str) -> Result<PullPolicy, String> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        _ => Err("expected always, missing or never".into()),
    }
}

fn user_namespace(text: &str) -> Result<UserNamespace, String> {
    match text {
        "private" | "" => Ok(UserNamespace::Private),
        "host" => Ok(UserNamespace::Host),
        _ => Err("expected private or host".into()),
    }
}

/// The size of the caller's terminal; the kernel's default where there is none.
fn window_size() -> WindowSize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map(|size| WindowSize { rows: size.ws_row, columns: size.ws_col })
        .unwrap_or_default()
}
