//! Snapshots: the layers of an image as one tree, by overlayfs.
//!
//! ```text
//!   <writable>/upper/     what the container changed       (only if writable)
//!   <writable>/work/      overlayfs works here
//!   layers/<id n>/fs, or  the image's layers, the last one on top; both formats mix freely
//!   mounts/<id n>         (a layer that is a file, mounted)
//!   …
//!   layers/<id 1>/fs
//! ```
//!
//! A snapshot is mounted *detached*: it is a descriptor, and nothing appears in any mount tree until
//! the descriptor's owner attaches it somewhere. When the owner dies the kernel removes it; there is
//! nothing to sweep.
//!
//! What overlayfs cannot express is settled before it is asked: a layer that hides everything below
//! it ends the list; a layer that an image has twice counts where it is topmost (it shows and hides
//! the same there, and overlayfs refuses a directory twice); a single layer gets an empty one below,
//! since its whiteouts must not be seen.

mod files;
mod shared;

use std::collections::HashSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use onggi_sys::mount::{Attributes, Change, Parameter, clone_tree, make};
use onggi_sys::overlay::{Overlay, OverlayError};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::error::{Error, Result};
use crate::layer::OverlayXattr;
use crate::store::{Layer, Mounting};

pub use files::Found;
use shared::Shared;

const UPPER: &str = "upper";
const WORK: &str = "work";

/// How to reach the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// By descriptors (Linux 6.13; id-mapped 6.15), else in a namespace.
    #[default]
    Best,
    /// Only by descriptors.
    Descriptors,
    /// Only by `mount(2)` in a mount namespace of its own.
    Namespace,
}

/// One tree of the stack.
#[derive(Clone, Debug)]
enum Tree {
    Layer(Layer),
    /// A plain directory.
    Directory(PathBuf),
}

impl Tree {
    fn open(&self) -> Result<OwnedFd> {
        match self {
            Self::Layer(layer) => layer.open(),
            Self::Directory(path) => opened(path),
        }
    }

    fn mounting(&self) -> Result<Option<Mounting>> {
        match self {
            Self::Layer(layer) => layer.mounting(),
            Self::Directory(_) => Ok(None),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Layer(layer) => &layer.path,
            Self::Directory(path) => path,
        }
    }
}

/// A mounted snapshot.
#[derive(Debug)]
pub struct Mounted {
    /// The mount, detached.
    pub root: OwnedFd,
    /// Mounts that it was made of, and that it doesn't need any more.
    pub held: Vec<OwnedFd>,
}

/// A stack of layers that can be mounted.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The trees, the topmost first.
    layers: Vec<Tree>,
    /// The layer whose root directory is the root directory's model.
    root_model: Option<Layer>,
    writable: Option<PathBuf>,
    xattr: OverlayXattr,
    volatile: bool,
    way: Way,
}

impl Snapshot {
    /// A read-only snapshot of these layers, lowest first.
    pub fn new(layers: &[Layer], xattr: OverlayXattr) -> Self {
        let mut seen = HashSet::new();
        let mut stack = Vec::new();
        let mut root_model = None;
        for layer in layers.iter().rev() {
            if seen.insert(&layer.path) {
                stack.push(Tree::Layer(layer.clone()));
            }
            if root_model.is_none() && layer.record.root_entry {
                root_model = Some(layer.clone());
            }
            if layer.record.opaque_root {
                break;
            }
        }
        let topmost = layers.last().filter(|_| root_model.is_none()).cloned();
        let root_model = root_model.or(topmost);
        Self { layers: stack, root_model, writable: None, xattr, volatile: false, way: Way::Best }
    }

    /// The same, writable: `dir` holds (or gets) the directories `upper` and `work`.
    #[must_use]
    pub fn writable(mut self, dir: &Path) -> Self {
        self.writable = Some(dir.to_owned());
        self
    }

    /// The same with what a container changed on top, to be looked at: `dir` holds its directory `upper`. The
    /// container may be running; then what is seen of a file that changes just now is not defined.
    #[must_use]
    pub fn with_changes(mut self, dir: &Path) -> Self {
        self.layers.insert(0, Tree::Directory(dir.join(UPPER)));
        self
    }

    /// The same with a directory below all layers: what it has shows where no layer has anything.
    #[must_use]
    pub fn over(mut self, directory: &Path) -> Self {
        self.layers.push(Tree::Directory(directory.to_owned()));
        self
    }

