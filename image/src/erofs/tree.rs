//! The names of a layer in memory, with the rules of [`crate::layer::unpack`].
//!
//! Paths resolve as that module's tree on disk does: a name that leads through directories of the
//! archive is taken as it is; one that leads through a symbolic link is first made canonical, links
//! read as if the tree were the root; directories that are missing are made.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::MAX_TREE;
use super::format::{MAX_NAME, Type};
use super::metadata::Place;
use crate::EntryProblem;
use crate::layer::limits::MAX_LINKS;
use crate::layer::meta::Meta;
use crate::layer::path::{join, split};

/// What an entry costs in memory beside its name, about.
const ENTRY_COST: usize = 96;
/// What a directory costs.
const DIRECTORY_COST: usize = 256;

/// The index of a directory.
pub(super) type DirectoryId = usize;
/// The index of a file that is no directory.
pub(super) type FileId = usize;
/// The root directory.
pub(super) const ROOT: DirectoryId = 0;

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    Directory(DirectoryId),
    File(FileId),
}

/// A directory.
#[derive(Default)]
pub(super) struct Directory {
    pub(super) parent: DirectoryId,
    pub(super) children: BTreeMap<Box<[u8]>, Child>,
    /// Names that lower layers have and this one hides.
    pub(super) whiteouts: BTreeSet<Box<[u8]>>,
    /// Nothing for a directory without an entry.
    pub(super) meta: Option<Meta>,
    pub(super) opaque: bool,
}

/// An inode that is no directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    pub(super) place: Place,
    pub(super) kind: Type,
    /// How many names it has.
    pub(super) links: u32,
}

/// How a directory was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    Found(DirectoryId),
    Missing,
    Link,
    NotDirectory,
}

