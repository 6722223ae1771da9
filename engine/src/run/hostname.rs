//! The host name of a container: the caller's, else the short ID, else the host's where that is shared.

use super::namespaces::Sharing;
use super::request::{Network, RunRequest};
use crate::error::{Error, Result};

/// The longest name that the kernel takes.
const MAX_NAME: usize = 64;
/// How much of an ID people see.
const SHORT_ID: usize = 12;

/// The host name of the container with this ID.
pub(crate) fn hostname(request: &RunRequest, id: &str) -> Result<String> {
    let shared = request.namespaces.uts != Sharing::Private;
    if shared && (request.hostname.is_some() || request.domainname.is_some()) {
        return Err(Error::flag("--uts", "conflicting options: hostname and the UTS mode"));
    }
    let Some(name) = &request.hostname else {
        return Ok(match request.network {
            Network::Host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            _ if shared => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            _ => id.get(..SHORT_ID).unwrap_or(id).to_owned(),
        });
    };
    let problem = if name.is_empty() || name.len() > MAX_NAME {
        "it must have 1 to 64 characters"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)) || name.starts_with('-')
    {
        "it must be of letters, digits, '.', '-' and '_'"
    } else {
        return Ok(name.clone());
    };
    Err(Error::Hostname { name: name.clone(), problem })
}
