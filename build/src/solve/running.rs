//! Steps that are done now: each by a worker process, as many at once as may be.

use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::durable::{FLUSH_AFTER, form_of};
use super::options::{Event, ShellState};
use super::worker::Worker;
use super::{Outcome, Solver, State, job};
use crate::cache::Record;
use crate::error::{Error, Result};
use crate::graph::{Network, Op, VertexId};
use crate::host::FailedState;

impl Solver<'_> {
    /// Gives waiting steps to workers, as many as may run.
    pub(super) fn launch(&mut self) -> Result<()> {
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
    pub(super) fn shell(&self, id: VertexId, failed: &std::path::Path, state: ShellState) -> Result<()> {
        let job = self.job(id)?;
        if state == ShellState::Failed {
            let (upper, work) = (failed.join(job::UPPER), job.dir.join("work"));
            std::fs::rename(&upper, job.dir.join(job::UPPER)).map_err(Error::io("move", upper))?;
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

    /// Tells the caller what a program that failed began with.
    pub(super) fn keep_state(&self, id: VertexId) {
        let vertex = self.graph.vertex(id);
        let Op::Exec(exec) = &vertex.op else { return };
        let Ok(layers) = self.stack(exec.root).and_then(|stack| self.settled(&stack)) else { return };
        let public = |variable: &&String| {
            self.graph.targets.iter().any(|target| target.config.config.env.contains(variable))
        };
        let env = exec.env.iter().filter(public).cloned().collect();
        if !layers.is_empty() {
            self.host.keep_state(FailedState { exec, env, platform: &vertex.platform, layers });
        }
    }

    /// Waits until a worker says something or time is up.
    pub(super) fn wait(&mut self) -> Result<()> {
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
        let one = self.adopt(&dir, made, created)?;
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
}

fn now() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}
