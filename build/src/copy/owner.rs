//! Owners by name, looked up in the image that is being made. Its files are not trusted: they are
//! opened inside the tree, must be regular, and are read up to a limit.

use std::path::Path;

use crate::error::{Error, Result};
use crate::graph::{Owner, Principal};
use crate::tree::Tree;

/// The most of a passwd or group file that is read; the largest real ones are far below.
const MAX_DATABASE: u64 = 4 << 20;
/// The largest ID: the kernel keeps the number above for "no ID".
const MAX_ID: u32 = u32::MAX - 1;

/// User and group by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Looks the names up; `tree` is `None` where there is nothing below (`COPY --link`).
pub(crate) fn resolve(owner: &Owner, tree: Option<&Tree>) -> Result<Ids> {
    let (uid, own_gid) = match &owner.user {
        None => (0, 0),
        Some(Principal::Id(uid)) => (*uid, *uid),
        Some(Principal::Name(name)) => {
            let line = find(tree, "user", "/etc/passwd", name)?;
            (field(&line, 2, "user")?, field(&line, 3, "group")?)
        }
    };
    let gid = match &owner.group {
        None => own_gid,
        Some(Principal::Id(gid)) => *gid,
        Some(Principal::Name(name)) => field(&find(tree, "group", "/etc/group", name)?, 2, "group")?,
    };
    for (what, id) in [("user ID", uid), ("group ID", gid)] {
        if id > MAX_ID {
            let problem = format!("the largest is {MAX_ID}");
            return Err(Error::Invalid { what, text: id.to_string(), problem });
        }
    }
    Ok(Ids { uid, gid })
}

fn find(tree: Option<&Tree>, kind: &'static str, file: &'static str, name: &str) -> Result<String> {
    let text = match tree {
        Some(tree) => tree.read_small(Path::new(file), MAX_DATABASE)?.unwrap_or_default(),
        None => Vec::new(),
    };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    line.map(str::to_owned).ok_or_else(|| Error::UnknownName { kind, name: name.into(), file })
}

fn field(line: &str, number: usize, what: &'static str) -> Result<u32> {
    let text = line.split(':').nth(number).unwrap_or_default();
    text.parse().map_err(|_| Error::Invalid {
        what,
        text: line.into(),
        problem: "the image's entry has no number".into(),
    })
}
