//! `onggi pull`: downloads an image from a registry.

use onggi_engine::PullRequest;
use onggi_engine::oci::{Platform, Reference};

use crate::failure::Failure;
use crate::output::progress::{Sink, Transfers};
use crate::session::Session;

/// Download an image from a registry
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// The platform wanted if the image has several, as os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Print nothing but the digest
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image; without a registry, Docker Hub's
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: Reference,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        if self.all_tags && (self.name.tag().is_some() || self.name.digest().is_some()) {
            return Err(Failure::Input("tag can't be used with --all-tags/-a".into()));
        }
        let engine = session.engine()?;
        session.tell_of_squashing(&engine)?;
        let progress = Transfers::new(Sink::Stdout, self.quiet);
        let references = match self.all_tags {
            true => engine.remote_tags(&self.name)?,
            false => vec![self.name.with_default_tag()],
        };
        for reference in references {
            let request = PullRequest { platform: self.platform.clone() };
            let pulled = engine.pull(&reference, &request, &progress)?;
            if self.quiet {
                session.print(&format!("{}\n", pulled.digest))?;
                continue;
            }
            progress.finish("Pulled");
            let status =
                if pulled.changed { "Downloaded newer image for" } else { "Image is up to date for" };
            let name = reference.familiar();
            session.print(&format!("Digest: {}\nStatus: {status} {name}\n{reference}\n", pulled.digest))?;
        }
        Ok(())
    }
}
