//! What this process may do with files of layers: keep their owners, and mark overlay directories.
//!
//! | started by | namespace | owners | attributes |
//! |---|---|---|---|
//! | root | the first | kept | `trusted.overlay.*` |
//! | a user with subordinate IDs | its own | kept, shifted | `user.overlay.*` |
//! | a user without | its own, one ID | squashed | `user.overlay.*` |
//! | root of a container | the container's | kept | `user.overlay.*` |

use std::fs;
use std::io::ErrorKind;

use onggi_image::layer::{OverlayXattr, Ownership};
use onggi_runtime::rootless;
use onggi_sys::idmap::{IdMap, Range};

use crate::Engine;
use crate::error::{Error, Result};

/// How this process stands towards files of layers.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Whether the user who started the command is not root.
    pub rootless: bool,
    /// Whether this is the first user namespace, the host's.
    pub first_namespace: bool,
    /// Whether owners can be kept.
    pub ownership: Ownership,
    /// Which extended attributes the overlay reads here.
    pub overlay_xattr: OverlayXattr,
    /// User IDs that exist in the namespace of this process.
    pub uids: IdMap,
    /// Group IDs that exist in the namespace of this process.
    pub gids: IdMap,
}

impl Authority {
    /// Enters a user namespace if this process is not root, and says how it stands then: that of
    /// `shared`, a process of the same user, else one of its own.
    ///
    /// # Errors
    /// User namespaces are switched off on this host, or the set-uid programs refuse.
    pub fn acquire(shared: Option<rustix::process::Pid>) -> Result<Self> {
        let join = |process| !rootless::privileged().unwrap_or(true) && rootless::join(process).is_ok();
        // It may have ended at this moment.
        if !shared.is_some_and(join) {
            rootless::enter()?;
        }
        let read = |path: &'static str| {
            let text = fs::read_to_string(path);
            text.map(|t| IdMap::from_kernel(&t)).map_err(|source| Error::Read { path: path.into(), source })
        };
        let (uids, gids) = (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?);
        let first_namespace = matches!(uids.ranges(), [Range { inside: 0, outside: 0, count: u32::MAX }]);
        let single = count(&uids) == 1 || count(&gids) == 1;
        Ok(Self {
            rootless: uids.to_outside(0) != Some(0),
            first_namespace,
            ownership: if single { Ownership::Squash } else { Ownership::Keep },
            // trusted.* attributes need CAP_SYS_ADMIN in the first namespace.
            overlay_xattr: if first_namespace { OverlayXattr::Trusted } else { OverlayXattr::User },
            uids,
            gids,
        })
    }
}

impl Engine {
    /// What a user without subordinate IDs has to know, the first time that it is asked for in a
    /// store: everything in layers belongs to him.
    pub fn squash_notice(&self) -> Result<Option<String>> {
        if self.authority()?.ownership == Ownership::Keep {
            return Ok(None);
        }
        let mark = self.store()?.root().join("cache/squash-notice");
        match fs::File::create_new(&mark) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            Err(source) => return Err(Error::Write { path: mark, source }),
            Ok(_) => {}
        }
        Ok(Some(
            "there are no subordinate IDs for you in /etc/subuid and /etc/subgid, so every file of an image \
             belongs to you, and containers have one user only (`usermod --add-subuids 100000-165535 \
             --add-subgids 100000-165535 NAME` gives you a range; pull the images again afterwards)"
                .into(),
        ))
    }
}

/// Whether the user who started the command is not the host's root: an ordinary user, also after
/// this process has become root of a user namespace.
pub fn is_rootless() -> bool {
    let map = || fs::read_to_string("/proc/self/uid_map").ok().map(|text| IdMap::from_kernel(&text));
    !rustix::process::geteuid().is_root() || map().is_some_and(|map| map.to_outside(0) != Some(0))
}

/// How many IDs a map has; those of our own making begin at 0 and have no gap.
fn count(map: &IdMap) -> u64 {
    map.ranges().iter().map(|range| u64::from(range.count)).sum()
}
