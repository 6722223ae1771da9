//! Reading `config.json`: bounded, and with a warning in the place of an error where the specification wants one
//! (config, "Process": a capability that "cannot be mapped to a relevant kernel interface, or cannot be granted
//! otherwise, MUST be logged as a warning").

use std::io::Read;
use std::path::Path;

use oci_spec::runtime::{Capability, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Spec};
use serde::de::Error as _;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::plan::capability_name;

/// A specification is small; the largest real ones have some 100 KiB.
const MAX_SPEC: u64 = 16 << 20;

/// The five sets of `process.capabilities`.
const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// Flags of `process.scheduler` that the library of types spells in another way than the specification.
const FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// The specification at `path`; what is passed over of it goes to `warn`.
pub(super) fn load_spec(path: &Path, warn: &mut dyn FnMut(&str)) -> Result<Spec> {
    let step = || Error::io("read", path.display().to_string());
    let file = std::fs::File::open(path).map_err(step())?;
    let mut text = Vec::new();
    file.take(MAX_SPEC + 1).read_to_end(&mut text).map_err(step())?;
    if text.len() as u64 > MAX_SPEC {
        return Err(Error::invalid(path.display().to_string(), "is larger than 16 MiB"));
    }
    let spec =
        parse(&text, warn).map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))?;
    if !spec.version().starts_with("1.") {
        return Err(Error::unsupported(
            format!("ociVersion {:?}", spec.version()),
            "this runtime follows version 1",
        ));
    }
    doubt_ambient(&spec, warn);
    Ok(spec)
}

fn parse(text: &[u8], warn: &mut dyn FnMut(&str)) -> serde_json::Result<Spec> {
    let error = match serde_json::from_slice(text) {
        Ok(spec) => return Ok(spec),
        Err(error) => error,
    };
    let mut document: Value = serde_json::from_slice(text)?;
    if let Some(policy) = document.pointer("/linux/memoryPolicy").and_then(Value::as_object) {
        if policy.is_empty() {
            // As good as none.
            if let Some(linux) = document.pointer_mut("/linux").and_then(Value::as_object_mut) {
                linux.remove("memoryPolicy");
            }
            return serde_json::from_value(document);
        }
        policy_is_known(policy)?;
    }
    let mended = document.pointer_mut("/process").is_some_and(|process| mend(process, warn));
    if mended { serde_json::from_value(document) } else { Err(error) }
}

/// Reads a process, as `exec --process` is given it: as part of a specification, but that who leaves the user out means
/// root, as with runc.
///
/// # Errors
/// Where it is no process.
pub fn parse_process(text: &[u8], warn: &mut dyn FnMut(&str)) -> serde_json::Result<Process> {
    let mut document: Value = serde_json::from_slice(text)?;
    if let Some(process) = document.as_object_mut() {
        process.entry("user").or_insert_with(|| serde_json::json!({"uid": 0, "gid": 0}));
    }
    mend(&mut document, warn);
    serde_json::from_value(document)
}

/// Drops capabilities of other kernels, and spells flags of the scheduler as the library of types does. Whether that
/// changed anything.
fn mend(process: &mut Value, warn: &mut dyn FnMut(&str)) -> bool {
    let mut mended = false;
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let found = FLAGS.iter().find(|(specified, _)| flag.as_str() == Some(*specified));
        if let Some((_, spelled)) = found {
            *flag = Value::from(*spelled);
            mended = true;
        }
    }
    let Some(sets) = process.get_mut("capabilities") else { return mended };
    let mut unknown = Vec::new();
    for set in SETS {
        let Some(list) = sets.get_mut(set).and_then(Value::as_array_mut) else { continue };
        list.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok() || !name.is_string();
            if let (false, Some(name)) = (known, name.as_str()) {
                unknown.push(name.to_owned());
            }
            known
        });
    }
    if unknown.is_empty() {
        return mended;
    }
    unknown.sort();
    unknown.dedup();
    warn(&format!("ignoring unknown or unavailable capabilities: {unknown:?}"));
    true
}

/// Says which word of a memory policy nobody knows.
fn policy_is_known(policy: &serde_json::Map<String, Value>) -> serde_json::Result<()> {
    let mode = policy.get("mode").unwrap_or(&Value::Null);
    if serde_json::from_value::<MemoryPolicyModeType>(mode.clone()).is_err() {
        return Err(serde_json::Error::custom(format!(
            "linux.memoryPolicy: invalid memory policy mode {mode}"
        )));
    }
    for flag in policy.get("flags").and_then(Value::as_array).into_iter().flatten() {
        if serde_json::from_value::<MemoryPolicyFlagType>(flag.clone()).is_err() {
            return Err(serde_json::Error::custom(format!(
                "linux.memoryPolicy: invalid memory policy flag {flag}"
            )));
        }
    }
    Ok(())
}

/// The kernel raises a capability in the ambient set only if it is permitted and inheritable.
fn doubt_ambient(spec: &Spec, warn: &mut dyn FnMut(&str)) {
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let Some(sets) = sets else { return };
    for one in sets.ambient().iter().flatten() {
        let within =
            |set: &Option<oci_spec::runtime::Capabilities>| set.as_ref().is_some_and(|set| set.contains(one));
        if !within(sets.permitted()) || !within(sets.inheritable()) {
            let name = capability_name(*one);
            warn(&format!(
                "can't raise ambient capability CAP_{name}: it is not both permitted and inheritable"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (serde_json::Result<Spec>, Vec<String>) {
        let mut said = Vec::new();
        let spec = parse(text.as_bytes(), &mut |words| said.push(words.to_owned()));
        (spec, said)
    }

    #[test]
    fn a_capability_that_nobody_knows_is_a_warning() {
        let document = |list: &str| {
            format!(
                r#"{{"ociVersion": "1.2.0", "root": {{"path": "r"}}, "process": {{"user": {{"uid": 0, "gid": 0}}, "cwd": "/", "capabilities": {{"bounding": [{list}]}}}}}}"#
            )
        };
        let (spec, said) = read(&document(r#""CAP_KILL", "CAP_UNKNOWN""#));
        let bounding = spec.unwrap().process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!(bounding.bounding().as_ref().unwrap().len(), 1);
        assert!(said[0].contains("CAP_UNKNOWN"), "{said:?}");
        let (spec, said) = read(&document("7"));
        assert!(spec.is_err() && said.is_empty());
        assert!(read("{").0.is_err());
    }
}
