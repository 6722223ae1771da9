//! Build: from a context and a build file to an image.
//!
//! ```text
//!   context ─► build file ─► plan (front end, asks for configs of bases) ─► graph
//!   graph ─► solver ─► layers ─► config, manifest, index ─► refs ─► outputs
//! ```
//!
//! The process that builds has one thread; steps are processes of their own
//! ([`onggi_build::solve`]).

pub mod attest;
mod cache;
mod context;
mod fetch;
mod finish;
mod images;
mod lanes;
mod layout;
mod lock;
mod logs;
mod mounts;
mod output;
mod request;
mod run;
mod share;
mod sources;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;

use onggi_build::cache::shared::SharedStep;
use onggi_build::dockerfile::Lines;
use onggi_build::dockerfile::plan::{Context, Epoch, NoCache, Options as PlanOptions};
use onggi_build::dockerfile::report::{self, Answer, Call, Format, Shown};
use onggi_build::graph::{ExtraHost, Git, Graph, Http, ImagePlace, ImageSource, VertexId};
use onggi_build::solve::{Monitor, Options, Solved, Solver};
use onggi_build::yaml;
use onggi_build::{FailedState, Fetched, Host, RunStep, StackLayer, dockerfile};
use onggi_image::store::Lease;
use onggi_oci::{Descriptor, Digest, Platform, Reference};

use crate::Engine;
use crate::error::{Error, Result};
use crate::progress::Progress;
use attest::Told;
pub use cache::{CachePruned, CacheRecord, Keep as CacheKeep};
use images::Bases;
use lanes::Lanes;
use lock::Lock;
pub use lock::LockMode;
pub use logs::{BuildLogs, LoggedStep};
pub use onggi_build as builder;
pub use request::{BuildFile, BuildRequest, Output, Secret, Shell};
use share::Shared;
pub use share::{CacheFrom, CacheMode, CachePlace, CacheTo};

/// Who watches a build.
pub trait BuildMonitor: Monitor {
    /// The build file was read: what will be done, and what its author should know. `text` is the build file's.
    fn planned(&mut self, graph: &Graph, warnings: &[dockerfile::lint::Warning], file: &str, text: &str);

    /// Something that belongs to no step, in a sentence.
    fn notice(&mut self, text: &str);
}

/// What came out of a build.
#[derive(Clone, Debug)]
pub struct Built {
    /// What names point to: a manifest, or an index for several platforms.
    pub target: Descriptor,
    /// The image's ID: the digest of its config (of the first platform).
    pub id: Digest,
    /// For each platform.
    pub images: Vec<(Platform, Descriptor, Digest)>,
    /// What nothing in it is later than, and who said so.
    pub epoch: Option<(i64, &'static str)>,
    /// Its names.
    pub names: Vec<Reference>,
    /// How each platform's image was made, if that is told.
    provenance: Vec<(Platform, serde_json::Value)>,
}

/// What a build could do, were it done: for `--call`.
#[derive(Clone, Debug)]
pub struct Called {
    /// The Dockerfile's text.
    pub text: String,
    /// The build file's name.
    pub file: String,
    /// How it is planned.
    pub options: PlanOptions,
    /// What the Dockerfile was made from, if it was, and its text.
    yaml: Option<(yaml::BuildFile, String)>,
}

impl Called {
    /// Answers a question about the build file.
    ///
    /// # Errors
    /// It makes no sense ([`Error::Dockerfile`]).
    pub fn answer(
        &self,
        call: Call,
        format: Format,
        images: &(dyn onggi_build::Images + Sync),
    ) -> Result<Answer> {
        let origin = |lines| self.yaml.as_ref().map_or(lines, |(yaml, _)| yaml.origin(lines));
        let text = self.yaml.as_ref().map_or(&self.text, |(_, text)| text);
        let shown = Shown { text, origin: &origin };
        report::answer_about(call, format, &self.text, &shown, &self.options, images).map_err(
            |mut diagnostic| {
                diagnostic.lines.iter_mut().for_each(|lines| *lines = origin(*lines));
                Error::Dockerfile {
                    file: self.file.clone(),
                    text: text.clone(),
                    diagnostic: Box::new(diagnostic),
                }
            },
        )
    }
}

/// What [`onggi_build`] asks for.
struct Asked<'a> {
    engine: &'a Engine,
    request: &'a BuildRequest,
    bases: &'a Bases<'a>,
    lanes: Lanes<'a>,
    shared: &'a Shared<'a>,
    lease: &'a Lease,
    /// What a program that failed began with.
    kept: RefCell<Option<KeptState>>,
}

