//! Changes to files: what `COPY`, `ADD` and `WORKDIR` do to a tree, as BuildKit does it.
//!
//! Everything happens below two held directories, the source's and the destination's root; see
//! [`crate::tree`] for how paths are resolved. Rules worth knowing:
//!
//! - links in the destination's path are followed inside of the tree; but a directory that is copied
//!   onto a link below the destination is an error;
//! - a directory that exists keeps its owner and mode if it is the destination itself, and takes the
//!   source's if it lies below;
//! - a file replaces a file or a link, never a directory.

mod copier;
mod mode;
mod owner;
pub(crate) mod select;
mod unpack;
mod wildcard;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::graph::{Copy, FileAction, Mkdir, Mkfile, Rm};
use crate::tree::{Tree, is_dir, list, open_below};
use copier::Copier;
pub(crate) use copier::{attributes, is_kept};
pub(crate) use owner::Ids;
use select::{Matcher, Selection};
pub(crate) use unpack::unpack_context;

/// A tree that is copied from.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// The tree.
    pub(crate) tree: &'a Tree,
    /// What of it counts as missing.
    pub(crate) ignore: Option<Matcher>,
    /// Who owns everything in it, where the tree's own owners mean nothing (a context).
    pub(crate) owner: Option<Ids>,
}

impl Source<'_> {
    /// Whether there is something at this real path that is not ignored.
    pub(crate) fn is_visible(&self, real: &Path) -> Result<bool> {
        let Some(stat) = self.tree.lstat(real)? else { return Ok(false) };
        let Some(ignore) = &self.ignore else { return Ok(true) };
        if real.as_os_str().is_empty() {
            return Ok(true);
        }
        let (ignored, seen) = ignore.matches_path(&real.to_string_lossy());
        if !ignored || !is_dir(&stat) || !ignore.may_return_below(&real.to_string_lossy()) {
            return Ok(!ignored);
        }
        self.holds_visible(real, ignore, &seen)
    }

    /// Whether an ignored directory holds something that is not.
    fn holds_visible(&self, dir: &Path, ignore: &Matcher, seen: &crate::ignore::Parent) -> Result<bool> {
        let fd = self.tree.open_dir(dir)?;
        for name in list(fd.as_fd()).map_err(Error::io("list the directory", dir))? {
            let path = dir.join(&name);
            let (ignored, seen) = ignore.matches(&path.to_string_lossy(), seen);
            if !ignored {
                return Ok(true);
            }
            if self.tree.lstat(&path)?.is_some_and(|stat| is_dir(&stat))
                && self.holds_visible(&path, ignore, &seen)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a copy reads: the real paths that its source means.
    ///
    /// # Errors
    /// It means nothing, and may not.
    pub(crate) fn matches(&self, copy: &Copy) -> Result<Vec<Match>> {
        let named = if copy.wildcard {
            wildcard::resolve(self, &copy.source, copy.follow_links)?
        } else {
            vec![PathBuf::from(copy.source.trim_start_matches('/'))]
        };
        let mut matches = Vec::with_capacity(named.len());
        for named in named {
            let real = self.tree.real_path(&named, copy.follow_links)?;
            if !self.is_visible(&real)? {
                if copy.wildcard && wildcard::is_wild_path(&copy.source) {
                    continue;
                }
                return Err(Error::NotFound { path: copy.source.clone() });
            }
            matches.push(Match { named, real });
        }
        // Of `--parents` with nothing after the pivot point nothing is meant.
        let nothing = copy.parents && copy.include.iter().all(String::is_empty);
        if nothing || matches.is_empty() && !copy.allow_empty_wildcard {
            return Err(Error::NotFound { path: copy.source.clone() });
        }
        Ok(matches)
    }

    /// What of the matched directories is meant.
    pub(crate) fn selection(&self, copy: &Copy) -> Result<Selection> {
        let matcher = |patterns: &[String]| {
            if patterns.is_empty() { Ok(None) } else { Matcher::new(patterns).map(Some) }
        };
        Ok(Selection {
            ignore: self.ignore.clone(),
            include: matcher(&copy.include)?,
            exclude: matcher(&copy.exclude)?,
        })
    }
}

/// A source that was found.
#[derive(Clone, Debug)]
pub(crate) struct Match {
    /// As it was named, which gives the copy its name.
    pub(crate) named: PathBuf,
    /// Where it is.
    pub(crate) real: PathBuf,
}

/// Does one action to `tree`. `source` is asked for by the copy's `from`; `base` has the names of
/// users, `None` where there is nothing below.
pub(crate) fn perform(
    action: &FileAction,
    tree: &Tree,
    source: Option<&Source<'_>>,
    base: bool,
) -> Result<()> {
    match action {
        FileAction::Mkdir(mkdir) => make_dir(mkdir, tree, base),
        FileAction::Mkfile(mkfile) => make_file(mkfile, tree, base),
        FileAction::Rm(rm) => remove(rm, tree),
        FileAction::Copy(copy) => {
            let own = Source { tree, ignore: None, owner: None };
            copy_all(copy, source.unwrap_or(&own), tree, base)
        }
    }
}

fn copy_all(copy: &Copy, source: &Source<'_>, tree: &Tree, base: bool) -> Result<()> {
    let owner = copy.owner.as_ref().map(|owner| owner::resolve(owner, base.then_some(tree))).transpose()?;
    if !copy.create_destination {
        let real = tree.real_path(Path::new(&copy.destination), true)?;
        if tree.lstat(real.parent().unwrap_or(Path::new("")))?.is_none() {
            return Err(Error::io("find the directory of", &copy.destination)(Errno::NOENT));
        }
    }
    let selection = source.selection(copy)?;
    let matches = source.matches(copy)?;
    // A pattern with nothing in it matches nothing (`COPY --parents a/./ b`).
    let nothing = !copy.include.is_empty() && copy.include.iter().all(String::is_empty);
    if nothing && !copy.required.is_empty() {
        return Err(Error::NotFound { path: copy.source.clone() });
    }
    for pattern in &copy.required {
        let source_path = format!("{}/{pattern}", copy.source.trim_end_matches('/'));
        let pattern = Copy { source: source_path, wildcard: true, ..Copy::default() };
        source.matches(&Copy { follow_links: copy.follow_links, ..pattern })?;
    }
    for one in matches {
        if copy.unpack && unpack::unpack(copy, source, &one.real, tree, owner)? {
            continue;
        }
        Copier::new(copy, source, tree, owner, &selection).copy(&one)?;
    }
    Ok(())
}

fn make_dir(action: &Mkdir, tree: &Tree, base: bool) -> Result<()> {
    let ids = action.owner.as_ref().map(|owner| owner::resolve(owner, base.then_some(tree))).transpose()?;
    let real = tree.real_path(Path::new(&action.path), true)?;
    let mode = action.mode & 0o777;
    if action.parents {
        return make_dirs(tree, &real, mode, ids);
    }
    let (parent, name) = split(&real);
    let dir = tree.open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
    match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode)) {
        Ok(()) => own(dir.as_fd(), name, ids).map_err(Error::io("change the owner of", &real)),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::io("make the directory", &real)(error)),
    }
}

