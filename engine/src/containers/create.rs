//! Making a container: everything up to its start, which may come later and more than once.
//!
//! ```text
//!   image (fetched first if missing) ──► layers ready ──► mark ──► name ──► config.json ──► upper/ work/
//! ```

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use onggi_image::snapshot::Snapshot;
use onggi_image::store::{Claim, Image, Layer, LayerSource};
use onggi_oci::{ErrorKind, Platform, Reference};

use super::mark::Mark;
use super::record::{ImageOfContainer, Record};
use super::state::now;
use super::sweep::remove_files;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::run::{
    PullPolicy, Restart, RunRequest, UserNamespace, groups, hostname, mounts, namespaces, process, shared,
};
use crate::{Engine, PullRequest};

/// Where the progress of a pull is told; asked for only if there is one.
pub type ProgressSource<'a> = &'a dyn Fn() -> Box<dyn Progress>;

/// A container that was just made, and that nobody else can touch yet.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) mark: Mark,
    pub(crate) record: Record,
    pub(crate) dir: PathBuf,
    pub(crate) layers: Vec<Layer>,
    pub(crate) id_file: Option<PathBuf>,
}

impl Engine {
    /// Makes a container and returns its ID.
    ///
    /// `progress` is asked for only if the image has to be fetched.
    pub fn create(&self, request: &RunRequest, progress: ProgressSource<'_>) -> Result<String> {
        let image = self.prepare(request, progress)?;
        Ok(self.make(request, &image, &["create"])?.record.id)
    }

    /// Checks the wishes and gets the image ready.
    pub(crate) fn prepare(&self, request: &RunRequest, progress: ProgressSource<'_>) -> Result<Image> {
        check(request)?;
        self.enter_networks(&request.network)?;
        self.enter_beside(request)?;
        self.store()?;
        self.sweep_some()?;
        let image = self.image_to_run(request, progress)?;
        check_platform(request, &image)?;
        Ok(image)
    }

    /// Makes the container's files, and tells of these events.
    pub(crate) fn make(&self, request: &RunRequest, image: &Image, events: &[&str]) -> Result<Made> {
        let layers = self.layers_to_run(image)?;
        // What can't be is said before anything is made.
        self.kept_ids(request)?;
        let arguments =
            process::arguments(&image.config.config, request.entrypoint.as_deref(), &request.command)?;
        let (users, because) = namespaces::user_namespace(request, &image.config.config);
        let of_another = self.shares_host_ids(request)?;
        let host_ids = users == UserNamespace::Host || of_another.is_some();
        let id = new_id()?;
        hostname(request, &id)?;
        let cgroup = groups::path(&request.resources, self.authority()?, &id)?;
        let id_file = request.id_file.as_deref().map(|path| write_id_file(path, &id)).transpose()?;
        let mark = Mark::take(&self.settings().runroot, &id)?;
        let dir = self.container_dir(&id);
        let mut record = Record {
            id,
            name: String::new(),
            created: now(),
            image: ImageOfContainer {
                reference: request.image.clone(),
                id: image.id.clone(),
                manifest: image.manifest_digest.clone(),
                layers: image.layers().map(|layer| layer.diff_id.clone()).collect(),
                config: image.config.config.clone(),
            },
            arguments,
            request: request.clone(),
            host_ids,
            host_ids_because: because.map(Into::into).or(of_another),
            cgroup,
            mounts: Vec::new(),
        };
        match self.make_files(&mut record, &dir, layers.clone()) {
            Ok(layers) => {
                self.note_container(&record, events, &[]);
                Ok(Made { mark, record, dir, layers, id_file: id_file.map(Path::to_owned) })
            }
            Err(error) => {
                let made = Made { mark, record, dir, layers, id_file: id_file.map(Path::to_owned) };
                self.unmake(made)?;
                Err(error)
            }
        }
    }

    /// Its layers with the owners that it needs.
    fn make_files(&self, record: &mut Record, dir: &Path, layers: Vec<Layer>) -> Result<Vec<Layer>> {
        record.name = match &record.request.name {
            Some(name) => self.names().claim(name, &record.id).map(|()| name.clone())?,
            None => self.names().claim_any(u64::from_le_bytes(random()?), &record.id)?,
        };
        fs::create_dir(dir).map_err(|source| Error::Write { path: dir.into(), source })?;
        // Volumes can't be removed by others before the record says that they are in use.
        let points = mounts::resolve(self, &record.request, &record.image.config)?;
        record.mounts.clone_from(&points.list);
        record.write(dir)?;
        // The record names them by now.
        let layers = self.layers_for(&record.request, layers)?;
        let image_tree = Snapshot::new(&layers, self.authority()?.overlay_xattr);
        if points.list.iter().any(|point| point.copy) {
            points.fill(self, image_tree.mount(None)?.as_fd())?;
        }
        image_tree.writable(dir).prepare()?;
        Ok(layers)
    }

