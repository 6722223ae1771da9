//! The default network of a build's programs.
//!
//! ```text
//!   build ─┬─ lane 0   namespace ── eth0 ── bridge (root) or pasta (an ordinary user)
//!          └─ lane 1   …                                as many as steps run side by side
//! ```
//!
//! A lane is a network namespace that is connected as a container's would be. It is made when a step
//! needs one and none is free, and serves one step after the other: making one takes longer than most
//! steps do. Steps that run at the same time never share one, so none of them sees what another one
//! listens on; the next step in a lane finds it empty, since all processes of the last one are dead
//! and none of them had authority over the namespace. That belongs to the builder, not to the steps'
//! user namespaces.
//!
//! A lane has a mark as containers do, locked by the build: what a killed build leaves is swept.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::AsFd;

use onggi_build::graph::VertexId;
use onggi_network::{EndpointWish, NetworkNamespace};
use onggi_sys::clone::{Namespaces, enter};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::Engine;
use crate::containers::{Mark, new_id};
use crate::error::{Error, Result};
use crate::network::{Attachment, Connection, Guest, Names, Publishing};
use crate::run::Network;

/// The namespaces of one build.
#[derive(Debug)]
pub(super) struct Lanes<'a> {
    engine: &'a Engine,
    network: Network,
    free: RefCell<Vec<Lane>>,
    taken: RefCell<BTreeMap<VertexId, Lane>>,
    /// The step that tells why there is no network, if there is none.
    teller: Cell<Option<VertexId>>,
}

/// One connected namespace.
#[derive(Debug)]
struct Lane {
    // In this order: what is given back, then that nobody looks after it.
    connection: Connection,
    namespace: NetworkNamespace,
    _mark: Mark,
}

/// The network of this name, else the default one.
pub(super) fn network(name: Option<&str>) -> Network {
    let joined = |name: &str| {
        Network::Joined(vec![Attachment { network: name.into(), wish: EndpointWish::default() }])
    };
    name.map_or(Network::Default, joined)
}

impl<'a> Lanes<'a> {
    /// None yet; `name` is the network that they are going to be connected to.
    pub(super) fn new(engine: &'a Engine, name: Option<&str>) -> Self {
        Self {
            engine,
            network: network(name),
            free: RefCell::default(),
            taken: RefCell::default(),
            teller: Cell::default(),
        }
    }

    /// Takes a lane for a step.
    pub(super) fn take(&self, step: VertexId) -> Result<()> {
        let free = self.free.borrow_mut().pop();
        let lane = free.map_or_else(|| self.make(), Ok)?;
        self.taken.borrow_mut().insert(step, lane);
        if self.teller.get().is_none() {
            self.teller.set(Some(step));
        }
        Ok(())
    }

    /// What the first step should say of its network: why it has none.
    pub(super) fn notice(&self, step: VertexId) -> Option<String> {
        (self.teller.get() == Some(step)).then(|| self.engine.network_notice(&self.network)).flatten()
    }

    /// The step has ended.
    pub(super) fn give_back(&self, step: VertexId) {
        let lane = self.taken.borrow_mut().remove(&step);
        self.free.borrow_mut().extend(lane);
    }

    /// Moves this process into the step's lane, for good. `None` if it has none.
    pub(super) fn enter(&self, step: VertexId) -> Result<Option<Names>> {
        let taken = self.taken.borrow();
        let Some(lane) = taken.get(&step) else { return Ok(None) };
        enter(lane.namespace.as_fd(), Namespaces::NET)
            .map_err(|source| Error::Process { op: "enter the network of a step", source })?;
        Ok(Some(lane.connection.names()))
    }

    fn make(&self) -> Result<Lane> {
        self.engine.sweep()?;
        let id = new_id()?;
        let mark = Mark::take(&self.engine.settings().runroot, &id)?;
        mark.tell_none()?;
        let name = format!("build-{}", &id[..12]);
        let publishing = Publishing::default();
        let exposed = std::collections::BTreeSet::new();
        let connection = Connection::prepare(
            self.engine,
            Guest {
                id: &id,
                name: &name,
                network: &self.network,
                publishing: &publishing,
                exposed: &exposed,
                servers: &[],
            },
        )?;
        let namespace = NetworkNamespace::make()?;
        let owner = pidfd_open(getpid(), PidfdFlags::empty())
            .map_err(|errno| Error::Process { op: "look at this process", source: errno.into() })?;
        connection.attach_namespace(&namespace, owner.as_fd())?;
        Ok(Lane { connection, namespace, _mark: mark })
    }
}
