//! Results of other machines: used like one's own, and fetched only when somebody reads them.
//!
//! ```text
//!   key ─► a record here? ─no─► another machine's? ─yes─► layer known by its diff ID, absent
//!                                   a step that runs on it, a copy that reads it, the image ─► fetched, verified
//! ```
//!
//! So a build that another machine did wholly costs the layers of the image, and none of the stages before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use onggi_image::store::{BlobForm, Format, Layer, LayerRecord};
use onggi_oci::{DiffId, Digest};

use super::{Known, Outcome, Solver, State, form_of};
use crate::cache::Record;
use crate::cache::shared::SharedStep;
use crate::error::Result;
use crate::graph::{Vertex, VertexId};
use crate::host::StackLayer;

/// A layer that was found at another machine.
#[derive(Debug)]
pub(super) struct Absent {
    step: SharedStep,
    /// Whether it was fetched since.
    here: bool,
    /// What is to be remembered once it is here.
    records: Vec<(Digest, Record)>,
}

impl Solver<'_> {
    /// What another machine made of a step that is not known here.
    pub(super) fn look_elsewhere(&mut self, vertex: &Vertex, known: &Known) -> Result<Option<Outcome>> {
        let Some(step) = self.host.shared_step(&known.key) else { return Ok(None) };
        self.lease.protect([&step.diff_id.0])?;
        let blob = step.blob();
        let record = Record::new(
            &vertex.name,
            step.diff_id.clone(),
            form_of(&blob),
            step.created,
            known.facts.clone(),
        );
        let layer = if let Some(layer) = self.store.layer(&step.diff_id)? {
            self.cache.store(&known.key, &record)?;
            layer
        } else {
            let absent = Absent { step: step.clone(), here: false, records: Vec::new() };
            let entry = self.absent.entry(step.diff_id.clone()).or_insert(absent);
            entry.records.push((known.key.clone(), record));
            placeholder(&step.diff_id, form_of(&blob))
        };
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

    /// Fetches what is absent of the stacks of these vertices, all at once.
    pub(super) fn make_ready(&mut self, ids: &[VertexId]) -> Result<()> {
        if self.absent.is_empty() {
            return Ok(());
        }
        let mut wanted: BTreeMap<DiffId, SharedStep> = BTreeMap::new();
        for id in ids {
            let State::Done(Outcome::Stack(stack)) = &self.states[id.0] else { continue };
            for one in stack.iter() {
                if let Some(absent) = self.absent.get(one.diff_id()).filter(|absent| !absent.here) {
                    wanted.insert(one.diff_id().clone(), absent.step.clone());
                }
            }
        }
        if !wanted.is_empty() {
            let steps: Vec<SharedStep> = wanted.values().cloned().collect();
            self.host.fetch_shared(&steps).inspect_err(|_| self.sharing_failed = true)?;
        }
        for diff_id in wanted.keys() {
            let Some(absent) = self.absent.get_mut(diff_id) else { continue };
            absent.here = true;
            for (key, record) in absent.records.drain(..) {
                self.cache.store(&key, &record)?;
            }
        }
        ids.iter().try_for_each(|id| self.refresh(*id))
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
    let record = LayerRecord {
        diff_id: diff_id.clone(),
        format: Format::Dir,
        file: None,
        entries: 0,
        bytes: 0,
        max_id: 0,
        squashed: 0,
        devices_skipped: 0,
        xattrs_skipped: 0,
        root_entry: false,
        opaque_root: false,
        user_xattr: false,
        blobs: vec![form],
    };
    Layer::at(PathBuf::new(), record)
}
