//! `onggi export`: writes a container's files to an archive.

use std::io::IsTerminal;
use std::path::PathBuf;

use onggi_engine::image::layer::Packed;

use crate::failure::Failure;
use crate::output::file;
use crate::session::Session;

/// Write all files of a container to a tar archive
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A container by name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let mut packed = Packed::default();
        match &self.output {
            Some(path) => file::write(path, |out| {
                packed = engine.export(&self.container, out)?;
                Ok(())
            })?,
            None if std::io::stdout().is_terminal() => {
                return Err(Failure::Input(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect".into(),
                ));
            }
            None => packed = engine.export(&self.container, std::io::stdout().lock())?,
        }
        if packed.changed > 0 {
            session.warn(&format!("{} files changed while they were read", packed.changed));
        }
        Ok(())
    }
}
