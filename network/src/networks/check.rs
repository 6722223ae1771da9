//! The kernel compared with the files, and what is left of the dead given back.

use super::{Bridges, Networks};
use crate::bridge;
use crate::definition::Definition;
use crate::endpoint::{Endpoint, Endpoints};
use crate::error::Result;
use crate::ruleset;

impl Networks {
    /// Gives back what containers hold that are not alive.
    pub fn sweep(&self, alive: &dyn Fn(&str) -> bool) -> Result<()> {
        self.dead(alive)?.iter().try_for_each(|holder| self.release(holder))
    }

    /// Containers that hold something and are not alive.
    pub fn dead(&self, alive: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut dead = Vec::new();
        for network in self.all()? {
            dead.extend(Endpoints::of(&self.state, &network).holders()?);
        }
        dead.retain(|holder| !alive(holder));
        dead.sort();
        dead.dedup();
        Ok(dead)
    }

    /// Compares the kernel with the files, and mends what differs if `repair`. Sentences about what was
    /// found, and whether each was mended.
    pub fn check(&self, repair: bool) -> Result<Vec<(String, bool)>> {
        let _lock = self.lock()?;
        let networks = self.with_endpoints()?;
        if networks.is_empty() || matches!(self.bridges, Bridges::Nowhere) {
            return Ok(Vec::new());
        }
        let definitions: Vec<Definition> = networks.iter().map(|(network, _)| network.clone()).collect();
        self.on_host(|| {
            let mut found = Vec::new();
            let mut bridges = Vec::new();
            let mut needed = Vec::new();
            for (network, endpoints) in &networks {
                match bridge::find(network)? {
                    Some(index) => bridges.push(index),
                    // Not used since the last reboot.
                    None if endpoints.is_empty() => continue,
                    None => {
                        let what = format!("network {} has no bridge {}", network.name, network.bridge);
                        if repair {
                            bridges.push(bridge::ensure(network, self.mtu())?.0);
                        }
                        found.push((format!("{what}: its containers must be restarted"), false));
                    }
                }
                needed.push((network.clone(), endpoints.clone()));
            }
            let ports = bridge::ports_of(&bridges)?;
            for (network, endpoints) in &needed {
                for lost in endpoints.iter().filter(|endpoint| !ports.contains(&endpoint.port)) {
                    let what =
                        format!("container {} has lost its interface to network {}", lost.name, network.name);
                    found.push((
                        format!("{what}: it must be restarted, or disconnected and connected"),
                        false,
                    ));
                }
            }
            let wanted = ruleset::wanted(&needed);
            let mut drift = ruleset::compare(&wanted, &definitions)?;
            if needed.is_empty() {
                return Ok(found);
            }
            // A network without containers lacks nothing: who was killed on the way to its first one left a
            // bridge, and the next one completes it.
            let used: Vec<_> =
                needed.iter().filter(|(_, endpoints)| !endpoints.is_empty()).cloned().collect();
            if used.len() < needed.len() {
                drift.missing = ruleset::compare(&ruleset::wanted(&used), &definitions)?.missing;
                drift.no_table &= !used.is_empty();
            }
            let mut broken = |what: String| found.push((what, repair));
            if drift.no_table {
                broken("the nftables table \"inet onggi\" is missing".into());
            } else if drift.rules {
                broken("the rules of the nftables table \"inet onggi\" were changed".into());
            }
            if !drift.no_table && drift.missing > 0 {
                broken(format!(
                    "{} elements of the nftables table \"inet onggi\" are missing",
                    drift.missing
                ));
            }
            if !drift.stale.is_empty() {
                let count = drift.stale.len();
                broken(format!("{count} elements of the nftables table \"inet onggi\" belong to nobody"));
            }
            if repair && (drift.no_table || drift.rules) {
                ruleset::restore_beside(&wanted, &definitions)?;
            } else if repair {
                ruleset::remove(&drift.stale)?;
                ruleset::add(&wanted)?;
            }
            Ok(found)
        })
    }

    /// Chains of the host's own firewall that drop what is forwarded: what a person should know.
    pub fn foreign_drops(&self) -> Result<Vec<String>> {
        if matches!(self.bridges, Bridges::Here) { ruleset::foreign_drops() } else { Ok(Vec::new()) }
    }

    /// Makes the whole table from the files; in the host's namespace.
    pub(super) fn restore(&self) -> Result<()> {
        let _lock = self.lock()?;
        let networks = self.with_endpoints()?;
        if ruleset::exists()? {
            // Somebody else was faster; ours are missing at most.
            if ruleset::add(&ruleset::wanted(&networks))? {
                return Ok(());
            }
        }
        ruleset::restore(&ruleset::wanted(&networks))
    }

    pub(super) fn with_endpoints(&self) -> Result<Vec<(Definition, Vec<Endpoint>)>> {
        let all = self.all()?.into_iter();
        all.map(|network| self.endpoints(&network).map(|endpoints| (network, endpoints))).collect()
    }
}
