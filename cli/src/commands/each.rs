//! One thing done to several containers: each is tried, its name printed, and what failed is told.

use onggi_engine::Error;

use crate::failure::Failure;
use crate::session::Session;

/// Does it to each, and prints its name, or what `act` answers unless that is empty; the status is that of
/// a failure if any failed.
pub fn container(
    session: &Session,
    containers: &[String],
    act: impl Fn(&onggi_engine::Engine, &str) -> Result<Option<String>, Error>,
) -> Result<(), Failure> {
    let mut failed = None;
    for container in containers {
        // Each with an engine that has not opened its store: an ordinary user has authority over his
        // containers only outside of the user namespace that he enters with it.
        match act(&session.engine()?, container) {
            Ok(None) => session.print(&format!("{container}\n"))?,
            Ok(Some(answer)) if answer.is_empty() => {}
            Ok(Some(answer)) => session.print(&format!("{answer}\n"))?,
            // The others are dealt with all the same.
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    Failure::Engine(earlier).report();
                }
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}
