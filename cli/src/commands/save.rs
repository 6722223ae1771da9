//! `onggi save`: writes images to an archive.

use std::fs::{self, File};
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use onggi_engine::Engine;
use onggi_engine::image::archive::Format;
use onggi_engine::oci::Platform;

use crate::failure::Failure;
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
            Some(path) => self.to_file(&engine, format, path),
            None if std::io::stdout().is_terminal() => Err(Failure::Input(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect".into(),
            )),
            None => {
                let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
                Ok(engine.save(&self.images, platform, format, &mut out)?)
            }
        }
    }

    /// A file appears only when it is complete; what is no regular file (a pipe, a device) is written as
    /// it is.
    fn to_file(&self, engine: &Engine, format: Format, path: &Path) -> Result<(), Failure> {
        let failed = || Failure::local(format!("write {}", path.display()));
        let special = fs::metadata(path).is_ok_and(|meta| !meta.is_file());
        let beside = match (special, path.file_name()) {
            (false, Some(name)) => {
                let mut hidden = std::ffi::OsString::from(".");
                hidden.push(name);
                hidden.push(format!(".{}", std::process::id()));
                path.with_file_name(hidden)
            }
            _ => path.to_owned(),
        };
        let write = || -> Result<(), Failure> {
            let file = File::options().write(true).create(true).truncate(true).open(&beside);
            let mut out = BufWriter::with_capacity(1 << 20, file.map_err(failed())?);
            engine.save(&self.images, self.platform.as_ref(), format, &mut out)?;
            out.flush().map_err(failed())?;
            if special { Ok(()) } else { fs::rename(&beside, path).map_err(failed()) }
        };
        let written = write();
        if written.is_err() && !special {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}
