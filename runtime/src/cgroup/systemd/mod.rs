//! Control groups that systemd makes: a transient scope a container (`--systemd-cgroup`).
//!
//! ```text
//!  linux.cgroupsPath   "system.slice:crio:abc"  ─►  unit crio-abc.scope in system.slice
//!
//!  a placeholder process ──StartTransientUnit(PIDs=[it], Delegate, limits)──► the group exists, and is ours
//!  the container is cloned into it ──► the placeholder ends
//!  delete ──► its processes end ──► StopUnit
//! ```
//!
//! Limits are properties of the unit, so that they stay when systemd writes its own again, and are written
//! into the group besides: not each has a property.
//!
//! Units, slices and property names: org.freedesktop.systemd1(5), systemd.resource-control(5).

mod bus;
mod properties;

use std::os::fd::AsFd;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use onggi_sys::clone::{Child, Clone3};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal, waitpid};

use super::Hierarchies;
use crate::error::{Error, Result};
use bus::{Body, Bus, Refusal, Value};

const MANAGER: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// The longest name of a unit.
const MAX_NAME: usize = 255;

/// The service manager that makes control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Systemd {
    /// The address of its bus, as D-Bus writes addresses: `unix:path=/run/dbus/system_bus_socket`.
    pub bus: String,
    /// Whether it is a user's own manager.
    pub of_user: bool,
}

/// A unit's name and the slice it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: String,
    slice: String,
}

impl Unit {
    /// What `linux.cgroupsPath` says, `slice:prefix:name`; without, a scope named after the container.
    pub(crate) fn of(path: Option<&str>, id: &str, of_user: bool) -> Result<Self> {
        let default = if of_user { "user.slice" } else { "system.slice" };
        let (slice, prefix, name) = match path.map(|path| path.split(':').collect::<Vec<_>>()).as_deref() {
            None => (default, "onggi", id),
            Some([slice, prefix, name]) => (if slice.is_empty() { default } else { *slice }, *prefix, *name),
            Some(_) => {
                return Err(Error::invalid(
                    "linux.cgroupsPath",
                    format!("expected \"slice:prefix:name\" for systemd, got {:?}", path.unwrap_or_default()),
                ));
            }
        };
        check_slice(slice)?;
        if name.strip_suffix(".slice").is_some() {
            return Err(Error::unsupported(
                format!("linux.cgroupsPath {:?}", path.unwrap_or_default()),
                "a container in a slice of its own has no scope; give it a name without .slice",
            ));
        }
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.len() > MAX_NAME || name.len() <= ".scope".len() || !name.chars().all(allowed) {
            return Err(Error::invalid("linux.cgroupsPath", format!("{name:?} is no name of a unit")));
        }
        Ok(Self { name, slice: slice.to_owned() })
    }
}

/// As systemd checks it: dashes part the names of the slices above.
fn check_slice(slice: &str) -> Result<()> {
    let bad = || Error::invalid("linux.cgroupsPath", format!("{slice:?} is no name of a slice"));
    let name = slice.strip_suffix(".slice").ok_or_else(bad)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":_.\\@".contains(c);
    let fine = |part: &str| !part.is_empty() && part.chars().all(allowed);
    if name == "-" || (slice.len() <= MAX_NAME && name.split('-').all(fine)) { Ok(()) } else { Err(bad()) }
}

/// A process that keeps a scope alive until the container is in it; it ends when this is dropped.
#[derive(Debug)]
struct Placeholder(Child);

impl Placeholder {
    fn start() -> Result<Self> {
        let child = Clone3::default().run(|_| {
            if set_parent_process_death_signal(Some(Signal::KILL)).is_ok() {
                rustix::event::pause();
            }
            0
        });
        child.map(Self).map_err(Error::io("start", "a process for the new scope"))
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let _ = onggi_sys::signal::send_pidfd(self.0.pidfd.as_fd(), 9);
        let _ = waitpid(Some(self.0.pid), WaitOptions::empty());
    }
}

/// A scope that was just made. It goes with its last process, so this is held until the container is in it.
#[derive(Debug)]
pub(crate) struct Scope {
    placeholder: Placeholder,
}

impl Scope {
    /// The path of its group, in version 2 or in systemd's own tree of version 1.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let path = format!("/proc/{}/cgroup", self.placeholder.0.pid.as_raw_nonzero());
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let of = |wanted: &str| text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(wanted));
        let found = of(":").filter(|path| *path != "/").or_else(|| of("name=systemd:"));
        match found {
            Some(path) if path != "/" => Ok(PathBuf::from(path)),
            _ => Err(Error::invalid("the scope", "systemd put it into no control group")),
        }
    }
}

