//! One stage while it is planned.

use onggi_oci::{ImageConfig, Platform};

use super::Context;
use crate::dockerfile::instruction::{Argument, Instruction, Stage};
use crate::dockerfile::outline::Capture;
use crate::dockerfile::problem::Lines;
use crate::dockerfile::words::Variables;
use crate::graph::VertexId;

/// Where programs are looked for if the base image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The same on Windows.
const DEFAULT_PATH_WINDOWS: &str = "c:\\Windows\\System32;c:\\Windows";

/// An instruction with the stages that it reads.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) instruction: Instruction,
    /// For `COPY --from` one, for `RUN` one a mount, if it is from somewhere.
    pub(super) sources: Vec<Option<usize>>,
    /// Whether a base image brought it.
    pub(super) triggered: bool,
}

/// A stage, or an image that is copied from.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) stage: Stage,
    /// Its name in steps' names.
    pub(super) label: String,
    /// The stage that it is from.
    pub(super) base: Option<usize>,
    /// Stages that its instructions read, with the instruction.
    pub(super) needs: Vec<(usize, Lines)>,
    pub(super) commands: Vec<Command>,
    pub(super) platform: Option<Platform>,
    /// The named context that it is instead.
    pub(super) context: Option<Context>,
    /// Whether it is only an image that is copied from.
    pub(super) image_only: bool,
    pub(super) no_cache: bool,

    /// Whether its base image was asked for.
    pub(super) resolved: bool,
    /// Whether triggers of its base were taken.
    pub(super) triggers_taken: bool,
    /// Whether it can be read.
    pub(super) done: bool,

    pub(super) config: ImageConfig,
    pub(super) base_config: Option<ImageConfig>,
    pub(super) vertex: Option<VertexId>,
    pub(super) variables: Variables,
    pub(super) directory: String,
    pub(super) user: String,
    /// `ARG`s so far.
    pub(super) arguments: Vec<Argument>,
    pub(super) workdir_seen: bool,
    pub(super) cmd: Option<Lines>,
    pub(super) entrypoint: Option<Lines>,
    pub(super) healthcheck: Option<Lines>,
    pub(super) capture: Capture,
    /// Steps named so far, and all.
    pub(super) steps: (usize, usize),
}

impl State {
    pub(super) fn new(stage: Stage, capture: Capture) -> Self {
        Self {
            label: stage.name.clone().unwrap_or_default(),
            stage,
            base: None,
            needs: Vec::new(),
            commands: Vec::new(),
            platform: None,
            context: None,
            image_only: false,
            no_cache: false,
            resolved: false,
            triggers_taken: false,
            done: false,
            config: ImageConfig::default(),
            base_config: None,
            vertex: None,
            variables: Variables::default(),
            directory: "/".to_owned(),
            user: String::new(),
            arguments: Vec::new(),
            workdir_seen: false,
            cmd: None,
            entrypoint: None,
            healthcheck: None,
            capture,
            steps: (0, 0),
        }
    }

    /// An image that is only copied from.
    pub(super) fn image(name: &str, lines: Lines) -> Self {
        let stage = Stage {
            base: name.to_owned(),
            name: None,
            platform: None,
            keyword: String::new(),
            code: String::new(),
            lines,
            comments: Vec::new(),
            description: None,
            instructions: Vec::new(),
        };
        Self { image_only: true, ..Self::new(stage, Capture::default()) }
    }

    /// Begins where another stage ends.
    pub(super) fn inherit(&mut self, base: &Self) {
        self.vertex = base.vertex;
        self.platform.clone_from(&base.platform);
        self.config = base.config.clone();
        // Triggers are for the next image, and were taken.
        self.config.config.on_build.clear();
        self.base_config.clone_from(&base.base_config);
        self.variables = base.variables.clone();
        self.directory.clone_from(&base.directory);
        self.user.clone_from(&base.user);
        self.workdir_seen = base.workdir_seen;
        self.arguments.clone_from(&base.arguments);
    }

    /// How many bytes [`State::inherit`] copies, about.
    pub(super) fn size(&self) -> usize {
        let history = self.config.history.iter().filter_map(|entry| entry.created_by.as_ref());
        let labels = self.config.config.labels.iter().map(|(name, value)| name.len() + value.len());
        let variables = self.variables.iter().map(|(name, value)| 2 * (name.len() + value.len()));
        let volumes = self.config.config.volumes.iter().chain(&self.config.config.exposed_ports);
        history.map(String::len).chain(labels).chain(variables).chain(volumes.map(String::len)).sum()
    }

    /// Takes over the environment, directory and user of the config.
    pub(super) fn enter(&mut self, platform: &Platform) {
        let platform = self.platform.get_or_insert_with(|| platform.clone());
        let windows = platform.os == "windows";
        let config = &mut self.config.config;
        if !windows && !config.env.iter().any(|variable| variable.split('=').next() == Some("PATH")) {
            config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for variable in &config.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            self.variables.set(name, value);
        }
        if !config.working_dir.is_empty() {
            self.directory = crate::lexical::join("/", &config.working_dir);
            if !config.working_dir.starts_with('/') {
                config.working_dir.clone_from(&self.directory);
            }
        }
        if !config.user.is_empty() {
            self.user.clone_from(&config.user);
        }
    }
}

/// The config of nothing.
pub(super) fn empty_config(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        ..ImageConfig::default()
    };
    let path = if platform.os == "windows" { DEFAULT_PATH_WINDOWS } else { DEFAULT_PATH };
    config.config.working_dir.push('/');
    config.config.env = vec![format!("PATH={path}")];
    config
}
