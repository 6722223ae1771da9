//! What a container may do: capabilities, the system call filter, new privileges, hidden paths.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxDeviceCgroup, Spec};
use onggi_runtime::DEFAULT_CAPABILITIES;
use onggi_sys::caps;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompProfile {
    /// Docker's default profile.
    #[default]
    Builtin,
    /// None.
    Unconfined,
    /// A file in Docker's or the runtime specification's form.
    File(PathBuf),
}

/// The wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Capabilities beyond the default ones; `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities to do without; `ALL` for all.
    pub cap_drop: Vec<String>,
    /// The system call filter.
    pub seccomp: SeccompProfile,
    /// Whether programs may gain privileges from their files.
    pub new_privileges: bool,
    /// The AppArmor profile.
    pub apparmor: Option<String>,
    /// Whether hidden and read-only paths of the kernel are as the host's.
    pub all_system_paths: bool,
    /// Everything that the caller may.
    pub privileged: bool,
    /// Devices that may be used beyond those that are there.
    pub device_rules: Vec<LinuxDeviceCgroup>,
    /// Each `--security-opt` as it was given, for whoever looks.
    pub options: Vec<String>,
}

/// Whether this is a part of an SELinux label, as Docker spells it.
fn is_label(text: &str) -> bool {
    let parts = ["user", "role", "type", "level", "filetype"];
    text.split_once(':').is_some_and(|(part, value)| parts.contains(&part) && !value.is_empty())
}

impl Security {
    /// Takes one `--security-opt`.
    pub fn add_option(&mut self, text: &str) -> Result<()> {
        let bad = |problem: &str| Error::flag("--security-opt", format!("{problem}: {text:?}"));
        // Docker of old separated by a colon.
        let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        match (key, value) {
            ("no-new-privileges", None | Some("true")) => self.new_privileges = false,
            ("no-new-privileges", Some("false")) => self.new_privileges = true,
            ("seccomp", Some("unconfined")) => self.seccomp = SeccompProfile::Unconfined,
            ("seccomp", Some("builtin" | "default")) => self.seccomp = SeccompProfile::Builtin,
            ("seccomp", Some(file)) if !file.is_empty() => self.seccomp = SeccompProfile::File(file.into()),
            ("apparmor", Some("unconfined")) => self.apparmor = None,
            ("apparmor", Some(profile)) if !profile.is_empty() => self.apparmor = Some(profile.into()),
            ("label", Some("disable")) => {}
            // Labels have no effect where the host has none, as with `:z` of a mount.
            ("label", Some(label)) if is_label(label) && !Path::new("/sys/fs/selinux/enforce").exists() => {}
            ("label", Some(_)) => {
                return Err(Error::flag_unsupported(
                    "--security-opt label",
                    "SELinux is not supported (label=disable is; on a host without SELinux labels have no effect)",
                ));
            }
            ("systempaths", Some("unconfined")) => self.all_system_paths = true,
            _ => {
                return Err(bad(
                    "invalid --security-opt (known: seccomp, no-new-privileges, apparmor, label, systempaths=unconfined)",
                ));
            }
        }
        self.options.push(text.into());
        Ok(())
    }

    /// Checks names and what the host has.
    pub(crate) fn check(&self) -> Result<()> {
        self.capabilities()?;
        if self.apparmor.is_some() && !Path::new("/sys/kernel/security/apparmor").exists() {
            return Err(Error::flag_unsupported("--security-opt apparmor", "this host has no AppArmor"));
        }
        Ok(())
    }

    /// The capabilities, by Docker's rules: `ALL` first, then what is dropped, then what is added.
    fn capabilities(&self) -> Result<HashSet<Capability>> {
        let read = |flag: &str, names: &[String]| -> Result<(bool, caps::Set)> {
            let (mut all, mut set) = (false, caps::Set::EMPTY);
            for name in names {
                if name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("cap_all") {
                    all = true;
                } else {
                    let known = set.with(name);
                    set = known.ok_or_else(|| Error::flag(flag, format!("unknown capability: {name:?}")))?;
                }
            }
            Ok((all, set))
        };
        let (add_all, add) = read("--cap-add", &self.cap_add)?;
        let (drop_all, drop) = read("--cap-drop", &self.cap_drop)?;
        let every = || caps::Set::ALL.names().filter_map(capability);
        let has = |set: &caps::Set, one: &Capability| set.contains(named(*one));
        Ok(if self.privileged {
            every().collect()
        } else if add_all {
            every().filter(|one| !has(&drop, one)).collect()
        } else if drop_all {
            every().filter(|one| has(&add, one)).collect()
        } else {
            let kept = DEFAULT_CAPABILITIES.into_iter().filter(|one| !has(&drop, one));
            kept.chain(every().filter(|one| has(&add, one))).collect()
        })
    }

