//! What a container sees besides its image: host paths and directories in memory.
//!
//! ```text
//!   -v        SOURCE:TARGET[:OPTION,…]
//!   --mount   type=bind,source=…,target=…[,readonly]   type=tmpfs,target=…[,tmpfs-size=…]
//!   --tmpfs   TARGET[:OPTION,…]
//! ```
//!
//! Named and anonymous volumes, and images, are refused by name until they can be mounted.

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

/// A directory in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub target: String,
    /// Options, each from the allow-list.
    pub options: Vec<String>,
}

impl Tmpfs {
    /// Parses one `--tmpfs`.
    pub fn parse(text: &str) -> Result<Self> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        check_target(target).map_err(|problem| Error::flag("--tmpfs", format!("{problem}: {text:?}")))?;
        // Docker's defaults; a later word undoes an earlier one.
        let mut all = ["nosuid", "nodev", "noexec"].map(String::from).to_vec();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let known = match key {
                "ro" | "rw" | "suid" | "nosuid" | "dev" | "nodev" | "exec" | "noexec" | "noatime"
                | "relatime" | "strictatime" | "nodiratime" => value.is_empty(),
                "size" | "nr_blocks" | "nr_inodes" => {
                    value.starts_with(|c: char| c.is_ascii_digit())
                        && value.bytes().all(|b| b.is_ascii_digit() || b"kKmMgG%".contains(&b))
                }
                "mode" => !value.is_empty() && value.bytes().all(|b| (b'0'..b'8').contains(&b)),
                "uid" | "gid" => value.parse::<u32>().is_ok(),
                _ => false,
            };
            if !known {
                return Err(Error::flag("--tmpfs", format!("invalid tmpfs option {option:?}")));
            }
            all.push(option.to_owned());
        }
        Ok(Self { target: target.to_owned(), options: all })
    }
}

/// What one `--mount` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// A host path.
    Bind(Bind),
    /// A directory in memory.
    Tmpfs(Tmpfs),
}

impl Mounted {
    /// Parses one `--mount`; relative sources count from `cwd`.
    pub fn parse(text: &str, cwd: &Path) -> Result<Self> {
        let bad = |problem: String| Error::flag("--mount", format!("invalid argument {text:?}: {problem}"));
        let (mut kind, mut source, mut target) = ("volume".to_owned(), None, None);
        let (mut options, mut recursive, mut of_tmpfs) = (Vec::new(), true, Vec::new());
        for field in comma_separated(text).ok_or_else(|| bad("a quote is not closed".into()))? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
                None => (field.to_ascii_lowercase(), None),
            };
            let truth = || match value {
                None | Some("true" | "1") => Ok(true),
                Some("false" | "0") => Ok(false),
                Some(other) => Err(bad(format!("invalid value for {key}: {other}"))),
            };
            let needed =
                || value.filter(|v| !v.is_empty()).ok_or_else(|| bad(format!("{key} needs a value")));
            match key.as_str() {
                "type" => kind = needed()?.to_ascii_lowercase(),
                "source" | "src" => source = Some(needed()?.to_owned()),
                "target" | "dst" | "destination" => target = Some(needed()?.to_owned()),
                "readonly" | "ro" => options.extend(truth()?.then(|| "ro".to_owned())),
                "bind-nonrecursive" => recursive = !truth()?,
                "bind-recursive" => match needed()? {
                    "enabled" => recursive = true,
                    "disabled" => recursive = false,
                    other => return Err(bad(format!("bind-recursive={other} is not supported"))),
                },
                "bind-propagation" => match needed()? {
                    word @ ("private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave") => {
                        options.push(word.to_owned());
                    }
                    other => return Err(bad(format!("invalid propagation {other}"))),
                },
                "consistency" => {}
                "tmpfs-size" => of_tmpfs.push(format!("size={}", needed()?)),
                "tmpfs-mode" => of_tmpfs.push(format!("mode={}", needed()?)),
                other => return Err(bad(format!("unexpected key '{other}' in '{field}'"))),
            }
        }
        let target = target.ok_or_else(|| bad("target is required".into()))?;
        check_target(&target).map_err(|problem| bad(problem.into()))?;
        match kind.as_str() {
            "bind" if !of_tmpfs.is_empty() => {
                Err(bad("cannot mix 'tmpfs-*' options with mount type 'bind'".into()))
            }
            "bind" => {
                let source = source.ok_or_else(|| bad("source is required".into()))?;
                Ok(Self::Bind(Bind { source: cwd.join(source), target, options, recursive }))
            }
            "tmpfs" if source.is_some() => Err(bad("cannot set source on a tmpfs mount".into())),
            "tmpfs" => {
                let words: Vec<String> = options.into_iter().chain(of_tmpfs).collect();
                Tmpfs::parse(&format!("{target}:{}", words.join(","))).map(Self::Tmpfs)
            }
            "volume" | "image" => Err(Error::flag_unsupported(
                format!("--mount type={kind}"),
                "they can't be mounted yet; type=bind and type=tmpfs can",
            )),
            other => Err(bad(format!("mount type {other:?} is unknown here"))),
        }
    }
}

