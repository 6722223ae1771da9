//! The OCI runtime interface: containers whose state survives between commands.
//!
//! ```text
//!  ROOT/ID/config.json   the bundle's specification as it was at `create`
//!          state.json    id, first process and when that started, cgroup, its unit of systemd
//!          start.sock    `start` connects here; gone once it has
//! ```
//!
//! The status is not stored: it follows from whether the first process lives,
//! whether the socket is there, and whether the cgroup is frozen.

mod exec;
mod facts;
mod lifecycle;
mod record;
mod specification;

use std::path::{Path, PathBuf};
use std::rc::Rc;

pub use exec::ExecOptions;
pub use facts::{bundle_spec, features};
pub use lifecycle::CreateOptions;
pub use record::Listed;
pub use specification::parse_process;

pub use crate::cgroup::Systemd;
pub use crate::hooks::{State, Status};

/// Where root keeps its containers if nothing else is said.
pub const DEFAULT_ROOT: &str = "/run/onggi/oci";

/// Who is told what a bundle asks for in vain.
type Warn = Rc<dyn Fn(&str)>;

/// The containers of one root directory.
#[derive(Clone)]
pub struct Runtime {
    root: PathBuf,
    systemd: Option<Systemd>,
    warn: Option<Warn>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Runtime {
    /// The containers below `root`, which is made when the first one is.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), systemd: None, warn: None }
    }

    /// Has what a bundle asks for in vain, where the specification wants no error of it, said by `warn`.
    #[must_use]
    pub fn on_warning(mut self, warn: impl Fn(&str) + 'static) -> Self {
        self.warn = Some(Rc::new(warn));
        self
    }

    /// Says something of that kind.
    pub fn warn(&self, words: &str) {
        if let Some(warn) = &self.warn {
            warn(words);
        }
    }

    /// Has the service manager make the control groups of new containers, and end those that it made.
    #[must_use]
    pub fn systemd(mut self, systemd: Option<Systemd>) -> Self {
        self.systemd = systemd;
        self
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