/// An image of what a program that failed began with; it has no name, so `image prune` removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptState {
    /// Its ID.
    pub image: Digest,
    /// The shell that the program was for, if it was for one.
    pub shell: Option<String>,
}

impl Host for Asked<'_> {
    fn keep_state(&self, state: FailedState<'_>) {
        // It is a help and no result: without it the failure is told all the same.
        *self.kept.borrow_mut() = finish::keep(self.engine, self.lease, state).ok();
    }

    fn image_layers(&self, image: &ImageSource, platform: &Platform) -> onggi_build::Result<Vec<StackLayer>> {
        let layers = self.bases.layers(self.engine, image, platform);
        layers.map_err(|error| caller("get the layers of", &image.reference, error))
    }

    fn run(&self, step: RunStep<'_>) -> onggi_build::Result<i32> {
        if let Some(notice) = self.lanes.notice(step.vertex) {
            let _ = rustix::io::write(step.log, format!("onggi: warning: {notice}\n").as_bytes());
        }
        let connected = self.lanes.enter(step.vertex);
        let done = connected.and_then(|names| {
            let terminal = self.request.shell.and_then(|shell| shell.terminal);
            self.engine.run_step(&step, names.as_ref(), terminal, &self.request.cdi_dirs)
        });
        done.map_err(|error| caller("run", "the step's program", error))
    }

    fn connect(&self, step: VertexId) -> onggi_build::Result<()> {
        self.lanes.take(step).map_err(|error| caller("make", "the network of a step", error))
    }

    fn disconnect(&self, step: VertexId) {
        self.lanes.give_back(step);
    }

    fn fetch(&self, http: &Http, into: &std::path::Path) -> onggi_build::Result<Fetched> {
        self.engine
            .add_url(http, into, self.bases.lock.as_ref())
            .map_err(|error| caller("fetch", &http.url, error))
    }

    fn checkout(&self, git: &Git, into: &std::path::Path) -> onggi_build::Result<String> {
        let commit = self.engine.checkout(git, into, self.bases.lock.as_ref());
        commit.map_err(|error| caller("fetch", &git.remote, error))
    }

    fn shared_step(&self, key: &Digest) -> Option<(SharedStep, bool)> {
        self.shared.step(key)
    }

    fn shared_content(&self, key: &Digest) -> Option<Digest> {
        self.shared.content(key)
    }

    fn fetch_shared(&self, steps: &[SharedStep]) -> onggi_build::Result<()> {
        self.shared.fetch(steps).map_err(|error| caller("fetch", "what another machine built", error))
    }

    fn secret(&self, id: &str) -> onggi_build::Result<Option<Vec<u8>>> {
        Ok(self.request.secrets.iter().find(|secret| secret.id == id).map(|secret| secret.value.clone()))
    }

    fn ssh_agent(&self, id: &str) -> onggi_build::Result<Option<PathBuf>> {
        Ok(self.request.ssh.get(id).cloned())
    }
}

fn caller(op: &'static str, object: &str, source: Error) -> onggi_build::Error {
    onggi_build::Error::Caller { op, object: object.into(), kind: source.kind(), source: Box::new(source) }
}

/// One result that is wanted: an image, for one or several platforms.
struct Wanted {
    stage: Option<String>,
    names: Vec<Reference>,
    platforms: Vec<Option<Platform>>,
}

/// A file in YAML as a Dockerfile, and its own text.
type Translated = (yaml::BuildFile, String);

/// A context and a build file, read.
struct Prepared<'a> {
    wanted: Vec<Wanted>,
    /// What the Dockerfile was made from, if it was, and its text.
    yaml: Option<Translated>,
    opened: context::Opened,
    options: PlanOptions,
    locals: BTreeMap<String, PathBuf>,
    bases: Bases<'a>,
    commit_time: Option<i64>,
}

