//! Containers: made once, started any number of times, looked after, removed.
//!
//! ```text
//!   <root>/containers/<id>/
//!     config.json                     what was asked, whole: see `record`
//!     state.json                      how it goes: see `state`
//!     wish                            somebody asked it to end
//!     process.json                    its process, for others that join it: see `run::exec`
//!     upper/ work/                    the container's own layer
//!     hostname hosts resolv.conf      bind-mounted over the image's
//!   <root>/names/<name>               who has the name: see `name`
//!   <runroot>/containers/<id>         who runs it: see `mark`
//! ```
//!
//! There is no list of containers and no lock on all of them: each command looks at the directory, and
//! each file changes by one rename. [`Engine::container`](crate::Engine::container) and
//! [`Engine::containers`](crate::Engine::containers) put these files and what the kernel knows together.

mod attach;
mod change;
mod control;
mod create;
mod details;
mod effective;
mod foreground;
mod keys;
mod mark;
mod name;
mod record;
mod remove;
mod run;
mod signals;
mod start;
mod state;
pub mod supervisor;
mod sweep;

pub use attach::{AttachRequest, Attached};
pub use change::{PrunedContainers, UpdateRequest};
pub use control::StopRequest;
pub use create::ProgressSource;
pub(crate) use create::{new_id, random};
pub use details::ContainerDetails;
pub(crate) use details::all_mount_points;
pub(crate) use foreground::streams;
pub use keys::DetachKeys;
pub(crate) use mark::Mark;
pub use record::{ImageOfContainer, Record};
pub use run::Ran;
pub use signals::number as signal_number;
pub(crate) use state::now;
pub use state::{Health, HealthStatus, Probe, State, Status};
