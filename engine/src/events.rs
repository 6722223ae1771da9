//! Events: what happens to containers, images and volumes, seen in the files that say how they are.
//!
//! ```text
//!   <root>/containers/*/  <root>/refs/  <root>/volumes/  <runroot>/containers/    watched by inotify
//!           │ something changed
//!           ▼
//!   a picture of how everything is now ── compared with the one before ──► events
//! ```
//!
//! Nobody writes events down, so commands cost nothing for them. What that means: the past is what the files still tell
//! (when a container was made, started and ended last), and of a container that came and went between two
//! pictures only that is told.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use crate::Engine;
use crate::containers::{ContainerDetails, HealthStatus, Status};
use crate::error::{Error, Result};

/// Renames come in pairs and more; a picture is made when they are over.
const SETTLE: Duration = Duration::from_millis(2);
/// What no file tells (a caretaker that was killed) is looked for so often.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// `container`, `image` or `volume`.
    pub kind: &'static str,
    /// Docker's word: `create`, `start`, `die`, …
    pub action: String,
    /// Of what: an ID or a name.
    pub id: String,
    /// Name, image, labels, exit status.
    pub attributes: BTreeMap<String, String>,
}

/// How everything is at one moment.
#[derive(Debug, Default)]
struct Picture {
    containers: BTreeMap<String, ContainerDetails>,
    /// Names of images and what they point to.
    images: BTreeMap<String, String>,
    volumes: BTreeMap<String, BTreeMap<String, String>>,
}

impl Engine {
    /// Events that the files still tell of, the oldest first.
    ///
    /// # Errors
    /// Those of reading the store.
    pub fn past_events(&self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for one in self.containers()? {
            let at = |text: Option<&String>| text.and_then(|text| text.parse::<Timestamp>().ok());
            let mut push = |time: Option<Timestamp>, action: &str, more: &[(&str, String)]| {
                events.extend(time.map(|time| container_event(&one, time, action, more)));
            };
            push(at(Some(&one.record.created)), "create", &[]);
            push(at(one.state.started.as_ref()), "start", &[]);
            let code = one.state.exit_code.unwrap_or_default().to_string();
            push(at(one.state.finished.as_ref()), "die", &[("exitCode", code)]);
        }
        for volume in self.volumes()? {
            if let Ok(time) = volume.created.parse() {
                events.push(volume_event(&volume.name, time, "create"));
            }
        }
        events.sort_by_key(|event| event.time);
        Ok(events)
    }

    /// Tells each event to `sink` as it happens, until that says stop or the time has come.
    ///
    /// # Errors
    /// The directories can't be watched; those of reading the store.
    pub fn watch_events(
        &self,
        until: Option<Timestamp>,
        sink: &mut dyn FnMut(&Event) -> std::ops::ControlFlow<()>,
    ) -> Result<()> {
        // Makes the directories.
        self.store()?;
        let mut watch = Watch::new(self)?;
        let mut before = self.picture()?;
        loop {
            let left = match until {
                None => PATIENCE,
                Some(until) => {
                    let Ok(left) = Duration::try_from(until.duration_since(Timestamp::now())) else {
                        return Ok(());
                    };
                    left.min(PATIENCE)
                }
            };
            let gone = watch.wait(left)?;
            let now = self.picture()?;
            for event in changes(&before, &now, &gone) {
                if sink(&event).is_break() {
                    return Ok(());
                }
            }
            before = now;
        }
    }

    fn picture(&self) -> Result<Picture> {
        let mut picture = Picture::default();
        for one in self.containers()? {
            picture.containers.insert(one.record.id.clone(), one);
        }
        for one in self.store()?.refs()? {
            if let Some(name) = one.name.as_ref().filter(|_| one.is_tag()) {
                picture.images.insert(name.familiar(), one.target.digest.to_string());
            }
        }
        for volume in self.volumes()? {
            picture.volumes.insert(volume.name, BTreeMap::new());
        }
        Ok(picture)
    }
}

/// What lies between two pictures; `gone` are containers that came and went meanwhile.
fn changes(before: &Picture, now: &Picture, gone: &[String]) -> Vec<Event> {
    let mut events = Vec::new();
    let moment = Timestamp::now();
    for (id, one) in &now.containers {
        life(before.containers.get(id), one, moment, &mut events);
    }
    for (id, one) in &before.containers {
        if now.containers.contains_key(id) {
            continue;
        }
        if one.status.has_program() {
            // What it ended with went with it.
            events.push(container_event(one, moment, "die", &[]));
        }
        events.push(container_event(one, moment, "destroy", &[]));
    }
    for id in
        gone.iter().filter(|id| !before.containers.contains_key(*id) && !now.containers.contains_key(*id))
    {
        for action in ["create", "start", "die", "destroy"] {
            let (action, id) = (action.to_owned(), id.clone());
            events.push(Event { time: moment, kind: "container", action, id, attributes: BTreeMap::new() });
        }
    }
    let image = |id: &String, name: &String, action: &str| Event {
        time: moment,
        kind: "image",
        action: action.into(),
        id: id.clone(),
        attributes: BTreeMap::from([("name".to_owned(), name.clone())]),
    };
    for (name, id) in &now.images {
        if before.images.get(name) != Some(id) {
            events.push(image(id, name, "tag"));
        }
    }
    for (name, id) in before.images.iter().filter(|(name, _)| !now.images.contains_key(*name)) {
        events.push(image(id, name, "untag"));
    }
    for name in now.volumes.keys().filter(|name| !before.volumes.contains_key(*name)) {
        events.push(volume_event(name, moment, "create"));
    }
    for name in before.volumes.keys().filter(|name| !now.volumes.contains_key(*name)) {
        events.push(volume_event(name, moment, "destroy"));
    }
    events.sort_by_key(|event| event.time);
    events
}

