//! What an entry of an archive says of itself, checked.

use rustix::fs::{Mode, Timespec, Timestamps};

use super::entries::{Entry, Kind};
use super::limits::Limits;
use super::pax::{Time, Xattr};
use super::unpack::{Ownership, Unpacked};
use super::whiteout::OverlayXattr;
use crate::{EntryProblem, Error, Result};

/// Mode, owner, time and attributes of an entry.
pub(crate) struct Meta {
    pub(crate) mode: Mode,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<Xattr>,
}

impl Meta {
    /// Of what the archive doesn't list: root's, of time 0.
    pub(crate) fn implicit(mode: u32) -> Self {
        let mode = Mode::from_raw_mode(mode);
        Self { mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
    }

    pub(super) fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime.seconds, tv_nsec: self.mtime.nanoseconds.into() };
        Timestamps { last_access: time, last_modification: time }
    }
}

impl Unpacked {
    /// Counts an entry against the limits.
    pub(crate) fn count(&mut self, entry: &Entry, limits: &Limits) -> Result<()> {
        self.entries += 1;
        if self.entries > limits.entries {
            return Err(Error::Limit { what: "the number of entries of the layer", limit: limits.entries });
        }
        if let Kind::File { size, .. } = entry.kind {
            self.bytes = self.bytes.saturating_add(size);
            if self.bytes > limits.content {
                let what = "the size of the layer's files in bytes";
                return Err(Error::Limit { what, limit: limits.content });
            }
        }
        Ok(())
    }

    /// Checks what an entry says of itself.
    pub(crate) fn admit(&mut self, entry: Entry, ownership: Ownership) -> Result<(Kind, Meta), EntryProblem> {
        // The highest number stands for "no change" in chown(2).
        let id = |id: u64, what| match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(EntryProblem::Number(what)),
        };
        let (uid, gid) = (id(entry.uid, "uid")?, id(entry.gid, "gid")?);
        self.max_id = self.max_id.max(uid).max(gid);
        if ownership == Ownership::Squash && (uid, gid) != (0, 0) {
            self.squashed += 1;
        }
        if let Some((name, _)) = entry.xattrs.iter().find(|(name, _)| OverlayXattr::owns(name)) {
            return Err(EntryProblem::OverlayXattr(String::from_utf8_lossy(name).into_owned()));
        }
        let mode = Mode::from_raw_mode(entry.mode);
        let meta = Meta { mode, uid, gid, mtime: entry.mtime, xattrs: entry.xattrs };
        Ok((entry.kind, meta))
    }
}
