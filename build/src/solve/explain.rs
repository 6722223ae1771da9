//! Why a step was known or not: its facts against those of the last build of the same place.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Known;
use crate::cache::{Cache, Fact};

/// Whether a step was known, and what changed if not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether its result was found.
    pub hit: bool,
    /// The digest of everything that it depends on.
    pub key: String,
    /// Why not, in words; empty for a hit.
    pub reason: String,
    /// What changed since the last build.
    pub changes: Vec<Change>,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What: a file, a variable, the parent.
    pub what: String,
    /// What it was; `None` if it is new.
    pub old: Option<String>,
    /// What it is; `None` if it is gone.
    pub new: Option<String>,
}

/// How many changed files are told one by one.
const MAX_FILES: usize = 100;

pub(super) fn verdict(cache: &Cache, known: &Known, hit: bool, fresh: bool) -> Verdict {
    let mut verdict = Verdict { hit, key: known.key.to_string(), reason: String::new(), changes: Vec::new() };
    if hit {
        return verdict;
    }
    if fresh {
        verdict.reason = "the cache is not to be used".into();
        return verdict;
    }
    let Some(last) = cache.last(&known.line) else {
        verdict.reason = "this step was never built here".into();
        return verdict;
    };
    if last == known.key {
        verdict.reason = "its earlier result is no longer in the store".into();
        return verdict;
    }
    let Some(record) = cache.find(&last) else {
        verdict.reason = "it changed, and its earlier result is no longer in the store".into();
        return verdict;
    };
    verdict.changes = changes(cache, known, &record.facts);
    let what: Vec<&str> = verdict.changes.iter().take(3).map(|change| change.what.as_str()).collect();
    let more = verdict.changes.len().saturating_sub(what.len());
    verdict.reason = match more {
        0 => format!("changed: {}", what.join(", ")),
        _ => format!("changed: {} and {more} more", what.join(", ")),
    };
    verdict
}

fn changes(cache: &Cache, known: &Known, old: &[Fact]) -> Vec<Change> {
    let old: BTreeMap<&str, &str> = old.iter().map(|Fact(label, value)| (&label[..], &value[..])).collect();
    let new: BTreeMap<&str, &str> =
        known.facts.iter().map(|Fact(label, value)| (&label[..], &value[..])).collect();
    let mut changes = Vec::new();
    let labels: std::collections::BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    for label in labels {
        let (old, new) = (old.get(label).copied(), new.get(label).copied());
        if old == new {
            continue;
        }
        let files = label.strip_prefix("content of ").and(old.zip(new)).and_then(|(old, new)| {
            let before = cache.listing(old)?;
            let after = known.listings.iter().find(|(digest, _)| digest.to_string() == new)?;
            Some(differences(&before, &after.1))
        });
        match files {
            Some(files) if !files.is_empty() => changes.extend(files),
            _ => changes.push(Change {
                what: label.into(),
                old: old.map(Into::into),
                new: new.map(Into::into),
            }),
        }
    }
    changes
}

fn differences(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Change> {
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let change = |name: &String| Change {
        what: format!("file {name}"),
        old: old.get(name).cloned(),
        new: new.get(name).cloned(),
    };
    differ.take(MAX_FILES).map(change).collect()
}
