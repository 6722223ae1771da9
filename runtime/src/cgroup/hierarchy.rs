//! Which trees of control groups this host has.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const MOUNT: &str = "/sys/fs/cgroup";

/// `CGROUP2_SUPER_MAGIC`
const CGROUP2: i64 = 0x6367_7270;

/// The trees.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    unified: Option<PathBuf>,
    /// Controllers and where they are mounted.
    legacy: Vec<(String, PathBuf)>,
}

impl Hierarchies {
    /// Looks what is mounted: two `statfs` calls and `/proc/self/cgroup`.
    ///
    /// # Errors
    /// [`Error::Io`] without `/proc`.
    pub fn detect() -> Result<Self> {
        if is_unified(MOUNT) {
            return Ok(Self { unified: Some(MOUNT.into()), legacy: Vec::new() });
        }
        let text =
            std::fs::read_to_string("/proc/self/cgroup").map_err(Error::io("read", "/proc/self/cgroup"))?;
        Ok(Self::with_legacy(&text))
    }

    /// As [`detect`](Self::detect), where the text of `/proc/self/cgroup` is known.
    pub(super) fn of(text: &str) -> Self {
        if is_unified(MOUNT) {
            return Self { unified: Some(MOUNT.into()), legacy: Vec::new() };
        }
        Self::with_legacy(text)
    }

    fn with_legacy(text: &str) -> Self {
        let hybrid = "/sys/fs/cgroup/unified";
        Self { unified: is_unified(hybrid).then(|| hybrid.into()), legacy: legacy(text) }
    }

    /// Whether version 2 has all controllers.
    pub fn is_unified(&self) -> bool {
        self.legacy.is_empty() && self.unified.is_some()
    }

    /// The root of version 2.
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// The root of a version 1 controller.
    pub fn legacy(&self, controller: &str) -> Option<&Path> {
        let has = |list: &str| list.split(',').any(|one| one == controller);
        self.legacy.iter().find(|(list, _)| has(list)).map(|(_, root)| root.as_path())
    }

    /// All version 1 trees: their controllers (or `name=…`) and mount points.
    pub fn all_legacy(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.legacy.iter().map(|(controllers, root)| (controllers.as_str(), root.as_path()))
    }
}

fn is_unified(path: &str) -> bool {
    #[expect(clippy::useless_conversion, reason = "f_type is i64 on some architectures only")]
    rustix::fs::statfs(path).is_ok_and(|fs| i64::from(fs.f_type) == CGROUP2)
}

/// The lines of `/proc/self/cgroup` that are version 1: `7:cpu,cpuacct:/path`.
fn legacy(text: &str) -> Vec<(String, PathBuf)> {
    let line = |line: &str| {
        let controllers = line.split(':').nth(1)?;
        let directory = controllers.strip_prefix("name=").unwrap_or(controllers);
        let plain = !directory.is_empty() && !directory.contains('/') && directory != "..";
        plain.then(|| (controllers.to_owned(), Path::new(MOUNT).join(directory)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_hybrid_host() {
        let found = legacy("9:name=systemd:/\n8:pids:/a\n2:cpu,cpuacct:/\n0::/\n");
        let names: Vec<_> =
            found.iter().map(|(name, path)| (name.as_str(), path.to_str().unwrap())).collect();
        assert_eq!(
            names,
            [
                ("name=systemd", "/sys/fs/cgroup/systemd"),
                ("pids", "/sys/fs/cgroup/pids"),
                ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
            ]
        );
    }
}