impl Engine {
    /// Builds.
    ///
    /// # Errors
    /// The build file makes no sense ([`Error::Dockerfile`]), a step failed ([`Error::Build`]).
    pub fn build(
        &self,
        request: &BuildRequest,
        monitor: &mut dyn BuildMonitor,
        progress: &(dyn Progress + Sync),
    ) -> Result<Vec<Built>> {
        self.enter_networks(&lanes::network(request.network_name.as_deref()))?;
        self.shield(request.allow_insecure)?;
        let store = self.store()?;
        let lease = store.lease("build")?;
        let prepared = self.prepare_build(request, &lease, progress)?;
        let Prepared { wanted, yaml, opened, options, mut locals, bases, commit_time } = prepared;
        let shown = yaml.as_ref().map_or(&opened.text, |(_, text)| text).clone();
        let mut graph = Graph::default();
        let mut warnings = Vec::new();
        let mut file_epoch = None;
        let several = wanted.iter().any(|one| one.platforms.len() > 1);
        for (one, platform) in wanted.iter().flat_map(|one| one.platforms.iter().map(move |p| (one, p))) {
            let options = PlanOptions {
                target: one.stage.clone(),
                platform: platform.clone(),
                name_platform: several,
                ..options.clone()
            };
            let plan = dockerfile::plan::plan(&opened.text, &options, &bases, &mut graph);
            let plan = plan.map_err(|mut diagnostic| {
                if let Some((yaml, _)) = &yaml {
                    diagnostic.lines.iter_mut().for_each(|lines| *lines = yaml.origin(*lines));
                }
                Error::Dockerfile {
                    file: opened.file.clone(),
                    text: shown.clone(),
                    diagnostic: Box::new(diagnostic),
                }
            })?;
            if warnings.is_empty() {
                warnings = plan.warnings;
            }
            if let Some(Epoch::Seconds(seconds)) = plan.epoch {
                file_epoch = Some(seconds);
            }
        }
        if let Some((yaml, _)) = &yaml {
            for location in graph.vertices.iter_mut().filter_map(|vertex| vertex.location.as_mut()) {
                let lines = yaml.origin(Lines { first: location.lines.0, last: location.lines.1 });
                location.lines = (lines.first, lines.last);
            }
            for warning in &mut warnings {
                warning.lines = yaml.origin(warning.lines);
            }
        }
        monitor.planned(&graph, &warnings, &opened.file, &shown);
        let epoch = match (request.epoch, file_epoch, commit_time) {
            (Some(seconds), ..) => Some((seconds, "--timestamp")),
            (None, Some(seconds), _) => Some((seconds, "SOURCE_DATE_EPOCH")),
            (None, None, Some(seconds)) => Some((seconds, "the context's commit")),
            (None, None, None) => None,
        };
        locals.entry("context".into()).or_insert_with(|| opened.dir.clone().unwrap_or_default());
        if opened.dir.is_none() {
            locals.insert("context".into(), lease.directory("empty")?);
        }
        let solve = Options {
            jobs: request.jobs.unwrap_or_else(processors),
            no_cache: request.no_cache,
            no_cache_filter: request.no_cache_filter.clone(),
            epoch: epoch.map(|(seconds, _)| seconds),
            epoch_is_fact: request.epoch.is_some() || file_epoch.is_some(),
            identity: format!("{}\n{}", opened.dir.as_deref().unwrap_or("-".as_ref()).display(), opened.file),
            explain: request.explain,
            locals,
            allow_host_network: request.allow_host_network,
            allow_insecure: request.allow_insecure,
            shell: request.shell.map(|shell| shell.state),
            allow_devices: request.allow_devices.clone(),
        };
        let lanes = Lanes::new(self, request.network_name.as_deref());
        let shared = Shared::new(self, &request.cache_from, lease.clone(), progress);
        let kept = RefCell::default();
        let asked =
            Asked { engine: self, request, bases: &bases, lanes, shared: &shared, lease: &lease, kept };
        let solved =
            Solver::new(&graph, lease.clone(), store, &asked, monitor, &solve).and_then(Solver::solve);
        shared.take_warnings().iter().for_each(|text| monitor.notice(&format!("warning: {text}")));
        let Solved { stacks, steps, sources, made } = solved.map_err(|source| Error::Build {
            source: Box::new(source),
            file: opened.file.clone(),
            text: shown.clone(),
            state: asked.kept.take(),
        })?;
        if let Some(lock) = &bases.lock {
            lock.renew(&graph, &bases, &sources)?;
        }
        let told = Told {
            request,
            graph: &graph,
            bases: &bases,
            sources: &sources,
            file: (&opened.file, &shown),
            commit: opened.commit.as_deref(),
            vcs: vcs_of(request, &opened),
            time: epoch.map(|(seconds, _)| finish::rfc3339(seconds)),
        };
        let mut results = graph.targets.iter().zip(&stacks);
        let mut all = Vec::new();
        for one in &wanted {
            let part: Vec<_> = results.by_ref().take(one.platforms.len()).collect();
            all.push(self.finish(&told, &lease, &part, &one.names, epoch, &steps)?);
        }
        if made {
            self.limit_build_cache(request.cache_limit)?;
        }
        for to in &request.cache_to {
            if let Err(error) = self.export_cache(to, &lease, &shared, &steps, &stacks) {
                if !to.ignore_error {
                    return Err(error);
                }
                monitor.notice(&format!("warning: the build cache is not written: {error}"));
            }
        }
        Ok(all)
    }

