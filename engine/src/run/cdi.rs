//! Devices by the names that their vendors gave them (Container Device Interface, `cdiVersion` 0.3 to 1.0).
//!
//! ```text
//!   /etc/cdi/*.{json,yaml}  /var/run/cdi/*.{json,yaml}        the latter's word counts
//!     kind: vendor.com/class
//!     devices: [{name: first, containerEdits: {deviceNodes: [{path, hostPath, permissions}], env: [A=b]}}]
//!     containerEdits: …                                     what all of them need
//! ```
//!
//! Somebody may have `vendor.com/class=name`, or `vendor.com/class` for all of a class. Descriptions may also ask for
//! mounts, for groups, and for programs of the host that are run on the way (hooks): a container gets them, the steps of a build
//! don't, and are refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{HookBuilder, Hooks};
use serde::{Deserialize, Serialize};

use super::device::{self, Device, Node};
use super::mounts::{MountKind, MountPoint};
use crate::error::{Error, Result};

/// The most that is read of a description; those of large machines have some hundred kilobytes.
const MAX_SPEC: u64 = 4 << 20;

/// What a description adds to a container.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// Device nodes.
    pub(crate) nodes: Vec<Node>,
    /// `NAME=value`
    pub(crate) env: Vec<String>,
    /// Files and directories of the host.
    pub(crate) mounts: Vec<MountPoint>,
    /// Groups of the program.
    pub(crate) groups: Vec<u32>,
    /// Programs of the host.
    pub(crate) hooks: Option<Hooks>,
}

/// GPUs that somebody wishes, as Docker's `--gpus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpus {
    /// How many, the first ones; -1 for all.
    pub count: i64,
    /// Those of these numbers or names; then there is no count.
    pub devices: Vec<String>,
}

impl Gpus {
    /// The names that NVIDIA's descriptions give them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let name = |device: &str| format!("nvidia.com/gpu={device}");
        match self.count {
            _ if !self.devices.is_empty() => self.devices.iter().map(|device| name(device)).collect(),
            -1 => vec![name("all")],
            count => (0..count).map(|number| name(&number.to_string())).collect(),
        }
    }
}

/// A device that somebody is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// How it was wished, for errors.
    pub(crate) flag: &'a str,
    /// `vendor.com/class=name`, or `vendor.com/class`.
    pub(crate) name: &'a str,
    /// Whether it may be missing.
    pub(crate) optional: bool,
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
    mounts: Vec<WantedMount>,
    #[serde(default)]
    hooks: Vec<WantedHook>,
    #[serde(default)]
    additional_gids: Vec<u32>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WantedMount {
    host_path: PathBuf,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WantedHook {
    hook_name: String,
    path: PathBuf,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    timeout: Option<i64>,
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

/// Finds what these devices need, in these directories; the last one that describes a device counts.
///
/// # Errors
/// A device that is required is described nowhere; its description asks for what nobody gets.
pub(crate) fn find(wishes: &[Wish<'_>], dirs: &[PathBuf]) -> Result<Edits> {
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
            let remedy = if wish.name.starts_with("nvidia.com/") {
                "; `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` describes those of NVIDIA"
            } else {
                ""
            };
            return Err(Error::flag_unsupported(
                format!("{}={}", wish.flag, wish.name),
                format!("no device of this name is described in {}{remedy}", places.join(" or ")),
            ));
        }
        for (name, wanted) in found {
            for wanted in wanted {
                edits.add(&format!("{}={name}", wish.flag), wanted)?;
            }
        }
    }
    Ok(edits)
}

impl Edits {
    /// Refuses what the steps of a build do not get.
    ///
    /// # Errors
    /// There is such a thing.
    pub(crate) fn for_a_step(self, flag: &str) -> Result<Self> {
        let refuse = |what: &str| {
            let why = format!("the description asks for {what}, which the steps of a build do not get");
            Err(Error::flag_unsupported(flag.to_owned(), why))
        };
        if !self.mounts.is_empty() {
            return refuse("mounts");
        }
        if self.hooks.is_some() {
            return refuse("hooks");
        }
        if let Some(node) = self.nodes.iter().find(|node| node.is_partial()) {
            let what = format!("{} to be read or written only", node.target.display());
            return refuse(&what);
        }
        Ok(self)
    }

    fn add(&mut self, flag: &str, wanted: &Wanted) -> Result<()> {
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
            if !self.nodes.iter().any(|one| one.target == node.target) {
                self.nodes.push(node);
            }
        }
        for mount in &wanted.mounts {
            if !self.mounts.iter().any(|one| one.target == mount.container_path) {
                self.mounts.push(point(mount));
            }
        }
        for hook in &wanted.hooks {
            self.hook(flag, hook)?;
        }
        self.env.extend(wanted.env.iter().cloned());
        self.groups.extend(wanted.additional_gids.iter().filter(|group| **group != 0));
        Ok(())
    }

    fn hook(&mut self, flag: &str, wanted: &WantedHook) -> Result<()> {
        let hook = HookBuilder::default().path(&wanted.path).build();
        let mut hook = hook.map_err(Error::specification)?;
        hook.set_args(wanted.args.clone()).set_env(wanted.env.clone()).set_timeout(wanted.timeout);
        let hooks = self.hooks.get_or_insert_default();
        macro_rules! push {
            ($get:ident, $set:ident) => {{
                let list = hooks.$get().iter().flatten().cloned().chain([hook]).collect();
                hooks.$set(Some(list));
            }};
        }
        match &*wanted.hook_name {
            "prestart" | "createRuntime" => push!(create_runtime, set_create_runtime),
            "createContainer" => push!(create_container, set_create_container),
            "startContainer" => push!(start_container, set_start_container),
            other => {
                let why = format!("the description asks for a hook {other:?}, which is not run here");
                return Err(Error::flag_unsupported(flag.to_owned(), why));
            }
        }
        Ok(())
    }
}

