//! Changes of a container that exists: its name, its limits, its restart policy; and clearing away those
//! that have ended.

use onggi_image::store::disk_usage;

use super::details::ContainerDetails;
use super::record::Record;
use super::state::Status;
use crate::Engine;
use crate::error::{Error, Result};
use crate::run::{Resources, Restart, groups};

/// What is changed; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct UpdateRequest {
    /// Limits.
    pub resources: Resources,
    /// When it is started again.
    pub restart: Option<Restart>,
}

/// What a prune removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunedContainers {
    /// IDs.
    pub ids: Vec<String>,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Engine {
    /// Gives a container another name.
    pub fn rename_container(&self, text: &str, name: &str) -> Result<()> {
        let record = self.find_container(text)?;
        let name = name.strip_prefix('/').unwrap_or(name);
        if record.name == name {
            return Err(Error::flag("NAME", "renaming a container with the same name as its current name"));
        }
        self.names().claim(name, &record.id)?;
        let mut old = String::new();
        let edited = Record::edit(&self.container_dir(&record.id), |record| {
            old = std::mem::replace(&mut record.name, name.to_owned());
            Ok(())
        });
        self.names().release(if edited.is_ok() { &old } else { name }, &record.id);
        let edited = edited?;
        self.note_container(&edited, &["rename"], &[("oldName", &format!("/{old}"))]);
        // Others of its networks find it by its new name from now on.
        Ok(self.networks().rename(&edited.id, name)?)
    }

    /// Changes limits and restart policy of a container, also while it runs.
    pub fn update_container(&self, text: &str, request: &UpdateRequest) -> Result<()> {
        let details = self.container(text)?;
        let wanted = &request.resources;
        if request.restart.is_some_and(|policy| policy != Restart::No) && details.record.request.remove {
            let problem = "a container that is removed when it ends can't be started again";
            return Err(Error::flag("--restart", problem));
        }
        let edited = Record::edit(&details.dir, |record| {
            let resources = record.request.resources.changed_by(wanted);
            resources.check()?;
            if details.status.has_program() && *wanted != Resources::default() {
                groups::update(&record.cgroup, wanted, &resources)?;
            }
            record.request.resources = resources;
            if let Some(policy) = request.restart {
                record.request.restart = policy;
            }
            Ok(())
        })?;
        self.note_container(&edited, &["update"], &[]);
        Ok(())
    }

    /// Removes all containers that don't run and that `wanted` accepts.
    pub fn prune_containers(&self, wanted: &dyn Fn(&ContainerDetails) -> bool) -> Result<PrunedContainers> {
        let mut pruned = PrunedContainers::default();
        let ended =
            |one: &ContainerDetails| matches!(one.status, Status::Created | Status::Exited) && !one.attended;
        for details in self.containers()?.into_iter().filter(|one| ended(one) && wanted(one)) {
            let bytes = disk_usage(&details.dir).unwrap_or_default();
            match self.remove_container(&details.record.id, false, false) {
                Ok(()) => {
                    pruned.bytes += bytes;
                    pruned.ids.push(details.record.id);
                }
                // Somebody started or removed it meanwhile.
                Err(Error::StillRunning { .. } | Error::NoContainer { .. } | Error::Busy { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}
