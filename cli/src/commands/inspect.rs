//! `onggi inspect`: everything about images, as JSON or through a template.

use onggi_engine::ImageDetails;
use onggi_engine::oci::{Platform, Reference};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::json;
use crate::output::template::Template;
use crate::session::Session;

/// Show everything about images
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Format the output: `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// The platform wanted if an image has several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// What the names mean: image
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Images by name or ID
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        if let Some(kind) = self.kind.as_deref().filter(|kind| !matches!(*kind, "" | "image")) {
            return Err(Failure::Input(format!("{kind:?} is not a valid value for --type (image is)")));
        }
        let format = self.format.as_deref().unwrap_or_default();
        let template = match format {
            "" | "json" => None,
            text => Some(Template::parse(text).map_err(Failure::template)?),
        };
        let engine = session.engine()?;
        let mut values = Vec::new();
        let mut failed = None;
        for name in &self.names {
            match engine.image_details(name, self.platform.as_ref()) {
                Ok(details) => values.push(value(&details)),
                Err(error) => {
                    if let Some(earlier) = failed.replace(error) {
                        Failure::Engine(earlier).report();
                    }
                }
            }
        }
        let text = match (&template, format) {
            (Some(template), _) => {
                let line = |value| template.render(value).map(|line| line + "\n");
                values.iter().map(line).collect::<Result<String, _>>().map_err(Failure::template)?
            }
            (None, "json") => values.iter().map(|value| format!("{value}\n")).collect(),
            (None, _) => json::indented(&values).map_err(|e| Failure::Input(e.to_string()))?,
        };
        session.print(&text)?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// The object that `docker image inspect` prints.
fn value(details: &ImageDetails) -> Value {
    let ImageDetails { image, summary, size } = details;
    let names = |list: Option<&Vec<Reference>>| -> Vec<String> {
        list.into_iter().flatten().map(Reference::familiar).collect()
    };
    let mut digests = names(summary.as_ref().map(|s| &s.digests));
    for one in summary.iter().flat_map(|s| &s.refs).filter(|one| one.is_tag()) {
        if let Some(name) = &one.name {
            digests.push(name.with_digest(one.target.digest.clone()).familiar());
        }
    }
    digests.sort();
    digests.dedup();
    let config = &image.config;
    let mut object = json!({
        "Id": image.id,
        "RepoTags": names(summary.as_ref().map(|s| &s.tags)),
        "RepoDigests": digests,
        "Parent": "",
        "Comment": config.history.last().and_then(|step| step.comment.as_deref()).unwrap_or_default(),
        "Created": config.created,
        "DockerVersion": "",
        "Author": config.author.as_deref().unwrap_or_default(),
        "Config": config.config,
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": size,
        "GraphDriver": { "Data": Value::Null, "Name": "overlay" },
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
        "Descriptor": {
            "mediaType": image.target.media_type,
            "digest": image.target.digest,
            "size": image.target.size,
        },
    });
    if let (Some(variant), Some(object)) = (&config.variant, object.as_object_mut()) {
        object.insert("Variant".into(), json!(variant));
    }
    object
}