/// Makes a directory and those above it that are missing, all with this mode and owner.
fn make_dirs(tree: &Tree, real: &Path, mode: u32, ids: Option<Ids>) -> Result<()> {
    match tree.lstat(real)? {
        Some(stat) if is_dir(&stat) => return Ok(()),
        Some(_) => return Err(Error::io("make the directory", real)(Errno::NOTDIR)),
        None => {}
    }
    let (parent, name) = split(real);
    make_dirs(tree, parent, mode, ids)?;
    let dir = tree.open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode))
        .map_err(Error::io("make the directory", real))?;
    own(dir.as_fd(), name, ids).map_err(Error::io("change the owner of", real))
}

fn own(dir: BorrowedFd<'_>, name: &OsStr, ids: Option<Ids>) -> rustix::io::Result<()> {
    let Some(ids) = ids else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn make_file(action: &Mkfile, tree: &Tree, base: bool) -> Result<()> {
    use std::io::Write;
    let ids = action.owner.as_ref().map(|owner| owner::resolve(owner, base.then_some(tree))).transpose()?;
    let real = tree.real_path(Path::new(&action.path), true)?;
    let (parent, name) = split(&real);
    let dir = tree.open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let mode = Mode::from_raw_mode(action.mode & 0o777);
    let file =
        open_below(dir.as_fd(), Path::new(name), flags, mode).map_err(Error::io("make the file", &real))?;
    std::fs::File::from(file).write_all(&action.content).map_err(Error::io("write the file", &real))?;
    own(dir.as_fd(), name, ids).map_err(Error::io("change the owner of", &real))
}

fn remove(action: &Rm, tree: &Tree) -> Result<()> {
    let source = Source { tree, ignore: None, owner: None };
    let paths = if action.wildcard {
        wildcard::resolve(&source, &action.path, false)?
    } else {
        vec![PathBuf::from(action.path.trim_start_matches('/'))]
    };
    for path in paths {
        let real = tree.real_path(&path, false)?;
        if real.as_os_str().is_empty() {
            return Err(Error::io("remove", &action.path)(Errno::BUSY));
        }
        match tree.lstat(&real)? {
            None if action.allow_missing => {}
            None => return Err(Error::io("remove", &action.path)(Errno::NOENT)),
            Some(_) => {
                let (parent, name) = split(&real);
                let dir = tree.open_dir(parent)?;
                remove_tree(dir.as_fd(), name, &real)?;
            }
        }
    }
    Ok(())
}

/// Removes a name and all below it.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(Error::io("remove", shown)(error)),
    }
    let below = open_below(dir, Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .map_err(Error::io("open the directory", shown))?;
    for entry in list(below.as_fd()).map_err(Error::io("list the directory", shown))? {
        remove_tree(below.as_fd(), &entry, &shown.join(&entry))?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(Error::io("remove the directory", shown))
}

/// The directory of a real path, and its name in it.
fn split(real: &Path) -> (&Path, &OsStr) {
    (real.parent().unwrap_or(Path::new("")), real.file_name().unwrap_or(OsStr::new(".")))
}

#[cfg(test)]
mod tests;
