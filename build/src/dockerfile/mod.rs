//! Dockerfiles.
//!
//! ```text
//!   text ─► syntax ─► instruction ─► plan ─► Graph
//!           lines,    typed, with    stages, variables,
//!           flags,    defaults       base images, config
//!           heredocs
//! ```
//! Each step is a function of the one before and can be tested alone. What is read, how, and with
//! which words it is refused is BuildKit's.

pub mod excerpt;
pub mod instruction;
pub mod lint;
pub mod outline;
pub mod plan;
pub mod problem;
pub(crate) mod quote;
pub mod report;
pub mod syntax;
pub mod words;

pub use problem::{Diagnostic, Lines, Problem};

/// The largest Dockerfile in bytes. Generated ones reach some hundred kilobytes.
pub const MAX_DOCKERFILE: u64 = 4 << 20;
/// The most stages in one Dockerfile. The largest in public use have about fifty.
pub const MAX_STAGES: usize = 2048;
