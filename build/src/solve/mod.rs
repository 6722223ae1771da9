//! From a graph to layers: what is known is looked up, the rest is done, side by side where
//! possible.
//!
//! ```text
//!   for each vertex whose inputs are done:
//!     facts ─► key ─► record, and its layer is here? ──yes──► done (CACHED)
//!                        └─no─► worker process: step, then the upper directory is hashed ─► layer
//!   layers ─► flushed together, in the background ─► in their place ─► records
//! ```
//!
//! The solver has one thread, since who clones containers must have one. A step is done in a process
//! of its own, which inherits all that it needs and answers over a pipe; steps that are known cost no
//! process. Nobody waits for a flush before the end: a layer is used where it lies, below `ingest/`,
//! and records of it are written when it is durable. A build that is killed leaves what was flushed.

mod durable;
mod explain;
mod facts;
mod job;
mod known;
mod memory;
mod mounts;
mod options;
mod running;
mod shared;
mod stubs;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use onggi_image::Store;
use onggi_image::store::{Lease, Pending};
use onggi_oci::{DiffId, Digest};

use crate::cache::shared::Steps;
use crate::cache::{Cache, Fact, Record};
use crate::content::{Listing, Memo};
use crate::error::{Error, Result};
use crate::graph::{Graph, VertexId};
use crate::host::{Host, StackLayer};
pub use explain::{Change, Verdict};
pub use options::{Event, Monitor, Options, ShellState};
use worker::Worker;

/// What a vertex gives.
#[derive(Clone, Debug)]
enum Outcome {
    /// Layers over each other.
    Stack(Rc<Vec<StackLayer>>),
    /// A directory of the host; what matches the patterns is not there.
    Directory { path: PathBuf, exclude: Rc<Vec<String>>, context: bool },
}

/// Where a vertex stands.
#[derive(Debug)]
enum State {
    /// Nothing needs it.
    Unneeded,
    /// So many inputs are not done.
    Waiting(usize),
    /// It can begin.
    Ready,
    /// A worker has it.
    Running,
    Done(Outcome),
}

/// What is to be remembered of a step that ran.
#[derive(Debug)]
struct Known {
    key: Digest,
    facts: Vec<Fact>,
    line: Digest,
    listings: Vec<(Digest, Listing)>,
}

/// A build under way.
pub struct Solver<'a> {
    graph: &'a Graph,
    store: &'a Store,
    lease: Lease,
    host: &'a dyn Host,
    monitor: &'a mut dyn Monitor,
    options: &'a Options,
    cache: Cache,
    memo: Memo,
    states: Vec<State>,
    /// Of vertices whose key was found and that wait for a worker.
    known: BTreeMap<VertexId, Known>,
    workers: Vec<Worker>,
    /// Those that have answered: the kernel takes down what they had mounted.
    leaving: Vec<Worker>,
    /// The step whose program failed, and where it worked.
    broken: Option<(VertexId, PathBuf)>,
    /// New layers that are not flushed yet, and the records to write then.
    pending: Vec<(Pending, Option<(Digest, Record)>)>,
    pending_since: Option<Instant>,
    flusher: Option<(Worker, usize)>,
    /// New layers by descriptor: their place changes.
    held: Vec<OwnedFd>,
    lines: Vec<(Digest, Digest)>,
    /// What was made or found, for other machines.
    steps: Steps,
    /// What sources were, by digest or commit.
    sources: BTreeMap<VertexId, String>,
    made: bool,
    /// Layers that other machines have.
    absent: BTreeMap<DiffId, shared::Absent>,
    /// Steps whose layer is needed and can't be had otherwise.
    must_run: BTreeSet<VertexId>,
}

/// What a build gave.
#[derive(Debug)]
pub struct Solved {
    /// The layers of each target, lowest first, all of them durable and in their place.
    pub stacks: Vec<Vec<StackLayer>>,
    /// What was made or found.
    pub steps: Steps,
    /// What files by URL and repositories were: the digest of the bytes, the commit.
    pub sources: BTreeMap<VertexId, String>,
    /// Whether a step was done, not only found.
    pub made: bool,
}

impl std::fmt::Debug for Solver<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Solver").field("states", &self.states).finish_non_exhaustive()
    }
}

impl<'a> Solver<'a> {
    /// A solver for all targets of the graph. The lease keeps what is made until the caller has
    /// written a ref to it.
    pub fn new(
        graph: &'a Graph,
        lease: Lease,
        store: &'a Store,
        host: &'a dyn Host,
        monitor: &'a mut dyn Monitor,
        options: &'a Options,
    ) -> Result<Self> {
        let cache = Cache::of(store)?;
        let memo = Memo::open(cache.dir().join("memo"));
        let mut solver = Self {
            graph,
            store,
            lease,
            host,
            monitor,
            options,
            cache,
            memo,
            states: graph.vertices.iter().map(|_| State::Unneeded).collect(),
            known: BTreeMap::new(),
            workers: Vec::new(),
            leaving: Vec::new(),
            broken: None,
            pending: Vec::new(),
            pending_since: None,
            flusher: None,
            held: Vec::new(),
            lines: Vec::new(),
            steps: Steps::default(),
            sources: BTreeMap::new(),
            made: false,
            absent: BTreeMap::new(),
            must_run: BTreeSet::new(),
        };
        for target in &graph.targets {
            solver.need(target.vertex);
        }
        Ok(solver)
    }

