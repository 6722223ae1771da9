//! `onggi diff`: what a container changed of its image's files.

use crate::failure::Failure;
use crate::output::human;
use crate::session::Session;

/// Show what a container changed of its files
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A container by name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let changes = session.engine()?.changes(&self.container)?;
        let line = |change: &onggi_engine::filesystem::Change| {
            format!("{} {}\n", change.kind.letter(), human::visible(&String::from_utf8_lossy(&change.path)))
        };
        session.print(&changes.iter().map(line).collect::<String>())
    }
}
