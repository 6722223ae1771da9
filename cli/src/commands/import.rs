//! `onggi import`: makes an image of a root filesystem in an archive.

use std::fs::File;
use std::io::{BufReader, IsTerminal};

use onggi_engine::filesystem::ImportRequest;
use onggi_engine::oci::Platform;

use super::commit::image_name;
use crate::failure::Failure;
use crate::session::Session;

/// Make an image of the files in a tar archive
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Change the image's config by an instruction of a Dockerfile (CMD, ENV, USER, …)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A remark for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What the image is for, as os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// The archive: a file, an http or https URL, or - for standard input
    #[arg(value_name = "file|URL|-")]
    source: String,
    /// The image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let request = ImportRequest {
            name: self.name.as_deref().map(image_name).transpose()?,
            message: self.message,
            changes: self.change,
            platform: self.platform,
            origin: self.source.clone(),
        };
        session.tell_of_squashing(&engine)?;
        let id = match self.source.as_str() {
            "-" if std::io::stdin().is_terminal() => {
                return Err(Failure::Input("requested import from stdin, but stdin is a terminal".into()));
            }
            "-" => engine.import(BufReader::with_capacity(1 << 20, std::io::stdin().lock()), &request)?,
            url if url.starts_with("http://") || url.starts_with("https://") => {
                engine.import_url(url, &request)?
            }
            path => {
                let file = File::open(path).map_err(Failure::local(format!("open {path}")))?;
                engine.import(BufReader::with_capacity(1 << 20, file), &request)?
            }
        };
        session.print(&format!("{id}\n"))
    }
}
