//! Bind mounts as `-v` spells them: `SOURCE:TARGET[:OPTION,…]`.
//!
//! Named and anonymous volumes are refused by name until volumes exist.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A host path that the container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Options of the mount besides `rbind`/`bind`, each from the allow-list (CVE-2024-9407).
    pub options: Vec<String>,
    /// Whether mounts below the source come along.
    pub recursive: bool,
}

impl Bind {
    /// Parses one `-v`. Relative sources (`./x`, `../x`) count from `cwd`.
    pub fn parse(text: &str, cwd: &Path) -> Result<Self> {
        let bad = |problem: &str| Error::Volume { text: text.into(), problem: problem.into() };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] if target.starts_with('/') => {
                return Err(bad(
                    "anonymous volumes do not exist yet; name a host directory as SOURCE:TARGET",
                ));
            }
            [source, target] => (source, target, ""),
            [source, target, options] => (source, target, options),
            _ => return Err(bad("expected SOURCE:TARGET[:OPTIONS]")),
        };
        if source.is_empty() || target.is_empty() {
            return Err(bad("source and target must not be empty"));
        }
        if !target.starts_with('/') {
            return Err(bad("the path in the container must be absolute"));
        }
        if Path::new(target).components().all(|c| !matches!(c, std::path::Component::Normal(_))) {
            return Err(bad("the container's root cannot be a mount target"));
        }
        let source = match source {
            absolute if absolute.starts_with('/') => PathBuf::from(absolute),
            relative
                if relative.starts_with("./")
                    || relative.starts_with("../")
                    || relative == "."
                    || relative == ".." =>
            {
                cwd.join(relative)
            }
            _ => {
                return Err(bad(
                    "named volumes do not exist yet; name a host directory by an absolute path, or one that begins with ./",
                ));
            }
        };
        let mut bind = Self { source, target: target.into(), options: Vec::new(), recursive: true };
        for option in options.split(',').filter(|o| !o.is_empty()) {
            bind.add_option(option).map_err(|problem| bad(&problem))?;
        }
        Ok(bind)
    }

    fn add_option(&mut self, option: &str) -> Result<(), String> {
        match option {
            "rw" => {}
            "ro" | "nosuid" | "nodev" | "noexec" | "private" | "rprivate" | "slave" | "rslave" | "shared"
            | "rshared" => self.options.push(option.into()),
            "readonly" => self.options.push("ro".into()),
            "bind" => self.recursive = false,
            "rbind" => self.recursive = true,
            // Labels for SELinux: accepted and without effect where the host has none, as in Docker.
            "z" | "Z" => {}
            // Hints for Docker Desktop.
            "consistent" | "cached" | "delegated" => {}
            other => {
                return Err(format!(
                    "unknown option {other:?} (ro, rw, nosuid, nodev, noexec, bind, rbind, [r]private, [r]slave, [r]shared, z, Z are known)"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_options_are_read() {
        let cwd = Path::new("/home/me");
        let bind = Bind::parse("./src:/app:ro,z", cwd).unwrap();
        assert_eq!(bind.source, Path::new("/home/me/./src"));
        assert_eq!((bind.target.as_str(), bind.options), ("/app", vec!["ro".to_owned()]));
        assert!(!Bind::parse("/a:/b:bind", cwd).unwrap().recursive);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, part) in [
            ("/data", "anonymous"),
            ("data:/x", "named"),
            ("/a:b", "absolute"),
            ("/a:/", "root"),
            ("/a:/b:suid", "suid"),
            ("/a:/../", "root"),
            (":/b", "empty"),
            ("/a:", "empty"),
            ("a:b:c:d", "expected"),
            ("", "expected"),
        ] {
            let error = Bind::parse(text, Path::new("/")).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
