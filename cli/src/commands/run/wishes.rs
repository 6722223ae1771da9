//! All flags that `run` and `create` share: what the container is to be.
//!
//! | module | flags about |
//! |---|---|
//! | this | the program, its files, its names |
//! | [`super::resources`] | how much it may use |
//! | [`super::security`] | what it may do |
//! | [`super::network`] | whom it reaches, and who reaches it |
//! | [`super::health`] | how to find out whether it is well |
//! | [`super::refused`] | what can't be had |
//! | [`super::values`] | Docker's grammar of values |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use onggi_engine::logs::LogConfig;
use onggi_engine::oci::Platform;
use onggi_engine::run::{
    Mount, Mounted, Notes, PullPolicy, Restart, RunRequest, Streams, Tmpfs, VolumesFrom,
};

use super::{health, network, refused, resources, security, values, window_size};
use crate::commands::environment;
use crate::failure::Failure;
use crate::session::Session;

/// What the container is to be
#[derive(Debug, clap::Args)]
pub struct Wishes {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Add an annotation to the container
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    annotation: Vec<(String, String)>,
    /// Attach to STDIN, STDOUT or STDERR; what is not named is not attached
    #[arg(short, long, value_name = "STREAM", ignore_case = true, value_parser = ["stdin", "stdout", "stderr"])]
    attach: Vec<String>,
    /// Write the container ID to the file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
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
    /// Where the container's output is kept: json-file, local or none
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    log_driver: String,
    /// An option of the log driver
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::log_option)]
    log_opt: Vec<(String, String)>,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
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
    /// Restart policy to apply when the container ends: no, on-failure[:MAX], always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = values::restart)]
    restart: Restart,
    /// Signal to stop the container
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal)]
    stop_signal: Option<String>,
    /// Timeout (in seconds) to stop the container
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
    health: health::Options,
    #[command(flatten)]
    network: network::Options,
    #[command(flatten)]
    resources: resources::Options,
    #[command(flatten)]
    security: security::Options,
    #[command(flatten)]
    _refused: refused::Options,
}

impl Wishes {
    /// Whether to say nothing of a pull.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether it is said which streams are attached.
    pub fn names_streams(&self) -> bool {
        !self.attach.is_empty()
    }

    /// As the engine takes them. Of a container that runs `detached` nobody gets the streams.
    pub fn into_request(self, detached: bool, session: &Session) -> Result<RunRequest, Failure> {
        let mut words = self.words.into_iter();
        let image = words.next().unwrap_or_default();
        // What looks like a flag in the image's place is a flag that does not exist.
        if image.starts_with('-') {
            return Err(Failure::Flag(image));
        }
        let cwd = std::env::current_dir().map_err(Failure::local("find the current directory"))?;
        let mut mounts = Mounts::default();
        mounts.add(&self.volume, &self.mount, &self.tmpfs, &cwd).map_err(Failure::Run)?;
        let attached = |stream: &str, default| {
            if self.attach.is_empty() {
                default && !detached
            } else {
                self.attach.iter().any(|a| a.eq_ignore_ascii_case(stream))
            }
        };
        let streams = Streams {
            // Named, it counts as attached; without -i there is nothing to read all the same.
            input: attached("stdin", self.interactive),
            output: attached("stdout", true),
            error: attached("stderr", true),
        };
        // As a value that clap refuses: Docker's status for these is 125.
        let refused =
            |problem| clap::Error::raw(clap::error::ErrorKind::InvalidValue, format!("{problem}\n"));
        let wished = self.network.into_wishes(session.default_network().as_deref()).map_err(refused)?;
        let (named_devices, gpus) = self.security.named_devices();
        let described = !named_devices.is_empty() || !gpus.is_empty();
        Ok(RunRequest {
            image,
            command: words.collect(),
            entrypoint: self.entrypoint.map(|e| if e.is_empty() { vec![] } else { vec![e] }),
            env: environment::collect(&self.env_file, self.env)?,
            group_add: self.group_add,
            hostname: self.hostname.filter(|name| !name.is_empty()),
            domainname: self.domainname,
            init: self.init,
            streams,
            interactive: self.interactive,
            name: self.name,
            id_file: self.cidfile,
            network: wished.network,
            publishing: wished.publishing,
            resolver: wished.resolver,
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
            cdi_dirs: if described { session.cdi_dirs() } else { Vec::new() },
            gpus,
            named_devices,
            sysctls: self.sysctl,
            resources: self.resources.into_resources(),
            security: self.security.into_security()?,
            restart: self.restart,
            health: self.health.into_wish(),
            log: LogConfig::new(&self.log_driver, self.log_opt.into_iter().collect())
                .map_err(Failure::Run)?,
            notes: Notes {
                labels: labels(&self.label_file, self.label)?,
                annotations: self.annotation.into_iter().collect(),
                stop_signal: self.stop_signal,
                stop_timeout: self.stop_timeout,
            },
            workdir: self.workdir,
        })
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
