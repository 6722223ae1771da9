//! For tests only: registries, images, and the rule for tests that need something missing.
//!
//! - [`Registry`] speaks the distribution protocol from memory, counts what it is asked, and
//!   misbehaves on request.
//! - [`DockerRegistry`] is the real one, started on loopback for one test.
//! - [`RecordedDisk`] remembers the order of writes and flushes, and plays power cuts.
//! - [`ImageMaker`] makes small images in memory.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::missing_panics_doc)]

mod disk;
mod docker_registry;
mod http;
mod image;
pub mod needs;
mod registry;

pub use disk::RecordedDisk;
pub use docker_registry::{DockerRegistry, Security};
pub use http::Record;
pub use image::{ImageMaker, TestImage};
pub use onggi_oci::Digest;
pub use registry::{Auth, Fault, Registry};

/// Whether the programs that a test needs are installed; see [`needs`] for what happens if one is not.
pub fn has_programs(programs: &[&str]) -> bool {
    needs::programs(programs) == needs::Need::Met
}
