//! `--userns=keep-id`: a container of an ordinary user in which he has his own number, or one that he names, and in
//! which the image's files have the image's owners.
//!
//! ```text
//!   host      you                subordinate IDs …
//!   store     0      1 … U          U+1 …            the namespace in which an ordinary user's onggi works
//!   inside    U      0 … U−1        U+1 …            U: your number, or uid=N
//! ```
//!
//! Layers on disk have the image's owners as the store's numbers, so the container gets copies of them with the
//! numbers of the second line ([`onggi_image::store::Store::shifted`]). Bind mounts need nothing: what is yours on the host is yours
//! inside.

use onggi_image::layer::{Ownership, Shift};
use onggi_image::snapshot::Snapshot;
use onggi_image::store::Layer;
use onggi_sys::idmap::{IdMap, Range};
use serde::{Deserialize, Serialize};

use super::files::HostFile;
use super::request::RunRequest;
use super::user;
use crate::authority::Authority;
use crate::containers::Record;
use crate::error::{Error, Result};
use crate::{Engine, run};

/// What the caller says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeepId {
    /// The caller's user ID inside; his own if it isn't said.
    pub uid: Option<u32>,
    /// The caller's group ID inside.
    pub gid: Option<u32>,
    /// How many IDs there are inside; all that he has if it isn't said.
    pub size: Option<u32>,
}

/// The same, worked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) shift: Shift,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// His ID on the host.
    of_host: u32,
}

impl Kept {
    /// Refuses what has a user or group of this number if there is none inside.
    pub(crate) fn must_have(&self, id: u32) -> Result<()> {
        // Of a user or of a group: what has one of them is looked at again when it is copied.
        if self.shift.uids.to_outside(id).is_some() || self.shift.gids.to_outside(id).is_some() {
            return Ok(());
        }
        let problem = format!(
            "keep-id: the image or the wish has the user or group {id}, and there is no such ID inside"
        );
        Err(Error::flag("--userns", problem))
    }

    /// Who the program is if nobody says.
    pub(crate) fn user(&self) -> String {
        format!("{}:{}", self.uid, self.gid)
    }
}

impl KeepId {
    pub(crate) fn resolve(&self, authority: &Authority) -> Result<Kept> {
        let problem = |why: &str| Err(Error::flag("--userns", why.to_owned()));
        if authority.first_namespace {
            return problem(
                "keep-id is only supported in rootless mode: an ordinary user keeps his ID, root has all",
            );
        }
        if authority.ownership == Ownership::Squash {
            return problem(
                "keep-id needs subordinate IDs: add lines for you to /etc/subuid and /etc/subgid",
            );
        }
        let own = |map: &IdMap| map.to_outside(0).unwrap_or_default();
        let (uid, gid) = (
            self.uid.unwrap_or_else(|| own(&authority.uids)),
            self.gid.unwrap_or_else(|| own(&authority.gids)),
        );
        let map = |id, of: &IdMap| {
            let has = count(of);
            match self.size {
                Some(size) if size > has => {
                    let why = format!(
                        "size={size}: you have {has} IDs: see your lines in /etc/subuid and /etc/subgid"
                    );
                    Err(Error::flag("--userns", why))
                }
                size => kept(id, size.unwrap_or(has)),
            }
        };
        let shift = Shift { uids: map(uid, &authority.uids)?, gids: map(gid, &authority.gids)? };
        Ok(Kept { shift, uid, gid, of_host: own(&authority.uids) })
    }
}

/// How many IDs there are from 0 on without a gap.
fn count(map: &IdMap) -> u32 {
    let mut ranges = map.ranges().to_vec();
    ranges.sort_by_key(|range| range.inside);
    ranges.iter().fold(0, |end, range| if range.inside == end { end + range.count } else { end })
}

/// Of `size` IDs, 0 outside is `id` inside, and the others move up to make room for it.
fn kept(id: u32, size: u32) -> Result<IdMap> {
    let below = id.min(size.saturating_sub(1));
    let above = size.saturating_sub(1).saturating_sub(below);
    let ranges = [
        Range { inside: 0, outside: 1, count: below },
        Range { inside: id, outside: 0, count: 1 },
        Range { inside: id.saturating_add(1), outside: below.saturating_add(1), count: above },
    ];
    IdMap::new(ranges.into_iter().filter(|range| range.count > 0).collect())
        .map_err(|why| Error::flag("--userns", format!("keep-id: {why}")))
}

