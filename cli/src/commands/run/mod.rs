//! `onggi run`: runs a command in a new container, in the foreground.
//!
//! | module | flags about |
//! |---|---|
//! | this | the program, its files, its names |
//! | [`resources`] | how much it may use |
//! | [`security`] | what it may do |
//! | [`refused`] | what can't be had |
//! | [`values`] | Docker's grammar of values |

mod refused;
mod resources;
mod security;
pub mod values;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use onggi_engine::oci::Platform;
use onggi_engine::run::{
    Mount, Mounted, Network, Notes, PullPolicy, Resolver, RunRequest, Streams, Tmpfs, VolumesFrom, WindowSize,
};

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
    /// Add a custom host-to-IP mapping to the container's /etc/hosts
    #[arg(long, value_name = "HOST:IP", value_parser = values::host)]
    add_host: Vec<(String, IpAddr)>,
    /// Add an annotation to the container
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    annotation: Vec<(String, String)>,
    /// Attach to STDIN, STDOUT or STDERR; what is not named is not attached
    #[arg(short, long, value_name = "STREAM", ignore_case = true, value_parser = ["stdin", "stdout", "stderr"])]
    attach: Vec<String>,
    /// Write the container ID to the file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Set custom DNS servers
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Set DNS options
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION", value_parser = values::resolver_word)]
    dns_option: Vec<String>,
    /// Set custom DNS search domains; '.' for none
    #[arg(long, value_name = "DOMAIN", value_parser = values::resolver_word)]
    dns_search: Vec<String>,
    /// Container NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
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
    /// Set meta data on a container
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::label)]
    label: Vec<(String, String)>,
    /// Read labels from a file, one on each line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Attach a filesystem mount: type=bind|volume|tmpfs|image,source=WHAT,target=PATH[,readonly]
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
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
    /// Proxy received signals to the process
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        default_value = "true", default_missing_value = "true")]
    sig_proxy: bool,
    /// Signal to stop the container (kept with it)
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal)]
    stop_signal: Option<String>,
    /// Timeout (in seconds) to stop the container (kept with it)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stop_timeout: Option<i64>,
    /// Sysctl options
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::sysctl)]
    sysctl: Vec<(String, String)>,
    /// Mount a tmpfs directory: PATH[:OPTIONS]
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// User (and group) to run as, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Mount a host path or a volume: [SOURCE:]TARGET[:OPTIONS]
    #[arg(short, long = "volume", value_name = "[SOURCE:]TARGET")]
    volume: Vec<String>,
    /// Mount what another container has mounted: CONTAINER[:ro|rw]
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<VolumesFrom>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The image, then the command and its arguments
    #[arg(value_name = "IMAGE [COMMAND] [ARG...]", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
    #[command(flatten)]
    resources: resources::Options,
    #[command(flatten)]
    security: security::Options,
    #[command(flatten)]
    _refused: refused::Options,
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
        let mut mounts = Mounts::default();
        mounts.add(&self.volume, &self.mount, &self.tmpfs, &cwd).map_err(Failure::Run)?;
        let attached = |stream: &str, default| {
            if self.attach.is_empty() {
                default
            } else {
                self.attach.iter().any(|a| a.eq_ignore_ascii_case(stream))
            }
        };
        let streams = Streams {
            input: self.interactive && attached("stdin", true),
            output: attached("stdout", true),
            error: attached("stderr", true),
        };
        let request = RunRequest {
            image,
            command: words.collect(),
            entrypoint: self.entrypoint.map(|e| if e.is_empty() { vec![] } else { vec![e] }),
            env: super::environment::collect(&self.env_file, self.env)?,
            group_add: self.group_add,
            hostname: self.hostname,
            domainname: self.domainname,
            init: self.init,
            streams,
            forward_signals: self.sig_proxy,
            name: self.name,
            id_file: self.cidfile,
            network: self.network,
            resolver: Resolver {
                servers: self.dns,
                search: self.dns_search,
                options: self.dns_option,
                hosts: self.add_host,
            },
            platform: self.platform,
            pull: self.pull,
            read_only: self.read_only,
            remove: self.rm,
            terminal: self.tty.then(window_size),
            user: self.user,
            namespaces: self.security.namespaces(),
            mounts: mounts.mounted,
            volumes_from: self.volumes_from,
            tmpfs: mounts.tmpfs,
            devices: self.security.devices()?,
            sysctls: self.sysctl,
            resources: self.resources.into_resources(),
            security: self.security.into_security()?,
            notes: Notes {
                labels: labels(&self.label_file, self.label)?,
                annotations: self.annotation.into_iter().collect(),
                stop_signal: self.stop_signal,
                stop_timeout: self.stop_timeout,
            },
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

/// What the container sees besides its image.
#[derive(Default)]
struct Mounts {
    mounted: Vec<Mounted>,
    tmpfs: Vec<Tmpfs>,
}

impl Mounts {
    fn add(
        &mut self,
        volumes: &[String],
        mounts: &[String],
        tmpfs: &[String],
        cwd: &Path,
    ) -> Result<(), onggi_engine::Error> {
        for text in volumes {
            self.mounted.push(Mounted::parse(text, cwd)?);
        }
        for text in mounts {
            match Mount::parse(text, cwd)? {
                Mount::Mounted(mounted) => self.mounted.push(mounted),
                Mount::Tmpfs(tmpfs) => self.tmpfs.push(tmpfs),
            }
        }
        for text in tmpfs {
            self.tmpfs.push(Tmpfs::parse(text)?);
        }
        Ok(())
    }
}

/// All labels: those of the files first, later ones winning.
fn labels(files: &[PathBuf], words: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for file in files {
        let shown = file.display();
        let text = std::fs::read_to_string(file).map_err(Failure::local(format!("read {shown}")))?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) =
                values::label(line).map_err(|problem| Failure::Input(format!("{shown}: {problem}")))?;
            labels.insert(key, value);
        }
    }
    labels.extend(words);
    Ok(labels)
}

/// The size of the caller's terminal; the kernel's default where there is none.
pub fn window_size() -> WindowSize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map(|size| WindowSize { rows: size.ws_row, columns: size.ws_col })
        .unwrap_or_default()
}
