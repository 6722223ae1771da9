//! What comes from outside, fed to the code that reads it in earnest.
//!
//! ```text
//!   seeds() ──► mutation.rs ──► feed(bytes)      tests/targets.rs: on the stable compiler, for some seconds, by seed
//!      └──────► libFuzzer ────► feed(bytes)      libfuzzer/: by coverage, as long as one likes (make fuzz)
//! ```
//!
//! A target is a module with `feed`, which panics where a promise is broken, and `seeds`, from which a search begins.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::missing_panics_doc)]

#[path = "../../image/tests/layer/archive.rs"]
#[allow(dead_code, reason = "the tests of layers use the rest")]
mod archive;
pub mod challenge;
pub mod config;
pub mod dockerfile;
pub mod document;
pub mod erofs;
pub mod layer;
pub mod load;
mod mutation;
pub mod reference;
mod sealed;
pub mod seccomp;
pub mod spec;
pub mod tar;
pub mod yaml;

pub use mutation::Mutator;

/// One thing that is fed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The module's name.
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub feed: fn(&[u8]),
    /// What a search begins with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The programs that it asks.
    pub programs: &'static [&'static str],
}

macro_rules! targets {
    ($($name:ident $programs:expr),* $(,)?) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            feed: $name::feed,
            seeds: $name::seeds,
            programs: &$programs,
        }),*];
    };
}

targets! {
    reference [], document [], config [], challenge [], layer [], tar ["python3"], erofs ["fsck.erofs"], load [],
    dockerfile [], yaml [], spec [], seccomp [],
}

/// Texts as seeds.
fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A temporary folder in memory, where there is one: a disk would be most of the time.
fn home() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}
