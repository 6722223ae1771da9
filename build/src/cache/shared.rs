//! Results of steps for other machines.
//!
//! ```text
//!   {"version":1,
//!    "steps":    [{"key":…,"name":…,"diffId":…,"size":…,"created":…,"layer":<place in the manifest, or null>} …],
//!    "contents": [[<key>, <digest>] …]}
//! ```
//!
//! A key is the digest of all facts that a step depends on; the facts themselves stay at home, since nobody needs them
//! to find a result. `contents` says what a copy out of a stack of layers reads, so that whoever finds the whole build here
//! fetches only the layers of the image; so does a step without a layer: its key and diff ID lead to those after it. The document is the config of an artifact, or an annotation of an image.

use std::collections::{BTreeMap, HashMap};

use onggi_oci::{Descriptor, DiffId, Digest, MediaType};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The format of the document.
const VERSION: u32 = 1;
/// The most steps that one document tells of: the largest builds have some hundreds.
pub const MAX_STEPS: usize = 20_000;

/// What a step made, as one machine tells it to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedStep {
    /// The digest of all that the step depended on.
    pub key: Digest,
    /// The step's display name.
    pub name: String,
    /// Its layer.
    pub diff_id: DiffId,
    /// The bytes of the layer's archive, uncompressed.
    pub size: u64,
    /// When it ran, in seconds since 1970.
    pub created: i64,
}

impl SharedStep {
    /// Its layer as an uncompressed blob, which is how a new layer is listed.
    pub fn blob(&self) -> Descriptor {
        Descriptor::new(MediaType::OciLayer, self.diff_id.0.clone(), self.size)
    }
}

/// All that a build made or found, in the order in which its steps were done.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// The steps.
    pub steps: Vec<SharedStep>,
    /// What copies out of stacks read, by their key.
    pub contents: BTreeMap<Digest, Digest>,
}

/// The document.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    steps: Vec<Entry>,
    #[serde(default)]
    contents: Vec<(Digest, Digest)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    step: SharedStep,
    layer: Option<usize>,
}

/// Writes the document. Of a step whose layer has no place only key and diff ID are told.
pub fn to_json(steps: &Steps, place: &dyn Fn(&DiffId) -> Option<usize>) -> String {
    let mut entries: Vec<Entry> = steps
        .steps
        .iter()
        .map(|step| {
            let layer = place(&step.diff_id);
            let mut step = step.clone();
            if layer.is_none() {
                step.name.clear();
            }
            Entry { step, layer }
        })
        .collect();
    // Steps end in any order; the document is the same nevertheless. What was made last counts.
    entries.reverse();
    entries.sort_by(|a, b| a.step.key.cmp(&b.step.key));
    entries.dedup_by(|a, b| a.step.key == b.step.key);
    entries.truncate(MAX_STEPS);
    let contents = steps.contents.iter().map(|(key, digest)| (key.clone(), digest.clone())).collect();
    let document = Document { version: VERSION, steps: entries, contents };
    serde_json::to_string(&document).unwrap_or_default()
}

/// What a document says: steps by key, each with its layer as `layers` lists it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Steps and the blob of their layer, if that can be had.
    pub steps: HashMap<Digest, (SharedStep, Option<Descriptor>)>,
    /// What copies out of stacks read, by their key.
    pub contents: HashMap<Digest, Digest>,
}

/// Reads a document that came from outside; `layers` are those of the manifest that it belongs to.
///
/// # Errors
/// It is none, or of another version, or names layers that the manifest doesn't have.
pub fn parse(bytes: &[u8], layers: &[Descriptor]) -> Result<Known> {
    let invalid =
        |problem: String| Error::Invalid { what: "build cache", text: "its list of results".into(), problem };
    let document: Document = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
    if document.version != VERSION {
        return Err(invalid(format!("its version is {}, and only {VERSION} is known", document.version)));
    }
    if document.steps.len() > MAX_STEPS || document.contents.len() > MAX_STEPS {
        return Err(invalid(format!("it tells of more than {MAX_STEPS} steps")));
    }
    let mut known = Known { contents: document.contents.into_iter().collect(), ..Known::default() };
    for Entry { step, layer } in document.steps {
        let blob = match layer {
            None => None,
            Some(layer) => {
                let blob = layers.get(layer).filter(|blob| blob.media_type.is_layer());
                let none = || invalid(format!("it has no layer {layer}, which {} made", step.name));
                Some(blob.ok_or_else(none)?.clone())
            }
        };
        known.steps.insert(step.key.clone(), (step, blob));
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str) -> SharedStep {
        let digest = Digest::sha256(name.as_bytes());
        SharedStep { key: digest.clone(), name: name.into(), diff_id: DiffId(digest), size: 1024, created: 7 }
    }

    #[test]
    fn what_is_told_is_understood_and_the_order_of_steps_does_not_matter() {
        let contents = BTreeMap::from([(Digest::sha256(b"k"), Digest::sha256(b"v"))]);
        let place = |diff_id: &DiffId| if *diff_id == step("b").diff_id { Some(1) } else { Some(0) };
        let one = Steps { steps: vec![step("a"), step("b"), step("a")], contents };
        let other = Steps { steps: vec![step("b"), step("a")], ..one.clone() };
        let json = to_json(&one, &place);
        assert_eq!(json, to_json(&other, &place));
        let layers = [b"x", b"y"].map(|bytes| Descriptor::of(MediaType::OciLayerGzip, bytes));
        let known = parse(json.as_bytes(), &layers).unwrap();
        assert_eq!(known.steps.len(), 2);
        let (found, blob) = &known.steps[&step("b").key];
        assert_eq!((found, blob.as_ref()), (&step("b"), Some(&layers[1])));
        assert_eq!(known.contents[&Digest::sha256(b"k")], Digest::sha256(b"v"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let json = to_json(&Steps { steps: vec![step("a")], ..Steps::default() }, &|_| Some(3));
        let layer = Descriptor::of(MediaType::OciLayerGzip, b"x");
        let config = Descriptor::of(MediaType::OciConfig, b"x");
        let later = json.replace("\"version\":1", "\"version\":2");
        for (text, layers) in [
            (json.as_str(), vec![layer.clone()]),
            (&later, vec![layer; 4]),
            ("[]", vec![]),
            (&json, vec![config; 4]),
        ] {
            assert!(parse(text.as_bytes(), &layers).is_err(), "{text}");
        }
    }
}
