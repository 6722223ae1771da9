//! The mounts of a specification, read and checked.
//!
//! Options are the words of mount(8); a bind mount takes only the words listed
//! here, a filesystem gets what is left as its own parameters, one by one, so
//! that no value can smuggle in a second one.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;
use onggi_sys::idmap::IdMap;
use onggi_sys::mount::{Attributes, Propagation};

use crate::error::{Error, Result};
use crate::plan::id_map;

/// One mount, ready to be made.
#[derive(Debug)]
pub(crate) struct MountPlan {
    /// Where, absolute and without `.` or `..`.
    pub(crate) destination: PathBuf,
    pub(crate) source: Source,
    /// For this mount.
    pub(crate) set: Attributes,
    pub(crate) clear: Attributes,
    /// For this mount and all below.
    pub(crate) set_below: Attributes,
    pub(crate) clear_below: Attributes,
    pub(crate) propagation: Option<(Propagation, bool)>,
    pub(crate) idmap: Option<Shift>,
    /// Fill a tmpfs with what the image has there.
    pub(crate) copy_up: bool,
}

/// An id-mapped mount.
#[derive(Debug)]
pub(crate) struct Shift {
    /// The maps; `None` for those of the container.
    pub(crate) maps: Option<(IdMap, IdMap)>,
    pub(crate) recursive: bool,
}

#[derive(Debug)]
pub(crate) enum Source {
    /// A new filesystem instance.
    Filesystem { kind: String, parameters: Vec<(String, Option<String>)> },
    /// A directory or file of the host.
    Bind {
        path: PathBuf,
        recursive: bool,
        /// Cloned by the parent where that has the authority.
        tree: Option<OwnedFd>,
        /// Known once cloned.
        directory: bool,
    },
    /// The control groups, whatever form they have on this host.
    Cgroup,
}

/// A cleaned absolute path: what `..` means is decided here, not by links.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

impl MountPlan {
    /// Reads one mount; relative bind sources are below `bundle`.
    pub(crate) fn read(mount: &Mount, bundle: &Path) -> Result<Self> {
        let what = || format!("mount on {}", mount.destination().display());
        let mut plan = Self {
            destination: clean(mount.destination()),
            source: Source::Cgroup,
            set: Attributes::NONE,
            clear: Attributes::NONE,
            set_below: Attributes::NONE,
            clear_below: Attributes::NONE,
            propagation: None,
            idmap: None,
            copy_up: false,
        };
        if plan.destination == Path::new("/") {
            return Err(Error::invalid(what(), "the root itself can't be a mount's destination"));
        }
        let mut bind = mount.typ().as_deref() == Some("bind");
        let mut recursive = false;
        let mut rest = Vec::new();
        for option in mount.options().iter().flatten() {
            match option.as_str() {
                "bind" => bind = true,
                "rbind" => (bind, recursive) = (true, true),
                "tmpcopyup" => plan.copy_up = true,
                "idmap" => plan.idmap = Some(Shift { maps: None, recursive: false }),
                "ridmap" => plan.idmap = Some(Shift { maps: None, recursive: true }),
                other if plan.attribute(other) || plan.propagate(other) => {}
                "defaults" | "async" | "rw" | "nolazytime" | "nomand" | "nosync" | "silent" | "loud" => {}
                other => rest.push(other.to_owned()),
            }
        }
        match (mount.uid_mappings(), mount.gid_mappings()) {
            (None, None) => {}
            (Some(uids), Some(gids)) => {
                let recursive = plan.idmap.as_ref().is_some_and(|shift| shift.recursive);
                let maps = Some((id_map("mount uidMappings", uids)?, id_map("mount gidMappings", gids)?));
                plan.idmap = Some(Shift { maps, recursive });
            }
            _ => return Err(Error::invalid(what(), "uidMappings and gidMappings must be given together")),
        }
        let kind = mount.typ().as_deref().unwrap_or(if bind { "bind" } else { "none" });
        if bind {
            if let Some(unknown) = rest.first() {
                return Err(Error::invalid(what(), format!("unknown option {unknown:?} of a bind mount")));
            }
            let Some(source) = mount.source() else {
                return Err(Error::invalid(what(), "a bind mount needs a source"));
            };
            let path = if source.is_absolute() { source.clone() } else { bundle.join(source) };
            plan.source = Source::Bind { path, recursive, tree: None, directory: true };
        } else if matches!(kind, "cgroup" | "cgroup2") {
            plan.source = Source::Cgroup;
        } else {
            let mut parameters = Vec::new();
            let named = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
            // Pseudo filesystems take any source; it is what /proc/mounts shows.
            if let Some(source) = named.and_then(|source| source.to_str()) {
                parameters.push(("source".to_owned(), Some(source.to_owned())));
            }
            for option in rest {
                parameters.push(match option.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (option, None),
                });
            }
            plan.source = Source::Filesystem { kind: kind.to_owned(), parameters };
        }
        if plan.idmap.is_some() && !bind {
            return Err(Error::unsupported(what(), "only bind mounts can be id-mapped"));
        }
        Ok(plan)
    }

    /// A mount that exists already.
    pub(crate) fn detached(target: &Path, tree: OwnedFd) -> Result<Self> {
        let (kind, _) = onggi_sys::path::kind(tree.as_fd())
            .map_err(Error::io("look at the mount for", target.display().to_string()))?;
        let directory = kind == rustix::fs::FileType::Directory;
        let path = PathBuf::from("a detached mount");
        Ok(Self {
            destination: clean(target),
            source: Source::Bind { path, recursive: true, tree: Some(tree), directory },
            set: Attributes::NONE,
            clear: Attributes::NONE,
            set_below: Attributes::NONE,
            clear_below: Attributes::NONE,
            propagation: None,
            idmap: None,
            copy_up: false,
        })
    }

    /// Takes the word if it is an attribute of mounts.
    fn attribute(&mut self, word: &str) -> bool {
        const SIMPLE: [(&str, Attributes, bool); 15] = [
            ("ro", Attributes::READ_ONLY, true),
            ("rw", Attributes::READ_ONLY, false),
            ("nosuid", Attributes::NO_SUID, true),
            ("suid", Attributes::NO_SUID, false),
            ("nodev", Attributes::NO_DEV, true),
            ("dev", Attributes::NO_DEV, false),
            ("noexec", Attributes::NO_EXEC, true),
            ("exec", Attributes::NO_EXEC, false),
            ("nodiratime", Attributes::NO_DIR_ATIME, true),
            ("diratime", Attributes::NO_DIR_ATIME, false),
            ("nosymfollow", Attributes::NO_SYMFOLLOW, true),
            ("symfollow", Attributes::NO_SYMFOLLOW, false),
            ("norelatime", Attributes::NONE, true),
            ("nostrictatime", Attributes::NONE, true),
            ("atime", Attributes::NONE, true),
        ];
        /// The access time modes are one field: setting one clears the others.
        const TIMES: [(&str, Attributes); 3] = [
            ("noatime", Attributes::NO_ATIME),
            ("strictatime", Attributes::STRICT_ATIME),
            ("relatime", Attributes::NONE),
        ];
        let (bare, below) = match word.strip_prefix('r') {
            Some(bare) if word != "ro" && word != "rw" && word != "relatime" => (bare, true),
            _ => (word, false),
        };
        let (set, clear) = if below {
            (&mut self.set_below, &mut self.clear_below)
        } else {
            (&mut self.set, &mut self.clear)
        };
        if let Some((_, attribute, on)) = SIMPLE.iter().find(|(name, ..)| *name == bare) {
            if *on {
                *set = set.with(*attribute);
                *clear = clear.without(*attribute);
            } else {
                *clear = clear.with(*attribute);
                *set = set.without(*attribute);
            }
            return true;
        }
        if let Some((_, mode)) = TIMES.iter().find(|(name, _)| *name == bare) {
            *clear = clear.with(Attributes::ATIME_MASK);
            *set = set.without(Attributes::ATIME_MASK).with(*mode);
            return true;
        }
        false
    }

    fn propagate(&mut self, word: &str) -> bool {
        let found = propagation(word);
        if found.is_some() {
            self.propagation = found;
        }
        found.is_some()
    }
}