    /// Removes a container that was not to be.
    pub(crate) fn unmake(&self, made: Made) -> Result<()> {
        if let Some(path) = &made.id_file {
            let _ = fs::remove_file(path);
        }
        let removed = remove_files(self.store()?, &made.dir, &made.record.mounts);
        self.names().release(&made.record.name, &made.record.id);
        drop(made.mark);
        removed
    }

    /// The image, fetched if it has to be.
    fn image_to_run(&self, request: &RunRequest, progress: ProgressSource<'_>) -> Result<Image> {
        let platform = request.platform.as_ref();
        if request.pull != PullPolicy::Always {
            match self.store()?.resolve(&request.image, platform) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                found => return Ok(found?),
            }
            if request.pull == PullPolicy::Never {
                return Err(Error::PullForbidden { image: familiar(&request.image) });
            }
        }
        let reference: Reference = request.image.parse()?;
        self.pull(&reference, &PullRequest { platform: request.platform.clone() }, progress().as_ref())?;
        Ok(self.store()?.resolve(&request.image, platform)?)
    }

    /// The image's layers, lowest first; those that are only here as blobs are unpacked.
    pub(crate) fn layers_to_run(&self, image: &Image) -> Result<Vec<Layer>> {
        let store = self.store()?;
        if let Ok(layers) = store.ready_layers(image) {
            return Ok(layers);
        }
        let lease = store.lease("run")?;
        for layer in image.layers() {
            if let Claim::Unpack(permit) = lease.claim_layer(layer.blob, layer.diff_id)? {
                let source = LayerSource { blob: layer.blob.clone(), diff_id: layer.diff_id.clone() };
                store.publish(vec![lease.unpack(source, permit)?])?;
            }
        }
        Ok(store.ready_layers(image)?)
    }
}

/// Checks what can be checked before anything is fetched.
fn check(request: &RunRequest) -> Result<()> {
    request.resources.check()?;
    request.security.check()?;
    if let Some(name) = &request.name {
        super::name::check(name)?;
    }
    shared::check(request)?;
    if request.remove && request.restart != Restart::No {
        return Err(Error::flag("--restart", "conflicting options: cannot specify both --restart and --rm"));
    }
    Ok(())
}

/// Writes the container's ID where the caller wants it, which must be a new file.
fn write_id_file<'a>(path: &'a Path, id: &str) -> Result<&'a Path> {
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
    match file.and_then(|mut file| file.write_all(id.as_bytes())) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::flag(
            "--cidfile",
            format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ),
        )),
        Err(source) => Err(Error::Write { path: path.into(), source }),
    }
}

/// An image for another machine runs only where the kernel knows an interpreter for it.
fn check_platform(request: &RunRequest, image: &Image) -> Result<()> {
    let (host, platform) = (Platform::host(), image.platform());
    // Images built from scratch by simple tools name no platform at all.
    if image.config.architecture.is_empty() || host.accepts(&platform) || has_interpreter(&platform) {
        return Ok(());
    }
    Err(Error::ForeignPlatform {
        image: familiar(&request.image),
        platform: platform.to_string(),
        host: host.to_string(),
    })
}

/// Whether binfmt_misc has an entry by which the usual packages register QEMU for the architecture.
fn has_interpreter(platform: &Platform) -> bool {
    let machine = match platform.architecture.as_str() {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        "loong64" => "loongarch64",
        other => other,
    };
    let entry = PathBuf::from(format!("/proc/sys/fs/binfmt_misc/qemu-{machine}"));
    platform.os == "linux" && fs::read_to_string(entry).is_ok_and(|text| text.starts_with("enabled"))
}

/// The name of an image in a message: familiar if it is a name, as it is if it is an ID.
fn familiar(image: &str) -> String {
    image.parse::<Reference>().map_or_else(|_| image.to_owned(), |name| name.familiar())
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(count) if count == N => Ok(bytes),
        // Requests of up to 256 bytes are never cut short.
        Ok(_) => {
            Err(Error::Process { op: "read random bytes", source: std::io::ErrorKind::UnexpectedEof.into() })
        }
        Err(errno) => Err(Error::Process { op: "read random bytes", source: errno.into() }),
    }
}

/// 64 random hexadecimal digits.
pub(crate) fn new_id() -> Result<String> {
    let bytes: [u8; 32] = random()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
