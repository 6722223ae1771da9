//! `onggi system prune`: removes what nothing uses, in the order in which one thing keeps another.
//!
//! ```text
//!   containers that don't run ──► networks ──► (volumes) ──► images ──► layers, blobs
//! ```

use onggi_engine::Engine;
use onggi_engine::image::store::{ImageSummary, PruneOptions, disk_usage};

use super::{filter::Filters, rmi};
use crate::failure::Failure;
use crate::output::human;
use crate::session::Session;

/// Remove everything that is not used
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Remove all images that no container uses, not just those without a name
    #[arg(short, long)]
    all: bool,
    /// Remove only what matches: label, until
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes too
    #[arg(long)]
    volumes: bool,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let filters = Filters::parse(&self.filter, &["label", "until"])?;
        let engine = session.engine()?;
        // A filter that cannot be read must stop the command before anything is removed.
        let all = engine.images()?.images;
        for summary in &all {
            filters.match_image(summary, &all)?;
        }
        if !self.force && !session.confirm(&self.question())? {
            return Ok(());
        }
        let mut text = String::new();
        let mut freed = containers(&engine, &filters, &mut text)?;
        networks(&engine, &filters, &mut text)?;
        if self.volumes {
            let wanted = |volume: &onggi_engine::Volume| {
                volume.is_anonymous() && filters.match_labels_and_age(&volume.labels, None).unwrap_or(false)
            };
            let pruned = engine.prune_volumes(&wanted)?;
            section(&mut text, "Volumes", &pruned.names);
            freed += pruned.bytes;
        }
        let only = |summary: &ImageSummary| filters.match_image(summary, &all).unwrap_or(false);
        let options = PruneOptions { dangling: true, all: self.all, blobs: false, only: Some(&only) };
        let pruned = engine.prune(&options)?;
        if !pruned.removed.is_empty() {
            text += &format!("Deleted Images:\n{}\n", rmi::lines(&pruned.removed).to_lowercase());
        }
        freed += pruned.bytes;
        session.print(&format!("{text}Total reclaimed space: {}\n", human::short_size(freed)))
    }

    fn question(&self) -> String {
        let volumes =
            if self.volumes { "\n  - all anonymous volumes not used by at least one container" } else { "" };
        let images = match self.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        format!(
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
             container{volumes}\n  - {images}\n  - all unused data\n"
        )
    }
}

fn containers(engine: &Engine, filters: &Filters, text: &mut String) -> Result<u64, Failure> {
    let (mut removed, mut freed) = (Vec::new(), 0);
    for one in engine.containers()? {
        let created = one.record.created.parse().ok();
        if one.attended
            || one.status.has_program()
            || !filters.match_labels_and_age(&one.record.labels(), created)?
        {
            continue;
        }
        let bytes = disk_usage(&one.dir).map_err(onggi_engine::Error::from)?;
        match engine.remove_container(&one.record.id, false, false) {
            Ok(()) => {
                removed.push(one.record.id);
                freed += bytes;
            }
            // Somebody started it just now.
            Err(onggi_engine::Error::StillRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    section(text, "Containers", &removed);
    Ok(freed)
}

fn networks(engine: &Engine, filters: &Filters, text: &mut String) -> Result<(), Failure> {
    let mut removed = Vec::new();
    for details in engine.list_networks()? {
        let network = details.definition;
        let created = network.created.parse().ok();
        let unused = details.driver == "bridge" && !network.is_default() && details.endpoints.is_empty();
        if unused && filters.match_labels_and_age(&network.labels, created)? {
            engine.remove_network(&network.name)?;
            removed.push(network.name);
        }
    }
    section(text, "Networks", &removed);
    Ok(())
}

fn section(text: &mut String, what: &str, names: &[String]) {
    if !names.is_empty() {
        *text += &format!("Deleted {what}:\n{}\n\n", names.join("\n"));
    }
}
