//! `onggi cp`: copies files into and out of a container.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use onggi_engine::filesystem::{CopyOptions, LocalEnd};

use crate::failure::Failure;
use crate::output::human;
use crate::session::Session;

/// Copy files or directories between a container and the host
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Keep the owners of files
    #[arg(short, long)]
    archive: bool,
    /// Follow a link that is the source itself
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say what was copied; so it is without a terminal
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of the host, or - for a tar archive from standard input
    #[arg(value_name = "SOURCE")]
    source: String,
    /// CONTAINER:PATH, a path of the host, or - for a tar archive to standard output
    #[arg(value_name = "DEST")]
    target: String,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let options = CopyOptions { archive: self.archive, follow: self.follow_link };
        let quiet = self.quiet || !std::io::stdout().is_terminal();
        match (in_container(&self.source), in_container(&self.target)) {
            (Some(_), Some(_)) => Err(Failure::Input("copying between containers is not supported".into())),
            (None, None) => Err(Failure::Input("must specify at least one container source".into())),
            (Some((container, path)), None) => {
                let bytes = if self.target == "-" {
                    if std::io::stdout().is_terminal() {
                        return Err(Failure::Input(
                            "refusing to write an archive to a terminal: redirect the output".into(),
                        ));
                    }
                    let mut out = std::io::stdout().lock();
                    return Ok(session
                        .engine()?
                        .copy_from(container, path, LocalEnd::Archive(&mut out), options)
                        .map(drop)?);
                } else {
                    let target = local(&self.target)?;
                    session.engine()?.copy_from(container, path, LocalEnd::Path(&target), options)?
                };
                self.tell(session, quiet, bytes);
                Ok(())
            }
            (None, Some((container, path))) => {
                let engine = session.engine()?;
                let bytes = if self.source == "-" {
                    let mut input = std::io::stdin().lock();
                    engine.copy_into(LocalEnd::Archive(&mut input), container, path, options)?
                } else {
                    let source = local(&self.source)?;
                    engine.copy_into(LocalEnd::Path(&source), container, path, options)?
                };
                self.tell(session, quiet, bytes);
                Ok(())
            }
        }
    }

    fn tell(&self, session: &Session, quiet: bool, bytes: u64) {
        if !quiet {
            session.note(&format!("Successfully copied {} to {}", human::short_size(bytes), self.target));
        }
    }
}

/// Splits `CONTAINER:PATH`. What begins with `/` or `.` is a path, whatever else is in it.
fn in_container(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':').filter(|(container, _)| !container.is_empty())
}

/// An absolute path that ends as the given one: a slash or a dot at its end has a meaning.
fn local(text: &str) -> Result<PathBuf, Failure> {
    if text.starts_with('/') {
        return Ok(text.into());
    }
    let cwd = std::env::current_dir().map_err(Failure::local("find the current directory"))?;
    let mut path = cwd.into_os_string();
    if path != "/" {
        path.push("/");
    }
    path.push(Path::new(text));
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_from_paths() {
        for (text, want) in [
            ("web:/etc", Some(("web", "/etc"))),
            ("web:etc/x:y", Some(("web", "etc/x:y"))),
            ("web:", Some(("web", ""))),
            ("/a:b", None),
            ("./a:b", None),
            ("a", None),
            (":a", None),
            ("-", None),
        ] {
            assert_eq!(in_container(text), want, "{text}");
        }
    }
}
