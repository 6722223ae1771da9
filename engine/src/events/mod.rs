//! Events: what happened to containers, images, volumes and networks, in Docker's words.
//!
//! ```text
//!   command, supervisor ──one append──► <root>/events/journal ──inotify──► whoever watches
//! ```
//!
//! Whoever does something notes it once it is done. What nobody saw (a program whose caretaker was killed
//! too) is noted by the sweep that finds it, which a watcher does itself now and then. A note that can't be
//! written is left out: a full disk must not keep a container from ending.

mod journal;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use onggi_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::containers::Record;
use crate::error::Result;
use journal::Follower;

/// What no process notes (a caretaker and its program were killed) is looked for so often.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// `container`, `image`, `volume` or `network`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Docker's word: `create`, `start`, `die`, …
    pub action: String,
    /// Of what: an ID or a name.
    pub id: String,
    /// Name, image, labels, exit status.
    pub attributes: BTreeMap<String, String>,
}

/// An attribute besides those that every event of its kind has.
pub(crate) type Attribute<'a> = (&'a str, &'a str);

/// Notes what has just happened in the store at `root`.
pub(crate) fn note(root: &Path, kind: &str, action: &str, id: &str, attributes: &[Attribute<'_>]) {
    let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let event = Event {
        time: Timestamp::now(),
        kind: kind.into(),
        action: action.into(),
        id: id.into(),
        attributes: attributes.collect(),
    };
    journal::append(root, &[event]);
}

impl Engine {
    /// Notes what has just happened to an image; `id` is its own or its manifest's digest.
    pub(crate) fn note_image(&self, action: &str, id: &Digest, name: &Reference) {
        note(&self.settings().root, "image", action, &id.to_string(), &[("name", &name.familiar())]);
    }

    /// The same of a container: each of these actions, with the same to say.
    pub(crate) fn note_container(&self, record: &Record, actions: &[&str], more: &[Attribute<'_>]) {
        let time = Timestamp::now();
        let event = |action: &&str| {
            let mut attributes = record.labels();
            attributes.insert("image".into(), record.image.reference.clone());
            attributes.insert("name".into(), record.name.clone());
            attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            let (kind, action, id) = ("container".into(), (*action).to_owned(), record.id.clone());
            Event { time, kind, action, id, attributes }
        };
        let events: Vec<Event> = actions.iter().map(event).collect();
        journal::append(&self.settings().root, &events);
    }

    /// Events that the journal still has, the oldest first.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn past_events(&self) -> Result<Vec<Event>> {
        if self.needs_sweep()? {
            self.sweep()?;
        }
        journal::read(&self.settings().root)
    }

    /// Tells each event to `sink` as it happens, until that says stop or the time has come. What happened
    /// after `since` and is in the journal comes first.
    ///
    /// # Errors
    /// The journal can't be watched.
    pub fn watch_events(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        sink: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<()> {
        // Makes the directories.
        self.store()?;
        let mut follower = Follower::new(&self.settings().root)?;
        if since.is_none() {
            follower.skip()?;
        }
        loop {
            for event in follower.events()? {
                let early = since.is_some_and(|since| event.time < since);
                if !early && until.is_none_or(|until| event.time <= until) && sink(&event).is_break() {
                    return Ok(());
                }
            }
            let mut left = PATIENCE;
            if let Some(until) = until {
                match Duration::try_from(until.duration_since(Timestamp::now())) {
                    Ok(rest) if !rest.is_zero() => left = left.min(rest),
                    _ => return Ok(()),
                }
            }
            if !follower.wait(left)? && self.needs_sweep()? {
                self.sweep()?;
            }
        }
    }
}