/// A mount of a description as one of a container.
fn point(mount: &WantedMount) -> MountPoint {
    let has = |word: &str| mount.options.iter().any(|option| option == word);
    let known = ["ro", "rw", "bind", "rbind"];
    MountPoint {
        target: mount.container_path.clone(),
        kind: MountKind::Bind,
        name: None,
        source: mount.host_path.clone(),
        image: None,
        subpath: None,
        read_only: has("ro"),
        recursive: has("rbind"),
        options: mount.options.iter().filter(|option| !known.contains(&option.as_str())).cloned().collect(),
        chown: false,
        copy: false,
        anonymous: false,
    }
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
    fn a_description_gives_what_it_says_and_steps_less() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().join("none"), dir.path().to_owned()];
        fs::write(dir.path().join("a.yaml"), SPEC).unwrap();
        fs::write(
            dir.path().join("b.json"),
            r#"{"cdiVersion":"0.5.0","kind":"v/c","devices":[{"name":"n"}]}"#,
        )
        .unwrap();
        let find = |name: &str, optional| find(&[Wish { flag: "--device", name, optional }], &dirs);
        let found = find("vendor.com/zero=one", false).unwrap();
        assert_eq!(found.env, ["OF=all", "ONE=1"]);
        assert_eq!(found.nodes[0].target, Path::new("/dev/one"));
        assert!(found.for_a_step("RUN --device").is_ok());
        assert!(find("v/c", false).unwrap().nodes.is_empty());
        assert!(find("v/c=other", true).unwrap().nodes.is_empty());
        let hooked = find("vendor.com/zero=hooked", false).unwrap();
        assert_eq!(hooked.hooks.as_ref().unwrap().create_container().as_ref().unwrap().len(), 1);
        let refused = |result: Result<Edits>| result.unwrap_err().to_string();
        assert!(refused(hooked.for_a_step("RUN --device=vendor.com/zero=hooked")).contains("hooks"));
        assert!(refused(find("vendor.com/zero=two", false)).contains("vendor.com/zero=two"));
        assert!(refused(find("nvidia.com/gpu=all", false)).contains("nvidia-ctk"));
        fs::write(dir.path().join("c.json"), "{").unwrap();
        assert!(refused(find("v/c", false)).contains("c.json"));
    }
}
