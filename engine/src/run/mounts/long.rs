//! `--mount`: `type=…,source=…,target=…`, in the CSV of Go's reader.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Mount, Mounted, Source, Tmpfs, check_target};
use crate::error::{Error, Result};
use crate::volumes::check_name;

/// The kinds of mounts that a key goes with.
const BIND: &str = "bind";
const VOLUME: &str = "volume";
const TMPFS: &str = "tmpfs";
const IMAGE: &str = "image";

/// What the fields say, before it is known what the type is.
struct Fields {
    kind: String,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    chown: bool,
    options: Vec<String>,
    recursive: bool,
    copy: bool,
    subpath: Option<String>,
    labels: BTreeMap<String, String>,
    driver_options: BTreeMap<String, String>,
    tmpfs: Vec<String>,
    /// Which keys belong to one kind only: the key, the kind.
    of_kind: Vec<(String, &'static str)>,
}

impl Mount {
    /// Parses one `--mount`; relative sources count from `cwd`.
    pub fn parse(text: &str, cwd: &Path) -> Result<Self> {
        let bad = |problem: String| Error::flag("--mount", format!("invalid argument {text:?}: {problem}"));
        let fields = Fields::read(text).map_err(bad)?;
        let target = fields.target.clone().ok_or_else(|| bad("target is required".into()))?;
        check_target(&target).map_err(|problem| bad(problem.into()))?;
        let kind = fields.kind.as_str();
        if ![BIND, VOLUME, TMPFS, IMAGE].contains(&kind) {
            return Err(bad(format!("mount type {kind:?} is unknown here")));
        }
        if let Some((key, _)) = fields.of_kind.iter().find(|(_, of)| *of != kind) {
            return Err(bad(format!("cannot mix '{key}' with mount type '{kind}'")));
        }
        let source = match kind {
            TMPFS if fields.source.is_some() => {
                return Err(bad("cannot set source on a tmpfs mount".into()));
            }
            TMPFS => {
                let read_only = fields.read_only.then_some("ro");
                let words = read_only.into_iter().chain(fields.tmpfs.iter().map(String::as_str));
                return Tmpfs::new(&target, words).map(Self::Tmpfs);
            }
            BIND => {
                let source = fields.source.ok_or_else(|| bad("source is required".into()))?;
                Source::Bind { path: cwd.join(source), recursive: fields.recursive, create: false }
            }
            IMAGE => {
                let image = fields.source.ok_or_else(|| bad("source is required".into()))?;
                Source::Image { image, subpath: fields.subpath }
            }
            _ => {
                if let Some(name) = &fields.source {
                    check_name(name)?;
                }
                Source::Volume {
                    name: fields.source,
                    copy: fields.copy,
                    subpath: fields.subpath,
                    labels: fields.labels,
                    driver_options: fields.driver_options,
                }
            }
        };
        Ok(Self::Mounted(Mounted {
            target,
            read_only: fields.read_only || kind == IMAGE,
            source,
            options: fields.options,
            chown: fields.chown,
            short: None,
        }))
    }
}

impl Fields {
    fn read(text: &str) -> Result<Self, String> {
        let mut fields = Self {
            kind: VOLUME.into(),
            source: None,
            target: None,
            read_only: false,
            chown: false,
            options: Vec::new(),
            recursive: true,
            copy: true,
            subpath: None,
            labels: BTreeMap::new(),
            driver_options: BTreeMap::new(),
            tmpfs: Vec::new(),
            of_kind: Vec::new(),
        };
        for field in comma_separated(text).ok_or("a quote is not closed")? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
                None => (field.to_ascii_lowercase(), None),
            };
            fields.add(&key, value, &field)?;
        }
        Ok(fields)
    }

    fn add(&mut self, key: &str, value: Option<&str>, field: &str) -> Result<(), String> {
        let truth = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("invalid value for {key}: {other}")),
        };
        let needed = || value.filter(|v| !v.is_empty()).ok_or_else(|| format!("{key} needs a value"));
        match key {
            "bind-propagation" | "bind-nonrecursive" | "bind-recursive" => {
                self.of_kind.push((key.into(), BIND));
            }
            "volume-nocopy" | "volume-label" | "volume-opt" | "volume-driver" | "volume-subpath" => {
                self.of_kind.push((key.into(), VOLUME));
            }
            "tmpfs-size" | "tmpfs-mode" => self.of_kind.push((key.into(), TMPFS)),
            "image-subpath" => self.of_kind.push((key.into(), IMAGE)),
            _ => {}
        }
        match key {
            "type" => self.kind = needed()?.to_ascii_lowercase(),
            "source" | "src" => self.source = Some(needed()?.to_owned()),
            "target" | "dst" | "destination" => self.target = Some(needed()?.to_owned()),
            "readonly" | "ro" => self.read_only = truth()?,
            "u" | "chown" => self.chown = truth()?,
            "idmap" => {
                truth()?;
            }
            "bind-nonrecursive" => self.recursive = !truth()?,
            "bind-recursive" => match needed()? {
                "enabled" => self.recursive = true,
                "disabled" => self.recursive = false,
                other => return Err(format!("bind-recursive={other} is not supported")),
            },
            "bind-propagation" => match needed()? {
                word @ ("private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave") => {
                    self.options.push(word.to_owned());
                }
                other => return Err(format!("invalid propagation {other}")),
            },
            "consistency" => {}
            "volume-nocopy" => self.copy = !truth()?,
            "volume-driver" => match needed()? {
                "local" => {}
                other => return Err(format!("volume driver {other:?} is unknown: local is there")),
            },
            "volume-label" => insert(&mut self.labels, needed()?),
            "volume-opt" => insert(&mut self.driver_options, needed()?),
            "volume-subpath" | "image-subpath" => self.subpath = Some(needed()?.to_owned()),
            "tmpfs-size" => self.tmpfs.push(format!("size={}", needed()?)),
            "tmpfs-mode" => self.tmpfs.push(format!("mode={}", needed()?)),
            other => return Err(format!("unexpected key '{other}' in '{field}'")),
        }
        Ok(())
    }
}