/// The names. Directories that were replaced stay in the list, reached by nothing.
pub(super) struct Names {
    pub(super) directories: Vec<Directory>,
    pub(super) files: Vec<File>,
    /// Targets of symbolic links.
    targets: HashMap<FileId, Box<[u8]>>,
    /// The directory that was found last. Forgotten when something is removed.
    last: Option<(Vec<u8>, DirectoryId)>,
    cost: usize,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            directories: vec![Directory::default()],
            files: Vec::new(),
            targets: HashMap::new(),
            last: None,
            cost: 0,
        }
    }

    /// Bounds what is held in memory.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), EntryProblem> {
        self.cost += bytes;
        if self.cost > MAX_TREE {
            let what = "layer's names and attributes of directories in bytes";
            return Err(EntryProblem::Limit { what, limit: MAX_TREE as u64 });
        }
        Ok(())
    }

    fn enter(&self, path: &[u8]) -> Lookup {
        let mut at = ROOT;
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            match self.directories[at].children.get(name) {
                Some(Child::Directory(id)) => at = *id,
                Some(Child::File(id)) if self.files[*id].kind == Type::Symlink => return Lookup::Link,
                Some(Child::File(_)) => return Lookup::NotDirectory,
                None => return Lookup::Missing,
            }
        }
        Lookup::Found(at)
    }

    /// The directory that is to hold an entry, and the entry's name in it, which is empty for the
    /// root itself.
    pub(super) fn locate<'n>(
        &mut self,
        name: &'n [u8],
        climbs: bool,
    ) -> Result<(DirectoryId, &'n [u8]), EntryProblem> {
        let (named, base) = split(name);
        if base.len() > MAX_NAME {
            return Err(EntryProblem::Name("is longer than 255 bytes"));
        }
        if let Some((path, id)) = &self.last
            && path == named
            && !climbs
        {
            return Ok((*id, base));
        }
        if climbs && base == b".." {
            return Err(EntryProblem::Name("ends in '..'"));
        }
        let found = if climbs { Lookup::Link } else { self.enter(named) };
        let id = match found {
            Lookup::Found(id) => id,
            Lookup::Missing => self.make_directories(named)?,
            Lookup::NotDirectory => return Err(not_directory(named)),
            Lookup::Link => {
                let parent = self.canonical(named)?;
                self.enter_or_make(&parent)?
            }
        };
        if !climbs {
            self.last = Some((named.to_vec(), id));
        }
        Ok((id, base))
    }

    fn enter_or_make(&mut self, path: &[u8]) -> Result<DirectoryId, EntryProblem> {
        match self.enter(path) {
            Lookup::Found(id) => Ok(id),
            Lookup::Missing => self.make_directories(path),
            Lookup::NotDirectory | Lookup::Link => Err(not_directory(path)),
        }
    }

    /// Makes the missing directories of a canonical path.
    fn make_directories(&mut self, path: &[u8]) -> Result<DirectoryId, EntryProblem> {
        let mut at = ROOT;
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            at = match self.directories[at].children.get(name) {
                Some(Child::Directory(id)) => *id,
                Some(Child::File(_)) => return Err(not_directory(path)),
                None if name.len() > MAX_NAME => {
                    return Err(EntryProblem::Name("has a directory longer than 255 bytes"));
                }
                None => self.add_directory(at, name)?,
            };
        }
        Ok(at)
    }

    fn add_directory(&mut self, parent: DirectoryId, name: &[u8]) -> Result<DirectoryId, EntryProblem> {
        self.charge(name.len() + DIRECTORY_COST)?;
        let id = self.directories.len();
        self.directories.push(Directory { parent, ..Directory::default() });
        self.directories[parent].children.insert(name.into(), Child::Directory(id));
        Ok(id)
    }

    /// The canonical form of a directory's path which may pass through links and climb.
    fn canonical(&self, path: &[u8]) -> Result<Vec<u8>, EntryProblem> {
        let components = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec).collect()
        };
        let mut links = 0;
        let mut out: Vec<u8> = Vec::new();
        let mut rest: VecDeque<Vec<u8>> = components(path).into();
        while let Some(component) = rest.pop_front() {
            if component == b".." {
                // At the root it stays at the root.
                out.truncate(split(&out).0.len());
                continue;
            }
            if let Lookup::Found(directory) = self.enter(&out)
                && let Some(Child::File(id)) = self.directories[directory].children.get(&component[..])
                && let Some(target) = self.targets.get(id)
            {
                links += 1;
                if links > MAX_LINKS {
                    return Err(EntryProblem::LinkLoop(MAX_LINKS));
                }
                if target.first() == Some(&b'/') {
                    out.clear();
                }
                for part in components(target).into_iter().rev() {
                    rest.push_front(part);
                }
                continue;
            }
            out = join(&out, &component);
        }
        Ok(out)
    }

    /// The file that a hard link names. `None`: there is nothing.
    pub(super) fn link_target(
        &self,
        named: &[u8],
        base: &[u8],
        climbs: bool,
    ) -> Result<Option<(DirectoryId, Child)>, EntryProblem> {
        let found = match self.enter(named) {
            found @ Lookup::Found(_) if !climbs => found,
            Lookup::Missing | Lookup::NotDirectory if !climbs => return Ok(None),
            _ => self.enter(&self.canonical(named)?),
        };
        let Lookup::Found(directory) = found else { return Ok(None) };
        Ok(self.directories[directory].children.get(base).map(|child| (directory, *child)))
    }

    /// Puts a directory at a name, or finds the one that is there.
    pub(super) fn directory(&mut self, at: DirectoryId, name: &[u8]) -> Result<DirectoryId, EntryProblem> {
        match self.directories[at].children.get(name) {
            Some(Child::Directory(id)) => Ok(*id),
            Some(Child::File(_)) => {
                self.remove(at, name);
                let id = self.add_directory(at, name)?;
                // A file of that name hid what lower layers have; so must the directory.
                self.directories[id].opaque = true;
                Ok(id)
            }
            None => self.add_directory(at, name),
        }
    }

    /// Puts a new file at a name; what had the name is removed.
    pub(super) fn add(
        &mut self,
        at: DirectoryId,
        name: &[u8],
        file: File,
        target: Option<&[u8]>,
    ) -> Result<FileId, EntryProblem> {
        self.remove(at, name);
        self.charge(name.len() + ENTRY_COST + target.map_or(0, <[u8]>::len))?;
        let id = self.files.len();
        self.files.push(file);
        if let Some(target) = target {
            self.targets.insert(id, target.into());
        }
        self.directories[at].children.insert(name.into(), Child::File(id));
        Ok(id)
    }

    /// Gives a file another name.
    pub(super) fn link(&mut self, at: DirectoryId, name: &[u8], file: FileId) -> Result<(), EntryProblem> {
        self.charge(name.len() + ENTRY_COST)?;
        self.files[file].links += 1;
        self.directories[at].children.insert(name.into(), Child::File(file));
        Ok(())
    }

    /// Removes what has this name, with everything in it.
    pub(super) fn remove(&mut self, at: DirectoryId, name: &[u8]) {
        let Some(child) = self.directories[at].children.remove(name) else { return };
        self.last = None;
        let mut gone = vec![child];
        while let Some(child) = gone.pop() {
            match child {
                Child::File(id) => self.files[id].links -= 1,
                Child::Directory(id) => {
                    let directory = std::mem::take(&mut self.directories[id]);
                    gone.extend(directory.children.into_values());
                }
            }
        }
    }
}

fn not_directory(path: &[u8]) -> EntryProblem {
    EntryProblem::Parent(String::from_utf8_lossy(path).into_owned())
}