impl Engine {
    /// Whose numbers a container has, if it keeps its user's.
    pub(crate) fn kept_ids(&self, request: &RunRequest) -> Result<Option<Kept>> {
        request.namespaces.keep_id.map(|keep| keep.resolve(self.authority()?)).transpose()
    }

    /// How the files of a container differ in their owners from what it sees.
    pub(crate) fn shift_of(&self, record: &Record) -> Result<Option<Shift>> {
        Ok(self.kept_ids(&record.request)?.map(|kept| kept.shift))
    }

    /// The layers as a container needs them: with other owners if it keeps its user's ID. To be called while
    /// something protects them.
    pub(crate) fn layers_for(&self, request: &RunRequest, layers: Vec<Layer>) -> Result<Vec<Layer>> {
        let Some(kept) = self.kept_ids(request)? else { return Ok(layers) };
        let store = self.store()?;
        kept.must_have(layers.iter().map(|layer| layer.record.max_id).max().unwrap_or_default())?;
        layers.iter().map(|layer| Ok(store.shifted(layer, &kept.shift)?)).collect()
    }
}

/// `/etc/passwd` and `/etc/group` of the image with an entry for a user who has none there, to be put over the
/// image's own.
pub(crate) fn names(
    record: &Record,
    image: &Snapshot,
    kept: &Kept,
    dir: &std::path::Path,
) -> Result<Vec<HostFile>> {
    let [passwd, group] = user::databases(image)?;
    let host = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = user::name_of(&host, kept.of_host)
        .filter(|name| !user::has_name(&passwd, name))
        .unwrap_or_else(|| format!("user{}", kept.uid));
    let config = &record.image.config;
    let home = run::process::working_dir(config, record.request.workdir.as_deref())?;
    let mut files = Vec::new();
    let mut add = |file: &str, target, text: String| -> Result<()> {
        let source = dir.join(file);
        std::fs::write(&source, text)
            .map_err(|error| Error::Write { path: source.clone(), source: error })?;
        files.push(HostFile { source, target });
        Ok(())
    };
    let with = |text: &str, line: String| {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        format!("{text}{end}{line}\n")
    };
    if user::name_of(&passwd, kept.uid).is_none() {
        let line = format!("{name}:*:{}:{}::{}:/bin/sh", kept.uid, kept.gid, home);
        add("passwd", "/etc/passwd", with(&passwd, line))?;
    }
    if !user::has_group(&group, kept.gid) {
        add("group", "/etc/group", with(&group, format!("{name}:x:{}:", kept.gid)))?;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(id: u32, size: u32) -> Vec<(u32, u32, u32)> {
        kept(id, size).unwrap().ranges().iter().map(|r| (r.inside, r.outside, r.count)).collect()
    }

    #[test]
    fn everybody_but_the_user_moves_up() {
        assert_eq!(ranges(1000, 65_537), [(0, 1, 1000), (1000, 0, 1), (1001, 1001, 64_536)]);
        assert_eq!(ranges(0, 3), [(0, 0, 1), (1, 1, 2)]);
        assert_eq!(ranges(2, 3), [(0, 1, 2), (2, 0, 1)]);
        // One above all others.
        assert_eq!(ranges(100_000, 3), [(0, 1, 2), (100_000, 0, 1)]);
        assert_eq!(ranges(7, 1), [(7, 0, 1)]);
    }

    #[test]
    fn ids_without_a_gap_count() {
        let map = |list: &[(u32, u32, u32)]| {
            let range = |&(inside, outside, count)| Range { inside, outside, count };
            IdMap::new(list.iter().map(range).collect()).unwrap()
        };
        assert_eq!(count(&map(&[(1, 100_000, 65_536), (0, 1000, 1)])), 65_537);
        assert_eq!(count(&map(&[(0, 1000, 1), (5, 100_000, 10)])), 1);
    }
}
