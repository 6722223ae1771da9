//! `--device` and `--device-cgroup-rule`: devices of the host in a container.
//!
//! ```text
//!   HOST[:CONTAINER][:PERMISSIONS]     /dev/fuse   /dev/sdc:/dev/xvdc:r
//!   TYPE MAJOR:MINOR PERMISSIONS       c 189:* rwm
//! ```
//!
//! With the host's IDs the container gets a node of its own. With IDs of its own it can't have one, so
//! root makes the node outside, for the container's owner of the same number, and binds it; an
//! ordinary user binds the host's node.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chownat, major, makedev, minor, mknodat};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How deep a directory of devices is looked through; `/dev` itself has 4 levels.
const MAX_DEPTH: usize = 8;

/// A wished device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its path on the host; a directory means all devices in it.
    pub source: PathBuf,
    /// Its path in the container.
    pub target: PathBuf,
    /// What the container may do with it: of `r`, `w` and `m`.
    pub access: String,
}

impl Device {
    /// Parses one `--device`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |problem: &str| Error::flag("--device", format!("{problem}: {text:?}"));
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, access) = match parts[..] {
            [source] => (source, source, "rwm"),
            [source, access] if is_access(access) => (source, source, access),
            [source, target] => (source, target, "rwm"),
            [source, target, access] if is_access(access) => (source, target, access),
            [_, _, _] => return Err(bad("invalid device mode (expected of r, w and m)")),
            _ => return Err(bad("invalid device specification")),
        };
        if !source.starts_with('/') {
            return Err(bad(
                "the path of a device must be absolute, or a name such as vendor.com/class=name (CDI)",
            ));
        }
        if !target.starts_with('/') {
            return Err(bad("the path in the container must be absolute"));
        }
        Ok(Self { source: source.into(), target: target.into(), access: access.into() })
    }
}

fn is_access(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().enumerate().all(|(at, b)| b"rwm".contains(&b) && !text[..at].contains(char::from(b)))
}

/// Parses one `--device-cgroup-rule`.
pub fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let bad = || {
        Error::flag(
            "--device-cgroup-rule",
            format!("invalid device cgroup format {text:?} (expected as in 'c 189:* rwm')"),
        )
    };
    let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(bad()) };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(bad()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |text: &str| match text {
        "*" => Ok(-1),
        text => text.parse::<u32>().map(i64::from).map_err(|_| bad()),
    };
    if !is_access(access) {
        return Err(bad());
    }
    rule(true, kind, (number(major)?, number(minor)?), access)
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    (major, minor): (i64, i64),
    access: &str,
) -> Result<LinuxDeviceCgroup> {
    let rule =
        LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).major(major).minor(minor).access(access);
    rule.build().map_err(Error::specification)
}

/// A device that was found.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    kind: LinuxDeviceType,
    number: u64,
    mode: u32,
    owner: (u32, u32),
    access: String,
}

impl Node {
    /// Whether the container may not do everything with it.
    pub(crate) fn is_partial(&self) -> bool {
        !(self.access.contains('r') && self.access.contains('w'))
    }
}

/// The devices that are meant.
pub(crate) fn find(devices: &[Device]) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for device in devices {
        let before = nodes.len();
        look(&device.source, &device.target, &device.access, 0, &mut nodes).map_err(|source| {
            Error::flag("--device", format!("cannot look at {}: {source}", device.source.display()))
        })?;
        if nodes.len() == before {
            let problem = format!("{} is no device", device.source.display());
            return Err(Error::flag("--device", problem));
        }
    }
    Ok(nodes)
}

/// All devices of the host, for `--privileged`. Terminals, shared memory and queues are the container's.
pub(crate) fn all() -> Vec<Node> {
    let mut nodes = Vec::new();
    let Ok(entries) = fs::read_dir("/dev") else { return nodes };
    for entry in entries.flatten() {
        let name = entry.file_name();
        // The standard ones and what is the container's own come by themselves.
        let own = [
            "pts",
            "shm",
            "fd",
            "mqueue",
            "console",
            "ptmx",
            "tty",
            "null",
            "zero",
            "full",
            "random",
            "urandom",
            "hugepages",
        ];
        if own.iter().any(|own| name == *own) {
            continue;
        }
        // What goes away meanwhile is no loss.
        let _ = look(&entry.path(), &entry.path(), "rwm", 1, &mut nodes);
    }
    nodes
}

