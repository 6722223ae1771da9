//! What is wrong with a template, in the words that users of Docker's CLI know.

use std::fmt;

/// A template that can't be read, or can't be applied to the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    line: usize,
    /// Where evaluation stood: column and source text. Absent for errors of syntax.
    place: Option<(usize, String)>,
    message: String,
}

impl Error {
    /// An error of syntax at a byte offset.
    pub(super) fn parse(source: &str, at: usize, message: impl Into<String>) -> Self {
        Self { line: line_and_column(source, at).0, place: None, message: message.into() }
    }

    /// An error while evaluating the part of the source that is `at..end`.
    pub(super) fn evaluate(source: &str, at: usize, shown: &str, message: impl Into<String>) -> Self {
        let (line, column) = line_and_column(source, at);
        Self { line, place: Some((column, shown.trim().to_owned())), message: message.into() }
    }
}

fn line_and_column(source: &str, at: usize) -> (usize, usize) {
    let before = &source.as_bytes()[..at.min(source.len())];
    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
    (before.split(|&b| b == b'\n').count(), before.len() - line_start)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template parsing error: template: :{}", self.line)?;
        if let Some((column, shown)) = &self.place {
            write!(f, ":{column}: executing \"\" at <{shown}>")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Error {}
