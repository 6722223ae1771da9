//! Devices of a step by the names that their vendors gave them (Container Device Interface, `cdiVersion` 0.3 to 1.0).
//!
//! ```text
//!   /etc/cdi/*.{json,yaml}  /var/run/cdi/*.{json,yaml}        the latter's word counts
//!     kind: vendor.com/class
//!     devices: [{name: first, containerEdits: {deviceNodes: [{path, hostPath, permissions}], env: [A=b]}}]
//!     containerEdits: …                                     what all of them need
//! ```
//!
//! A step may have `vendor.com/class=name`, or `vendor.com/class` for all of a class. Descriptions may also ask
//! for mounts and for programs of the host that are run on the way; a build refuses both by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use onggi_build::graph;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::run::device::{self, Device, Node};

/// The most that is read of a description; those of large machines have some hundred kilobytes.
const MAX_SPEC: u64 = 4 << 20;

/// What a step gets.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// Device nodes.
    pub(super) nodes: Vec<Node>,
    /// `NAME=value`
    pub(super) env: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Described>,
    #[serde(default)]
    container_edits: Wanted,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    name: String,
    #[serde(default)]
    container_edits: Wanted,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    #[serde(default)]
    device_nodes: Vec<WantedNode>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    mounts: Vec<serde_json::Value>,
    #[serde(default)]
    hooks: Vec<serde_json::Value>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WantedNode {
    path: PathBuf,
    #[serde(default)]
    host_path: Option<PathBuf>,
    #[serde(default)]
    permissions: Option<String>,
}

/// Finds what the devices of a step need, in these directories; the last one that describes a device counts.
///
/// # Errors
/// A device that is required is described nowhere; its description asks for what a build does not do.
pub(super) fn find(wishes: &[graph::Device], dirs: &[PathBuf]) -> Result<Edits> {
    let mut edits = Edits::default();
    if wishes.is_empty() {
        return Ok(edits);
    }
    let known = read_all(dirs)?;
    for wish in wishes {
        let of_class = |name: &str| name.split_once('=').is_some_and(|(class, _)| class == wish.name);
        let found: Vec<_> = known.iter().filter(|(name, _)| **name == wish.name || of_class(name)).collect();
        if found.is_empty() && !wish.optional {
            let places: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            return Err(Error::flag_unsupported(
                format!("RUN --device={}", wish.name),
                format!("no device of this name is described in {}", places.join(" or ")),
            ));
        }
        for (name, wanted) in found {
            for wanted in wanted {
                add(name, wanted, &mut edits)?;
            }
        }
    }
    Ok(edits)
}

fn add(name: &str, wanted: &Wanted, edits: &mut Edits) -> Result<()> {
    for (what, list) in [("mounts", &wanted.mounts), ("hooks", &wanted.hooks)] {
        if !list.is_empty() {
            return Err(Error::flag_unsupported(
                format!("RUN --device={name}"),
                format!("its description asks for {what}, which the steps of a build do not get"),
            ));
        }
    }
    // Steps have no control group of their own that could tell reading from writing.
    let is_partial = |node: &WantedNode| {
        node.permissions.as_deref().is_some_and(|access| !access.contains('r') || !access.contains('w'))
    };
    if let Some(node) = wanted.device_nodes.iter().find(|node| is_partial(node)) {
        return Err(Error::flag_unsupported(
            format!("RUN --device={name}"),
            format!("{} is to be read or written only, which needs a control group", node.path.display()),
        ));
    }
    let devices: Vec<Device> = wanted
        .device_nodes
        .iter()
        .map(|node| Device {
            source: node.host_path.clone().unwrap_or_else(|| node.path.clone()),
            target: node.path.clone(),
            access: node.permissions.clone().unwrap_or_else(|| "rwm".into()),
        })
        .collect();
    for node in device::find(&devices)? {
        if !edits.nodes.iter().any(|one| one.target == node.target) {
            edits.nodes.push(node);
        }
    }
    edits.env.extend(wanted.env.iter().cloned());
    Ok(())
}

/// What each described device needs: its own, and what all of its description do.
fn read_all(dirs: &[PathBuf]) -> Result<BTreeMap<String, [Wanted; 2]>> {
    let mut all = BTreeMap::new();
    for dir in dirs {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let ending = path.extension().and_then(|ending| ending.to_str());
            if matches!(ending, Some("json" | "yaml" | "yml")) {
                let spec = read(&path)?;
                for device in spec.devices {
                    let name = format!("{}={}", spec.kind, device.name);
                    all.insert(name, [spec.container_edits.clone(), device.container_edits]);
                }
            }
        }
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Spec> {
    let failed = |source| Error::Read { path: path.into(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_SPEC {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    // JSON is YAML too.
    let text = fs::read_to_string(path).map_err(failed)?;
    serde_saphyr::from_str(&text)
        .map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "cdiVersion: 0.6.0\nkind: vendor.com/zero\ncontainerEdits:\n  env: [OF=all]\ndevices:\n\
        - name: one\n  containerEdits:\n    deviceNodes:\n    - {path: /dev/one, hostPath: /dev/zero, permissions: rw}\n    env: [ONE=1]\n\
        - name: hooked\n  containerEdits:\n    hooks:\n    - {hookName: createContainer, path: /bin/true}\n";

    #[test]
    fn a_description_gives_nodes_and_variables_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().join("none"), dir.path().to_owned()];
        fs::write(dir.path().join("a.yaml"), SPEC).unwrap();
        fs::write(
            dir.path().join("b.json"),
            r#"{"cdiVersion":"0.5.0","kind":"v/c","devices":[{"name":"n"}]}"#,
        )
        .unwrap();
        let wish = |name: &str, optional| [graph::Device { name: name.into(), optional }];
        let found = find(&wish("vendor.com/zero=one", false), &dirs).unwrap();
        assert_eq!(found.env, ["OF=all", "ONE=1"]);
        assert_eq!(found.nodes[0].target, Path::new("/dev/one"));
        assert!(find(&wish("v/c", false), &dirs).unwrap().nodes.is_empty());
        assert!(find(&wish("v/c=other", true), &dirs).unwrap().nodes.is_empty());
        let refused = |name| find(&wish(name, false), &dirs).unwrap_err().to_string();
        assert!(refused("vendor.com/zero=two").contains("vendor.com/zero=two"));
        assert!(refused("vendor.com/zero=hooked").contains("hooks"));
        fs::write(dir.path().join("c.json"), "{").unwrap();
        assert!(refused("v/c").contains("c.json"));
    }
}
