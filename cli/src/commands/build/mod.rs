//! `onggi build`: an image from a build file.

mod attest;
mod call;
mod excerpt;
mod plain;
mod raw;
mod sharing;
mod timeline;
mod tty;
mod values;
mod watch;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use onggi_engine::build::builder::graph::Network;
use onggi_engine::build::{BuildFile, BuildRequest, Built, CacheKeep, LockMode, Output, Shell};
use onggi_engine::oci::{Digest, Platform, Reference};
use onggi_engine::progress::Silent;

use crate::failure::Failure;
use crate::output::human;
use crate::session::Session;
use values::{CallAs, SecretSpec, SshSpec};
use watch::Watch;

/// Build an image from a build file
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    build: BuildOptions,
}

/// What else can be done with builds.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what the steps of an earlier build said
    Logs(LogsOptions),
    /// Remove what the build cache remembers
    Prune(PruneOptions),
}

/// Show what the steps of an earlier build said
#[derive(Debug, clap::Args)]
pub struct LogsOptions {
    /// List the builds that have logs
    #[arg(long)]
    list: bool,
    /// The build; the last one if none is named
    #[arg(value_name = "BUILD")]
    build: Option<String>,
}

/// Remove build cache
#[derive(Debug, clap::Args)]
pub struct PruneOptions {
    /// Remove cache mounts and explanations too
    #[arg(short, long)]
    all: bool,
    /// Only what was not used for this time (`until=24h`)
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Keep so much of what was used last (the old name of --reserved-space)
    #[arg(long, value_name = "BYTES", value_parser = super::run::values::positive_size, hide = true, conflicts_with = "reserved_space")]
    keep_storage: Option<u64>,
    /// Let the cache have at most so much
    #[arg(long, value_name = "BYTES", value_parser = super::run::values::positive_size)]
    max_used_space: Option<u64>,
    /// Remove until so much is free on the disk
    #[arg(long, value_name = "BYTES", value_parser = super::run::values::positive_size)]
    min_free_space: Option<u64>,
    /// Always keep so much of what was used last
    #[arg(long, value_name = "BYTES", value_parser = super::run::values::positive_size)]
    reserved_space: Option<u64>,
}

