//! `onggi rm`: removes containers.

use onggi_engine::Error;

use super::each;
use crate::failure::Failure;
use crate::session::Session;

/// Remove containers
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Kill and remove a running container; a missing one is no error
    #[arg(short, long)]
    force: bool,
    /// Remove a link between containers (there are none)
    #[arg(short, long, hide = true)]
    link: bool,
    /// Remove anonymous volumes of the container too
    #[arg(short, long)]
    volumes: bool,
    /// Containers by name or ID, or the beginning of an ID
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        if self.link {
            return Err(Failure::Input(
                "--link is not supported: there are no links between containers".into(),
            ));
        }
        each::container(session, &self.containers, |engine, container| {
            match engine.remove_container(container, self.force, self.volumes) {
                Err(error) if self.force && matches!(error, Error::NoContainer { .. }) => {
                    session.warn(&error.to_string());
                    Ok(Some(String::new()))
                }
                other => other.map(|()| None),
            }
        })
    }
}
