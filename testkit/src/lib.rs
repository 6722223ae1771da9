//! For tests only: registries, images, and the rule for tests that need something missing.
//!
//! - [`Registry`] speaks the distribution protocol from memory, counts what it is asked, and
//!   misbehaves on request.
//! - [`DockerRegistry`] is the real one, started on loopback for one test.
//! - [`ImageMaker`] makes small images in memory.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::missing_panics_doc)]

mod docker_registry;
mod http;
mod image;
pub mod needs;
mod registry;

pub use docker_registry::{DockerRegistry, Security};
pub use http::Record;
pub use image::{ImageMaker, TestImage};
pub use registry::{Auth, Fault, Registry};

/// Whether the programs that a test needs are installed. If one is not, says which, for the count of
/// skipped tests; under `CI=true` that is a failure.
pub fn has_programs(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |program: &str| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|dir| dir.join(program).is_file())
    };
    let Some(missing) = programs.iter().find(|program| !installed(program)) else { return true };
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing} is not installed, and CI=true");
    eprintln!("SKIPPED: {missing} is not installed");
    false
}