/// Fields as Go's CSV reader splits them: quotes around a field keep its commas.
fn comma_separated(text: &str) -> Option<Vec<String>> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => field.extend(rest.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    (!quoted).then_some(fields)
}

/// A mount point must be a path below the container's root.
fn check_target(target: &str) -> Result<(), &'static str> {
    if !target.starts_with('/') {
        return Err("the path in the container must be absolute");
    }
    if Path::new(target).components().all(|c| !matches!(c, std::path::Component::Normal(_))) {
        return Err("the container's root cannot be a mount target");
    }
    Ok(())
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
        check_target(target).map_err(bad)?;
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
    fn mounts_are_read_as_docker_does() {
        let cwd = Path::new("/home/me");
        let bind =
            Mounted::parse("type=bind,src=x,\"dst=/a,b\",readonly,bind-propagation=rslave", cwd).unwrap();
        let Mounted::Bind(bind) = bind else { panic!("no bind") };
        assert_eq!((bind.source.as_path(), bind.target.as_str()), (Path::new("/home/me/x"), "/a,b"));
        assert_eq!(bind.options, ["ro", "rslave"]);
        let tmpfs =
            Mounted::parse("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770,ro=false", cwd).unwrap();
        let Mounted::Tmpfs(tmpfs) = tmpfs else { panic!("no tmpfs") };
        assert_eq!(tmpfs.options[3..], ["size=64m", "mode=1770"]);
        for (text, part) in [
            ("type=bind,source=/a", "target is required"),
            ("type=bind,target=/a", "source is required"),
            ("type=tmpfs,source=/x,target=/a", "cannot set source"),
            ("source=data,target=/a", "type=volume"),
            ("type=image,source=x,target=/a", "type=image"),
            ("type=bind,source=/a,target=/b,foo=1", "unexpected key 'foo'"),
            ("type=bind,source=/a,target=/b,readonly=maybe", "maybe"),
            ("type=bind,source=/a,target=b", "absolute"),
            ("type=tmpfs,target=/t,tmpfs-size=x", "size=x"),
            ("type=bind,\"source=/a,target=/b", "quote"),
        ] {
            let error = Mounted::parse(text, cwd).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn options_of_tmpfs_are_from_a_list() {
        let tmpfs = Tmpfs::parse("/run:rw,size=65536k,mode=755,exec").unwrap();
        assert_eq!(tmpfs.options, ["nosuid", "nodev", "noexec", "rw", "size=65536k", "mode=755", "exec"]);
        for bad in
            ["run", "/", "/run:size=", "/run:size=1;rm", "/run:mode=9", "/run:source=x", "/run:lowerdir=/"]
        {
            assert!(Tmpfs::parse(bad).is_err(), "{bad}");
        }
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