impl Systemd {
    /// Makes the scope with these limits.
    ///
    /// # Errors
    /// [`Error::Io`] if no bus is there, [`Error::Refused`] by the manager.
    pub(crate) fn start(&self, unit: &Unit, id: &str, resources: Option<&LinuxResources>) -> Result<Scope> {
        let mut bus = self.connect()?;
        let placeholder = Placeholder::start()?;
        let unified = Hierarchies::detect()?.is_unified();
        let mut list = vec![
            ("Description", Value::Text(format!("onggi container {id}"))),
            ("Slice", Value::Text(unit.slice.clone())),
            ("Delegate", Value::Bool(true)),
            ("PIDs", Value::Numbers(vec![placeholder.0.pid.as_raw_nonzero().get().unsigned_abs()])),
            ("DefaultDependencies", Value::Bool(false)),
        ];
        for accounting in ["MemoryAccounting", "CPUAccounting", "TasksAccounting"] {
            list.push((accounting, Value::Bool(true)));
        }
        list.push((if unified { "IOAccounting" } else { "BlockIOAccounting" }, Value::Bool(true)));
        list.extend(properties::of(resources, unified)?);
        let mut body = Body::default();
        body.text(&unit.name);
        body.text("replace");
        body.properties(&list);
        // No further units.
        body.array(8, |_| {});
        let start = |bus: &mut Bus| manager(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body);
        let answer = match start(&mut bus)? {
            // One of that name has failed, and systemd remembers.
            Err(refusal) if refusal.name.ends_with(".UnitExists") => {
                reset(&mut bus, &unit.name)?;
                start(&mut bus)?
            }
            answer => answer,
        };
        let answer = answer.map_err(|refusal| bus.refused("StartTransientUnit", &refusal))?;
        match bus.result_of(&answer)?.as_str() {
            "done" => Ok(Scope { placeholder }),
            other => {
                let words = format!("the job for {} ended with {other:?}", unit.name);
                Err(Error::Refused { call: "StartTransientUnit".into(), address: self.bus.clone(), words })
            }
        }
    }

    /// Changes the limits of a scope.
    pub(crate) fn update(&self, unit: &str, resources: &LinuxResources) -> Result<()> {
        let list = properties::of(Some(resources), Hierarchies::detect()?.is_unified())?;
        if list.is_empty() {
            return Ok(());
        }
        let mut bus = self.connect()?;
        let mut body = Body::default();
        body.text(unit);
        // `runtime`: not beyond a reboot.
        body.flag(true);
        body.properties(&list);
        let answer = manager(&mut bus, "SetUnitProperties", "sba(sv)", &body)?;
        answer.map(drop).map_err(|refusal| bus.refused("SetUnitProperties", &refusal))
    }

    /// Ends a scope; one that has ended with its last process is no error.
    pub(crate) fn stop(&self, unit: &str) -> Result<()> {
        let mut bus = self.connect()?;
        let mut body = Body::default();
        body.text(unit);
        body.text("replace");
        match manager(&mut bus, "StopUnit", "ss", &body)? {
            Ok(answer) => {
                bus.result_of(&answer)?;
            }
            Err(refusal) if refusal.name.ends_with(".NoSuchUnit") => return Ok(()),
            Err(refusal) => return Err(bus.refused("StopUnit", &refusal)),
        }
        reset(&mut bus, unit)
    }

    fn connect(&self) -> Result<Bus> {
        let mut bus = Bus::connect(&self.bus).map_err(|error| match error {
            Error::Io { source, .. } => Error::unsupported(
                "--systemd-cgroup",
                format!(
                    "the bus of {} is not there ({}: {source}); without systemd leave the flag away, with Podman --cgroup-manager=cgroupfs",
                    if self.of_user { "your systemd" } else { "systemd" },
                    self.bus
                ),
            ),
            other => other,
        })?;
        // Ends of jobs are signals, for whoever wants them.
        let mut rule = Body::default();
        rule.text(&format!("type='signal',sender='{MANAGER}',interface='{INTERFACE}',member='JobRemoved'"));
        let dbus = "org.freedesktop.DBus";
        bus.call(dbus, "/org/freedesktop/DBus", dbus, "AddMatch", "s", &rule)?
            .map_err(|refusal| bus.refused("AddMatch", &refusal))?;
        manager(&mut bus, "Subscribe", "", &Body::default())?
            .map_err(|refusal| bus.refused("Subscribe", &refusal))?;
        Ok(bus)
    }
}

fn manager(
    bus: &mut Bus,
    member: &str,
    signature: &str,
    body: &Body,
) -> Result<std::result::Result<Vec<u8>, Refusal>> {
    bus.call(MANAGER, MANAGER_PATH, INTERFACE, member, signature, body)
}

/// Makes the manager forget that a unit failed; it may have forgotten the unit altogether.
fn reset(bus: &mut Bus, unit: &str) -> Result<()> {
    let mut body = Body::default();
    body.text(unit);
    manager(bus, "ResetFailedUnit", "s", &body).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units_and_slices() {
        let unit = |path| Unit::of(Some(path), "id", false).map(|unit| (unit.slice, unit.name));
        let pair = |slice: &str, name: &str| (slice.to_owned(), name.to_owned());
        assert_eq!(unit("machine.slice:libpod:abc").unwrap(), pair("machine.slice", "libpod-abc.scope"));
        assert_eq!(unit(":cri-containerd:abc").unwrap(), pair("system.slice", "cri-containerd-abc.scope"));
        assert_eq!(unit("a-b.slice::x").unwrap(), pair("a-b.slice", "x.scope"));
        assert_eq!(Unit::of(None, "box", true).unwrap().slice, "user.slice");
        assert_eq!(Unit::of(None, "box", true).unwrap().name, "onggi-box.scope");
        for bad in [
            "/onggi/x",
            "a:b",
            "a:b:c:d",
            "x:y:z",
            "a--b.slice:p:n",
            ".slice:p:n",
            "../x.slice:p:n",
            "-.slice:p:a/b",
            "system.slice:p:n.slice",
            "system.slice::",
        ] {
            assert!(unit(bad).is_err(), "{bad}");
        }
    }
}