    /// Nothing written needs to survive a crash of the host: no flushes. A volatile upper directory
    /// is not mounted a second time after one.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Takes this way only; for tests of what other kernels need.
    #[must_use]
    pub fn by(mut self, way: Way) -> Self {
        self.way = way;
        self
    }

    /// Makes the directories of a writable snapshot. Its root directory looks as the image's does.
    pub fn prepare(&self) -> Result<()> {
        let Some(dir) = &self.writable else { return Ok(()) };
        let io = |path: PathBuf| move |e| Error::io("create the directory", path, e);
        for name in [UPPER, WORK] {
            let path = dir.join(name);
            match DirBuilder::new().mode(0o755).create(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                made => made.map_err(io(path))?,
            }
        }
        let upper = dir.join(UPPER);
        let Some(model) = &self.root_model else {
            return fs::set_permissions(&upper, Permissions::from_mode(0o755)).map_err(io(upper));
        };
        let stat = rustix::fs::fstat(model.open()?);
        let stat = stat.map_err(|e| Error::io("look at the layer", &model.path, e))?;
        std::os::unix::fs::chown(&upper, Some(stat.st_uid), Some(stat.st_gid)).map_err(io(upper.clone()))?;
        fs::set_permissions(&upper, Permissions::from_mode(stat.st_mode & 0o7777)).map_err(io(upper))
    }

    /// Mounts the snapshot, detached. With `idmap`, a user namespace, every layer and the writable
    /// directory are mounted through its id map: what is root's on disk is that namespace's root's.
    ///
    /// # Errors
    /// A layer is missing; the kernel cannot do it ([`Error::Overlay`] has its words).
    pub fn mount(&self, idmap: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
        Ok(self.mount_held(idmap)?.root)
    }

    /// The same with what it was mounted of. The kernel takes its time to end a detached mount, so who is in a
    /// hurry lets go of those later.
    ///
    /// # Errors
    /// Those of [`mount`](Self::mount).
    pub fn mount_held(&self, idmap: Option<BorrowedFd<'_>>) -> Result<Mounted> {
        let failed = |source| Error::Overlay { layers: self.layers.len(), source };
        let _mounting = self.layers.iter().find_map(|tree| tree.mounting().transpose()).transpose()?;
        let mut parameters: Vec<Parameter<'_>> = Vec::with_capacity(5);
        if self.xattr == OverlayXattr::User {
            parameters.push(("userxattr", None));
        } else {
            // An upper directory must be complete by itself, since a commit packs it; and no layer
            // may steer overlayfs by attributes.
            parameters.push(("redirect_dir", Some("nofollow")));
            parameters.push(("metacopy", Some("off")));
        }
        if self.writable.is_some() {
            parameters.push(("index", Some("off")));
            if self.volatile {
                parameters.push(("volatile", None));
            }
        }
        let attributes = if self.writable.is_some() { Attributes::NONE } else { Attributes::READ_ONLY };
        let tries = match self.way {
            Way::Best => &[true, false][..],
            Way::Descriptors => &[true],
            Way::Namespace => &[false],
        };
        let mut first: Option<OverlayError> = None;
        for by_descriptors in tries {
            let result = if *by_descriptors {
                self.by_descriptors(idmap, &parameters, attributes)?
            } else {
                self.in_namespace(idmap, &parameters, attributes)?
            };
            match result {
                Ok(mount) => return Ok(mount),
                Err(e) => {
                    let unknown = is_unknown_way(&e);
                    let first = first.get_or_insert(e);
                    if !unknown {
                        let e = std::mem::replace(first, blank());
                        return Err(failed(e));
                    }
                }
            }
        }
        Err(failed(first.unwrap_or_else(blank)))
    }

