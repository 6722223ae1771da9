//! Images at rest.
#![forbid(unsafe_code)]

mod error;

pub use error::{EntryProblem, Error, Result};
