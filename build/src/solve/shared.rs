//! Results of other machines: used like one's own, and fetched only when somebody reads them.
//!
//! ```text
//!   key ─► a record here? ─no─► another machine's? ─yes─► layer known by its diff ID, absent
//!                                   a step that runs on it, a copy that reads it, the image ─► fetched, verified
//! ```
//!
//! So a build that another machine did wholly costs the layers of the image, and none of the stages before. A layer that
//! nobody gives is made when it is needed: its step is done as if it had not been known, and what stands on it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use onggi_image::layer::OverlayXattr;
use onggi_image::store::{BlobForm, Layer, LayerRecord};
use onggi_oci::{DiffId, Digest};

use super::durable::form_of;
use super::{Known, Outcome, Solver, State};
use crate::cache::Record;
use crate::cache::shared::SharedStep;
use crate::error::Result;
use crate::graph::VertexId;
use crate::host::StackLayer;

/// A layer that a step is known to make, and that is not here.
#[derive(Debug)]
pub(super) struct Absent {
    step: SharedStep,
    /// Whether another machine gives it; else the steps that make it can be done.
    fetchable: bool,
    /// Whether it was fetched since.
    here: bool,
    makers: Vec<VertexId>,
}

impl Solver<'_> {
    /// What is known of a step whose layer is not here: from another machine, or from an earlier build that did not
    /// need the layer.
    pub(super) fn look_elsewhere(
        &mut self,
        id: VertexId,
        known: &Known,
        earlier: Option<Record>,
    ) -> Result<Option<Outcome>> {
        let vertex = self.graph.vertex(id);
        let earlier = earlier.filter(|record| record.blob.digest == record.diff_id.0).map(|record| {
            let (key, size) = (known.key.clone(), record.blob.size);
            let (name, diff_id, created) = (record.name, record.diff_id, record.created);
            (SharedStep { key, name, diff_id, size, created }, false)
        });
        let Some((step, fetchable)) = self.host.shared_step(&known.key).or(earlier) else { return Ok(None) };
        self.lease.protect([&step.diff_id.0])?;
        let blob = step.blob();
        let layer = self.store.layer(&step.diff_id)?;
        if layer.is_none() && self.must_run.contains(&id) {
            return Ok(None);
        }
        let record = Record::new(
            &vertex.name,
            step.diff_id.clone(),
            form_of(&blob),
            step.created,
            known.facts.clone(),
        );
        self.cache.store(&known.key, &record)?;
        let layer = layer.unwrap_or_else(|| {
            let absent = Absent { step: step.clone(), fetchable, here: false, makers: Vec::new() };
            let entry = self.absent.entry(step.diff_id.clone()).or_insert(absent);
            entry.makers.push(id);
            if fetchable && !entry.fetchable {
                (entry.fetchable, entry.step) = (true, step.clone());
            }
            placeholder(&step.diff_id, form_of(&blob))
        });
        let one = StackLayer { blob, layer, created: Some(step.created) };
        self.steps.steps.push(step);
        self.over(vertex, one).map(Some)
    }

    /// Remembers what a step made, for those who share results.
    pub(super) fn note(&mut self, key: &Digest, record: &Record) {
        // Records of old list a layer by how it once came, which is not how it is listed when it is new.
        if record.blob.digest == record.diff_id.0 {
            self.steps.steps.push(SharedStep {
                key: key.clone(),
                name: record.name.clone(),
                diff_id: record.diff_id.clone(),
                size: record.blob.size,
                created: record.created,
            });
        }
    }

    /// Fetches what is absent of the stacks of these vertices, all at once. `false`: some of it has to be made first, and
    /// whoever needs it waits for that.
    pub(super) fn make_ready(&mut self, ids: &[VertexId]) -> Result<bool> {
        if self.absent.is_empty() {
            return Ok(true);
        }
        let mut wanted: BTreeMap<DiffId, SharedStep> = BTreeMap::new();
        let mut lacking: BTreeSet<DiffId> = BTreeSet::new();
        for id in ids {
            let State::Done(Outcome::Stack(stack)) = &self.states[id.0] else { continue };
            for one in stack.iter() {
                match self.absent.get(one.diff_id()) {
                    Some(absent) if absent.here => {}
                    Some(absent) if absent.fetchable => {
                        wanted.insert(one.diff_id().clone(), absent.step.clone());
                    }
                    Some(_) => {
                        lacking.insert(one.diff_id().clone());
                    }
                    None => {}
                }
            }
        }
        if lacking.is_empty() && !wanted.is_empty() {
            let steps: Vec<SharedStep> = wanted.values().cloned().collect();
            if self.host.fetch_shared(&steps).is_err() {
                // The caller has said why. Nothing more comes from there.
                self.absent.values_mut().for_each(|absent| absent.fetchable = false);
                lacking.extend(wanted.keys().cloned());
            }
        }
        if !lacking.is_empty() {
            self.reopen(&lacking);
            return Ok(false);
        }
        for diff_id in wanted.keys() {
            if let Some(absent) = self.absent.get_mut(diff_id) {
                absent.here = true;
            }
        }
        ids.iter().try_for_each(|id| self.refresh(*id))?;
        Ok(true)
    }

    /// Has the steps done that make these layers; what stands on them waits, and is looked up again.
    fn reopen(&mut self, lacking: &BTreeSet<DiffId>) {
        for diff_id in lacking {
            self.must_run.extend(self.absent.remove(diff_id).into_iter().flat_map(|absent| absent.makers));
        }
        // Also who only read such a layer: if it is made another way, nobody is to have the old one.
        let mut open_again = vec![false; self.states.len()];
        for number in 0..self.states.len() {
            let State::Done(outcome) = &self.states[number] else { continue };
            let stands_on = match outcome {
                Outcome::Stack(stack) => stack.iter().any(|one| lacking.contains(one.diff_id())),
                Outcome::Directory { .. } => false,
            };
            let inputs = self.graph.vertices[number].op.inputs();
            open_again[number] = stands_on || inputs.iter().any(|id| open_again[id.0]);
        }
        for (state, again) in self.states.iter_mut().zip(open_again) {
            if again {
                *state = State::Waiting(0);
            }
        }
        // In the graph's order, so that inputs are as they will be.
        for number in 0..self.states.len() {
            if matches!(self.states[number], State::Waiting(_) | State::Ready) {
                self.known.remove(&VertexId(number));
                let inputs = self.graph.vertices[number].op.inputs();
                let open = inputs.iter().filter(|id| !matches!(self.states[id.0], State::Done(_))).count();
                self.states[number] = if open == 0 { State::Ready } else { State::Waiting(open) };
            }
        }
    }

    /// Puts layers that were fetched into a stack in place of what stood for them.
    fn refresh(&mut self, id: VertexId) -> Result<()> {
        let State::Done(Outcome::Stack(stack)) = &self.states[id.0] else { return Ok(()) };
        if !stack.iter().any(|one| self.absent.contains_key(one.diff_id())) {
            return Ok(());
        }
        let fresh = stack.iter().map(|one| {
            let layer =
                if self.absent.contains_key(one.diff_id()) { self.store.layer(one.diff_id())? } else { None };
            Ok(StackLayer { layer: layer.unwrap_or_else(|| one.layer.clone()), ..one.clone() })
        });
        let fresh = fresh.collect::<Result<Vec<_>>>()?;
        self.states[id.0] = State::Done(Outcome::Stack(Rc::new(fresh)));
        Ok(())
    }
}

/// Stands for a layer that is not here.
fn placeholder(diff_id: &DiffId, form: BlobForm) -> Layer {
    let own = LayerRecord::directory(diff_id.clone(), OverlayXattr::Trusted);
    let record = LayerRecord { blobs: vec![form], ..own };
    Layer::at(PathBuf::new(), record)
}
