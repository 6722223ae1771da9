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

mod explain;
mod facts;
mod job;
mod mounts;
mod shared;
mod stubs;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use onggi_image::Store;
use onggi_image::store::{BlobForm, Layer, LayerRecord, Lease, Pending};
use onggi_oci::{Descriptor, DiffId, Digest, MediaType};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cache::shared::Steps;
use crate::cache::{Cache, Fact, Record};
use crate::content::{Listing, Memo};
use crate::error::{Error, Result};
use crate::graph::{Graph, Network, Op, Vertex, VertexId};
use crate::host::{Host, StackLayer};
pub use explain::{Change, Verdict};
use worker::Worker;

/// Layers wait at most so long for a flush while the build goes on.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

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
        if let (Some(state), Some((id, dir))) = (self.options.shell, self.broken.take()) {
            self.monitor.event(id, Event::Shell);
            self.shell(id, &dir, state)?;
        }
        self.memo.save();
        // Also of a build that failed: what succeeded need not be done again.
        let flushed = self.finish();
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

    /// Begins a vertex: finds its result, or leaves it for a worker.
    fn begin(&mut self, id: VertexId) -> Result<()> {
        let vertex = self.graph.vertex(id);
        let started = matches!(vertex.op, Op::Exec(_) | Op::File(_));
        let found = self.find(id, vertex);
        match found {
            Ok(Some(outcome)) => {
                if started {
                    self.monitor.event(id, Event::Started);
                    self.monitor.event(id, Event::Cached);
                }
                self.done(id, outcome);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                self.monitor.event(id, Event::Started);
                Err(self.failed(id, error))
            }
        }
    }

    fn failed(&mut self, id: VertexId, error: Error) -> Error {
        self.monitor.event(id, Event::Failed(&error));
        let vertex = self.graph.vertex(id);
        Error::Step { name: vertex.name.clone(), location: vertex.location.clone(), source: Box::new(error) }
    }

    fn find(&mut self, id: VertexId, vertex: &Vertex) -> Result<Option<Outcome>> {
        match &vertex.op {
            Op::Image(image) => {
                let layers = self.host.image_layers(image, &vertex.platform)?;
                Ok(Some(Outcome::Stack(Rc::new(layers))))
            }
            Op::Local(local) => {
                let path = self.options.locals.get(&local.name).ok_or_else(|| Error::Invalid {
                    what: "context",
                    text: local.name.clone(),
                    problem: "there is no directory of this name".into(),
                })?;
                let exclude = Rc::new(local.exclude.clone());
                Ok(Some(Outcome::Directory { path: path.clone(), exclude, context: true }))
            }
            Op::Merge(inputs) => {
                let mut all = Vec::new();
                for input in inputs {
                    all.extend(self.stack(Some(*input))?.iter().cloned());
                }
                Ok(Some(Outcome::Stack(Rc::new(all))))
            }
            Op::Git(_) | Op::Http(_) => {
                let facts = vec![Fact("source".into(), vertex.name.clone())];
                let known = Known {
                    key: crate::cache::key::digest(&facts),
                    line: crate::cache::key::digest(&facts),
                    facts,
                    listings: Vec::new(),
                };
                self.known.insert(id, known);
                Ok(None)
            }
            Op::Exec(_) | Op::File(_) => self.look_up(id, vertex),
        }
    }

    /// Finds the key of a step, and its record.
    fn look_up(&mut self, id: VertexId, vertex: &Vertex) -> Result<Option<Outcome>> {
        let Some(mut known) = self.facts(id, vertex, false)? else { return Ok(None) };
        self.lines.push((known.line.clone(), known.key.clone()));
        let fresh = vertex.ignore_cache
            || self.options.no_cache
            || vertex.stage.as_ref().is_some_and(|stage| self.is_filtered(stage));
        let hit = if fresh { None } else { self.hit(id, &known)? };
        if hit.is_none() {
            // The files one by one, for the explanation of a later miss. Their contents are known by now.
            known.listings = self.facts(id, vertex, true)?.map(|known| known.listings).unwrap_or_default();
        }
        if self.options.explain {
            let verdict = explain::verdict(&self.cache, &known, hit.is_some(), fresh);
            self.monitor.event(id, Event::Explained(&verdict));
        }
        if hit.is_none() {
            self.known.insert(id, known);
        }
        Ok(hit)
    }

    fn is_filtered(&self, stage: &str) -> bool {
        self.options.no_cache_filter.iter().any(|filter| filter.eq_ignore_ascii_case(stage))
    }

    fn hit(&mut self, id: VertexId, known: &Known) -> Result<Option<Outcome>> {
        let Some(record) = self.cache.find(&known.key) else { return self.look_elsewhere(id, known, None) };
        // Protected first: then what is found stays.
        self.lease.protect([&record.diff_id.0])?;
        let Some(layer) = self.store.layer(&record.diff_id)? else {
            return self.look_elsewhere(id, known, Some(record));
        };
        self.note(&known.key, &record);
        let blob = descriptor(&record.blob);
        let one = StackLayer { blob, layer, created: Some(record.created) };
        self.over(self.graph.vertex(id), one).map(Some)
    }

    /// The stack of a step: its base, and its own layer.
    fn over(&self, vertex: &Vertex, one: StackLayer) -> Result<Outcome> {
        let base = match &vertex.op {
            Op::Exec(exec) => exec.root,
            Op::File(file) => file.base,
            _ => None,
        };
        let mut stack = self.stack(base)?.to_vec();
        stack.push(one);
        Ok(Outcome::Stack(Rc::new(stack)))
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

    /// Gives waiting steps to workers, as many as may run.
    fn launch(&mut self) -> Result<()> {
        while self.workers.len() < self.options.jobs.max(1) {
            let ready = |id: &&VertexId| matches!(self.states[id.0], State::Ready);
            let Some(id) = self.known.keys().find(ready).copied() else { return Ok(()) };
            if !self.make_ready(&self.graph.vertex(id).op.inputs())? {
                return Ok(());
            }
            self.monitor.event(id, Event::Started);
            self.states[id.0] = State::Running;
            match self.start(id) {
                Ok(worker) => self.workers.push(worker),
                Err(error) => return Err(self.failed(id, error)),
            }
        }
        Ok(())
    }

    fn start(&mut self, id: VertexId) -> Result<Worker> {
        let job = self.job(id)?;
        let host = self.host;
        if matches!(&self.graph.vertex(id).op, Op::Exec(exec) if exec.network == Network::Default) {
            host.connect(id)?;
        }
        Worker::start(id, job.dir.clone(), self.cache.dir(), move |log| job.perform(host, log))
    }

    /// A shell where a program failed; returns when it ends.
    fn shell(&self, id: VertexId, failed: &std::path::Path, state: ShellState) -> Result<()> {
        let job = self.job(id)?;
        if state == ShellState::Failed {
            let (upper, work) = (failed.join("upper"), job.dir.join("work"));
            std::fs::rename(&upper, job.dir.join("upper")).map_err(Error::io("move", upper))?;
            // The old one says that it was not unmounted in order, as a step's never is.
            std::fs::create_dir(&work).map_err(Error::io("make the directory", work))?;
        }
        let host = self.host;
        if matches!(&self.graph.vertex(id).op, Op::Exec(exec) if exec.network == Network::Default) {
            host.connect(id)?;
        }
        let worker = Worker::start(id, job.dir.clone(), self.cache.dir(), move |log| job.shell(host, log))?;
        let ended = worker.collect();
        host.disconnect(id);
        ended
    }

    /// Waits until a worker says something or time is up.
    fn wait(&mut self) -> Result<()> {
        let until_flush = self.pending_since.map(|since| FLUSH_AFTER.saturating_sub(since.elapsed()));
        let until_tick = self.monitor.tick();
        let wait = [until_flush.filter(|_| self.flusher.is_none()), until_tick].into_iter().flatten().min();
        let ready: Vec<bool> = {
            let flusher = self.flusher.as_ref().map(|(worker, _)| worker);
            let fds: Vec<_> = self.workers.iter().chain(flusher).flat_map(Worker::descriptors).collect();
            let mut polls: Vec<_> =
                fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
            let wait = wait.map(|wait| Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            });
            match poll(&mut polls, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("wait for", "steps")(error)),
            }
            polls.iter().map(|poll| !poll.revents().is_empty()).collect()
        };
        let mut ready = ready.into_iter();
        let mut ended = Vec::new();
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let said = worker.read(&mut ready)?;
            if !said.is_empty() {
                self.monitor.event(worker.vertex, Event::Output(&said));
            }
            if worker.has_ended() {
                ended.push(number);
            }
        }
        if let Some((flusher, _)) = &mut self.flusher {
            flusher.read(&mut ready)?;
        }
        self.flushed()?;
        for number in ended.into_iter().rev() {
            let worker = self.workers.remove(number);
            let (id, dir) = (worker.vertex, worker.dir.clone());
            match self.collect(worker) {
                Ok(outcome) => {
                    self.monitor.event(id, Event::Done);
                    self.done(id, outcome);
                }
                Err(error) => {
                    self.broken = matches!(error, Error::Exit { .. }).then_some((id, dir));
                    return Err(self.failed(id, error));
                }
            }
        }
        Ok(())
    }

    /// Takes what a worker made.
    fn collect(&mut self, mut worker: Worker) -> Result<Outcome> {
        let id = worker.vertex;
        let dir = worker.dir.clone();
        let made = worker.answer();
        self.leaving.retain(|one| !one.is_gone());
        self.leaving.push(worker);
        self.host.disconnect(id);
        let made: job::Made = made?;
        let vertex = self.graph.vertex(id);
        let known = self.known.remove(&id);
        let made = match made {
            job::Made::Directory(from) => {
                self.sources.insert(id, from);
                return Ok(Outcome::Directory {
                    path: dir.join("tree"),
                    exclude: Rc::default(),
                    context: false,
                });
            }
            job::Made::Layer(made) => made,
        };
        let created = self.options.epoch.unwrap_or_else(now);
        let one = self.adopt(&dir.join("upper"), made, created)?;
        if let Some(known) = known {
            // As this layer is listed now: then a later build gives the same manifest.
            let form = form_of(&one.blob);
            self.made = true;
            let record = Record::new(&vertex.name, one.diff_id().clone(), form, created, known.facts);
            self.note(&known.key, &record);
            for (digest, listing) in &known.listings {
                if !self.cache.has_listing(digest) {
                    self.cache.set_listing(digest, listing)?;
                }
            }
            if let Some(last) =
                self.pending.last_mut().filter(|(pending, _)| pending.diff_id() == Some(one.diff_id()))
            {
                last.1 = Some((known.key, record));
            } else {
                // The store had the same layer already.
                self.cache.store(&known.key, &record)?;
            }
        }
        self.over(vertex, one)
    }

    /// Makes a finished upper directory a layer; it is used before it is flushed.
    fn adopt(&mut self, upper: &std::path::Path, made: job::Layered, created: i64) -> Result<StackLayer> {
        let diff_id = DiffId(made.diff_id);
        let form = BlobForm { digest: diff_id.0.clone(), size: made.size, media_type: MediaType::OciLayer };
        let blob = descriptor(&form);
        self.lease.protect([&diff_id.0])?;
        self.absent.remove(&diff_id);
        if let Some(layer) = self.store.layer(&diff_id)? {
            return Ok(StackLayer { blob, layer, created: Some(created) });
        }
        let record = LayerRecord {
            entries: made.entries,
            bytes: made.bytes,
            max_id: made.max_id,
            blobs: vec![form],
            ..LayerRecord::directory(diff_id, self.store.options().overlay_xattr)
        };
        let pending = self.lease.adopt_layer(upper, &record)?;
        let tree = pending.layer_tree().unwrap_or_default();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(&tree, flags, rustix::fs::Mode::empty())
            .map_err(Error::io("open the layer", &tree))?;
        // By descriptor: the tree moves when it is flushed.
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
        self.held.push(fd);
        self.pending.push((pending, None));
        self.pending_since.get_or_insert_with(Instant::now);
        Ok(StackLayer { blob, layer: Layer::at(path, record), created: Some(created) })
    }

    /// Begins to flush if something has waited long enough.
    fn maybe_flush(&mut self) -> Result<()> {
        let due = self.pending_since.is_some_and(|since| since.elapsed() >= FLUSH_AFTER);
        if due && self.flusher.is_none() {
            let store = self.store.clone();
            let flush = move |_: std::os::fd::BorrowedFd<'_>| store.flush().map_err(Error::from);
            let worker = Worker::start(VertexId(usize::MAX), PathBuf::new(), self.cache.dir(), flush)?;
            self.flusher = Some((worker, self.pending.len()));
            self.pending_since = None;
        }
        Ok(())
    }

    /// Takes what a background flush made durable.
    fn flushed(&mut self) -> Result<()> {
        let Some((worker, count)) = self.flusher.take_if(|(worker, _)| worker.has_ended()) else {
            return Ok(());
        };
        worker.collect::<()>()?;
        self.place(count)?;
        if !self.pending.is_empty() {
            self.pending_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Puts the first layers in their place and remembers them.
    fn place(&mut self, count: usize) -> Result<()> {
        let mut layers = Vec::new();
        let mut records = Vec::new();
        for (pending, record) in self.pending.drain(..count) {
            layers.push(pending);
            records.extend(record);
        }
        self.store.place(layers)?;
        records.iter().try_for_each(|(key, record)| self.cache.store(key, record))
    }

    fn finish(&mut self) -> Result<()> {
        if let Some((worker, _)) = self.flusher.take() {
            worker.kill();
            worker.collect_quietly();
        }
        if !self.pending.is_empty() {
            self.store.flush()?;
            self.place(self.pending.len())?;
        }
        self.lines.iter().try_for_each(|(line, key)| self.cache.set_last(line, key))
    }
}

fn now() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}

fn descriptor(form: &BlobForm) -> Descriptor {
    Descriptor::new(form.media_type.clone(), form.digest.clone(), form.size)
}

fn form_of(blob: &Descriptor) -> BlobForm {
    BlobForm { digest: blob.digest.clone(), size: blob.size, media_type: blob.media_type.clone() }
}
