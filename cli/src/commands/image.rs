//! `onggi image`: the group of commands about images.

use super::{build, history, images, inspect, load, pull, push, rmi, save, tag};
use crate::failure::Failure;
use crate::session::Session;
use onggi_engine::image::store::{ImageSummary, PruneOptions};

use super::filter::Filters;
use crate::output::human;

/// Commands about images.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::Options),
    /// Build an image from a build file
    Build(Box<build::Options>),
    /// Download an image from a registry
    Pull(pull::Options),
    /// Upload an image to a registry
    Push(push::Options),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rmi::Options),
    /// Remove unused images
    Prune(PruneArguments),
    /// Give an image another name
    Tag(tag::Options),
    /// Show how an image came to be
    History(history::Options),
    /// Show everything about images
    Inspect(inspect::Image),
    /// Write images to an archive
    Save(save::Options),
    /// Read images from an archive
    Load(load::Options),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Ls(options) => options.run(session),
            Self::Build(options) => options.run(session),
            Self::Pull(options) => options.run(session),
            Self::Push(options) => options.run(session),
            Self::Rm(options) => options.run(session),
            Self::Prune(options) => options.run(session),
            Self::Tag(options) => options.run(session),
            Self::History(options) => options.run(session),
            Self::Inspect(options) => options.run(session),
            Self::Save(options) => options.run(session),
            Self::Load(options) => options.run(session),
        }
    }
}

/// Remove unused images
#[derive(Debug, clap::Args)]
pub struct PruneArguments {
    /// Remove all images that no container uses, not just those without a name
    #[arg(short, long)]
    all: bool,
    /// Also drop compressed layers that a registry is known to hold; a later push fetches them again
    #[arg(long)]
    blobs: bool,
    /// Remove only what matches: label, until
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl PruneArguments {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let filters = Filters::parse(&self.filter, &["label", "until"])?;
        let engine = session.engine()?;
        // A filter that cannot be read must stop the command before anything is removed.
        let all = engine.images()?.images;
        for summary in &all {
            filters.match_image(summary, &all)?;
        }
        let question = match self.all {
            true => "This will remove all images without at least one container associated to them.",
            false => "This will remove all dangling images.",
        };
        if !self.force && !session.confirm(&format!("WARNING! {question}"))? {
            return Ok(());
        }
        let only = |summary: &ImageSummary| filters.match_image(summary, &all).unwrap_or(false);
        let options = PruneOptions { dangling: true, all: self.all, blobs: self.blobs, only: Some(&only) };
        let pruned = engine.prune(&options)?;
        let mut text = String::new();
        if !pruned.removed.is_empty() {
            text = format!("Deleted Images:\n{}\n", rmi::lines(&pruned.removed).to_lowercase());
        }
        session.print(&format!("{text}Total reclaimed space: {}\n", human::short_size(pruned.bytes)))
    }
}