/// What a build is told.
#[derive(Debug, clap::Args)]
pub struct BuildOptions {
    /// Add a host name and its address (HOST:IP)
    #[arg(long, value_name = "HOST:IP", value_parser = super::run::values::host)]
    add_host: Vec<(String, std::net::IpAddr)>,
    /// Where a program fails, give a shell in the state that it left, or that it began with
    #[arg(long, value_name = "STATE", num_args = 0..=1, require_equals = true, default_missing_value = "failed")]
    debug_shell: Option<values::DebugShell>,
    /// Allow what is not allowed by default: network.host, security.insecure, device, device=NAME
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Add an annotation to the manifest (KEY=VALUE)
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Say beside the image what is in it or how it was made (type=sbom, type=provenance,mode=min|max)
    #[arg(long, value_name = "TYPE=…")]
    attest: Vec<String>,
    /// Set a build argument; without a value, as the caller's environment has it
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// A further context: a directory, docker-image://, oci-layout://, a URL or a repository
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<String>,
    /// The builder; there is one, `default`
    #[arg(long, value_name = "NAME")]
    builder: Option<String>,
    /// Where results of other machines come from (REF or type=registry|local,ref=REF|src=DIR)
    #[arg(long, value_name = "SOURCE")]
    cache_from: Vec<String>,
    /// Where results go for other machines (type=registry|local|inline,ref=REF|dest=DIR,mode=min|max)
    #[arg(long, value_name = "DESTINATION")]
    cache_to: Vec<String>,
    /// What to do with the build file: build, check, outline or targets
    #[arg(long, value_name = "METHOD[,format=json]", default_value = "build")]
    call: CallAs,
    /// The control group of RUN steps
    #[arg(long, value_name = "GROUP")]
    cgroup_parent: Option<String>,
    /// Check the build file and build nothing
    #[arg(long)]
    check: bool,
    /// Say more: why each step is done or known
    #[arg(short = 'D', long)]
    debug: bool,
    /// Say of each step why it is done or known, and what changed
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    explain: Option<values::ExplainFormat>,
    /// The build file [default: Dockerfile or Containerfile of the context]; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Write the image's ID to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// How many steps run at once [default: the number of processors]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Add a label to the image (KEY=VALUE)
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::run::values::label)]
    label: Vec<(String, String)>,
    /// Put the image into the store (the default)
    #[arg(long)]
    load: bool,
    /// Hold sources to the digests of onggi.lock, and add new ones to it; `update` renews all
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "use", value_parser = values::lock_mode)]
    lock: Option<LockMode>,
    /// Write what came out to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// The network of RUN steps: default, none, host, or the name of one [env: ONGGI_NETWORK]
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: String,
    /// Use nothing that is known
    #[arg(long)]
    no_cache: bool,
    /// Use nothing that is known of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Where the result goes (type=image|registry|docker|oci|local|tar,dest=PATH)
    #[arg(short, long, value_name = "DESTINATION")]
    output: Vec<String>,
    /// The platforms to build for
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Policies for sources
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
    /// How progress is shown: auto, plain, tty, quiet, rawjson, none
    #[arg(long, value_name = "KIND")]
    progress: Option<values::ProgressKind>,
    /// Say beside the image how it was made, as SLSA provenance (true, false or mode=min|max,version=v0.2|v1)
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    provenance: Option<String>,
    /// Print the JSON schema of onggi.yaml and build nothing
    #[arg(long)]
    schema: bool,
    /// Print the build file as onggi.yaml, or as a Dockerfile if it is one, and build nothing
    #[arg(long)]
    convert: bool,
    /// Ask the registry for base images, also for those that are here
    #[arg(long)]
    pull: bool,
    /// Push the image to its registry
    #[arg(long)]
    push: bool,
    /// Print nothing but the image's ID
    #[arg(short, long)]
    quiet: bool,
    /// Limits of the builder
    #[arg(long, value_name = "LIMIT")]
    resource: Vec<String>,
    /// Say beside the image which packages are in it, as SPDX
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sbom: Option<String>,
    /// A secret for RUN steps (id=NAME[,src=FILE|,env=VARIABLE])
    #[arg(long, value_name = "SECRET")]
    secret: Vec<SecretSpec>,
    /// The size of /dev/shm of RUN steps
    #[arg(long, value_name = "BYTES", value_parser = super::run::values::positive_size)]
    shm_size: Option<u64>,
    /// An ssh agent for RUN steps (default or NAME=SOCKET)
    #[arg(long, value_name = "AGENT")]
    ssh: Vec<SshSpec>,
    /// A name for the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<Reference>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Draw how the time was spent, as a page for a browser
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// No time in the image is later than this, in seconds since 1970 [default: $SOURCE_DATE_EPOCH]
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<i64>,
    /// Limits of the processes of RUN steps (TYPE=SOFT[:HARD])
    #[arg(long, value_name = "LIMIT", value_parser = super::run::values::ulimit)]
    ulimit: Vec<onggi_engine::run::Ulimit>,
    /// Build twice without cache, and say which files differ
    #[arg(long)]
    verify: bool,
    /// A directory, an archive, a URL, a repository, or `-`
    #[arg(value_name = "PATH | URL | -", required_unless_present = "schema")]
    context: Option<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        match self.command {
            Some(Command::Logs(options)) => options.run(session),
            Some(Command::Prune(options)) => options.run(session),
            None => self.build.run(session),
        }
    }
}

