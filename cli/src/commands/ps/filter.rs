//! `ps --filter`: which containers are shown.
//!
//! Filters of one key are alternatives, filters of different keys must all hold; labels must all be there.

use onggi_engine::Engine;
use onggi_engine::containers::{ContainerDetails, Status};
use onggi_engine::oci::{DiffId, Digest, Reference};
use regex::Regex;

use super::network_names;
use crate::failure::Failure;

const KNOWN: [&str; 14] = [
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network",
    "publish", "since", "status", "volume",
];
const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

/// The filters of one call, with what they mean looked up.
#[derive(Debug, Default)]
pub(super) struct Filters {
    filters: Vec<(String, Filter)>,
    /// Whether stopped containers are asked for.
    pub(super) by_state: bool,
}

#[derive(Debug)]
enum Filter {
    Id(String),
    Name(Regex),
    Label(String, Option<String>),
    Exited(i64),
    Status(String),
    Health(String),
    Ancestor(Ancestor),
    /// Made before or after the one that was made then.
    Made {
        before: bool,
        created: String,
        id: String,
    },
    Volume(String),
    Network(String),
    Port {
        published: bool,
        first: u16,
        last: u16,
        protocol: String,
    },
    Task(bool),
}

/// An image, and those that were made from it.
#[derive(Debug)]
struct Ancestor {
    name: Option<Reference>,
    ids: Vec<Digest>,
    layers: Vec<DiffId>,
    text: String,
}

impl Filters {
    pub(super) fn parse(words: &[String], engine: &Engine) -> Result<Self, Failure> {
        let mut filters = Vec::new();
        let mut by_state = false;
        for word in words {
            let invalid = |problem: &str| Failure::Input(format!("invalid filter {word:?}: {problem}"));
            let Some((key, value)) = word.split_once('=') else {
                return Err(invalid("expected KEY=VALUE"));
            };
            let value = value.to_owned();
            let filter = match key {
                "id" => Filter::Id(value),
                "name" => {
                    let pattern = value.trim_start_matches('/');
                    Filter::Name(Regex::new(pattern).map_err(|error| invalid(&error.to_string()))?)
                }
                "label" => match value.split_once('=') {
                    Some((label, value)) => Filter::Label(label.into(), Some(value.into())),
                    None => Filter::Label(value, None),
                },
                "exited" => {
                    by_state = true;
                    Filter::Exited(value.parse().map_err(|_| invalid("expected an exit status"))?)
                }
                "status" if STATES.contains(&value.as_str()) => {
                    by_state = true;
                    Filter::Status(value)
                }
                "status" => return Err(invalid(&format!("expected one of {}", STATES.join(", ")))),
                "health" if HEALTH.contains(&value.as_str()) => Filter::Health(value),
                "health" => return Err(invalid(&format!("expected one of {}", HEALTH.join(", ")))),
                "ancestor" => Filter::Ancestor(ancestor(engine, &value)),
                "before" | "since" => {
                    let other = engine.container(&value)?;
                    let (created, id) = (other.record.created, other.record.id);
                    Filter::Made { before: key == "before", created, id }
                }
                "volume" => Filter::Volume(value),
                "network" => Filter::Network(value),
                "publish" | "expose" => port(key == "publish", &value).ok_or_else(|| {
                    invalid("expected a port or a range of ports, and a protocol: 80, 8000-8080/tcp")
                })?,
                "is-task" => match value.as_str() {
                    "true" | "1" => Filter::Task(true),
                    "false" | "0" => Filter::Task(false),
                    _ => return Err(invalid("expected true or false")),
                },
                _ => return Err(invalid(&format!("known are {}", KNOWN.join(", ")))),
            };
            filters.push((key.to_owned(), filter));
        }
        Ok(Self { filters, by_state })
    }

    pub(super) fn accept(&self, one: &ContainerDetails) -> bool {
        self.filters.iter().all(|(key, filter)| {
            filter.holds(one)
                || (key != "label"
                    && self.filters.iter().any(|(other, filter)| other == key && filter.holds(one)))
        })
    }
}

impl Filter {
    fn holds(&self, one: &ContainerDetails) -> bool {
        let record = &one.record;
        match self {
            Self::Id(id) => record.id.starts_with(id.as_str()),
            Self::Name(pattern) => pattern.is_match(&record.name),
            Self::Label(label, wanted) => match (record.labels().get(label), wanted) {
                (Some(have), Some(wanted)) => have == wanted,
                (have, None) => have.is_some(),
                _ => false,
            },
            Self::Exited(code) => {
                one.status == Status::Exited && one.state.exit_code.map(i64::from) == Some(*code)
            }
            Self::Status(word) => one.status.word() == word,
            Self::Health(word) => {
                one.state.health.as_ref().map_or("none", |health| health.status.word()) == word
            }
            Self::Ancestor(ancestor) => ancestor.is_of(one),
            Self::Made { before, created, id } => {
                record.id != *id
                    && if *before { record.created < *created } else { record.created > *created }
            }
            Self::Volume(text) => record.mounts.iter().any(|point| {
                point.name.as_deref() == Some(text)
                    || point.target == *text
                    || point.source.as_os_str() == text.as_str()
            }),
            Self::Network(name) => network_names(one).contains(name),
            Self::Port { published, first, last, protocol } => {
                let ports = super::ports(one, *published);
                ports.iter().any(|(port, kind)| (first..=last).contains(&port) && kind == protocol)
            }
            // There is no swarm.
            Self::Task(wanted) => !wanted,
        }
    }
}

impl Ancestor {
    fn is_of(&self, one: &ContainerDetails) -> bool {
        let image = &one.record.image;
        let hex = self.text.strip_prefix("sha256:").unwrap_or(&self.text);
        let named = image.reference.parse::<Reference>().map(Reference::with_default_tag).ok();
        self.ids.contains(&image.id)
            || (hex.len() >= 4 && image.id.hex().starts_with(hex))
            || (self.name.is_some() && named == self.name)
            || (!self.layers.is_empty() && image.layers.starts_with(&self.layers))
    }
}

fn ancestor(engine: &Engine, text: &str) -> Ancestor {
    let image = engine.image(text, None).ok();
    Ancestor {
        name: text.parse::<Reference>().map(Reference::with_default_tag).ok(),
        layers: image.iter().flat_map(|image| image.config.rootfs.diff_ids.clone()).collect(),
        ids: image.map(|image| image.id).into_iter().collect(),
        text: text.to_owned(),
    }
}

/// `80`, `80/udp`, `8000-8080/tcp`.
fn port(published: bool, text: &str) -> Option<Filter> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then(|| Filter::Port { published, first, last, protocol: protocol.to_lowercase() })
}
