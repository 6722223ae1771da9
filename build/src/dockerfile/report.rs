//! Answers instead of a build: `--call=check`, `outline`, `targets`.

use super::instruction;
use super::lint::{Linter, Warning};
use super::outline::{self, TargetInfo};
use super::plan::{self, Options, Plan};
use super::problem::Diagnostic;
use super::syntax;
use crate::graph::Graph;
use crate::images::Images;

/// Checks a Dockerfile; of all stages if no target is named. Warnings are there also if it fails.
pub fn check(
    text: &str,
    options: &Options,
    images: &(dyn Images + Sync),
    graph: &mut Graph,
) -> (Result<Plan, Diagnostic>, Vec<Warning>) {
    let all_stages = options.target.as_deref().is_none_or(str::is_empty);
    plan::checked(text, &Options { all_stages, ..options.clone() }, images, graph)
}

/// The stages of a Dockerfile.
///
/// # Errors
/// It can't be read.
pub fn targets(text: &str) -> Result<Vec<TargetInfo>, Diagnostic> {
    let file = syntax::parse(text)?;
    let document = instruction::document(&file, &mut Linter::default())?;
    Ok(outline::targets(&document))
}
