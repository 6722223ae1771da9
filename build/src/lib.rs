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

pub mod dockerfile;
mod error;
pub mod graph;
pub mod ignore;
mod images;
mod lexical;
pub mod sbom;
pub mod yaml;

pub use error::{Error, Result};
pub use images::{Images, ResolvedImage};
