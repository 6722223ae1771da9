//! Instructions to a graph.
//!
//! ```text
//!   ARG above FROM ─► global arguments ─► names of bases
//!   stages ─► who needs whom ─► what the target needs ─► configs of base images, all at once
//!                                       │                        │ triggers of ONBUILD
//!                                       ▼                        ▼
//!   for each needed stage in its order: environment, directory, user, config, history, vertices
//! ```
//! Stages that the target does not need make no vertices and ask for no images.

mod arguments;
mod checks;
mod config;
mod git;
mod names;
mod ports;
mod run;
mod stage;
mod stages;
mod transfer;

use std::collections::BTreeMap;

use onggi_oci::{ImageConfig, Platform};

use super::instruction;
use super::lint::{Config, Linter, Rule, Warning};
use super::outline::Outline;
use super::problem::{Diagnostic, Lines, Problem};
use super::syntax;
use super::{MAX_DOCKERFILE, MAX_STAGES};
use crate::graph::{ExtraHost, Git, Graph, Http, ImageSource, Network, Target, Ulimit, VertexId};
use crate::ignore::Ignore;
use crate::images::Images;

pub use git::reference as git_reference;

/// The base that is nothing.
pub(crate) const SCRATCH: &str = "scratch";

/// What a build is to do with a Dockerfile.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The Dockerfile's name as given, for messages and locations.
    pub file: String,
    /// The stage; the last if `None`.
    pub target: Option<String>,
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// `--platform`; the machine's own, or that of the base image, if `None`.
    pub platform: Option<Platform>,
    /// The machine's platform, if it is not to be found out.
    pub build_platform: Option<Platform>,
    /// Whether steps' names say the platform: several are built.
    pub name_platform: bool,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// `--network`
    pub network: Network,
    /// `--add-host`
    pub extra_hosts: Vec<ExtraHost>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`
    pub ulimits: Vec<Ulimit>,
    /// `--no-cache` and `--no-cache-filter`
    pub no_cache: NoCache,
    /// The build context.
    pub context: Context,
    /// Patterns of its ignore file, as [`crate::ignore::patterns`] gives them.
    pub ignore: Vec<String>,
    /// `--build-context` by name.
    pub contexts: BTreeMap<String, Context>,
    /// The time of the context's commit in seconds since 1970, if it has one.
    pub context_time: Option<i64>,
    /// Whether all stages are looked at, as checks do.
    pub all_stages: bool,
}

/// Which steps run even if their results are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// Those of these stages.
    Stages(Vec<String>),
}

/// Where files of the caller's come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// A directory, by the name under which the caller knows it, with its own patterns to leave out.
    Local {
        /// The name.
        name: String,
        /// Patterns, as [`Options::ignore`].
        ignore: Vec<String>,
    },
    /// A repository.
    Git(Git),
    /// A file by URL; an archive is unpacked.
    Http(Http),
    /// An image, also of an OCI layout.
    Image(ImageSource),
}

impl Default for Context {
    fn default() -> Self {
        Self::Local { name: "context".to_owned(), ignore: Vec::new() }
    }
}

/// What a Dockerfile comes to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The place of the target in the graph's list.
    pub target: Target,
    /// What checks found.
    pub warnings: Vec<Warning>,
    /// What the target takes.
    pub outline: Outline,
    /// `SOURCE_DATE_EPOCH`, if it is set.
    pub epoch: Option<Epoch>,
    /// The config of the image that the target is built on, if it is one.
    pub base: Option<ImageConfig>,
}

/// What `SOURCE_DATE_EPOCH` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// Seconds since 1970.
    Seconds(i64),
    /// The time of a stage's only source, a URL or a repository.
    Stage(String),
}

/// Plans a Dockerfile: adds what is to be done to `graph`, with the target.
///
/// # Errors
/// The Dockerfile can't be read, makes no sense, or an image that it needs can't be had.
pub fn plan(
    text: &str,
    options: &Options,
    images: &(dyn Images + Sync),
    graph: &mut Graph,
) -> Result<Plan, Diagnostic> {
    let (result, _) = checked(text, options, images, graph);
    let plan = result?;
    graph.targets.push(plan.target.clone());
    Ok(plan)
}

/// The same, with what checks found before it failed, and without a target in the graph.
pub(crate) fn checked(
    text: &str,
    options: &Options,
    images: &(dyn Images + Sync),
    graph: &mut Graph,
) -> (Result<Plan, Diagnostic>, Vec<Warning>) {
    let mut linter = Linter::default();
    let result = attempt(text, options, images, graph, &mut linter);
    let warnings = linter.warnings().to_vec();
    (result.map(|plan| Plan { warnings: warnings.clone(), ..plan }), warnings)
}

fn attempt(
    text: &str,
    options: &Options,
    images: &(dyn Images + Sync),
    graph: &mut Graph,
    linter: &mut Linter,
) -> Result<Plan, Diagnostic> {
    if text.is_empty() {
        return Err(Diagnostic::whole(Problem::Empty));
    }
    if text.len() as u64 > MAX_DOCKERFILE {
        return Err(Diagnostic::whole(Problem::TooLarge { size: text.len() as u64 }));
    }
    let config = match options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        Some(value) => Config::parse(value).map_err(Diagnostic::whole)?,
        None => Config::of_file(text)?,
    };
    *linter = Linter::new(config);

    let file = syntax::parse(text)?;
    for &line in &file.empty_continuations {
        let lines = Lines { first: line, last: line };
        linter.warn(Rule::NoEmptyContinuation, lines, "Empty continuation line");
    }
    let document = instruction::document(&file, linter)?;
    if document.stages.is_empty() {
        return Err(Diagnostic::whole(Problem::NoStages));
    }
    if document.stages.len() > MAX_STAGES {
        return Err(Diagnostic::whole(Problem::TooManyStages { count: document.stages.len() }));
    }
    checks::stage_names(&document.stages, linter);
    checks::casing(&document.stages, linter);

    let planner = Planner {
        options,
        images,
        graph,
        linter,
        lexer: super::words::Lexer::new(file.escape),
        platforms: arguments::Platforms::new(options),
        globals: super::words::Variables::default(),
        ignore: Ignore::new(&options.ignore).map_err(|error| Diagnostic::whole(Problem::Ignore(error)))?,
        states: Vec::new(),
        by_name: BTreeMap::new(),
        images_by_name: BTreeMap::new(),
        inherited: 0,
        build_args: options.build_args.clone(),
        context: None,
        empty: None,
        sources: BTreeMap::new(),
    };
    planner.plan(document)
}

/// All that planning one Dockerfile needs.
struct Planner<'a> {
    options: &'a Options,
    images: &'a (dyn Images + Sync),
    graph: &'a mut Graph,
    linter: &'a mut Linter,
    lexer: super::words::Lexer,
    platforms: arguments::Platforms,
    /// Arguments above the first stage, and the predefined ones.
    globals: super::words::Variables,
    ignore: Ignore,
    /// Stages, and images that are only copied from, in the order in which they were met.
    states: Vec<stage::State>,
    by_name: BTreeMap<String, usize>,
    /// `--build-arg`, with `SOURCE_DATE_EPOCH` as it came out.
    build_args: BTreeMap<String, String>,
    /// Images that are only copied from.
    images_by_name: BTreeMap<String, usize>,
    /// Bytes that stages took over from their bases.
    inherited: usize,
    /// The vertex of the build context.
    context: Option<VertexId>,
    /// The vertex of an empty filesystem.
    empty: Option<VertexId>,
    /// Vertices of sources by what they are, so that each is there once.
    sources: BTreeMap<String, VertexId>,
}

#[cfg(test)]
mod tests;