fn look(
    source: &Path,
    target: &Path,
    access: &str,
    depth: usize,
    nodes: &mut Vec<Node>,
) -> std::io::Result<()> {
    // What the caller names may be a link; what lies in a directory counts only if it is none.
    let meta = if depth == 0 { fs::metadata(source)? } else { fs::symlink_metadata(source)? };
    if meta.is_dir() && depth < MAX_DEPTH {
        for entry in fs::read_dir(source)?.flatten() {
            look(&entry.path(), &target.join(entry.file_name()), access, depth + 1, nodes)?;
        }
        return Ok(());
    }
    let kind = if meta.file_type().is_char_device() {
        LinuxDeviceType::C
    } else if meta.file_type().is_block_device() {
        LinuxDeviceType::B
    } else {
        return Ok(());
    };
    nodes.push(Node {
        source: source.to_owned(),
        target: target.to_owned(),
        kind,
        number: meta.rdev(),
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        access: access.to_owned(),
    });
    Ok(())
}

impl Node {
    fn numbers(&self) -> (i64, i64) {
        (major(self.number).into(), minor(self.number).into())
    }

    /// For a container with the host's IDs.
    pub(crate) fn to_linux(&self) -> Result<LinuxDevice> {
        let (major, minor) = self.numbers();
        let device = LinuxDeviceBuilder::default()
            .path(&self.target)
            .typ(self.kind)
            .major(major)
            .minor(minor)
            .file_mode(self.mode)
            .uid(self.owner.0)
            .gid(self.owner.1)
            .build();
        device.map_err(Error::specification)
    }

    /// The rule that lets a container use it.
    pub(crate) fn rule(&self) -> Result<LinuxDeviceCgroup> {
        rule(true, self.kind, self.numbers(), &self.access)
    }

    /// Makes a node in `dir` whose owner the container knows by the host's numbers.
    pub(crate) fn make_in(&self, dir: &Path, owner: impl Fn(u32, u32) -> (u32, u32)) -> Result<PathBuf> {
        let path =
            dir.join(format!("device-{}-{}-{}", self.kind.as_str(), self.numbers().0, self.numbers().1));
        let failed = |source: std::io::Error| Error::Write { path: path.clone(), source };
        let kind =
            if self.kind == LinuxDeviceType::B { FileType::BlockDevice } else { FileType::CharacterDevice };
        let number = makedev(major(self.number), minor(self.number));
        match mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), number) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let (uid, gid) = owner(self.owner.0, self.owner.1);
        chownat(CWD, &path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| rustix::fs::chmod(&path, Mode::from_raw_mode(self.mode)))
            .map_err(|errno| failed(errno.into()))?;
        Ok(path)
    }
}

/// The rules of a container that could otherwise use every device: nothing, then what is named. The
/// runtime adds what every container has.
pub(crate) fn rules(nodes: &[Node], more: &[LinuxDeviceCgroup]) -> Result<Vec<LinuxDeviceCgroup>> {
    let mut rules = vec![rule(false, LinuxDeviceType::A, (-1, -1), "rwm")?];
    for node in nodes {
        rules.push(node.rule()?);
    }
    rules.extend(more.iter().cloned());
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_docker_does() {
        let parse = |text| Device::parse(text).map(|d| (d.source, d.target, d.access)).ok();
        let of = |s: &str, t: &str, a: &str| Some((s.into(), t.into(), a.into()));
        assert_eq!(parse("/dev/fuse"), of("/dev/fuse", "/dev/fuse", "rwm"));
        assert_eq!(parse("/dev/a:/dev/b"), of("/dev/a", "/dev/b", "rwm"));
        assert_eq!(parse("/dev/a:rw"), of("/dev/a", "/dev/a", "rw"));
        assert_eq!(parse("/dev/a:/dev/b:r"), of("/dev/a", "/dev/b", "r"));
        for bad in ["", "fuse", "/dev/a:/dev/b:x", "/dev/a:/dev/b:rr", "/a:/b:r:w", "vendor.com/gpu=all"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn rules_are_read_as_docker_does() {
        let rule = parse_rule("c 189:* rwm").unwrap();
        assert_eq!(
            (rule.major(), rule.minor(), rule.access().as_deref()),
            (Some(189), Some(-1), Some("rwm"))
        );
        for bad in ["", "c 1:2", "x 1:2 r", "c 1 r", "c 1:2 q", "c 99999999999:2 r", "c  1:2 r"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_device_is_named() {
        let device = |path: &str| [Device { source: path.into(), target: path.into(), access: "rwm".into() }];
        assert_eq!(find(&device("/dev/null")).unwrap().len(), 1);
        for bad in ["/etc/passwd", "/dev/no-such-device"] {
            assert!(find(&device(bad)).unwrap_err().to_string().contains(bad));
        }
    }
}