impl BuildOptions {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        if self.schema {
            return session.print(onggi_engine::build::builder::yaml::schema());
        }
        self.refuse()?;
        let engine = session.engine()?;
        session.tell_of_squashing(&engine)?;
        let call = if self.check { CallAs::check() } else { self.call.clone() };
        let request = self.request(session)?;
        if self.convert {
            return session.print(&engine.convert_build_file(&request)?);
        }
        if !call.is_build() {
            return call::run(session, &engine, &request, &call);
        }
        let terminal = std::io::stderr().is_terminal();
        let kind = values::ProgressKind::choose(self.progress, self.quiet, terminal);
        let explain = self.explain.or(self.debug.then_some(values::ExplainFormat::Text));
        let mut watch = Watch::new(&engine, kind, explain)?;
        let built = engine.build(&request, &mut watch, &Silent);
        watch.finish();
        if let Some(path) = &self.timeline {
            let page = timeline::page(&watch);
            std::fs::write(path, page).map_err(Failure::local(format!("write {}", path.display())))?;
        }
        let built = match built {
            Ok(built) => built,
            Err(error) => {
                watch.failed(&error);
                return Err(Failure::Engine(error));
            }
        };
        for one in &built {
            watch.finished(one);
        }
        if self.verify {
            verify(session, &engine, &request, &built, kind)?;
        }
        let Some(first) = built.first() else { return Ok(()) };
        if let Some(path) = &self.iidfile {
            let text = id(first).to_string();
            std::fs::write(path, text).map_err(Failure::local(format!("write {}", path.display())))?;
        }
        if let Some(path) = &self.metadata_file {
            let text = metadata(first);
            std::fs::write(path, text).map_err(Failure::local(format!("write {}", path.display())))?;
        }
        if explain == Some(values::ExplainFormat::Json) {
            session.print(&watch.explanations())?;
        }
        let keeps =
            request.outputs.iter().any(|output| matches!(output, Output::Image(_) | Output::Registry(_)));
        if self.quiet && keeps {
            let ids: String = built.iter().map(|one| format!("{}\n", id(one))).collect();
            session.print(&ids)?;
        }
        Ok(())
    }

    /// What is on the command line and can't be had.
    fn refuse(&self) -> Result<(), Failure> {
        let refuse = |flag: &str, why: &str| Err(Failure::Input(format!("{flag} is not supported: {why}")));
        if self.builder.as_deref().is_some_and(|name| name != "default") {
            return refuse("--builder", "there is one builder, \"default\", and no daemon");
        }
        if self.cgroup_parent.is_some() {
            return refuse("--cgroup-parent", "steps of a build have no control group of their own");
        }
        if !self.policy.is_empty() {
            return refuse("--policy", "sources are checked by digests (--lock, ADD --checksum)");
        }
        if !self.resource.is_empty() {
            return refuse("--resource", "there is no builder whose limits could be set; see --ulimit");
        }
        Ok(())
    }

    fn request(&self, session: &Session) -> Result<BuildRequest, Failure> {
        let mut build_args = BTreeMap::new();
        for argument in &self.build_arg {
            match argument.split_once('=') {
                Some((name, value)) => {
                    build_args.insert(name.to_owned(), value.to_owned());
                }
                // Without a value in the environment it is as if it had not been said.
                None => {
                    build_args.extend(std::env::var(argument).ok().map(|value| (argument.clone(), value)));
                }
            }
        }
        let mut contexts = BTreeMap::new();
        for context in &self.build_context {
            let (name, value) = context
                .split_once('=')
                .filter(|(name, value)| !name.is_empty() && !value.is_empty())
                .ok_or_else(|| {
                    Failure::Input(format!("invalid context value: {context}, expected key=value"))
                })?;
            contexts.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let (mut allow_host_network, mut allow_insecure, mut allow_devices) = (false, false, Vec::new());
        for entitlement in self.allow.iter().flat_map(|list| list.split(',')) {
            match entitlement {
                "network.host" => allow_host_network = true,
                "security.insecure" => allow_insecure = true,
                "device" => allow_devices.push(String::new()),
                other if let Some(name) = other.strip_prefix("device=") => {
                    allow_devices.push(name.to_owned());
                }
                other => {
                    return Err(Failure::Input(format!(
                        "--allow {other} is not supported: known are network.host, security.insecure, device and device=NAME"
                    )));
                }
            }
        }
        let of_host = (self.network == "default").then(|| session.default_network()).flatten();
        let (network, network_name) = values::network(of_host.as_deref().unwrap_or(&self.network))?;
        // Who builds has said so.
        allow_host_network |= network == Network::Host;
        let context = self.context.clone().unwrap_or_default();
        let file = match self.file.as_deref() {
            None | Some("") => BuildFile::Default,
            Some("-") if context == "-" => {
                return Err(Failure::Input(
                    "invalid argument: can't use stdin for both build context and dockerfile".into(),
                ));
            }
            Some("-") => {
                let text = std::io::read_to_string(std::io::stdin())
                    .map_err(Failure::local("read the build file"))?;
                BuildFile::Text(text, "Dockerfile".into())
            }
            Some(name) => BuildFile::Named(name.to_owned()),
        };
        let input = (context == "-").then(|| {
            let fd = rustix::stdio::stdin();
            std::os::fd::BorrowedFd::try_clone_to_owned(&fd).map(std::fs::File::from)
        });
        let epoch = match self.timestamp {
            Some(seconds) => Some(seconds),
            None => match std::env::var("SOURCE_DATE_EPOCH").ok().filter(|text| !text.is_empty()) {
                Some(text) => Some(
                    text.parse().map_err(|_| Failure::Input(format!("invalid SOURCE_DATE_EPOCH: {text}")))?,
                ),
                None => None,
            },
        };
        if let Some(tag) = self.tag.iter().find(|tag| tag.digest().is_some()) {
            return Err(Failure::Input(format!(
                "invalid tag {tag}: a name with a digest can't be given to an image"
            )));
        }
        Ok(BuildRequest {
            context,
            input: input.transpose().map_err(Failure::local("read standard input"))?,
            file,
            target: self.target.clone().filter(|target| !target.is_empty()),
            build_args,
            contexts,
            secrets: self
                .secret
                .iter()
                .map(SecretSpec::read)
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .flatten()
                .collect(),
            ssh: self.ssh.iter().map(SshSpec::resolve).collect::<Result<_, _>>()?,
            platforms: self.platform.clone(),
            no_cache: self.no_cache || self.verify,
            no_cache_filter: self.no_cache_filter.clone(),
            pull: self.pull,
            tags: self.tag.clone(),
            labels: self.label.iter().cloned().collect(),
            annotations: self
                .annotation
                .iter()
                .map(|text| values::annotation(text))
                .collect::<Result<_, _>>()?,
            network,
            network_name,
            extra_hosts: self.add_host.clone(),
            shm_size: self.shm_size,
            ulimits: self.ulimit.iter().map(values::ulimit).collect(),
            allow_host_network,
            allow_insecure,
            allow_devices,
            cdi_dirs: session.cdi_dirs(),
            jobs: self.jobs,
            epoch,
            explain: self.explain.is_some() || self.debug,
            attestations: attest::attestations(
                &self.attest,
                self.sbom.as_deref(),
                self.provenance.as_deref(),
            )?,
            cache_limit: values::cache_limit()?,
            lock: self.lock,
            shell: self.debug_shell.map(|shell| Shell {
                state: shell.state(),
                terminal: std::io::stdin().is_terminal().then(super::run::window_size),
            }),
            cache_from: self
                .cache_from
                .iter()
                .map(|text| sharing::cache_from(text))
                .collect::<Result<_, _>>()?,
            cache_to: self.cache_to.iter().map(|text| sharing::cache_to(text)).collect::<Result<_, _>>()?,
            outputs: values::outputs(&self.output, self.push, self.load)?,
        })
    }
}

