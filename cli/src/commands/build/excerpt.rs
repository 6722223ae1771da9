//! The lines of a build file around what went wrong.

use onggi_engine::Error;
use onggi_engine::build::builder::Error as BuildError;
use onggi_engine::build::builder::dockerfile::Lines;
use onggi_engine::build::builder::dockerfile::excerpt::excerpt;

use crate::output::human;

/// What is to be shown of an error, if it has a place.
pub fn of(error: &Error) -> Option<String> {
    let text = match error {
        Error::Dockerfile { file, text, diagnostic } => diagnostic.excerpt(file, text),
        Error::Build { source, file, text, .. } => match &**source {
            BuildError::Step { location: Some(location), .. } => {
                let (first, last) = location.lines;
                excerpt(file, text, &[Lines { first, last }], None)
            }
            _ => return None,
        },
        _ => return None,
    };
    let shown = human::visible_lines(text.trim_end());
    (!shown.is_empty()).then_some(shown)
}

/// The command that gives a shell in what a program that failed began with.
pub fn before(error: &Error) -> Option<String> {
    let Error::Build { state: Some(state), .. } = error else { return None };
    let shell = state.shell.as_deref().unwrap_or("sh");
    let id = state.image.hex().get(..12).unwrap_or_default();
    Some(format!("onggi run --rm -it {id} {}", human::visible(shell)))
}

/// Whether a program of the build file failed.
pub fn is_of_a_program(error: &Error) -> bool {
    let Error::Build { source, .. } = error else { return false };
    matches!(&**source, BuildError::Step { source, .. } if matches!(**source, BuildError::Exit { .. }))
}
