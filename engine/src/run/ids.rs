//! Whose IDs a container has: how its user namespace maps them.

use std::os::fd::OwnedFd;

use onggi_sys::idmap::IdMap;

use super::idrange::IdRange;

/// The IDs of a container, held as long as it runs.
#[derive(Debug)]
pub(crate) enum Ids {
    /// Those of whoever starts it, in whose user namespace it is.
    Host,
    /// Those that the namespace has in which the caller is, in one of its own: all as they are, or in another order
    /// (`keep-id`).
    Nested(IdMap, IdMap),
    /// A range of the host's that nobody else has.
    Range(IdRange),
    /// Those of another container, whose user namespace it shares.
    Shared {
        /// Users: inside → of the caller.
        uids: IdMap,
        /// Groups.
        gids: IdMap,
        /// Whether files on disk have others.
        shifted: bool,
        /// What keeps them from being given to somebody else.
        locks: Vec<OwnedFd>,
    },
}

impl Ids {
    /// What must stay open as long as the container lives.
    pub(crate) fn into_locks(self) -> Vec<OwnedFd> {
        match self {
            Self::Host | Self::Nested(..) => Vec::new(),
            Self::Range(range) => range.into_locks(),
            Self::Shared { locks, .. } => locks,
        }
    }

    /// The maps of its user namespace; `None` if that is the caller's.
    pub(crate) fn maps(&self) -> Option<(IdMap, IdMap)> {
        match self {
            Self::Host => None,
            Self::Nested(uids, gids) | Self::Shared { uids, gids, .. } => Some((uids.clone(), gids.clone())),
            Self::Range(range) => Some((range.map(), range.map())),
        }
    }

    /// Whether its IDs are others than those of files on disk, so that mounts must be id-mapped.
    pub(crate) fn are_shifted(&self) -> bool {
        match self {
            Self::Host | Self::Nested(..) => false,
            Self::Range(_) => true,
            Self::Shared { shifted, .. } => *shifted,
        }
    }

    /// The caller's numbers of a container's user and group where they are others; those it has none
    /// for are its root's.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            Self::Host => (uid, gid),
            // The same, but for who keeps his ID.
            Self::Nested(uids, gids) => {
                (uids.to_outside(uid).unwrap_or(uid), gids.to_outside(gid).unwrap_or(gid))
            }
            Self::Range(range) => range.outside(uid, gid),
            Self::Shared { shifted: false, .. } => (uid, gid),
            Self::Shared { uids, gids, .. } => {
                let of = |map: &IdMap, id| map.to_outside(id).or(map.to_outside(0)).unwrap_or_default();
                (of(uids, uid), of(gids, gid))
            }
        }
    }
}
