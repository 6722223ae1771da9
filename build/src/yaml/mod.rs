//! `onggi.yaml`: a build file for those who prefer data to a language.
//!
//! ```text
//!   onggi.yaml ── model ──► stages, steps, config, each with its line
//!                   │
//!                   ▼ write
//!   the text of a Dockerfile, and for each of its lines the line of onggi.yaml
//!                   │
//!                   ▼ what reads Dockerfiles
//!   the graph
//! ```
//!
//! What one can say the other can: a build file is written as a Dockerfile and read as one, so the two have one
//! meaning, one cache and one history. The way back is [`from_dockerfile`].
//!
//! Texts are literal but for `${NAME}` (and its forms with defaults) where a Dockerfile expands it; `$$` is a dollar.

mod convert;
mod model;
mod quote;
mod schema;
mod write;

use crate::dockerfile::Lines;

pub use convert::from_dockerfile;
pub use schema::schema;

/// The largest build file, in bytes: what is larger was not written by a person.
const MAX_FILE: usize = 1 << 20;

/// A build file, translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildFile {
    /// The same as a Dockerfile.
    pub dockerfile: String,
    /// For each line of it, from 1, the line that it comes from.
    pub lines: Vec<u32>,
    /// What is built if nothing is named, in the order of the file.
    pub targets: Vec<Target>,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is called on the command line.
    pub name: String,
    /// The stage.
    pub stage: String,
    /// The names of the image, not yet checked.
    pub images: Vec<String>,
    /// For what platforms, not yet checked; the builder's if there are none.
    pub platforms: Vec<String>,
}

/// Why a build file makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct YamlError {
    /// What is wrong, in one sentence.
    pub problem: String,
    /// The line, from 1; 0 if it is the file as a whole.
    pub line: u32,
    /// The column, from 1; 0 if it is the line as a whole.
    pub column: u32,
}

impl BuildFile {
    /// Reads a build file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place: what is no YAML, unknown keys (with the one that was meant),
    /// values of the wrong kind, steps that do nothing or two things.
    pub fn read(text: &str) -> Result<Self, YamlError> {
        if text.len() > MAX_FILE {
            return Err(YamlError {
                problem: format!("the build file is larger than {MAX_FILE} bytes"),
                line: 0,
                column: 0,
            });
        }
        write::translate(&model::File::read(text)?)
    }

    /// The lines of the build file that lines of the Dockerfile come from.
    pub fn origin(&self, lines: Lines) -> Lines {
        let of = |line: u32| {
            let index = usize::try_from(line).unwrap_or_default().saturating_sub(1);
            self.lines.get(index).or(self.lines.last()).copied().unwrap_or_default()
        };
        Lines { first: of(lines.first), last: of(lines.last) }
    }
}

#[cfg(test)]
mod tests;
