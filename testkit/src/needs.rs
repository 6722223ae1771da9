//! Tests that need something of the machine: another program, root, a kernel feature.
//!
//! A test without it is *skipped and counted*: a line goes to standard error, and to the file that
//! `ONGGI_SKIPPED` names (`make test` sets it and prints the sum). Under `CI=true` it fails instead,
//! so that a machine which lost a package doesn't look healthy.
//!
//! ```
//! use onggi_testkit::needs;
//! # fn test() {
//! if needs::programs(&["skopeo", "docker-registry"]).is_missing() {
//!     return;
//! }
//! # }
//! ```

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Whether a test can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a test that can't go on must return"]
pub enum Need {
    /// Everything is there.
    Met,
    /// Something is missing; that was reported.
    Missing,
}

impl Need {
    /// Whether the test has to return now.
    pub fn is_missing(self) -> bool {
        self == Self::Missing
    }
}

/// Needs programs in `PATH` (or in the directories for administrators' programs).
///
/// # Panics
/// Under `CI=true`, if one is missing.
pub fn programs(names: &[&str]) -> Need {
    match names.iter().find(|name| find_program(name).is_none()) {
        Some(name) => missing(&format!("the program {name} (scripts/packages test installs it)")),
        None => Need::Met,
    }
}

/// Needs to be root.
///
/// # Panics
/// Under `CI=true`, for an ordinary user.
pub fn root() -> Need {
    if rustix::process::geteuid().is_root() { Need::Met } else { missing("root") }
}

/// Reports that something is missing which the test found out itself.
///
/// # Panics
/// Under `CI=true`.
pub fn missing(what: &str) -> Need {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{test} needs {what}");
    eprintln!("skipped: {test} needs {what}");
    if let Some(path) = env::var_os("ONGGI_SKIPPED") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        // One short write each: lines of tests that run side by side don't mix.
        let _ = file.and_then(|mut file| file.write_all(format!("{test} needs {what}\n").as_bytes()));
    }
    Need::Missing
}

/// Where a program is.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path() {
        assert_eq!(find_program("sh").map(|path| path.is_absolute()), Some(true));
        assert_eq!(find_program("no-such-program-of-this-name"), None);
    }
}
