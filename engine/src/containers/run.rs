//! Run and start: a container's program begins, and the caller stays with it or goes.
//!
//! | the caller | its container | parent of the program |
//! |---|---|---|
//! | stays (`run --rm` without a name) | goes with its program | the caller itself: see `foreground` |
//! | stays (any other `run`, `start -a`) | may be asked for, by its name or afterwards | a supervisor, the caller is attached |
//! | goes (`run -d`, `start`) | either | a supervisor |
//!
//! Without a name `run --rm` has a supervisor too if there is something for it to do: a terminal that may
//! be left by its detach keys, or a health check.

use super::attach::{AttachRequest, Attached};
use super::create::ProgressSource;
use super::mark::Mark;
use super::record::Record;
use super::state::Status;
use super::supervisor::{Attachment, HealthPlan};
use crate::Engine;
use crate::error::{Error, Result};
use crate::run::{RunRequest, UserNamespace, namespaces, shared};

/// How a run ended, from the caller's point of view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// With the program, which had this exit status.
    Ended(u8),
    /// The container with this ID goes on.
    GoesOn(String),
    /// The caller was attached and typed the detach keys.
    Left,
}

impl Engine {
    /// Makes a container and starts it. With `attach` the caller stays attached to its end.
    ///
    /// `progress` is asked for only if the image has to be fetched.
    pub fn run(
        &self,
        request: &RunRequest,
        attach: Option<&AttachRequest>,
        progress: ProgressSource<'_>,
    ) -> Result<Ran> {
        let image = self.prepare(request, progress)?;
        let (users, _) = namespaces::user_namespace(request, &image.config.config);
        self.shield(users == UserNamespace::Host || !shared::wishes(request).is_empty())?;
        let events: &[&str] = if attach.is_some() { &["create", "attach"] } else { &["create"] };
        let made = self.make(request, &image, events)?;
        if let Some(attach) = attach
            && is_the_callers_own(request)
            && HealthPlan::of(&made.record).is_none()
        {
            return self.run_in_foreground(made, attach.forward_signals).map(Ran::Ended);
        }
        let id = made.record.id.clone();
        let wire = self.launch(made.mark, &made.record, attachment(attach, &made.record));
        if wire.is_err()
            && request.remove
            && let Some(path) = made.id_file
        {
            // There is no such container.
            let _ = std::fs::remove_file(path);
        }
        let wire = wire?;
        match attach {
            None => Ok(Ran::GoesOn(id)),
            Some(attach) => Ok(match self.stay_attached(&wire, &made.record, attach)? {
                Attached::Ended(code) => Ran::Ended(code),
                Attached::Detached => Ran::Left,
            }),
        }
    }

    /// Starts a container that was made before; one that runs is left as it is. With `attach` the caller
    /// stays attached to its end.
    pub fn start(&self, text: &str, attach: Option<&AttachRequest>) -> Result<Option<Attached>> {
        let details = self.container(text)?;
        match details.status {
            Status::Paused => return Err(Error::IsPaused { name: text.into() }),
            Status::Running => return attach.map(|attach| self.attach(text, attach)).transpose(),
            _ => {}
        }
        let request = &details.record.request;
        self.enter_networks(&request.network)?;
        self.enter_beside(request)?;
        self.shield(details.record.host_ids || !shared::wishes(request).is_empty())?;
        let id = &details.record.id;
        let mark = match Mark::take(&self.settings().runroot, id) {
            // Somebody was quicker.
            Err(Error::StillRunning { .. }) => {
                return attach.map(|attach| self.attach(text, attach)).transpose();
            }
            other => other?,
        };
        // It may have been removed or changed before it was ours.
        let record = Record::read(&self.container_dir(id))?;
        let record = record.ok_or_else(|| Error::NoContainer { name: text.into() })?;
        if attach.is_some() {
            self.note_container(&record, &["attach"], &[]);
        }
        let wire = self.launch(mark, &record, attachment(attach, &record))?;
        attach.map(|attach| self.stay_attached(&wire, &record, attach)).transpose()
    }

    /// Starts the containers whose policy says so after the host was started: the names, and how it went.
    pub fn boot(&self) -> Result<Vec<(String, Result<()>)>> {
        use super::state::{Wish, wish};
        use crate::run::Restart;
        if self.needs_sweep()? {
            self.sweep()?;
        }
        let mut all = self.containers()?;
        // The oldest first: others may need it.
        all.reverse();
        let wanted = |details: &super::ContainerDetails| match details.record.request.restart {
            Restart::Always => true,
            Restart::UnlessStopped => wish(&details.dir) != Some(Wish::Stop),
            Restart::No | Restart::OnFailure(_) => false,
        };
        let started_once = |details: &super::ContainerDetails| details.state.started.is_some();
        let mut outcome = Vec::new();
        for details in
            all.into_iter().filter(|one| one.status == Status::Exited && started_once(one) && wanted(one))
        {
            let started = self.start(&details.record.id, None).map(drop);
            outcome.push((details.record.name, started));
        }
        Ok(outcome)
    }
}

/// Whether nobody but the caller can want anything of a container that he waits for: it is gone when it
/// ends, he gave it no name to find it by, and its terminal, if it has one, can't be left.
fn is_the_callers_own(request: &RunRequest) -> bool {
    let leaves = request.terminal.is_some() && request.interactive;
    request.remove && request.name.is_none() && !leaves
}

/// What the supervisor shall know of its first client.
fn attachment(attach: Option<&AttachRequest>, record: &Record) -> Attachment {
    attach.map_or_else(Attachment::default, |attach| Attachment {
        input: attach.streams.input && record.request.interactive,
        output: attach.streams.output || attach.streams.error,
    })
}