/// What happened to one container.
fn life(
    before: Option<&ContainerDetails>,
    now: &ContainerDetails,
    moment: Timestamp,
    events: &mut Vec<Event>,
) {
    let at = |text: Option<&String>| text.and_then(|text| text.parse().ok()).unwrap_or(moment);
    let mut push = |time: Timestamp, action: &str, more: &[(&str, String)]| {
        events.push(container_event(now, time, action, more));
    };
    let (state, old) = (&now.state, before.map(|before| &before.state));
    if before.is_none() {
        push(at(Some(&now.record.created)), "create", &[]);
    }
    if state.started.is_some() && state.started != old.and_then(|old| old.started.clone()) {
        push(at(state.started.as_ref()), "start", &[]);
    }
    if state.oom_killed && !old.is_some_and(|old| old.oom_killed) {
        push(at(state.finished.as_ref()), "oom", &[]);
    }
    if state.finished.is_some() && state.finished != old.and_then(|old| old.finished.clone()) {
        let code = state.exit_code.unwrap_or_default().to_string();
        push(at(state.finished.as_ref()), "die", &[("exitCode", code)]);
    }
    match (before.map(|before| before.status), now.status) {
        (Some(Status::Running), Status::Paused) => push(moment, "pause", &[]),
        (Some(Status::Paused), Status::Running) => push(moment, "unpause", &[]),
        _ => {}
    }
    let word = |status: HealthStatus| status.word();
    let health = state.health.as_ref().map(|health| health.status);
    if let Some(health) = health
        && health != HealthStatus::Starting
        && Some(health) != old.and_then(|old| old.health.as_ref()).map(|health| health.status)
    {
        push(moment, &format!("health_status: {}", word(health)), &[]);
    }
    if let Some(before) = before {
        if before.record.name != now.record.name {
            push(moment, "rename", &[("oldName", format!("/{}", before.record.name))]);
        } else if before.record != now.record {
            push(moment, "update", &[]);
        }
    }
}

fn container_event(one: &ContainerDetails, time: Timestamp, action: &str, more: &[(&str, String)]) -> Event {
    let mut attributes = one.record.labels();
    attributes.insert("image".into(), one.record.image.reference.clone());
    attributes.insert("name".into(), one.record.name.clone());
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Event { time, kind: "container", action: action.into(), id: one.record.id.clone(), attributes }
}

fn volume_event(name: &str, time: Timestamp, action: &str) -> Event {
    let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
    Event { time, kind: "volume", action: action.into(), id: name.into(), attributes }
}

/// The directories in which something can happen.
struct Watch {
    inotify: OwnedFd,
    containers: PathBuf,
    refs: PathBuf,
    /// Which container's directory, or the directory of all, a number stands for.
    places: BTreeMap<i32, PathBuf>,
}

impl Watch {
    fn new(engine: &Engine) -> Result<Self> {
        let (root, runroot) = (&engine.settings().root, &engine.settings().runroot);
        let failed = |source| Error::Read { path: root.clone(), source };
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).map_err(|errno| failed(errno.into()))?;
        let mut watch = Self {
            inotify,
            containers: root.join("containers"),
            refs: root.join("refs"),
            places: BTreeMap::new(),
        };
        for dir in [root.join("containers"), root.join("volumes"), runroot.join("containers")] {
            watch.add(&dir).map_err(failed)?;
        }
        for entry in fs::read_dir(root.join("containers")).map_err(failed)?.flatten() {
            watch.add(&entry.path()).map_err(failed)?;
        }
        let refs = root.join("refs");
        watch.add_tree(&refs).map_err(failed)?;
        Ok(watch)
    }

    fn add(&mut self, dir: &Path) -> io::Result<()> {
        let flags = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, dir, flags) {
            Ok(number) => {
                self.places.insert(number, dir.to_owned());
                Ok(())
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Names of images are a tree.
    fn add_tree(&mut self, dir: &Path) -> io::Result<()> {
        self.add(dir)?;
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Waits until something happens and is over, or for a while. Gives the containers whose directories went.
    fn wait(&mut self, patience: Duration) -> Result<Vec<String>> {
        let containers = self.containers.clone();
        let failed = |source: io::Error| Error::Read { path: containers.clone(), source };
        let mut gone = Vec::new();
        let mut span = patience;
        loop {
            let time = Timespec {
                tv_sec: i64::try_from(span.as_secs()).unwrap_or(1),
                tv_nsec: span.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&time)) {
                Ok(0) => return Ok(gone),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
            self.read(&mut gone).map_err(failed)?;
            span = SETTLE;
        }
    }

    fn read(&mut self, gone: &mut Vec<String>) -> io::Result<()> {
        let mut seen: Vec<(PathBuf, inotify::ReadFlags)> = Vec::new();
        {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 16 << 10];
            let mut reader = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(rustix::io::Errno::WOULDBLOCK) => break,
                    Err(errno) => return Err(errno.into()),
                };
                let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
                if let Some(place) = self.places.get(&event.wd()) {
                    seen.push((place.join(name), event.events()));
                }
            }
        }
        for (path, what) in seen {
            let is_dir = what.contains(inotify::ReadFlags::ISDIR);
            let parent = path.parent().map(Path::to_owned).unwrap_or_default();
            if is_dir && what.intersects(inotify::ReadFlags::CREATE | inotify::ReadFlags::MOVED_TO) {
                if path.starts_with(&self.refs) {
                    self.add_tree(&path)?;
                } else if parent == self.containers {
                    self.add(&path)?;
                }
            }
            let went = what.intersects(inotify::ReadFlags::DELETE | inotify::ReadFlags::MOVED_FROM);
            if is_dir && went && parent == self.containers {
                gone.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        Ok(())
    }
}
