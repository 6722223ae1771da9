//! Images at rest.
#![forbid(unsafe_code)]

mod error;
pub mod layer;

pub use error::{EntryProblem, Error, Result};
