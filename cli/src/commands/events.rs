//! `onggi events`: what happens to containers, images, volumes and networks.

use std::io::Write;
use std::ops::ControlFlow;

use jiff::Timestamp;
use onggi_engine::events::Event;
use serde_json::{Map, Value, json};

use super::filter::moment;
use super::logs::fixed;
use crate::failure::Failure;
use crate::output::human;
use crate::output::template::Template;
use crate::session::Session;

const KNOWN: [&str; 7] = ["container", "event", "image", "label", "network", "type", "volume"];

/// Show what happens to containers, images, volumes and networks, as it happens
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Show only what matches: container, event, image, label, network, type, volume
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format the output: `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Begin at this time: a date, seconds since 1970, or a span such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End at this time: a date, seconds since 1970, or a span such as 10m
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let filters = self.filters()?;
        let template = match self.format.as_deref().unwrap_or_default() {
            "" | "json" => None,
            text => Some(Template::parse(text).map_err(Failure::template)?),
        };
        let since = self.since.as_deref().map(moment).transpose()?;
        let until = self.until.as_deref().map(moment).transpose()?;
        let engine = session.engine()?;
        let mut failed = None;
        let mut show = |event: &Event| -> ControlFlow<()> {
            if !accepts(&filters, event) {
                return ControlFlow::Continue(());
            }
            let shown = self.line(event, template.as_ref()).and_then(|line| {
                session.print(&line)?;
                std::io::stdout().flush().map_err(Failure::Output)
            });
            match shown {
                Ok(()) => ControlFlow::Continue(()),
                Err(failure) => {
                    failed = Some(failure);
                    ControlFlow::Break(())
                }
            }
        };
        // The end may be before the beginning of watching.
        let over = until.is_some_and(|until| until <= Timestamp::now());
        if over {
            let is_wanted = |event: &Event| {
                since.is_none_or(|since| event.time >= since) && until.is_none_or(|until| event.time <= until)
            };
            for event in engine.past_events()?.iter().filter(|event| is_wanted(event)) {
                if show(event).is_break() {
                    break;
                }
            }
        } else {
            engine.watch_events(since, until, &mut show)?;
        }
        failed.map_or(Ok(()), Err)
    }

    fn filters(&self) -> Result<Vec<(String, String)>, Failure> {
        let read = |word: &String| match word.split_once('=') {
            Some((key, value)) if KNOWN.contains(&key) => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::Input(format!("invalid filter {word:?} (known: {})", KNOWN.join(", ")))),
        };
        self.filter.iter().map(read).collect()
    }

    fn line(&self, event: &Event, template: Option<&Template>) -> Result<String, Failure> {
        if let Some(template) = template {
            return Ok(template.render(&object(event)).map_err(Failure::template)? + "\n");
        }
        if self.format.as_deref() == Some("json") {
            return Ok(object(event).to_string() + "\n");
        }
        let pairs: Vec<String> = event
            .attributes
            .iter()
            .map(|(key, value)| human::visible(&format!("{key}={value}")).into_owned())
            .collect();
        Ok(format!(
            "{} {} {} {} ({})\n",
            fixed(event.time),
            event.kind,
            event.action,
            event.id,
            pairs.join(", ")
        ))
    }
}

/// Docker's message, the fields of old API versions included.
fn object(event: &Event) -> Value {
    let attributes: Map<String, Value> =
        event.attributes.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let mut object = Map::new();
    if matches!(&*event.kind, "container" | "image") {
        object.insert("status".into(), json!(event.action));
        object.insert("id".into(), json!(event.id));
    }
    if let Some(image) = event.attributes.get("image") {
        object.insert("from".into(), json!(image));
    }
    object.insert("Type".into(), json!(event.kind));
    object.insert("Action".into(), json!(event.action));
    object.insert("Actor".into(), json!({ "ID": event.id, "Attributes": attributes }));
    object.insert("scope".into(), json!("local"));
    object.insert("time".into(), json!(event.time.as_second()));
    object.insert("timeNano".into(), json!(i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX)));
    Value::Object(object)
}

/// Filters of one key are alternatives, filters of different keys must all hold.
fn accepts(filters: &[(String, String)], event: &Event) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str).unwrap_or_default();
    let holds = |key: &str, value: &str| match key {
        "type" => event.kind == value,
        "event" => event.action == value || event.action.split(':').next() == Some(value),
        "container" => {
            event.kind == "container" && (event.id.starts_with(value) || attribute("name") == value)
        }
        "image" => match &*event.kind {
            "image" => {
                event.id.contains(value)
                    || attribute("name") == value
                    || attribute("name").split(':').next() == Some(value)
            }
            _ => attribute("image") == value || attribute("image").split(':').next() == Some(value),
        },
        "volume" => event.kind == "volume" && event.id == value,
        "network" => event.kind == "network" && (event.id.starts_with(value) || attribute("name") == value),
        "label" => match value.split_once('=') {
            Some((label, value)) => attribute(label) == value,
            None => event.attributes.contains_key(value),
        },
        _ => false,
    };
    filters.iter().all(|(key, value)| {
        holds(key, value)
            || (key != "label" && filters.iter().any(|(other, value)| other == key && holds(key, value)))
    })
}
