//! Seccomp profiles in files: the runtime specification's form, and Docker's, which adds conditions.
//!
//! ```text
//!   archMap    [{architecture, subArchitectures}]       instead of architectures
//!   syscalls   [{name or names, action, errnoRet, args,
//!                includes: {caps, arches, minKernel},   all must hold
//!                excludes: {caps, arches}}]             none may hold
//! ```

use std::fs;
use std::io::Read;
use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;
use onggi_sys::caps;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// The most that is read of a profile; Docker's own has 15 kB.
const MAX_PROFILE: u64 = 1 << 20;

/// Reads a profile for a process with this bounding set.
pub(crate) fn read(path: &Path, bounding: caps::Set) -> Result<LinuxSeccomp> {
    let bad =
        |problem: String| Error::flag("--security-opt seccomp", format!("{}: {problem}", path.display()));
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_PROFILE + 1).read_to_string(&mut text));
    read.map_err(|error| bad(error.to_string()))?;
    if text.len() as u64 > MAX_PROFILE {
        return Err(bad(format!("larger than {MAX_PROFILE} bytes")));
    }
    parse(&text, bounding).map_err(bad)
}

/// The profile that a file's text is, for a process with this bounding set; else what is wrong with it.
pub fn parse(text: &str, bounding: caps::Set) -> std::result::Result<LinuxSeccomp, String> {
    let profile: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Value::Object(profile) = profile else { return Err("no JSON object".into()) };
    serde_json::from_value(plain(profile, bounding)?).map_err(|error| error.to_string())
}

/// The profile without what Docker adds.
fn plain(mut profile: Map<String, Value>, bounding: caps::Set) -> Result<Value, String> {
    let arch = architecture();
    if let Some(Value::Array(map)) = profile.remove("archMap") {
        if profile.get("architectures").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
            return Err("'architectures' and 'archMap' were specified, use either of them".into());
        }
        let own = map.iter().find(|entry| entry["architecture"] == arch.0);
        let more = own.and_then(|entry| entry["subArchitectures"].as_array().cloned()).unwrap_or_default();
        let all: Vec<Value> = std::iter::once(json!(arch.0)).chain(more).collect();
        profile.insert("architectures".into(), Value::Array(all));
    }
    let calls = match profile.remove("syscalls") {
        Some(Value::Array(calls)) => calls,
        None | Some(Value::Null) => Vec::new(),
        Some(_) => return Err("syscalls is no list".into()),
    };
    let mut kept = Vec::new();
    for call in calls {
        let Value::Object(mut call) = call else { return Err("an entry of syscalls is no object".into()) };
        let (includes, excludes) = (call.remove("includes"), call.remove("excludes"));
        if !holds(includes.as_ref(), bounding, arch.1)? || fails(excludes.as_ref(), bounding, arch.1)? {
            continue;
        }
        match (call.remove("name"), call.get("names").and_then(Value::as_array)) {
            (Some(Value::String(name)), None) if !name.is_empty() => {
                call.insert("names".into(), json!([name]));
            }
            (Some(Value::String(name)), Some(names)) if !name.is_empty() && !names.is_empty() => {
                return Err("'name' and 'names' were specified in one entry, use either of them".into());
            }
            _ => {}
        }
        call.remove("comment");
        call.retain(|_, value| !value.is_null());
        kept.push(Value::Object(call));
    }
    profile.insert("syscalls".into(), Value::Array(kept));
    profile.retain(|_, value| !value.is_null());
    Ok(Value::Object(profile))
}

/// This machine's architecture, as profiles name it and as Go does.
fn architecture() -> (&'static str, &'static str) {
    if cfg!(target_arch = "aarch64") { ("SCMP_ARCH_AARCH64", "arm64") } else { ("SCMP_ARCH_X86_64", "amd64") }
}

fn list<'a>(conditions: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    conditions[name].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn has(bounding: caps::Set, name: &str) -> bool {
    caps::number(name).is_some_and(|number| bounding.has(number))
}

/// Whether all of `includes` hold.
fn holds(conditions: Option<&Value>, bounding: caps::Set, arch: &str) -> Result<bool, String> {
    let Some(conditions) = conditions.filter(|value| !value.is_null()) else { return Ok(true) };
    let mut arches = list(conditions, "arches").peekable();
    let right_arch = arches.peek().is_none() || arches.any(|one| one == arch);
    let kernel = match conditions["minKernel"].as_str() {
        Some(least) => kernel_is_at_least(least)?,
        None => true,
    };
    Ok(right_arch && kernel && list(conditions, "caps").all(|name| has(bounding, name)))
}

/// Whether one of `excludes` holds.
fn fails(conditions: Option<&Value>, bounding: caps::Set, arch: &str) -> Result<bool, String> {
    let Some(conditions) = conditions.filter(|value| !value.is_null()) else { return Ok(false) };
    let kernel = match conditions["minKernel"].as_str() {
        Some(least) => kernel_is_at_least(least)?,
        None => false,
    };
    Ok(kernel
        || list(conditions, "arches").any(|one| one == arch)
        || list(conditions, "caps").any(|name| has(bounding, name)))
}

fn kernel_is_at_least(wanted: &str) -> Result<bool, String> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = |text: &str| {
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let wanted = version(wanted).ok_or_else(|| format!("minKernel {wanted:?} is no kernel version"))?;
    Ok(version(&release).is_some_and(|own| own >= wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, bounding: caps::Set) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.json");
        fs::write(&path, text).unwrap();
        let profile = read(&path, bounding).unwrap();
        profile.syscalls().iter().flatten().flat_map(|call| call.names().clone()).collect()
    }

    #[test]
    fn dockers_conditions_are_resolved() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[
              {"names":["read"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"x","includes":{},"excludes":{}},
              {"name":"write","action":"SCMP_ACT_ALLOW"},
              {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
              {"names":["future"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"999.0"}},
              {"names":["s390"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}}]}"#;
        assert_eq!(names(text, caps::Set::EMPTY), ["read", "write", "clone", "ptrace"]);
        assert_eq!(names(text, caps::Set::ALL), ["read", "write", "mount", "ptrace"]);
    }

    #[test]
    fn what_is_no_profile_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"defaultAction":"NO"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":3}"#,
        ] {
            fs::write(&path, bad).unwrap();
            assert!(
                read(&path, caps::Set::EMPTY).unwrap_err().to_string().contains("--security-opt"),
                "{bad}"
            );
        }
        assert!(read(Path::new("/no/such/profile"), caps::Set::EMPTY).is_err());
    }
}
