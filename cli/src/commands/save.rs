//! `onggi save`: writes images to an archive.

use std::io::{BufWriter, IsTerminal};
use std::path::PathBuf;

use onggi_engine::image::archive::Format;
use onggi_engine::oci::Platform;

use crate::failure::Failure;
use crate::output::file;
use crate::session::Session;

/// Write images to an archive
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How the archive is laid out
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "docker-archive")]
    format: Layout,
    /// Write to this file (for oci-dir: into this new directory) instead of standard output
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Save only this platform of images that have several, as os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Images by name or ID; a repository without a tag means all its tags
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// What is written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Layout {
    /// A tar that `docker load`, `podman load` and skopeo read
    DockerArchive,
    /// A tar of an OCI layout and nothing else
    OciArchive,
    /// An OCI layout in a directory
    OciDir,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let platform = self.platform.as_ref();
        let format = match (self.format, &self.output) {
            (Layout::OciDir, Some(dir)) => return Ok(engine.save_layout(&self.images, platform, dir)?),
            (Layout::OciDir, None) => {
                return Err(Failure::Input(
                    "--format oci-dir needs a directory: name it with --output".into(),
                ));
            }
            (Layout::DockerArchive, _) => Format::Docker,
            (Layout::OciArchive, _) => Format::Oci,
        };
        match &self.output {
            Some(path) => {
                file::write(path, |mut out| Ok(engine.save(&self.images, platform, format, &mut out)?))
            }
            None if std::io::stdout().is_terminal() => Err(Failure::Input(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect".into(),
            )),
            None => {
                let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
                Ok(engine.save(&self.images, platform, format, &mut out)?)
            }
        }
    }
}