    fn by_descriptors(
        &self,
        idmap: Option<BorrowedFd<'_>>,
        parameters: &[Parameter<'_>],
        attributes: Attributes,
    ) -> Result<Result<Mounted, OverlayError>> {
        let trees = self.layers.iter().map(Tree::open).collect::<Result<Vec<_>>>()?;
        let base = self.writable.as_deref().map(opened).transpose()?;
        let all: Vec<&OwnedFd> = trees.iter().chain(&base).collect();
        let shared = idmap.map(|idmap| Shared::of(&all, idmap)).transpose()?.flatten();
        let mapped = |tree: OwnedFd, path: &Path| match (&shared, idmap) {
            (_, None) => Ok(tree),
            (Some(shared), _) if let Some(found) = shared.find(&tree) => Ok(found),
            _ => cloned(&tree, path, idmap),
        };
        let mut lowers = Vec::with_capacity(self.layers.len() + 1);
        for (tree, layer) in trees.into_iter().zip(&self.layers) {
            lowers.push(mapped(tree, layer.path())?);
        }
        self.pad(&mut lowers)?;
        let mut upper = None;
        if let (Some(dir), Some(base)) = (&self.writable, base) {
            let base = mapped(base, dir)?;
            let below = |name: &str| {
                openat(&base, name, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
                    .map_err(|e| Error::io("open the directory", dir.join(name), e))
            };
            upper = Some((below(UPPER)?, below(WORK)?, base));
        }
        let owner = match &upper {
            Some((_, work, _)) if idmap.is_some() => Some(owner_of(work)?),
            _ => None,
        };
        let mounted = {
            let lowers: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
            let upper = upper.as_ref().map(|(upper, work, _)| (upper.as_fd(), work.as_fd()));
            Overlay { lowers: &lowers, upper, parameters, owner }.mount(attributes)
        };
        lowers.extend(upper.map(|(.., base)| base));
        lowers.extend(shared.map(Shared::into_mount));
        Ok(mounted.map(|root| Mounted { root, held: lowers }))
    }

    fn in_namespace(
        &self,
        idmap: Option<BorrowedFd<'_>>,
        parameters: &[Parameter<'_>],
        attributes: Attributes,
    ) -> Result<Result<Mounted, OverlayError>> {
        let mut lowers = Vec::with_capacity(self.layers.len() + 1);
        for layer in &self.layers {
            lowers.push(cloned(&layer.open()?, layer.path(), idmap)?);
        }
        self.pad(&mut lowers)?;
        let base = self.writable.as_ref().map(|dir| cloned(&opened(dir)?, dir, idmap)).transpose()?;
        let lowers: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
        let writable = base.as_ref().map(|base| (base.as_fd(), UPPER, WORK));
        let owner = match &base {
            Some(base) if idmap.is_some() => Some(owner_of(base)?),
            _ => None,
        };
        let mounted = Overlay::mount_in_namespace(&lowers, writable, parameters, owner, attributes);
        Ok(mounted.map(|root| Mounted { root, held: Vec::new() }))
    }

    /// overlayfs wants two directories at least.
    fn pad(&self, lowers: &mut Vec<OwnedFd>) -> Result<()> {
        let wanted = if self.writable.is_some() { 1 } else { 2 };
        while lowers.len() < wanted {
            let empty = make("tmpfs", &[("mode", Some("0755"))], Attributes::READ_ONLY);
            lowers.push(empty.map_err(|source| Error::Stream { op: "mount an empty layer", source })?);
        }
        Ok(())
    }
}

/// Who owns the directory, through its mount's id map: root of the container.
fn owner_of(directory: &OwnedFd) -> Result<(u32, u32)> {
    let stat = rustix::fs::fstat(directory);
    let stat = stat.map_err(|e| Error::Stream { op: "look at the writable directory", source: e.into() })?;
    Ok((stat.st_uid, stat.st_gid))
}

/// Whether the kernel doesn't know this way to mount an overlay, and may know another one.
pub(crate) fn is_unknown_way(error: &OverlayError) -> bool {
    use rustix::io::Errno;
    // OPNOTSUPP: before Linux 6.5 overlayfs takes no descriptor at all.
    matches!(Errno::from_io_error(&error.source), Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}

fn blank() -> OverlayError {
    OverlayError { step: "mount", source: rustix::io::Errno::INVAL.into(), log: String::new() }
}

fn opened(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("open the directory", path, e))
}

/// A detached mount of the directory alone, id-mapped if asked for; `path` is for errors.
fn cloned(directory: &OwnedFd, path: &Path, idmap: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let mount = clone_tree(directory.as_fd(), c"", false);
    let mount = mount.map_err(|e| Error::io("clone the mount of", path, e))?;
    if idmap.is_some() {
        let change = Change { idmap, ..Change::default() };
        change.apply(mount.as_fd(), c"").map_err(|e| Error::io("map the ids of the mount of", path, e))?;
    }
    Ok(mount)
}