fn insert(map: &mut BTreeMap<String, String>, pair: &str) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    map.insert(key.into(), value.into());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_docker_does() {
        let cwd = Path::new("/home/me");
        let bind =
            Mount::parse("type=bind,src=x,\"dst=/a,b\",readonly,bind-propagation=rslave", cwd).unwrap();
        let Mount::Mounted(bind) = bind else { panic!("no bind") };
        assert_eq!(
            (bind.source.path().unwrap().as_path(), bind.target.as_str()),
            (Path::new("/home/me/x"), "/a,b")
        );
        assert!(bind.read_only && bind.options == ["rslave"] && bind.short.is_none());
        let tmpfs =
            Mount::parse("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770,ro=false", cwd).unwrap();
        let Mount::Tmpfs(tmpfs) = tmpfs else { panic!("no tmpfs") };
        assert_eq!(tmpfs.options[3..], ["size=64m", "mode=1770"]);
        let volume =
            Mount::parse("src=data,dst=/d,volume-opt=type=tmpfs,volume-label=a=b,volume-nocopy", cwd);
        let Mount::Mounted(volume) = volume.unwrap() else { panic!("no volume") };
        let Source::Volume { name, copy, labels, driver_options, .. } = volume.source else { panic!() };
        assert_eq!((name.as_deref(), copy), (Some("data"), false));
        assert_eq!((labels["a"].as_str(), driver_options["type"].as_str()), ("b", "tmpfs"));
        let image = Mount::parse("type=image,source=busybox,target=/i,image-subpath=bin", cwd).unwrap();
        assert!(matches!(image, Mount::Mounted(Mounted { read_only: true, .. })));
        for (text, part) in [
            ("type=bind,source=/a", "target is required"),
            ("type=bind,target=/a", "source is required"),
            ("type=tmpfs,source=/x,target=/a", "cannot set source"),
            ("type=bind,source=/x,target=/a,tmpfs-size=1", "cannot mix 'tmpfs-size'"),
            ("type=bind,source=/x,target=/a,volume-nocopy", "cannot mix 'volume-nocopy'"),
            ("type=volume,source=x,target=/a,volume-driver=nfs", "nfs"),
            ("type=npipe,source=x,target=/a", "npipe"),
            ("type=volume,source=../x,target=/a", "../x"),
            ("type=bind,source=/a,target=/b,foo=1", "unexpected key 'foo'"),
            ("type=bind,source=/a,target=/b,readonly=maybe", "maybe"),
            ("type=bind,source=/a,target=b", "absolute"),
            ("type=tmpfs,target=/t,tmpfs-size=x", "size=x"),
            ("type=bind,\"source=/a,target=/b", "quote"),
        ] {
            let error = Mount::parse(text, cwd).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
