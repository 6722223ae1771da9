//! `onggi inspect`: everything about containers, images, volumes and networks, as JSON or through a template.
//!
//! | module | what |
//! |---|---|
//! | [`container`] | a container: identity, state, mounts, config |
//! | [`host_config`] | what was asked of a container, in Docker's words |
//! | [`image`] | an image |

pub(super) mod container;
mod host_config;
mod image;

use onggi_engine::Engine;
use onggi_engine::oci::{ErrorKind, Platform};
use serde_json::Value;

use super::{network, volume};
use crate::failure::Failure;
use crate::output::json;
use crate::session::Session;

/// Show everything about containers, images, volumes and networks
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Format the output: `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show how much space containers take
    #[arg(short, long)]
    size: bool,
    /// What the names mean: container, image, network or volume
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// By name or ID
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
}

/// Show everything about images
#[derive(Debug, clap::Args)]
pub struct Image {
    /// Format the output: `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// The platform wanted if an image has several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Images by name or ID
    #[arg(value_name = "IMAGE", required = true)]
    names: Vec<String>,
}

/// Show everything about containers
#[derive(Debug, clap::Args)]
pub struct Container {
    /// Format the output: `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show how much space they take
    #[arg(short, long)]
    size: bool,
    /// Containers by name or ID
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// A kind of thing that has a name.
type Finder<'a> = &'a dyn Fn(&str) -> Result<Value, Failure>;

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let kind = self.kind.as_deref().unwrap_or_default();
        if !matches!(kind, "" | "container" | "image" | "network" | "volume") {
            let known = "container, image, network and volume are";
            return Err(Failure::Input(format!("{kind:?} is not a valid value for --type ({known})")));
        }
        // Of an ordinary user containers are looked at before the store is opened, see there.
        let engine = session.engine()?;
        let container = |name: &str| container::value(&engine, &engine.container(name)?, self.size);
        let image = |name: &str| Ok(image::value(&engine.image_details(name, None)?));
        let volume = |name: &str| Ok(volume::value(&engine.volume(name)?));
        let network = |name: &str| Ok(network::value(&engine.network(name)?));
        let finders: [(&str, Finder<'_>); 4] =
            [("container", &container), ("image", &image), ("network", &network), ("volume", &volume)];
        let find = |name: &str| {
            for (_, find) in finders.iter().filter(|(known, _)| kind.is_empty() || *known == kind) {
                match find(name) {
                    Err(error) if is_missing(&error) => {}
                    found => return found,
                }
            }
            Err(Failure::Input(match kind {
                "" => format!("no such object: {name}"),
                kind => format!("no such {kind}: {name}"),
            }))
        };
        show(session, self.format.as_deref(), &self.names, &find)
    }
}

impl Image {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let find = |name: &str| Ok(image::value(&engine.image_details(name, self.platform.as_ref())?));
        show(session, self.format.as_deref(), &self.names, &find)
    }
}

impl Container {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine: Engine = session.engine()?;
        let find = |name: &str| container::value(&engine, &engine.container(name)?, self.size);
        show(session, self.format.as_deref(), &self.names, &find)
    }
}

/// Whether there may be something else of that name.
fn is_missing(failure: &Failure) -> bool {
    match failure {
        Failure::Engine(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid),
        _ => false,
    }
}

/// Prints what was found; the first thing that was not found is the failure.
fn show(session: &Session, format: Option<&str>, names: &[String], find: Finder<'_>) -> Result<(), Failure> {
    let (mut values, mut failed): (Vec<Value>, Option<Failure>) = (Vec::new(), None);
    for name in names {
        match find(name) {
            Ok(value) => values.push(value),
            Err(failure) => {
                if let Some(earlier) = failed.replace(failure) {
                    earlier.report();
                }
            }
        }
    }
    session.print(&json::objects(format, &values)?)?;
    failed.map_or(Ok(()), Err)
}
