//! `onggi search`: searches a registry for repositories.

use onggi_engine::oci::Reference;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::Listing;
use crate::session::Session;

const LISTING: Listing = Listing {
    columns: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
    ],
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
};
/// As Docker cuts it.
const DESCRIPTION: usize = 45;
const MAX_LIMIT: usize = 100;

/// Search Docker Hub, or the registry that the term begins with, for repositories
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Show only what matches: is-official=BOOL, stars=NUMBER
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format the output: `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The most results, up to 100
    #[arg(long, value_name = "NUMBER", default_value = "25")]
    limit: usize,
    /// Show whole descriptions
    #[arg(long)]
    no_trunc: bool,
    /// What to look for: a word, or HOST/WORD
    #[arg(value_name = "TERM")]
    term: String,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        if !(1..=MAX_LIMIT).contains(&self.limit) {
            let limit = self.limit;
            return Err(Failure::Input(format!("limit {limit} is outside the range of [1, {MAX_LIMIT}]")));
        }
        let (mut official, mut stars) = (None, 0);
        for word in &self.filter {
            match word.split_once('=') {
                Some(("is-official", "true" | "1")) => official = Some(true),
                Some(("is-official", "false" | "0")) => official = Some(false),
                Some(("stars", number)) if number.parse::<u64>().is_ok() => {
                    stars = number.parse().unwrap_or_default();
                }
                _ => {
                    return Err(Failure::Input(format!(
                        "invalid filter {word:?} (known: is-official, stars)"
                    )));
                }
            }
        }
        // A host has a dot, a port or is localhost: the rule of names of images.
        let host = self.term.split_once('/').and_then(|(host, word)| {
            let name: Reference = format!("{host}/x").parse().ok()?;
            (name.registry() == host).then_some((host, word))
        });
        let (registry, term) = host.unwrap_or(("docker.io", self.term.as_str()));
        let found = session.engine()?.search(registry, term, self.limit)?;
        let rows: Vec<Value> = found
            .iter()
            .filter(|one| one.stars >= stars && official.is_none_or(|official| one.official == official))
            .map(|one| {
                let description = one.description.replace(['\n', '\r'], " ");
                let description = if self.no_trunc {
                    description.into()
                } else {
                    human::ellipsis(&description, DESCRIPTION)
                };
                json!({
                    "Description": description,
                    "IsAutomated": "false",
                    "IsOfficial": if one.official { "[OK]" } else { "" },
                    "Name": one.name,
                    "StarCount": one.stars.to_string(),
                })
            })
            .collect();
        session.print(&LISTING.render(self.format.as_deref(), &rows).map_err(Failure::template)?)
    }
}