    /// Reads what a build works with, for who only wants to know what it would do.
    pub fn call(
        &self,
        request: &BuildRequest,
        ask: &mut dyn FnMut(&Called, &(dyn onggi_build::Images + Sync)),
    ) -> Result<()> {
        let store = self.store()?;
        let lease = store.lease("read a build file")?;
        let silent = crate::progress::Silent;
        let mut prepared = self.prepare_build(request, &lease, &silent)?;
        prepared.bases.local_only = true;
        let options =
            PlanOptions { platform: request.platforms.first().cloned(), ..prepared.options.clone() };
        let Prepared { opened, yaml, .. } = &prepared;
        let called =
            Called { text: opened.text.clone(), file: opened.file.clone(), options, yaml: yaml.clone() };
        ask(&called, &prepared.bases);
        Ok(())
    }

    /// The build file in the other language: a Dockerfile as YAML, YAML as a Dockerfile.
    pub fn convert_build_file(&self, request: &BuildRequest) -> Result<String> {
        let lease = self.store()?.lease("read a build file")?;
        let mut opened = self.open_context(request, &lease)?;
        let (_, yaml) = wanted(request, &mut opened)?;
        if let Some((file, _)) = yaml {
            return Ok(file.dockerfile);
        }
        let dockerfile = |diagnostic| Error::Dockerfile {
            file: opened.file.clone(),
            text: opened.text.clone(),
            diagnostic: Box::new(diagnostic),
        };
        let file = dockerfile::syntax::parse(&opened.text).map_err(dockerfile)?;
        let mut linter = dockerfile::lint::Linter::default();
        let document = dockerfile::instruction::document(&file, &mut linter).map_err(dockerfile)?;
        yaml::from_dockerfile(&document)
            .map_err(|error| Error::BuildFile { file: opened.file.clone(), problem: error.to_string() })
    }

    fn prepare_build<'a>(
        &self,
        request: &BuildRequest,
        lease: &Lease,
        progress: &'a (dyn Progress + Sync),
    ) -> Result<Prepared<'a>> {
        let mut opened = self.open_context(request, lease)?;
        let (wanted, yaml) = wanted(request, &mut opened)?;
        let mut locals = BTreeMap::new();
        if let Some(dir) = &opened.dir {
            locals.insert("context".to_owned(), dir.clone());
        }
        let mut layouts = HashMap::new();
        let mut contexts = BTreeMap::new();
        for (name, value) in &request.contexts {
            contexts.insert(name.clone(), named_context(name, value, &mut locals, &mut layouts)?);
        }
        let mut build_args = request.build_args.clone();
        if let Some(epoch) = request.epoch {
            build_args.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| epoch.to_string());
        }
        let commit_time = opened.dir.as_deref().and_then(fetch::commit_time);
        let options = PlanOptions {
            file: opened.file.clone(),
            target: request.target.clone(),
            build_args,
            labels: request.labels.clone(),
            network: request.network,
            extra_hosts: request
                .extra_hosts
                .iter()
                .map(|(name, address)| ExtraHost { name: name.clone(), address: *address })
                .collect(),
            shm_size: request.shm_size,
            ulimits: request.ulimits.clone(),
            no_cache: match (request.no_cache, &request.no_cache_filter[..]) {
                (true, _) => NoCache::Always,
                (false, []) => NoCache::Never,
                (false, stages) => NoCache::Stages(stages.to_vec()),
            },
            ignore: opened.ignore.clone(),
            contexts,
            context_time: commit_time,
            ..PlanOptions::default()
        };
        let bases = Bases {
            settings: self.settings().clone(),
            pull: request.pull,
            layouts,
            lease: lease.clone(),
            progress,
            local_only: false,
            lock: request.lock.map(|mode| Lock::open(&opened, &request.context, mode)).transpose()?,
            found: Mutex::default(),
        };
        Ok(Prepared { wanted, yaml, opened, options, locals, bases, commit_time })
    }
}

