//! `--format`: Go's `text/template` with the functions of Docker's CLI, over JSON.
//!
//! ```text
//!   "{{.ID}}\t{{join .Names \",\"}}" ── lexer ─► tokens ── parser ─► tree ── evaluate ─► text
//!                                                                    ▲
//!                                           functions, printf, value ┘
//! ```
//!
//! Text, errors included, is what Docker's CLI gives for the same template; the tests hold the
//! module against its recorded answers. Left out: `define`, `template` and `block`, which have no use in one
//! format string and are refused by name.
//!
//! Own code since the one crate for this (`gtmpl`) is passively maintained since 2021 and lacks what Go added since
//! (`slice`, `break`, `continue`, `else with`, assignments, ranges over numbers).

mod error;
mod evaluate;
mod functions;
mod lexer;
mod parser;
mod printf;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub(crate) use error::Error;
pub(crate) use printf::quoted;
use value::{Datum, Shape};

/// A template that was read and found sound.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    source: String,
    tree: Vec<parser::Node>,
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(source: &str) -> Result<Self, Error> {
        Ok(Self { tree: parser::parse(source)?, source: source.to_owned() })
    }

    /// Applies it to a value whose fields are named as Docker's.
    pub(crate) fn render(&self, data: &Value) -> Result<String, Error> {
        evaluate::evaluate(&self.source, &self.tree, &Datum::from_json(data, Shape::Struct), false)
    }

    /// The header of a table of which this is the row: each field gives its heading.
    pub(crate) fn render_header(&self, headings: &BTreeMap<&str, &str>) -> Result<String, Error> {
        let map: Map<String, Value> =
            headings.iter().map(|(field, heading)| ((*field).to_owned(), (*heading).into())).collect();
        evaluate::evaluate(&self.source, &self.tree, &Datum::Object(&map, Shape::Map), true)
    }
}