/// What `--iidfile` and `--quiet` call an image, as buildx: an index, if it is one, else the config.
fn id(built: &Built) -> &Digest {
    if built.target.media_type.is_index() { &built.target.digest } else { &built.id }
}

/// `--metadata-file`, as buildx writes it.
fn metadata(built: &Built) -> String {
    let names: Vec<String> =
        built.names.iter().map(|tag| tag.clone().with_default_tag().to_string()).collect();
    let mut value = serde_json::json!({
        "containerimage.descriptor": &built.target,
        "containerimage.digest": built.target.digest.to_string(),
    });
    let Some(object) = value.as_object_mut() else { return String::new() };
    if !built.target.media_type.is_index() {
        object.insert("containerimage.config.digest".into(), built.id.to_string().into());
    }
    if !names.is_empty() {
        object.insert("image.name".into(), names.join(",").into());
    }
    for (platform, provenance) in built.provenance() {
        let name = match built.images.len() {
            1 => "buildx.build.provenance".to_owned(),
            _ => format!("buildx.build.provenance/{platform}"),
        };
        object.insert(name, provenance.clone());
    }
    format!("{value:#}\n")
}

/// Builds once more, and compares layer by layer.
fn verify(
    session: &Session,
    engine: &onggi_engine::Engine,
    request: &BuildRequest,
    first: &[Built],
    kind: values::ProgressKind,
) -> Result<(), Failure> {
    let mut watch = Watch::new(engine, kind, None)?;
    let second = engine.build(request, &mut watch, &Silent);
    watch.finish();
    let second = second?;
    let mut differences = Vec::new();
    for (one, other) in first.iter().zip(&second) {
        differences.extend(engine.compare_builds(one, other)?);
    }
    if differences.is_empty() {
        let ids: Vec<String> = first.iter().map(|one| one.id.to_string()).collect();
        return session.print(&format!("verified: both builds gave {}\n", ids.join(", ")));
    }
    let mut text = String::from("the two builds differ:\n");
    for (step, files) in differences {
        text += &format!("  {}\n", human::visible(&step));
        text.extend(files.iter().map(|file| format!("    {}\n", human::visible(file))));
    }
    session.print(&text)?;
    Err(Failure::Silent(1))
}