/// What is wanted: of a Dockerfile one stage, of a file in YAML the named target or all. The latter is
/// written as a Dockerfile in place of its text.
fn wanted(request: &BuildRequest, opened: &mut context::Opened) -> Result<(Vec<Wanted>, Option<Translated>)> {
    let platforms = |of_target: Vec<Platform>| -> Vec<Option<Platform>> {
        let chosen = if request.platforms.is_empty() { of_target } else { request.platforms.clone() };
        if chosen.is_empty() { vec![None] } else { chosen.into_iter().map(Some).collect() }
    };
    let is_yaml = [".yaml", ".yml"].iter().any(|ending| opened.file.ends_with(ending));
    if !is_yaml {
        let (stage, names) = (request.target.clone(), request.tags.clone());
        return Ok((vec![Wanted { stage, names, platforms: platforms(Vec::new()) }], None));
    }
    let bad = |problem: String| Error::BuildFile { file: opened.file.clone(), problem };
    let file = yaml::BuildFile::read(&opened.text).map_err(|error| match (error.line, error.column) {
        (0, _) => bad(error.problem),
        (line, 0) => bad(format!("line {line}: {}", error.problem)),
        (line, column) => bad(format!("line {line}, column {column}: {}", error.problem)),
    })?;
    let chosen: Vec<&yaml::Target> = match &request.target {
        None => file.targets.iter().collect(),
        Some(name) => file
            .targets
            .iter()
            .filter(|target| target.name == *name || target.stage == *name)
            .take(1)
            .collect(),
    };
    if chosen.is_empty() {
        let known: Vec<&str> = file.targets.iter().map(|target| target.name.as_str()).collect();
        let name = request.target.as_deref().unwrap_or_default();
        return Err(bad(format!("it has no target {name:?}; it has {}", known.join(", "))));
    }
    if chosen.len() > 1 && !request.tags.is_empty() {
        return Err(bad("it has several targets: name one with --target, or leave --tag away".into()));
    }
    let mut all = Vec::new();
    for target in chosen {
        let names = if request.tags.is_empty() {
            target.images.iter().map(|name| Ok(name.parse()?)).collect::<Result<_>>()?
        } else {
            request.tags.clone()
        };
        let own = target.platforms.iter().map(|name| Ok(name.parse()?)).collect::<Result<Vec<Platform>>>()?;
        all.push(Wanted { stage: Some(target.stage.clone()), names, platforms: platforms(own) });
    }
    let text = std::mem::replace(&mut opened.text, file.dockerfile.clone());
    Ok((all, Some((file, text))))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What `--build-context name=value` means.
fn named_context(
    name: &str,
    value: &str,
    locals: &mut BTreeMap<String, PathBuf>,
    layouts: &mut HashMap<String, PathBuf>,
) -> Result<Context> {
    let bad = |problem: String| Error::flag(format!("--build-context {name}={value}"), problem);
    if let Some(reference) = value.strip_prefix("docker-image://") {
        return Ok(Context::Image(ImageSource {
            reference: reference.into(),
            place: ImagePlace::Registry,
            manifest: None,
        }));
    }
    if let Some(rest) = value.strip_prefix("oci-layout://") {
        // PATH[:tag][@digest]
        let (path, digest) = rest.split_once('@').map_or((rest, None), |(path, digest)| (path, Some(digest)));
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (path, None),
        };
        layouts.insert(name.to_owned(), PathBuf::from(path));
        let mut reference = name.to_owned();
        if let Some(tag) = tag {
            reference += &format!(":{tag}");
        }
        if let Some(digest) = digest {
            reference += &format!("@{digest}");
        }
        return Ok(Context::Image(ImageSource {
            reference,
            place: ImagePlace::Layout(name.to_owned()),
            manifest: None,
        }));
    }
    if let Some(git) = dockerfile::plan::git_reference(value) {
        let git = git.map_err(bad)?;
        return Ok(Context::Git(Git { keep_git_dir: git.keep_git_dir.unwrap_or(false), ..git.git }));
    }
    if value.starts_with("http://") || value.starts_with("https://") {
        let filename =
            value.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("context").to_owned();
        return Ok(Context::Http(Http { url: value.into(), filename, ..Http::default() }));
    }
    let dir = std::fs::canonicalize(value).map_err(|error| bad(error.to_string()))?;
    if !dir.is_dir() {
        return Err(bad("it is no directory".into()));
    }
    let ignore = std::fs::read(dir.join(".dockerignore"))
        .map(|text| onggi_build::ignore::patterns(&String::from_utf8_lossy(&text)))
        .unwrap_or_default();
    locals.insert(name.to_owned(), dir);
    Ok(Context::Local { name: name.to_owned(), ignore })
}

/// The version control of a context that is a directory of the caller's, where it will be told.
fn vcs_of(request: &BuildRequest, opened: &context::Opened) -> Option<fetch::Vcs> {
    let told = request.attestations.provenance.is_some() && std::path::Path::new(&request.context).is_dir();
    opened.dir.as_deref().filter(|_| told).and_then(fetch::vcs)
}