    /// Writes the wishes into the specification.
    pub(crate) fn apply(&self, spec: &mut Spec) -> Result<()> {
        let plain = self.cap_add.is_empty() && self.cap_drop.is_empty() && !self.privileged;
        if let Some(process) = spec.process_mut() {
            if !plain {
                process.set_capabilities(Some(sets(self.capabilities()?)));
            }
            process.set_no_new_privileges(Some(!self.new_privileges && !self.privileged));
            process.set_apparmor_profile(self.apparmor.clone());
        }
        if (self.all_system_paths || self.privileged)
            && let Some(linux) = spec.linux_mut()
        {
            linux.set_masked_paths(None).set_readonly_paths(None);
        }
        if self.privileged {
            let mut mounts = spec.mounts().clone().unwrap_or_default();
            for mount in &mut mounts {
                if mount.destination().starts_with("/sys") {
                    let options = mount.options().iter().flatten();
                    mount.set_options(Some(options.filter(|option| *option != "ro").cloned().collect()));
                }
            }
            spec.set_mounts(Some(mounts));
        }
        Ok(())
    }
}

/// The three sets that Docker fills; inheritable and ambient ones stay empty.
pub(crate) fn sets(set: HashSet<Capability>) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

/// Every capability that this program has a name for.
pub(crate) fn every() -> HashSet<Capability> {
    caps::Set::ALL.names().filter_map(capability).collect()
}

fn capability(name: &str) -> Option<Capability> {
    name.strip_prefix("CAP_").unwrap_or(name).parse().ok()
}

fn named(capability: Capability) -> caps::Set {
    caps::Set::EMPTY.with(&capability.to_string()).unwrap_or_default()
}

/// The bounding set of a process, as the filter asks for it.
pub(crate) fn bounding(process: &oci_spec::runtime::Process) -> caps::Set {
    let list = process.capabilities().as_ref().and_then(|sets| sets.bounding().as_ref());
    list.into_iter().flatten().fold(caps::Set::EMPTY, |set, one| set.with(&one.to_string()).unwrap_or(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(add: &[&str], drop: &[&str]) -> HashSet<Capability> {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Security { cap_add: list(add), cap_drop: list(drop), ..Security::default() }.capabilities().unwrap()
    }

    #[test]
    fn every_capability_has_a_name_on_both_sides() {
        assert_eq!(every().len(), caps::NAMES.len());
        for one in every() {
            assert!(!named(one).is_empty(), "{one}");
        }
    }

    #[test]
    fn capabilities_add_up_as_dockers() {
        assert_eq!(capabilities(&[], &[]).len(), 14);
        assert_eq!(capabilities(&["net_admin"], &["CAP_MKNOD", "chown"]).len(), 13);
        assert_eq!(capabilities(&["ALL"], &["SYS_ADMIN"]).len(), caps::NAMES.len() - 1);
        assert_eq!(capabilities(&["CAP_SYS_TIME"], &["all"]), [Capability::SysTime].into());
        assert!(capabilities(&[], &["ALL"]).is_empty());
        let unknown = Security { cap_add: vec!["NO_SUCH".into()], ..Security::default() };
        assert!(unknown.check().unwrap_err().to_string().contains("NO_SUCH"));
    }

    #[test]
    fn options_are_read_and_unknown_ones_named() {
        let mut security = Security::default();
        for option in
            ["no-new-privileges=false", "seccomp:unconfined", "systempaths=unconfined", "label=disable"]
        {
            security.add_option(option).unwrap();
        }
        assert!(security.new_privileges && security.all_system_paths);
        assert_eq!(security.seccomp, SeccompProfile::Unconfined);
        for bad in ["nothing", "label=x", "seccomp=", "no-new-privileges=maybe", "systempaths=x"] {
            assert!(security.add_option(bad).is_err(), "{bad}");
        }
    }
}
