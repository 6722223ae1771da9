//! What is known of a vertex: its result if a source or a record has it, else the key that a worker's
//! result will be kept by.

use std::rc::Rc;

use super::durable::descriptor;
use super::options::Event;
use super::{Known, Outcome, Solver, explain};
use crate::cache::Fact;
use crate::error::{Error, Result};
use crate::graph::{Op, Vertex, VertexId};
use crate::host::StackLayer;

impl Solver<'_> {
    /// Begins a vertex: finds its result, or leaves it for a worker.
    pub(super) fn begin(&mut self, id: VertexId) -> Result<()> {
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
    pub(super) fn over(&self, vertex: &Vertex, one: StackLayer) -> Result<Outcome> {
        let base = match &vertex.op {
            Op::Exec(exec) => exec.root,
            Op::File(file) => file.base,
            _ => None,
        };
        let mut stack = self.stack(base)?.to_vec();
        stack.push(one);
        Ok(Outcome::Stack(Rc::new(stack)))
    }
}
