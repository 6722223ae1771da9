//! Images at rest.
#![forbid(unsafe_code)]

pub mod archive;
pub mod erofs;
mod error;
pub mod layer;
pub mod snapshot;
pub mod store;

pub use error::{EntryProblem, Error, FileProblem, Result};
pub use store::Store;
