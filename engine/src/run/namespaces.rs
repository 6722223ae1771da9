//! Which namespaces a container has for itself, and which it shares with the host.
//!
//! | | private (default) | host |
//! |---|---|---|
//! | user | root inside is nobody outside | the caller's IDs |
//! | pid, ipc, uts, cgroup | its own | the host's |
//!
//! Some wishes make no sense with IDs of its own: then the host's are implied, unless the caller
//! named the user namespace himself, and the record says which wish it was.

use oci_spec::runtime::LinuxNamespaceType;
use onggi_oci::ContainerConfig;
use serde::{Deserialize, Serialize};

use super::keep::KeepId;
use super::request::{Network, RunRequest};

/// Whose IDs a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// Its own: its root is nobody on the host.
    #[default]
    Private,
    /// The caller's.
    Host,
}

/// Whose namespace a container has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container, by name or ID.
    Container(String),
}

/// Inter-process communication: System V objects, message queues and `/dev/shm`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipc {
    /// Its own.
    #[default]
    Private,
    /// Its own, which other containers may share.
    Shareable,
    /// Its own, without `/dev/shm`.
    None,
    /// The host's.
    Host,
    /// That of another container, by name or ID.
    Container(String),
}

/// All of them but the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Whose IDs; `None` leaves it to what else is wished.
    pub user: Option<UserNamespace>,
    /// How many IDs it has at least, if they are its own.
    pub user_ids: Option<u32>,
    /// Whether its user has the caller's ID, and the image's files the image's; goes with IDs of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_id: Option<KeepId>,
    /// Processes.
    pub pid: Sharing,
    /// Inter-process communication.
    pub ipc: Ipc,
    /// Host name.
    pub uts: Sharing,
    /// The view of control groups.
    pub cgroup: Sharing,
}

impl Namespaces {
    /// Kinds that are the host's, of those that a container has by default.
    pub(crate) fn shared(&self) -> Vec<LinuxNamespaceType> {
        [
            (self.pid == Sharing::Host, LinuxNamespaceType::Pid),
            (self.ipc == Ipc::Host, LinuxNamespaceType::Ipc),
            (self.uts == Sharing::Host, LinuxNamespaceType::Uts),
            (self.cgroup == Sharing::Host, LinuxNamespaceType::Cgroup),
        ]
        .into_iter()
        .filter_map(|(shared, kind)| shared.then_some(kind))
        .collect()
    }
}

/// The first port that anybody may listen on.
const FIRST_FREE_PORT: u16 = 1024;

/// Whose IDs the container gets, and the wish that implied the host's.
pub(crate) fn user_namespace(
    request: &RunRequest,
    image: &ContainerConfig,
) -> (UserNamespace, Option<&'static str>) {
    if let Some(named) = request.namespaces.user {
        return (named, None);
    }
    let low_port = || {
        let port = |exposed: &String| exposed.split('/').next().and_then(|port| port.parse::<u16>().ok());
        image.exposed_ports.iter().filter_map(port).any(|port| port < FIRST_FREE_PORT)
    };
    let implied = if request.security.privileged {
        Some("--privileged")
    } else if request.namespaces.pid == Sharing::Host {
        Some("--pid=host")
    } else if request.namespaces.ipc == Ipc::Host {
        Some("--ipc=host")
    } else if request.network == Network::Host && low_port() {
        Some("--network=host and a port below 1024")
    } else {
        None
    };
    (if implied.is_some() { UserNamespace::Host } else { UserNamespace::Private }, implied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_ids_are_implied_by_what_needs_them() {
        let mut image = ContainerConfig::default();
        let mut request = RunRequest::default();
        assert_eq!(user_namespace(&request, &image), (UserNamespace::Private, None));
        request.network = Network::Host;
        assert_eq!(user_namespace(&request, &image), (UserNamespace::Private, None));
        image.exposed_ports.insert("80/tcp".into());
        assert_eq!(user_namespace(&request, &image).0, UserNamespace::Host);
        request.security.privileged = true;
        assert_eq!(user_namespace(&request, &image), (UserNamespace::Host, Some("--privileged")));
        request.namespaces.user = Some(UserNamespace::Private);
        assert_eq!(user_namespace(&request, &image), (UserNamespace::Private, None));
    }
}