    fn need(&mut self, vertex: Option<VertexId>) {
        let mut todo: Vec<VertexId> = vertex.into_iter().collect();
        while let Some(id) = todo.pop() {
            if !matches!(self.states[id.0], State::Unneeded) {
                continue;
            }
            let inputs = self.graph.vertex(id).op.inputs();
            let open = inputs.iter().filter(|input| !matches!(self.states[input.0], State::Done(_))).count();
            self.states[id.0] = if open == 0 { State::Ready } else { State::Waiting(open) };
            todo.extend(inputs);
        }
    }

    /// Does everything.
    ///
    /// # Errors
    /// The first step that failed, as [`Error::Step`].
    pub fn solve(mut self) -> Result<Solved> {
        let outcome = self.run_all();
        if outcome.is_err() {
            for worker in &self.workers {
                worker.kill();
                self.monitor.event(worker.vertex, Event::Canceled);
            }
            self.workers.drain(..).for_each(Worker::collect_quietly);
        }
        self.leaving.drain(..).for_each(Worker::collect_quietly);
        let broken = self.broken.take();
        if let (Some(state), Some((id, dir))) = (self.options.shell, &broken) {
            self.monitor.event(*id, Event::Shell);
            self.shell(*id, dir, state)?;
        }
        self.memo.save();
        // Also of a build that failed: what succeeded need not be done again.
        let flushed = self.finish();
        if let (Some((id, _)), Ok(()), None) = (broken, &flushed, self.options.shell) {
            self.keep_state(id);
        }
        outcome?;
        flushed?;
        let mut stacks = Vec::with_capacity(self.graph.targets.len());
        for target in &self.graph.targets {
            let stack = match target.vertex.map(|id| &self.states[id.0]) {
                Some(State::Done(Outcome::Stack(stack))) => self.settled(stack)?,
                _ => Vec::new(),
            };
            stacks.push(stack);
        }
        Ok(Solved { stacks, steps: self.steps, sources: self.sources, made: self.made })
    }

    /// The layers where they are for good.
    fn settled(&self, stack: &[StackLayer]) -> Result<Vec<StackLayer>> {
        let settle = |one: &StackLayer| {
            let layer = self.store.layer(one.diff_id())?;
            Ok(StackLayer { layer: layer.unwrap_or_else(|| one.layer.clone()), ..one.clone() })
        };
        stack.iter().map(settle).collect()
    }

    /// Does what is needed until all layers of the targets are here.
    fn run_all(&mut self) -> Result<()> {
        let targets: Vec<VertexId> = self.graph.targets.iter().filter_map(|target| target.vertex).collect();
        loop {
            self.run()?;
            if self.make_ready(&targets)? {
                return Ok(());
            }
        }
    }

    fn run(&mut self) -> Result<()> {
        loop {
            while let Some(id) = self.next_ready() {
                self.begin(id)?;
            }
            self.launch()?;
            if self.workers.is_empty() && self.next_ready().is_some() {
                // What was taken as known has to be made after all.
                continue;
            }
            if self.workers.is_empty() {
                // Nothing is ready and nobody works: all is done, for the graph has no circle.
                return Ok(());
            }
            self.maybe_flush()?;
            self.wait()?;
        }
    }

    fn next_ready(&self) -> Option<VertexId> {
        let ready = |(number, state): (usize, &State)| {
            let id = VertexId(number);
            (matches!(state, State::Ready) && !self.known.contains_key(&id)).then_some(id)
        };
        self.states.iter().enumerate().find_map(ready)
    }

    fn outcome(&self, id: VertexId) -> Result<&Outcome> {
        match &self.states[id.0] {
            State::Done(outcome) => Ok(outcome),
            _ => Err(Error::Unsupported {
                what: format!("the step {}", self.graph.vertex(id).name),
                why: "it is asked for before it is done, which is a bug of onggi".into(),
            }),
        }
    }

    /// The layers that a vertex gave; a directory has none.
    fn stack(&self, id: Option<VertexId>) -> Result<Rc<Vec<StackLayer>>> {
        match id.map(|id| self.outcome(id)).transpose()? {
            Some(Outcome::Stack(stack)) => Ok(stack.clone()),
            _ => Ok(Rc::default()),
        }
    }

    fn failed(&mut self, id: VertexId, error: Error) -> Error {
        self.monitor.event(id, Event::Failed(&error));
        let vertex = self.graph.vertex(id);
        Error::Step { name: vertex.name.clone(), location: vertex.location.clone(), source: Box::new(error) }
    }

    fn done(&mut self, id: VertexId, outcome: Outcome) {
        self.states[id.0] = State::Done(outcome);
        for (number, vertex) in self.graph.vertices.iter().enumerate().skip(id.0 + 1) {
            if let State::Waiting(open) = &mut self.states[number]
                && vertex.op.inputs().contains(&id)
            {
                *open -= 1;
                if *open == 0 {
                    self.states[number] = State::Ready;
                }
            }
        }
    }
}
