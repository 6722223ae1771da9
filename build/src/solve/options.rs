//! What a caller asks of a build, and what he is told while it goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::explain::Verdict;
use crate::error::Error;
use crate::graph::VertexId;

/// How a build is done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many steps run at once; at least one.
    pub jobs: usize,
    /// Whether nothing that is known is used.
    pub no_cache: bool,
    /// Stages of which nothing that is known is used.
    pub no_cache_filter: Vec<String>,
    /// The time that nothing in a layer is later than, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Whether that time was asked for: then it is a fact that steps depend on.
    pub epoch_is_fact: bool,
    /// Names this build file, for explanations.
    pub identity: String,
    /// Whether to find out why something is not known.
    pub explain: bool,
    /// Directories by the name of their context.
    pub locals: BTreeMap<String, PathBuf>,
    /// Whether programs may use the host's network (`network.host`).
    pub allow_host_network: bool,
    /// Whether programs may be privileged (`security.insecure`).
    pub allow_insecure: bool,
    /// Devices, or classes of them, that programs may have (`device`); an empty name stands for all.
    pub allow_devices: Vec<String>,
    /// Whether a program that fails is followed by a shell in its place.
    pub shell: Option<ShellState>,
}

/// What a shell in the place of a program that failed finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellState {
    /// What the program left.
    Failed,
    /// What it began with.
    Before,
}

/// What goes on in a build.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step begins.
    Started,
    /// It was known.
    Cached,
    /// It says something.
    Output(&'a [u8]),
    /// Why it was known, or not.
    Explained(&'a Verdict),
    /// It is done.
    Done,
    /// It failed.
    Failed(&'a Error),
    /// It was stopped, since another one failed.
    Canceled,
    /// A shell takes its place, and the terminal: nothing else may be shown until the build ends.
    Shell,
}

/// Who watches a build.
pub trait Monitor {
    /// Something happened to a step.
    fn event(&mut self, vertex: VertexId, event: Event<'_>);

    /// Time went by; returns when to be called again.
    fn tick(&mut self) -> Option<Duration> {
        None
    }
}
