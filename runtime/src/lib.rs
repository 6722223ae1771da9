//! From an OCI bundle to a running process and back.
//!
//! ```text
//!  Container::new(id, spec).rootfs(…).stdio(…).spawn()
//!
//!   caller (parent)                        child (pid 1 of the container)
//!   ───────────────                        ──────────────────────────────
//!   plan: all of the spec checked
//!   cgroups made, bind sources cloned
//!   clone3(all namespaces) ──────────────► waits
//!   id maps written, cgroups joined
//!   "mapped" ────────────────────────────► makes /proc, /sys, /dev … detached
//!   rootfs callback (overlay)
//!   "root" + mount descriptor ───────────► attaches everything, pivot_root,
//!                                          masks, identity, capabilities, filter
//!   ◄──────────────────── pty descriptor
//!   ◄──────────────────── report on error  exec ── the socket closes by itself
//!   Process
//! ```
//!
//! Nothing is run twice and no helper program is started: the caller, which must
//! have a single thread, is the parent of the container. Everything that can be
//! checked is checked before the child exists; what fails in the child comes back
//! as an [`Error`] that names the step and the object.
//!
//! Start with [`Container`] and [`default_spec`]; a process in a running
//! container is an [`Exec`]; an ordinary user first calls [`rootless::enter`].
#![forbid(unsafe_code)]

mod affinity;
mod borrow;
pub mod cgroup;
mod channel;
mod container;
mod defaults;
mod error;
mod exec;
mod hooks;
mod init;
mod joined;
mod labels;
mod memory;
mod mounts;
mod netdevices;
pub mod oci;
mod plan;
mod process;
pub mod rootless;
pub mod seccomp;
mod shield;

pub use borrow::shared_memory_of;
pub use container::{Container, Created, MountCallback, Rootfs, SeccompSource, Stdio, WindowSize};
pub use defaults::{DEFAULT_CAPABILITIES, DEFAULT_PATH, Defaults, default_spec};
pub use error::{Error, ExecProblem, Result, Stage};
pub use exec::{Exec, GroupBelow};
pub use process::{ExitStatus, Foreground, Process, RawTerminal};
pub use shield::shield;
