//! Paths that the container may not see, or only read.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use onggi_sys::mount::{self, Attributes, Change};
use onggi_sys::path::{Root, kind};
use rustix::fs::FileType;

use super::rootfs::empty_directory;
use super::{Step, failed};
use crate::error::Stage;
use crate::plan::Plan;

/// Read-only paths first: a masked one may lie below.
pub(super) fn apply(plan: &Plan, root: &Root<'_>, null: &OwnedFd) -> Step<()> {
    for path in &plan.read_only {
        let object = || path.display().to_string();
        let found = match root.locate(path) {
            Err(error) if absent(&error) => continue,
            other => other.map_err(failed(Stage::ReadOnly, object()))?,
        };
        let step = || failed::<io::Error>(Stage::ReadOnly, object());
        let tree = mount::clone_tree(found.as_fd(), c"", true).map_err(step())?;
        let change = Change { set: Attributes::READ_ONLY, recursive: true, ..Change::default() };
        change.apply(tree.as_fd(), c"").map_err(step())?;
        mount::attach(tree.as_fd(), found.as_fd()).map_err(step())?;
    }
    let mut empty: Option<OwnedFd> = None;
    let mut null_used = false;
    for path in &plan.masked {
        let object = || path.display().to_string();
        let step = || failed::<io::Error>(Stage::Mask, object());
        let found = match root.locate(path) {
            Err(error) if absent(&error) => continue,
            other => other.map_err(step())?,
        };
        let (file_type, _) = kind(found.as_fd()).map_err(step())?;
        // The first use attaches the detached mount itself, later ones a clone.
        if file_type == FileType::Directory {
            match &empty {
                None => {
                    let made = empty_directory().map_err(step())?;
                    mount::attach(made.as_fd(), found.as_fd()).map_err(step())?;
                    empty = Some(made);
                }
                Some(made) => {
                    let cover = mount::clone_tree(made.as_fd(), c"", false).map_err(step())?;
                    mount::attach(cover.as_fd(), found.as_fd()).map_err(step())?;
                }
            }
        } else if null_used {
            let cover = mount::clone_tree(null.as_fd(), c"", false).map_err(step())?;
            mount::attach(cover.as_fd(), found.as_fd()).map_err(step())?;
        } else {
            mount::attach(null.as_fd(), found.as_fd()).map_err(step())?;
            null_used = true;
        }
    }
    Ok(())
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