impl LogsOptions {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        if self.list {
            let all: String = engine.logged_builds()?.iter().rev().map(|name| format!("{name}\n")).collect();
            return session.print(&all);
        }
        for (number, (step, log)) in engine.build_logs(self.build.as_deref())?.into_iter().enumerate() {
            let number = number + 1;
            session.print(&format!("#{number} {}\n", human::visible(&step.name)))?;
            session.print(&String::from_utf8_lossy(&log))?;
            if !log.is_empty() && !log.ends_with(b"\n") {
                session.print("\n")?;
            }
            session.print(&format!("#{number} {} {:.1}s\n\n", step.outcome.to_uppercase(), step.seconds))?;
        }
        Ok(())
    }
}

impl PruneOptions {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let mut unused: Option<Duration> = None;
        for filter in &self.filter {
            let duration = match filter.split_once('=') {
                Some(("until" | "unused-for", text)) => {
                    super::run::values::duration(text).map_err(Failure::Input)?
                }
                _ => {
                    return Err(Failure::Input(format!(
                        "invalid filter {filter:?} (known: until, unused-for)"
                    )));
                }
            };
            unused = Some(duration);
        }
        let warning = if self.all {
            "WARNING! This will remove all build cache."
        } else {
            "WARNING! This will remove all dangling build cache."
        };
        if !self.force && !session.confirm(warning)? {
            return Ok(());
        }
        let engine = session.engine()?;
        let keep = CacheKeep {
            reserved: self.reserved_space.or(self.keep_storage).unwrap_or_default(),
            max_used: self.max_used_space.unwrap_or_default(),
            min_free: self.min_free_space.unwrap_or_default(),
        };
        let pruned = engine.prune_build_cache(self.all, unused, keep)?;
        let mut text = String::new();
        if !pruned.removed.is_empty() {
            text += "ID\t\t\t\tSIZE\tSTEP\n";
            for record in &pruned.removed {
                let id = record.key.trim_start_matches("sha256:").get(..25).unwrap_or_default();
                text += &format!("{id}\t{}\t{}\n", human::size(record.size), human::visible(&record.name));
            }
        }
        text += &format!("Total:\t{}\n", human::size(pruned.bytes));
        session.print(&text)
    }
}