/// A propagation word, and whether it is for all mounts below.
pub(crate) fn propagation(word: &str) -> Option<(Propagation, bool)> {
    Some(match word {
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

/// Clones the source of a bind mount with the caller's authority, so that the
/// container gets exactly what the path meant now. Without the authority (an
/// ordinary user) it stays for the child, which has it over its own mounts.
pub(crate) fn open_source(mount: &mut MountPlan) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let Source::Bind { path, recursive, tree, directory } = &mut mount.source else { return Ok(()) };
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::invalid("mount source", "has a NUL byte"))?;
    match onggi_sys::mount::clone_tree(rustix::fs::CWD, &name, *recursive) {
        Ok(fd) => {
            let (kind, _) = onggi_sys::path::kind(fd.as_fd())
                .map_err(Error::io("look at mount source", path.display().to_string()))?;
            *directory = kind == rustix::fs::FileType::Directory;
            *tree = Some(fd);
            Ok(())
        }
        Err(error) if error.raw_os_error() == Some(libc_eperm()) => Ok(()),
        Err(error) => Err(Error::io("open mount source", path.display().to_string())(error)),
    }
}

fn libc_eperm() -> i32 {
    rustix::io::Errno::PERM.raw_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::MountBuilder;

    fn read(kind: &str, options: &[&str]) -> Result<MountPlan> {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let mount = MountBuilder::default().destination("/a/../mnt").source("src").typ(kind).options(options);
        MountPlan::read(&mount.build().unwrap(), Path::new("/bundle"))
    }

    #[test]
    fn options_become_attributes() {
        let plan = read("bind", &["rbind", "ro", "nosuid", "rslave", "rnoexec", "relatime"]).unwrap();
        assert_eq!(plan.destination, Path::new("/mnt"));
        assert!(
            matches!(&plan.source, Source::Bind { path, recursive: true, .. } if path == Path::new("/bundle/src"))
        );
        assert_eq!(plan.set, Attributes::READ_ONLY.with(Attributes::NO_SUID));
        assert_eq!(plan.set_below, Attributes::NO_EXEC);
        assert!(plan.clear.contains(Attributes::ATIME_MASK));
        assert_eq!(plan.propagation, Some((Propagation::Slave, true)));
        let last_wins = read("bind", &["ro", "rw"]).unwrap();
        assert_eq!(last_wins.set, Attributes::NONE);
    }

    #[test]
    fn a_bind_takes_no_filesystem_options() {
        let error = read("bind", &["size=1m"]).unwrap_err().to_string();
        assert!(error.contains("size=1m"), "{error}");
        let plan = read("tmpfs", &["size=1m", "mode=755", "nosuid"]).unwrap();
        let Source::Filesystem { parameters, .. } = plan.source else { panic!() };
        assert_eq!(parameters[1], ("size".to_owned(), Some("1m".to_owned())));
        assert_eq!(parameters.len(), 3);
    }
}
