//! What becomes of a build's result besides an image in the store.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use onggi_build::StackLayer;
use onggi_image::archive::{Format, SaveItem};
use onggi_image::layer::{PackOptions, Source, pack};
use onggi_image::snapshot::Snapshot;
use onggi_image::store::Lease;
use onggi_oci::Descriptor;

use super::attest::Predicate;
use super::{Built, Output};
use crate::error::{self, Error};
use crate::progress::{Progress, Silent};
use crate::{Engine, PushRequest};

/// What of one platform goes out.
pub(super) struct Result<'a> {
    pub(super) stack: &'a [StackLayer],
    pub(super) predicates: &'a [Predicate],
}

impl Engine {
    /// Writes one output; gives what a registry has now, if it was sent there: compressed layers change the manifest.
    pub(super) fn write_output(
        &self,
        output: &Output,
        lease: &Lease,
        built: &Built,
        results: &[Result<'_>],
    ) -> error::Result<Option<Descriptor>> {
        match output {
            Output::Image(_) => Ok(()),
            Output::Registry(own) => {
                let names = if own.is_empty() { &built.names } else { own };
                if names.is_empty() {
                    return Err(Error::flag("--push", "tag is needed when pushing to registry"));
                }
                let mut sent = None;
                for tag in names {
                    let silent: Arc<dyn Progress> = Arc::new(Silent);
                    let pushed =
                        self.push(&tag.clone().with_default_tag(), &PushRequest::default(), &silent)?;
                    sent = Some(Descriptor::new(built.target.media_type.clone(), pushed.digest, pushed.size));
                }
                return Ok(sent);
            }
            Output::Docker(path) => self.write_archive(Format::Docker, path.as_deref(), built),
            Output::Oci { path, tar: true } => self.write_archive(Format::Oci, path.as_deref(), built),
            Output::Oci { path, tar: false } => {
                let Some(dir) = path else {
                    return Err(Error::flag("--output", "type=oci,tar=false needs dest"));
                };
                self.store()?.save_layout(&[self.item(built)?], dir).map_err(Error::from)
            }
            Output::Local(dir) => self.write_tree(dir, lease, built, results),
            Output::Tar(path) => {
                let [only] = results else {
                    let why = "type=tar holds one platform: take type=local or type=oci for several";
                    return Err(Error::flag("--output", why));
                };
                let mut out = open(path.as_deref())?;
                let tree = self.mount_result(lease, only)?;
                let options = PackOptions::new(Source::Tree);
                pack(tree.as_fd(), &mut out, &options)?;
                out.flush().map_err(|source| Error::Process { op: "write the archive", source })
            }
        }?;
        Ok(None)
    }

    fn item(&self, built: &Built) -> error::Result<SaveItem> {
        let image = self.store()?.image(&built.target, None)?;
        Ok(SaveItem::new(image, built.names.iter().map(|tag| tag.clone().with_default_tag()).collect()))
    }

    fn write_archive(&self, format: Format, path: Option<&Path>, built: &Built) -> error::Result<()> {
        let item = self.item(built)?;
        let mut out = open(path)?;
        self.store()?.save(&[item], format, &mut out)?;
        out.flush().map_err(|source| Error::Process { op: "write the archive", source })
    }

    /// The files of each platform, below a directory of its name if there are several.
    fn write_tree(
        &self,
        dir: &Path,
        lease: &Lease,
        built: &Built,
        results: &[Result<'_>],
    ) -> error::Result<()> {
        for ((platform, ..), result) in built.images.iter().zip(results) {
            let into = match built.images.len() {
                1 => dir.to_owned(),
                _ => dir.join(platform.to_string().replace('/', "_")),
            };
            std::fs::create_dir_all(&into).map_err(|source| Error::Write { path: into.clone(), source })?;
            onggi_build::export(self.mount_result(lease, result)?, &into)?;
        }
        Ok(())
    }

    /// The files of a result, with what is said of them.
    fn mount_result(&self, lease: &Lease, result: &Result<'_>) -> error::Result<std::os::fd::OwnedFd> {
        let said = self.attest_files(lease, result.stack, result.predicates)?;
        let layers: Vec<_> = result.stack.iter().chain(&said).map(|one| one.layer.clone()).collect();
        Ok(Snapshot::new(&layers, self.authority()?.overlay_xattr).mount(None)?)
    }
}

/// A file, or standard output.
fn open(path: Option<&Path>) -> error::Result<Box<dyn Write>> {
    let file = if let Some(path) = path {
        File::create(path).map_err(|source| Error::Write { path: path.into(), source })?
    } else {
        let fd = rustix::stdio::stdout().try_clone_to_owned();
        File::from(fd.map_err(|source| Error::Process { op: "write to standard output", source })?)
    };
    Ok(Box::new(std::io::BufWriter::new(file)))
}

impl Engine {
    /// Compares two builds layer by layer: for each step whose layers differ, the files that do.
    pub fn compare_builds(&self, first: &Built, second: &Built) -> error::Result<Vec<(String, Vec<String>)>> {
        let store = self.store()?;
        let mut all = Vec::new();
        for ((_, a, _), (_, b, _)) in first.images.iter().zip(&second.images) {
            let (a, b) = (store.image(a, None)?, store.image(b, None)?);
            let mut steps = a.config.history.iter().filter(|entry| !entry.empty_layer);
            for (one, other) in a.layers().zip(b.layers()) {
                let step = steps.next().and_then(|entry| entry.created_by.clone()).unwrap_or_default();
                if one.diff_id == other.diff_id {
                    continue;
                }
                let (Some(one), Some(other)) = (store.layer(one.diff_id)?, store.layer(other.diff_id)?)
                else {
                    continue;
                };
                all.push((step, onggi_build::differences(&one.path, &other.path)?));
            }
        }
        Ok(all)
    }
}
