//! What a step depends on, fact by fact.

use onggi_oci::{Algorithm, Digest, Hasher, Platform};
use serde::{Deserialize, Serialize};

use crate::graph::{Copy, Exec, FileAction, Mount, MountKind, Owner, Principal, Sharing};
use crate::host::StackLayer;

/// A thing that a step depends on: what, and its value (or the digest of it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact(pub String, pub String);

/// Changes whenever the same facts mean another result.
const FORMAT: &str = "onggi build 1";

/// The digest of all facts.
pub(crate) fn digest(facts: &[Fact]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(FORMAT.as_bytes());
    for Fact(label, value) in facts {
        field(label.as_bytes());
        field(value.as_bytes());
    }
    hasher.finish()
}

/// A value that is not to be read in a record.
fn hidden(value: &[u8]) -> String {
    Digest::sha256(value).hex()[..24].to_owned()
}

/// The identity of a stack: the digests of its layers.
pub(crate) fn stack(layers: &[StackLayer]) -> String {
    if layers.is_empty() {
        return "nothing".into();
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for layer in layers {
        hasher.update(layer.diff_id().to_string().as_bytes());
        hasher.update(b"\n");
    }
    hasher.finish().to_string()
}

/// What every step depends on.
pub(crate) fn common(platform: &Platform, base: Option<&[StackLayer]>, epoch: Option<i64>) -> Vec<Fact> {
    let mut facts = vec![Fact("platform".into(), platform.to_string())];
    facts.push(Fact("parent".into(), stack(base.unwrap_or_default())));
    facts.extend(epoch.map(|epoch| Fact("SOURCE_DATE_EPOCH".into(), epoch.to_string())));
    facts
}

/// What a program depends on beside its root and its mounts' contents.
pub(crate) fn exec(exec: &Exec) -> Vec<Fact> {
    let mut facts = vec![Fact("command".into(), hidden(exec.args.join("\0").as_bytes()))];
    for variable in &exec.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        if !exec.unkeyed_env.iter().any(|unkeyed| unkeyed == name) {
            facts.push(Fact(format!("variable {name}"), hidden(value.as_bytes())));
        }
    }
    let mut fact = |label: &str, value: String| facts.push(Fact(label.into(), value));
    fact("working directory", exec.cwd.clone());
    fact("user", exec.user.clone());
    fact("standard input", exec.stdin.as_ref().map(|bytes| hidden(bytes)).unwrap_or_default());
    fact("network", format!("{:?}", exec.network));
    fact("security", format!("{:?}", exec.security));
    fact("added hosts", format!("{:?}", exec.extra_hosts));
    fact("host name", exec.hostname.clone().unwrap_or_default());
    fact("size of /dev/shm", format!("{:?}", exec.shm_size));
    fact("limits", format!("{:?}", exec.ulimits));
    fact("devices", format!("{:?}", exec.devices));
    facts
}

/// What a mount is, without its content.
pub(crate) fn mount(mount: &Mount) -> String {
    let sharing = |sharing| match sharing {
        Sharing::Shared => "shared",
        Sharing::Private => "private",
        Sharing::Locked => "locked",
    };
    match &mount.kind {
        MountKind::Bind { source, writable, .. } => format!("bind {source:?} {writable}"),
        MountKind::Cache(cache) => format!(
            "cache {:?} {} {:?} {:?} {}:{} {}",
            cache.id,
            sharing(cache.sharing),
            cache.source,
            cache.mode,
            cache.uid,
            cache.gid,
            cache.read_only
        ),
        MountKind::Tmpfs(tmpfs) => format!("tmpfs {:?}", tmpfs.size),
        // Its content is no part of the key: that is the promise of secrets.
        MountKind::Secret(secret) => {
            format!(
                "secret {:?} {:?} {:?} {}:{}",
                secret.id, secret.target, secret.mode, secret.uid, secret.gid
            )
        }
        MountKind::Ssh(ssh) => format!("ssh {:?} {:?} {}:{}", ssh.id, ssh.mode, ssh.uid, ssh.gid),
    }
}

/// What an action is, without the content of its source.
pub(crate) fn action(action: &FileAction) -> String {
    match action {
        FileAction::Copy(copy) => {
            let Copy { from: _, source, destination, owner, mode, include, exclude, required, .. } = &**copy;
            let flags = [
                copy.follow_links,
                copy.contents_only,
                copy.unpack,
                copy.create_destination,
                copy.wildcard,
                copy.allow_empty_wildcard,
                copy.replace,
                copy.parents,
            ];
            let flags: String = flags.iter().map(|flag| if *flag { '1' } else { '0' }).collect();
            let owner = owner.as_ref().map(self::owner).unwrap_or_default();
            format!(
                "copy {source:?} {destination:?} {owner} {mode:?} {flags} {include:?} {exclude:?} {required:?}"
            )
        }
        FileAction::Mkdir(mkdir) => {
            let owner = mkdir.owner.as_ref().map(owner).unwrap_or_default();
            format!("mkdir {:?} {:o} {} {owner}", mkdir.path, mkdir.mode, mkdir.parents)
        }
        FileAction::Mkfile(mkfile) => {
            let owner = mkfile.owner.as_ref().map(owner).unwrap_or_default();
            format!("mkfile {:?} {:o} {owner} {}", mkfile.path, mkfile.mode, hidden(&mkfile.content))
        }
        FileAction::Rm(rm) => format!("rm {:?} {} {}", rm.path, rm.allow_missing, rm.wildcard),
    }
}

fn owner(owner: &Owner) -> String {
    let principal = |one: &Option<Principal>| match one {
        None => String::new(),
        Some(Principal::Id(id)) => id.to_string(),
        Some(Principal::Name(name)) => format!("{name:?}"),
    };
    format!("{}:{}", principal(&owner.user), principal(&owner.group))
}
