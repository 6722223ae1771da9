//! `onggi images`: lists images.

use jiff::Timestamp;
use onggi_engine::image::store::ImageSummary;
use onggi_engine::oci::{Digest, Reference};
use serde_json::{Value, json};

use super::filter::Filters;
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::Listing;
use crate::session::Session;

const LISTING: Listing = Listing {
    columns: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Platform", "PLATFORM"),
    ],
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
};
const TABLE_WITH_DIGESTS: &str =
    "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
/// What stands for a name, tag or digest that an image does not have.
const NONE: &str = "<none>";

/// List images
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Show all images (onggi keeps no intermediate images, so this changes nothing)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show only what matches: before, dangling, label, reference, since, until
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format the output: `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// Show IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Show only this repository
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let found = engine.images()?;
        for (name, error) in &found.broken {
            let name = name.name.as_ref().map_or_else(|| name.target.digest.to_string(), Reference::familiar);
            session.warn(&format!("{name} is left out: {error}"));
        }
        let filters =
            Filters::parse(&self.filter, &["before", "dangling", "label", "reference", "since", "until"])?;
        let mut rows = Vec::new();
        let mut ids = Vec::new();
        for summary in &found.images {
            if !filters.match_image(summary, &found.images)? {
                continue;
            }
            let before = rows.len();
            self.add_rows(summary, &filters, &mut rows);
            if rows.len() > before {
                ids.push(summary.image.id.clone());
            }
        }
        if self.quiet {
            let lines = ids.iter().map(|id| self.id(id) + "\n");
            return session.print(&lines.collect::<String>());
        }
        let format = match (self.format.as_deref(), self.digests) {
            (None | Some("table"), true) => Some(TABLE_WITH_DIGESTS),
            (format, _) => format,
        };
        session.print(&LISTING.render(format, &rows).map_err(Failure::template)?)
    }

    /// A row for each name that is asked for; one row for an image without a name.
    fn add_rows(&self, summary: &ImageSummary, filters: &Filters, rows: &mut Vec<Value>) {
        let digest_of = |name: &Reference| {
            let known = summary.digests.iter().find(|d| d.name() == name.name());
            known.and_then(Reference::digest).map_or_else(|| NONE.into(), ToString::to_string)
        };
        for tag in &summary.tags {
            if self.wants(tag) && filters.match_name(tag) {
                let digest = if self.digests || self.format.is_some() {
                    summary
                        .refs
                        .iter()
                        .find(|r| r.name.as_ref() == Some(tag))
                        .map_or_else(|| digest_of(tag), |r| r.target.digest.to_string())
                } else {
                    NONE.into()
                };
                rows.push(self.row(summary, &tag.familiar_name(), tag.tag().unwrap_or(NONE), &digest));
            }
        }
        if summary.tags.is_empty() {
            for name in &summary.digests {
                if self.wants(name) && filters.match_name(name) {
                    let digest = name.digest().map_or_else(|| NONE.into(), ToString::to_string);
                    rows.push(self.row(summary, &name.familiar_name(), NONE, &digest));
                }
            }
            if summary.digests.is_empty() && self.name.is_none() && !filters.has("reference") {
                rows.push(self.row(summary, NONE, NONE, NONE));
            }
        }
    }

    /// Whether the argument, if there is one, means this name. Docker takes patterns here too.
    fn wants(&self, name: &Reference) -> bool {
        self.name.as_ref().is_none_or(|pattern| super::filter::matches_reference(pattern, name))
    }

    fn id(&self, id: &Digest) -> String {
        if self.no_trunc { id.to_string() } else { id.short().to_owned() }
    }

    fn row(&self, summary: &ImageSummary, repository: &str, tag: &str, digest: &str) -> Value {
        let created = summary.image.config.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        let size = human::short_size(summary.size);
        json!({
            "ID": self.id(&summary.image.id),
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "CreatedSince": human::ago(created.map(Timestamp::as_second), Timestamp::now().as_second()),
            "CreatedAt": created.map_or_else(|| "N/A".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S %z UTC").to_string()),
            "Size": size,
            "VirtualSize": size,
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "Containers": "N/A",
            "Platform": summary.image.platform().to_string(),
        })
    }
}
