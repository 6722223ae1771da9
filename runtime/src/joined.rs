//! A container that shares namespaces and has not the caller's user namespace.
//!
//! What is new belongs to the container's user namespace, so where that is joined the clone happens inside of it. Where
//! it is new, what is shared has to be joined before, because the container has no authority over it.
//!
//! ```text
//!  caller ──clone──► helper: setns to what the caller has authority over,
//!                    setns(user), setns to what that gives authority over
//!                    ──clone3(new namespaces), as the caller's child──► first process
//! ```
//!
//! The order is that of authority. A namespace that belongs to the host can be joined only from outside; one that
//! belongs to the joined user namespace, by an ordinary user, only from inside. The mount namespace comes last,
//! and in the first process itself, which needs the caller's paths until then.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use onggi_sys::clone::{Child, Clone3, Namespaces, SingleThreaded, enter, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, WaitOptions, waitpid};

use crate::channel::{CHILD, Channel};
use crate::error::{Error, Result, Stage};
use crate::exec::meet;
use crate::init::{Step, failed};
use crate::plan::Plan;

/// What is joined, and what is made new inside of it.
#[derive(Debug)]
pub(crate) struct Entrance<'a> {
    join: Vec<(Namespaces, OwnedFd, String)>,
    new: Namespaces,
    /// The clocks of a new time namespace, as the kernel takes them.
    clocks: String,
    cgroup: Option<BorrowedFd<'a>>,
}

impl<'a> Entrance<'a> {
    /// For a plan whose namespaces are [joined first](Plan::joins_first); `new` are the namespaces of the clone.
    pub(crate) fn of(plan: &Plan, new: Namespaces, cgroup: Option<BorrowedFd<'a>>) -> Result<Self> {
        let mut join = Vec::new();
        for (kind, namespace, path) in plan.join.iter().filter(|(kind, ..)| *kind != Namespaces::MOUNT) {
            join.push((*kind, namespace.try_clone().map_err(Error::io("hold", path))?, path.clone()));
        }
        Ok(Self { join, new, clocks: plan.time_offsets.clone(), cgroup })
    }

    /// Makes the first process, a child of this one, which runs `body`. If it failed before it was handed
    /// over, that comes with it.
    ///
    /// `ours` and `theirs` are the two ends of one channel.
    pub(crate) fn clone(
        self,
        ours: &Channel,
        theirs: Channel,
        body: impl FnOnce(Channel, SingleThreaded) -> i32,
    ) -> Result<(Child, Option<Error>)> {
        let ours_fd = ours.as_fd().as_raw_fd().unsigned_abs();
        let helper = Clone3::default().run(move |single| {
            let _ = onggi_sys::process::close_range(ours_fd, ours_fd);
            self.help(theirs, single, body)
        });
        let helper = helper.map_err(Error::io("start", "a process to join the namespaces"))?;
        let met = meet(ours);
        let _ = waitpid(Some(helper.pid), WaitOptions::empty());
        // Terminals and listeners come later, after an answer from here.
        met.map(|(child, _, failed)| (child, failed))
    }

    /// In the helper.
    fn help(
        self,
        channel: Channel,
        single: SingleThreaded,
        body: impl FnOnce(Channel, SingleThreaded) -> i32,
    ) -> i32 {
        let report = |report| {
            channel.report(&report);
            1
        };
        if let Err(error) = self.enter() {
            return report(error);
        }
        let Ok(own) = channel.as_fd().try_clone_to_owned() else { return 1 };
        let own = Channel::from_fd(own);
        let own_fd = own.as_fd().as_raw_fd().unsigned_abs();
        let clone =
            Clone3 { namespaces: self.new.without(Namespaces::TIME), cgroup: self.cgroup, sibling: true };
        let made = clone.run_single(single, |single| {
            let _ = onggi_sys::process::close_range(own_fd, own_fd);
            body(channel, single)
        });
        let told = match made {
            Ok(child) => {
                let pid = child.pid.as_raw_nonzero().get().to_ne_bytes();
                own.send(CHILD, &pid, Some(child.pidfd.as_fd()))
            }
            Err(error) => {
                own.report(&failed(Stage::NewNamespace, "")(error));
                return 1;
            }
        };
        i32::from(told.is_err())
    }

    fn enter(&self) -> Step<()> {
        let is_user = |kind: Namespaces| kind == Namespaces::USER;
        // Opened with the caller's authority: behind the door the file is nobody's.
        let clocks = if self.clocks.is_empty() {
            None
        } else {
            let path = "/proc/self/timens_offsets";
            let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            Some(file.map_err(failed(Stage::NewNamespace, path))?)
        };
        if self.join.iter().any(|(kind, ..)| is_user(*kind)) {
            // Processes there may have authority over this one from now on, and must not look into it.
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .map_err(failed(Stage::Identity, ""))?;
        }
        let mut later = Vec::new();
        for one in self.join.iter().filter(|(kind, ..)| !is_user(*kind)) {
            match enter(one.1.as_fd(), one.0) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => later.push(one),
                other => other.map_err(failed(Stage::JoinNamespace, &one.2))?,
            }
        }
        for (kind, namespace, path) in self.join.iter().filter(|(kind, ..)| is_user(*kind)).chain(later) {
            enter(namespace.as_fd(), *kind).map_err(failed(Stage::JoinNamespace, path))?;
        }
        if self.new.contains(Namespaces::TIME) {
            unshare(Namespaces::TIME).map_err(failed(Stage::NewNamespace, "time"))?;
        }
        if let Some(file) = &clocks {
            let step = failed(Stage::NewNamespace, self.clocks.trim());
            rustix::io::write(file, self.clocks.as_bytes()).map_err(step)?;
        }
        Ok(())
    }
}
