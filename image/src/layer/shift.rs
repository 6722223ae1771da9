//! Owners that differ between an archive and a tree: the archive has a container's numbers, the tree those that the
//! container's user namespace makes of them.

use onggi_sys::idmap::IdMap;

/// The maps of a user namespace, inside → outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    /// Of users.
    pub uids: IdMap,
    /// Of groups.
    pub gids: IdMap,
}

impl Shift {
    /// What the tree has for an owner of the archive; `None` for one that the namespace doesn't have.
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((self.uids.to_outside(uid)?, self.gids.to_outside(gid)?))
    }

    /// What the archive has for an owner in the tree: its own number where the namespace has none for it.
    pub fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        (self.uids.to_inside(uid).unwrap_or(uid), self.gids.to_inside(gid).unwrap_or(gid))
    }
}
