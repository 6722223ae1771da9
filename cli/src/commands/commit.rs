//! `onggi commit`: makes an image of a container.

use onggi_engine::filesystem::CommitRequest;
use onggi_engine::oci::Reference;

use crate::failure::Failure;
use crate::session::Session;

/// Make an image of what a container changed
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Who made the image
    #[arg(short, long, value_name = "AUTHOR")]
    author: Option<String>,
    /// Change the image's config by an instruction of a Dockerfile (CMD, ENV, USER, …)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A remark for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Do not freeze a running container meanwhile
    #[arg(long)]
    no_pause: bool,
    /// Freeze a running container meanwhile
    #[arg(short, long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, value_name = "BOOL",
        default_value = "true", default_missing_value = "true")]
    pause: bool,
    /// A container by name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let request = CommitRequest {
            container: self.container,
            name: self.name.as_deref().map(image_name).transpose()?,
            author: self.author,
            message: self.message,
            changes: self.change,
            pause: self.pause && !self.no_pause,
        };
        let id = session.engine()?.commit(&request)?;
        session.print(&format!("{id}\n"))
    }
}

/// A name for a new image.
pub(super) fn image_name(text: &str) -> Result<Reference, Failure> {
    let name: Reference = text.parse().map_err(onggi_engine::Error::from)?;
    if name.digest().is_some() {
        return Err(onggi_engine::Error::TagWithDigest { target: name.familiar() }.into());
    }
    Ok(name)
}
