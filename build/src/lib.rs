//! From a build file to layers.
//!
//! ```text
//!   Dockerfile, onggi.yaml ─► front end ─► Graph ─► solver ─┬─ key known? ─► layer of the store
//!                                │                          └─ else ───────► executor ─► new layer
//!                                └── configs of base images, through [`Images`]
//! ```
//!
//! A [`graph::Graph`] says what is to be done and nothing of how it was written down. What this crate
//! does not know (registries, containers, the terminal) it asks its caller for through traits.
#![forbid(unsafe_code)]

mod assemble;
pub mod cache;
mod content;
mod copy;
pub mod dockerfile;
mod error;
pub mod graph;
mod host;
pub mod ignore;
mod images;
mod lexical;
pub mod sbom;
pub mod solve;
mod tree;
pub mod yaml;

pub use assemble::{Assembled, assemble};
pub use error::{Error, Result};
pub use host::{FailedState, Fetched, Host, ReadyKind, ReadyMount, RunStep, StackLayer};
pub use images::{Images, ResolvedImage};

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Unpacks a context that came as an archive (tar, plain or compressed) into an empty directory.
///
/// # Errors
/// It is no archive, or one that leads out of the directory.
pub fn unpack_context(archive: impl Read, into: &Path) -> Result<()> {
    copy::unpack_context(archive, &tree::Tree::open_host(into)?)
}

/// Copies a mounted tree into a directory of the host, with modes and times; owners are kept where
/// the caller may.
///
/// # Errors
/// The directory cannot be written.
pub fn export(tree: OwnedFd, into: &Path) -> Result<()> {
    let from = tree::Tree::new(tree);
    let source = copy::Source { tree: &from, ignore: None, owner: None };
    let all = graph::Copy {
        source: "/".into(),
        destination: "/".into(),
        contents_only: true,
        follow_links: true,
        ..graph::Copy::default()
    };
    let action = graph::FileAction::Copy(Box::new(all));
    copy::perform(&action, &tree::Tree::open_host(into)?, Some(&source), false)
}

/// The files in which two trees differ, and how: content, kind, mode, owner, time.
///
/// # Errors
/// One of them cannot be read.
pub fn differences(one: &Path, other: &Path) -> Result<Vec<String>> {
    let (a, b) = (content::listing(one)?, content::listing(other)?);
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differ = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    let side = |facts: Option<&String>| facts.map_or("nothing", String::as_str).to_owned();
    Ok(differ.map(|name| format!("{name}: {} / {}", side(a.get(name)), side(b.get(name)))).collect())
}
