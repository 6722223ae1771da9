//! Names of containers: each is claimed by one atomic step, before the container's files exist.
//!
//! ```text
//!   <root>/names/<name>  ──►  <id>     a symbolic link that leads nowhere: made or there already
//! ```
//!
//! A claim counts as long as its container exists: it has files, or somebody is just making them.
//! What a killed process left is taken over under a lock of the directory.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::mark;
use crate::error::{Error, Result};

/// How often a name is made up before giving up: with as many containers as there are names, a digit helps.
const TRIES: usize = 64;

const ADJECTIVES: [&str; 64] = [
    "amber", "autumn", "azure", "bold", "brave", "bright", "brisk", "bronze", "calm", "clear", "clever",
    "cool", "coral", "crisp", "dapper", "deep", "eager", "early", "earthen", "fair", "famous", "fine",
    "firm", "fond", "frank", "fresh", "gentle", "glad", "glazed", "golden", "grand", "happy", "hardy",
    "hazel", "honest", "humble", "jolly", "keen", "kind", "lively", "lucky", "mellow", "merry", "mild",
    "misty", "modest", "neat", "noble", "olive", "patient", "plain", "polite", "proud", "quick", "quiet",
    "rapid", "ruddy", "silver", "smooth", "steady", "sunny", "tidy", "warm", "wise",
];
const NOUNS: [&str; 64] = [
    "acorn", "anvil", "apron", "barley", "barrel", "basin", "basket", "beacon", "bowl", "brook", "cedar",
    "cellar", "chisel", "clay", "crane", "crate", "crock", "dove", "ember", "falcon", "fern", "finch",
    "flask", "forge", "garden", "glaze", "grove", "harbor", "hearth", "heron", "island", "jar", "jug",
    "kettle", "kiln", "ladle", "lantern", "lark", "loom", "magpie", "maple", "meadow", "millet", "mortar",
    "oak", "orchard", "otter", "pebble", "pine", "pitcher", "plum", "pot", "potter", "quarry", "raven",
    "reed", "river", "saffron", "sparrow", "spindle", "trellis", "urn", "vessel", "wheel",
];

/// Where claims are, and who decides whether one still counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) root: &'a Path,
    pub(crate) runroot: &'a Path,
}

impl Names<'_> {
    /// Claims a name for a container.
    ///
    /// # Errors
    /// [`Error::NameInUse`], [`Error::ContainerName`].
    pub(crate) fn claim(self, name: &str, id: &str) -> Result<()> {
        check(name)?;
        loop {
            if self.try_claim(name, id)? {
                return Ok(());
            }
            let Some(holder) = self.holder(name) else { continue };
            if holder == id {
                return Ok(());
            }
            if self.is_there(&holder) {
                return Err(Error::NameInUse { name: name.into(), id: holder });
            }
            self.drop_stale(name)?;
        }
    }

    /// Claims a name that is made up from `seed`.
    pub(crate) fn claim_any(self, mut seed: u64, id: &str) -> Result<String> {
        for attempt in 0..TRIES {
            let pick = |list: &[&'static str], number: u64| {
                let at = usize::try_from(number).unwrap_or_default() % list.len();
                list.get(at).copied().unwrap_or_default()
            };
            let mut name =
                format!("{}_{}", pick(&ADJECTIVES, seed & 0xffff), pick(&NOUNS, seed >> 16 & 0xffff));
            if attempt > 0 {
                name.push_str(&(seed >> 32 & 0xfff).to_string());
            }
            match self.claim(&name, id) {
                Err(Error::NameInUse { .. }) => {
                    seed = seed.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                }
                other => return other.map(|()| name),
            }
        }
        // The ID is unique in any case.
        let name = format!("container_{}", id.get(..12).unwrap_or(id));
        self.claim(&name, id).map(|()| name)
    }

    /// Gives a name back, if the container still has it.
    pub(crate) fn release(self, name: &str, id: &str) {
        if check(name).is_ok() && self.holder(name).as_deref() == Some(id) {
            let _ = fs::remove_file(self.path(name));
        }
    }

    /// The ID that a name leads to.
    pub(crate) fn holder(self, name: &str) -> Option<String> {
        check(name).ok()?;
        fs::read_link(self.path(name)).ok()?.into_os_string().into_string().ok()
    }

    fn path(self, name: &str) -> PathBuf {
        self.root.join("names").join(name)
    }

    fn try_claim(self, name: &str, id: &str) -> Result<bool> {
        let path = self.path(name);
        let claimed = match symlink(id, &path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let dir = self.root.join("names");
                fs::create_dir_all(&dir).map_err(|source| Error::Write { path: dir, source })?;
                symlink(id, &path)
            }
            other => other,
        };
        match claimed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    /// Whether a container exists or is being made.
    fn is_there(self, id: &str) -> bool {
        mark::look(self.runroot, id).is_alive() || self.root.join("containers").join(id).exists()
    }

    /// Removes a claim whose container is gone; one at a time, so that nobody removes a new one.
    fn drop_stale(self, name: &str) -> Result<()> {
        let dir = self.root.join("names");
        let failed = |source| Error::Write { path: dir.clone(), source };
        let lock = File::open(&dir).map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        if self.holder(name).is_some_and(|holder| !self.is_there(&holder)) {
            let _ = fs::remove_file(self.path(name));
        }
        Ok(())
    }
}

/// Checks a container's name: Docker's rule.
pub(crate) fn check(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good { Ok(()) } else { Err(Error::ContainerName { name: name.into() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "a1", "web-1.x_y", "9z"] {
            check(good).unwrap();
        }
        for bad in ["", "a", "-a", "a/b", "../x", "a b", ".a", "ä1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for name in ADJECTIVES.iter().chain(&NOUNS) {
            check(name).unwrap();
        }
    }

    #[test]
    fn a_name_is_one_containers_until_that_is_gone() {
        let (root, runroot) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names = Names { root: root.path(), runroot: runroot.path() };
        let files = root.path().join("containers/one");
        fs::create_dir_all(&files).unwrap();
        names.claim("web", "one").unwrap();
        names.claim("web", "one").unwrap();
        assert!(matches!(names.claim("web", "two"), Err(Error::NameInUse { id, .. }) if id == "one"));
        names.release("web", "two");
        assert_eq!(names.holder("web").as_deref(), Some("one"));
        // Killed before it gave the name back.
        fs::remove_dir(files).unwrap();
        names.claim("web", "two").unwrap();
        assert_eq!(names.holder("web").as_deref(), Some("two"));
        names.release("web", "two");
        assert_eq!(names.holder("web"), None);
    }

    #[test]
    fn made_up_names_differ() {
        let (root, runroot) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names = Names { root: root.path(), runroot: runroot.path() };
        let mut all = std::collections::HashSet::new();
        for number in 0..100 {
            let id = format!("id{number}");
            fs::create_dir_all(root.path().join("containers").join(&id)).unwrap();
            all.insert(names.claim_any(7, &id).unwrap());
        }
        assert_eq!(all.len(), 100);
    }
}
