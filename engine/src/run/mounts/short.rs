//! `-v`: `[SOURCE:]TARGET[:OPTION,…]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Mounted, Source, check_target};
use crate::error::{Error, Result};
use crate::volumes::check_name;

impl Mounted {
    /// Parses one `-v`. A source with a slash or a leading dot is a path, which counts from `cwd`;
    /// any other is a volume's name, and none asks for an anonymous volume.
    pub fn parse(text: &str, cwd: &Path) -> Result<Self> {
        let bad = |problem: &str| Error::Volume { text: text.into(), problem: problem.into() };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] => (None, target, ""),
            // `/data:ro` can't be told from a source and a relative target, which Docker refuses too.
            [source, target] => (Some(source), target, ""),
            [source, target, options] => (Some(source), target, options),
            _ => return Err(bad("expected [SOURCE:]TARGET[:OPTIONS]")),
        };
        if source == Some("") || target.is_empty() {
            return Err(bad("source and target must not be empty"));
        }
        check_target(target).map_err(bad)?;
        let path = source.filter(|source| source.starts_with(['/', '.', '~'])).map(|path| cwd.join(path));
        let source = match (source, path) {
            (_, Some(path)) => Source::Bind { path, recursive: true, create: true },
            (None, _) => Source::volume(None),
            (Some(name), _) if name.contains('/') => {
                return Err(bad(&format!(
                    "{name:?} is no volume's name; a host directory is given by an absolute path, or one that begins with ./"
                )));
            }
            (Some(name), _) => {
                check_name(name)?;
                Source::volume(Some(name.into()))
            }
        };
        let mut mounted = Self {
            target: target.into(),
            source,
            read_only: false,
            options: Vec::new(),
            chown: false,
            short: None,
        };
        for option in options.split(',').filter(|o| !o.is_empty()) {
            mounted.add_option(option).map_err(|problem| bad(&problem))?;
        }
        mounted.short = Some(mounted.words(options));
        Ok(mounted)
    }

    /// The words again, with the source that was meant.
    fn words(&self, options: &str) -> String {
        let source = match &self.source {
            Source::Bind { path, .. } => format!("{}:", path.display()),
            Source::Volume { name: Some(name), .. } => format!("{name}:"),
            _ => String::new(),
        };
        let options = if options.is_empty() { String::new() } else { format!(":{options}") };
        format!("{source}{}{options}", self.target)
    }

    fn add_option(&mut self, option: &str) -> Result<(), String> {
        match (option, &mut self.source) {
            ("rw", _) => self.read_only = false,
            ("ro" | "readonly", _) => self.read_only = true,
            ("nosuid" | "nodev" | "noexec", _) => self.options.push(option.into()),
            ("private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared", Source::Bind { .. }) => {
                self.options.push(option.into());
            }
            ("bind", Source::Bind { recursive, .. }) => *recursive = false,
            ("rbind", Source::Bind { recursive, .. }) => *recursive = true,
            ("nocopy" | "volume-nocopy", Source::Volume { copy, .. }) => *copy = false,
            ("copy", Source::Volume { copy, .. }) => *copy = true,
            ("U", _) => self.chown = true,
            // All mounts of a container with IDs of its own are mapped already.
            ("idmap", _) => {}
            // Labels for SELinux: accepted and without effect where the host has none, as in Docker.
            ("z" | "Z", _) => {}
            // Hints for Docker Desktop.
            ("consistent" | "cached" | "delegated", _) => {}
            (other, _) => {
                return Err(format!(
                    "unknown option {other:?} (ro, rw, nosuid, nodev, noexec, U, idmap, z, Z are known; for paths [r]bind, [r]private, [r]slave, [r]shared; for volumes nocopy)"
                ));
            }
        }
        Ok(())
    }
}

impl Source {
    /// A volume with nothing special about it.
    pub(super) fn volume(name: Option<String>) -> Self {
        Self::Volume {
            name,
            copy: true,
            subpath: None,
            labels: BTreeMap::new(),
            driver_options: BTreeMap::new(),
        }
    }

    /// The host path of a bind.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Bind { path, .. } => Some(path),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_options_are_read() {
        let cwd = Path::new("/home/me");
        let bind = Mounted::parse("./src:/app:ro,z", cwd).unwrap();
        assert_eq!(bind.source.path().unwrap(), Path::new("/home/me/./src"));
        assert!(bind.read_only && bind.target == "/app" && bind.options.is_empty());
        let bind = Mounted::parse("/a:/b:bind,rslave", cwd).unwrap();
        assert!(matches!(bind.source, Source::Bind { recursive: false, .. }));
        assert_eq!(bind.options, ["rslave"]);
        assert_eq!(bind.short.as_deref(), Some("/a:/b:bind,rslave"));
    }

    #[test]
    fn names_and_nothing_are_volumes() {
        let cwd = Path::new("/");
        let named = Mounted::parse("data:/x:nocopy", cwd).unwrap();
        assert!(matches!(&named.source, Source::Volume { name: Some(n), copy: false, .. } if n == "data"));
        let anonymous = Mounted::parse("/data", cwd).unwrap();
        assert!(matches!(&anonymous.source, Source::Volume { name: None, copy: true, .. }));
        assert_eq!(anonymous.short.as_deref(), Some("/data"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, part) in [
            ("data", "absolute"),
            ("a/b:/x", "absolute path"),
            ("-x:/x", "-x"),
            ("/a:b", "absolute"),
            ("/a:/", "root"),
            ("/a:/b:suid", "suid"),
            ("/a:/b:nocopy", "nocopy"),
            ("vv:/b:rslave", "rslave"),
            ("/a:/../", "root"),
            (":/b", "empty"),
            ("/a:", "empty"),
            ("a:b:c:d", "expected"),
            ("", "empty"),
        ] {
            let error = Mounted::parse(text, Path::new("/")).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
