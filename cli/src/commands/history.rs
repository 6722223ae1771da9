//! `onggi history`: shows how an image came to be.

use jiff::Timestamp;
use onggi_engine::oci::Platform;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::Listing;
use crate::session::Session;

const LISTING: Listing = Listing {
    columns: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
};
const TABLE_OF_MACHINES: &str = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
/// How much of a command a table shows.
const COMMAND_WIDTH: usize = 45;

/// Show how an image came to be
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Format the output: `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print sizes and dates for people
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    human: bool,
    /// Show whole commands and IDs
    #[arg(long)]
    no_trunc: bool,
    /// The platform wanted if the image has several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Show IDs only
    #[arg(short, long)]
    quiet: bool,
    /// The image, by name or ID
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let (image, steps) = engine.history(&self.image, self.platform.as_ref())?;
        let id = if self.no_trunc { image.id.to_string() } else { image.id.short().to_owned() };
        let mut rows = Vec::new();
        // Only the last step is an image; the ones below have no ID of their own.
        for (position, (step, size)) in steps.iter().rev().enumerate() {
            let id = if position == 0 { id.as_str() } else { "<missing>" };
            rows.push(self.row(id, step, *size));
        }
        if self.quiet {
            let ids = rows.iter().filter_map(|row| row["ID"].as_str());
            return session.print(&ids.map(|id| format!("{id}\n")).collect::<String>());
        }
        let format = match self.format.as_deref() {
            None | Some("table") if !self.human => Some(TABLE_OF_MACHINES),
            format => format,
        };
        session.print(&LISTING.render(format, &rows).map_err(Failure::template)?)
    }

    fn row(&self, id: &str, step: &onggi_engine::oci::History, size: u64) -> Value {
        let created = step.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        let command = step.created_by.as_deref().unwrap_or_default().replace('\t', " ");
        let command = if self.no_trunc { command.into() } else { human::ellipsis(&command, COMMAND_WIDTH) };
        json!({
            "ID": id,
            "CreatedSince": human::ago(created.map(Timestamp::as_second), Timestamp::now().as_second()),
            "CreatedAt": step.created.as_deref().unwrap_or_default(),
            "CreatedBy": command,
            "Size": if self.human { human::short_size(size) } else { size.to_string() },
            "Comment": step.comment.as_deref().unwrap_or_default(),
        })
    }
}
