//! Networks with bridges of an ordinary user: the process that holds them, made with the first container
//! and ended with the last.
//!
//! ```text
//!   run --network web    the holder's user namespace is entered, or the holder made in a new one
//!   prepare              lock: holder lives? its way out too? addresses taken ─► unlock
//!   release              lock: nobody holds a place any more? the holder ends ─► unlock
//! ```
//!
//! A holder that was killed is made anew by the next container that starts, in the user namespace of those
//! that live on, and these are plugged in again.

use std::path::Path;
use std::time::Duration;

use onggi_network::holder::{self, Holder, Lock, UPLINK};
use onggi_network::usermode::{self, Part};
use onggi_network::{Bridges, NetworkNamespace, Networks};
use onggi_runtime::rootless;
use rustix::process::Pid;

use super::Attachment;
use crate::Engine;
use crate::error::{Error, Result};
use crate::run::Network;

/// From the moment when a holder is made to that when a container has its address it takes some
/// milliseconds, unless an image is fetched: then it is made anew.
const GRACE: Duration = Duration::from_secs(5);
/// Names of what an ordinary user has without bridges.
const USER_MODES: [&str; 4] = ["bridge", "default", "pasta", "slirp4netns"];

/// Whether an ordinary user's container needs bridges for this.
pub(crate) fn needs_bridges(network: &Network) -> bool {
    matches!(network, Network::Joined(list) if !is_user_mode(list))
}

/// Whether it can be had of a program for this container alone.
fn is_user_mode(list: &[Attachment]) -> bool {
    let plain = |one: &Attachment| {
        USER_MODES.contains(&one.network.as_str()) && one.wish == super::EndpointWish::default()
    };
    matches!(list, [one] if plain(one))
}

/// Checks that what is joined are bridges.
pub(crate) fn check_bridges(list: &[Attachment]) -> Result<()> {
    match list.iter().find(|one| matches!(one.network.as_str(), "pasta" | "slirp4netns")) {
        Some(one) => Err(Error::flag_unsupported(
            format!("--network={} together with other networks or with wishes of its own", one.network),
            "it is the network of one container alone; name a network of `onggi network create`",
        )),
        None => Ok(()),
    }
}

impl Engine {
    /// The networks of this store.
    pub(crate) fn networks(&self) -> Networks {
        let bridges = if self.is_rootless() {
            let namespace = holder::find(&self.settings().runroot).and_then(|one| one.namespace().ok());
            namespace.map_or(Bridges::Nowhere, Bridges::In)
        } else {
            Bridges::Here
        };
        self.networks_in(bridges)
    }

    fn networks_in(&self, bridges: Bridges) -> Networks {
        Networks::new(&self.settings().root, &self.settings().runroot, bridges)
    }

    pub(crate) fn is_rootless(&self) -> bool {
        self.opened.get().map_or_else(crate::is_rootless, |opened| opened.authority.rootless)
    }

    /// The process whose user namespace an ordinary user's commands enter in place of one of their own.
    pub(crate) fn shared_namespace(&self) -> Option<Pid> {
        match holder::find(&self.settings().runroot) {
            Some(holder) => holder.pid(),
            None if holder::was_killed(&self.settings().runroot) => self.survivor(),
            None => None,
        }
    }

    /// To be called before the store is opened, where a container with this network will be started or
    /// is: an ordinary user's process has to be in the right user namespace then.
    pub(crate) fn enter_networks(&self, network: &Network) -> Result<()> {
        if self.opened.get().is_some() || !needs_bridges(network) || !self.is_rootless() {
            return Ok(());
        }
        let lock = holder::lock(&self.settings().runroot)?;
        if holder::find(&self.settings().runroot).is_none() {
            match self.shared_namespace() {
                Some(survivor) => rootless::join(survivor)?,
                None => drop(rootless::enter()?),
            }
            // Whoever comes next enters the same.
            self.make_holder(&lock)?;
        }
        drop(lock);
        self.store().map(drop)
    }

    /// A process that looks after a container which outlived the holder.
    fn survivor(&self) -> Option<Pid> {
        let networks = self.networks_in(Bridges::Nowhere);
        let all = networks.all().ok()?.into_iter().filter_map(|one| networks.endpoints(&one).ok());
        all.flatten().find_map(|endpoint| self.look(&endpoint.container).caretaker)
    }

    fn make_holder(&self, lock: &Lock) -> Result<Holder> {
        // A way out of a namespace that is gone.
        lock.end()?;
        let holder = lock.make()?;
        let networks = self.networks_in(Bridges::In(holder.namespace()?));
        networks.plug_again(&|id| NetworkNamespace::of(self.look(id).program?).ok())?;
        Ok(holder)
    }

    /// The networks, and that nobody ends their holder as long as the lock lives.
    pub(crate) fn hold_networks(&self) -> Result<(Networks, Option<Lock>)> {
        if !self.is_rootless() {
            return Ok((self.networks(), None));
        }
        let lock = holder::lock(&self.settings().runroot)?;
        let holder = match holder::find(&self.settings().runroot) {
            Some(holder) if holder.is_ours() => holder,
            Some(_) => return Err(onggi_network::Error::HeldElsewhere.into()),
            None => self.make_holder(&lock)?,
        };
        let namespace = holder.namespace()?;
        self.give_way_out(&namespace)?;
        Ok((self.networks_in(Bridges::In(namespace)), Some(lock)))
    }

    /// Makes sure that bridges have a way out, where this host has one.
    fn give_way_out(&self, namespace: &NetworkNamespace) -> Result<()> {
        let runroot = &self.settings().runroot;
        if usermode::get(runroot, UPLINK)?.is_some_and(|uplink| uplink.is_alive()) {
            return Ok(());
        }
        // Without such a program there is none; whoever starts a container was told.
        let Ok(program) = usermode::find() else { return Ok(()) };
        usermode::release(runroot, UPLINK)?;
        match usermode::start(&program, runroot, UPLINK, namespace, Part::Uplink, &[]) {
            Err(_) if !usermode::host_has_default_route() => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whether a process that made the holder, or used it last, was killed before it could say so: nobody
    /// has a place in the networks. One that was just made is left alone: its maker is on the way.
    pub(crate) fn has_forgotten_holder(&self) -> bool {
        self.is_rootless()
            && holder::age(&self.settings().runroot).is_some_and(|age| age > GRACE)
            && self.networks_in(Bridges::Nowhere).is_used().is_ok_and(|used| !used)
    }

    /// Ends a holder that was forgotten so.
    pub(crate) fn end_forgotten_holder(&self) -> Result<()> {
        if self.has_forgotten_holder() { self.end_unused_holder() } else { Ok(()) }
    }

    /// Ends the holder if nobody needs it any more.
    pub(crate) fn end_unused_holder(&self) -> Result<()> {
        if !self.is_rootless() {
            return Ok(());
        }
        Ok(end_unused(&self.settings().root, &self.settings().runroot)?)
    }
}

/// Ends the holder of a store if nobody has a place in its networks any more.
pub(crate) fn end_unused(root: &Path, runroot: &Path) -> onggi_network::Result<()> {
    if holder::find(runroot).is_none() && !holder::was_killed(runroot) {
        return Ok(());
    }
    let lock = holder::lock(runroot)?;
    if Networks::new(root, runroot, Bridges::Nowhere).is_used()? {
        return Ok(());
    }
    lock.end()
}
