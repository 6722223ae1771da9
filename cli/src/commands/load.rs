//! `onggi load`: reads images from an archive.

use std::fs::File;
use std::io::{BufReader, IsTerminal};
use std::path::PathBuf;

use crate::failure::Failure;
use crate::session::Session;

/// Read images from an archive
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Read from this archive, or OCI layout in a directory, instead of standard input
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Show no progress (there is none to show: what was loaded is named all the same)
    #[arg(short, long)]
    quiet: bool,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        session.tell_of_squashing(&engine)?;
        let loaded = match &self.input {
            Some(path) if path.is_dir() => engine.load_layout(path)?,
            Some(path) => {
                let file = File::open(path).map_err(Failure::local(format!("open {}", path.display())))?;
                engine.load(BufReader::with_capacity(1 << 20, file))?
            }
            None if std::io::stdin().is_terminal() => {
                return Err(Failure::Input("requested load from stdin, but stdin is empty".into()));
            }
            None => engine.load(BufReader::with_capacity(1 << 20, std::io::stdin().lock()))?,
        };
        // Docker's -q too says what was loaded.
        let lines = loaded.iter().map(|image| match &image.name {
            Some(name) => format!("Loaded image: {}\n", name.familiar()),
            None => format!("Loaded image ID: {}\n", image.id),
        });
        session.print(&lines.collect::<String>())
    }
}
