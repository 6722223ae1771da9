//! `system check`: is everything what its digest says, and does every ref reach what it needs?
//!
//! What a killed process left below `ingest/` is no fault: it is swept first.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use onggi_oci::{Descriptor, DiffId, Digest, Hasher, Reference};
use rustix::fs::FileType;

use super::ingest::LayerSource;
use super::layer::{FILE, Format, LayerRecord, TREE, diff_id_of, read_record};
use super::walk::{tree_digest, walk};
use super::{Store, durable};
use crate::erofs::digest_of;
use crate::error::{Error, Result};

/// How closely to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Names, sizes and what reaches what: no content is read but manifests and configs.
    Quick,
    /// Every blob is hashed, every layer's tree is walked; a tree that looks wrong is compared.
    #[default]
    Full,
    /// Every layer whose blob is here is unpacked again beside and compared, byte by byte.
    Deep,
}

/// How to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// How closely to look.
    pub depth: Depth,
    /// Whether to mend what can be mended without a network.
    pub repair: bool,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A blob's content is not what its name says.
    Blob(Digest),
    /// A layer's record or tree is damaged.
    Layer(DiffId),
    /// A ref cannot be read, or does not reach everything.
    Ref(String),
    /// `index.json` is not what the refs say.
    Index,
    /// Something is where nothing belongs.
    Stray(PathBuf),
}

/// What was, or can be, done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mend {
    /// It is mended.
    Done(&'static str),
    /// `--repair` would do this.
    Offered(&'static str),
    /// A blob must be fetched again; these repositories are known to hold it.
    Fetch(Digest, Vec<Reference>),
    /// Nothing in the store helps; pull, load or build the image again.
    Again,
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What is wrong.
    pub problem: Problem,
    /// How that shows.
    pub detail: String,
    /// What was, or can be, done about it.
    pub mend: Mend,
}

/// What was looked at, and found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Blobs looked at.
    pub blobs: u64,
    /// Bytes of blobs that were hashed.
    pub hashed: u64,
    /// Layers looked at.
    pub layers: u64,
    /// Refs looked at.
    pub refs: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl CheckReport {
    /// Whether nothing is wrong (any more).
    pub fn is_clean(&self) -> bool {
        self.faults.iter().all(|f| matches!(f.mend, Mend::Done(_)))
    }
}

impl Store {
    /// Checks the store, and mends it if asked to. Others may work meanwhile.
    pub fn check(&self, options: CheckOptions) -> Result<CheckReport> {
        self.sweep()?;
        let mut report = CheckReport::default();
        self.check_blobs(options, &mut report)?;
        self.check_layers(options, &mut report)?;
        self.check_refs(options, &mut report)?;
        self.check_index(options, &mut report)?;
        Ok(report)
    }

    fn check_blobs(&self, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
        let mut blobs = Vec::new();
        let mut strays = Vec::new();
        self.each_blob(&mut |digest, path| {
            match digest {
                Some(digest) if fs::symlink_metadata(path).is_ok_and(|m| m.is_file()) => blobs.push(digest),
                _ => strays.push(path.to_owned()),
            }
            Ok(())
        })?;
        for path in strays {
            let mend = mend(options, "it is removed", || self.discard(&path))?;
            let detail = "this is no blob".into();
            report.faults.push(Fault { problem: Problem::Stray(path), detail, mend });
        }
        report.blobs = blobs.len() as u64;
        if options.depth < Depth::Full {
            return Ok(());
        }
        let (bytes, damaged) = self.hash_blobs(&blobs)?;
        report.hashed = bytes;
        for (digest, detail) in damaged {
            let path = self.blob_path(&digest);
            let removed = mend(options, "it is removed", || self.discard(&path))?;
            let mend = match removed {
                Mend::Done(_) => self.after_removal(&digest)?,
                other => other,
            };
            report.faults.push(Fault { problem: Problem::Blob(digest), detail, mend });
        }
        Ok(())
    }

    /// Hashes blobs, two at a time. Returns the bytes read, and what is damaged and how.
    fn hash_blobs(&self, blobs: &[Digest]) -> Result<(u64, Vec<(Digest, String)>)> {
        let next = AtomicUsize::new(0);
        let result = Mutex::new((0, Vec::new()));
        let work = || -> Result<()> {
            while let Some(digest) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Some((bytes, found)) = self.hash_blob(digest)? else { continue };
                let mut result = result.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                result.0 += bytes;
                if found != *digest {
                    result.1.push((digest.clone(), format!("its content has the digest {found}")));
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let helper = scope.spawn(work);
            work().and(helper.join().unwrap_or(Ok(())))
        })?;
        Ok(result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// `None`: pruned meanwhile.
    fn hash_blob(&self, digest: &Digest) -> Result<Option<(u64, Digest)>> {
        let mut file = match self.open_blob(digest) {
            Err(Error::NoSuchBlob { .. }) => return Ok(None),
            other => other?,
        };
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer);
            let count = read.map_err(|e| Error::io("read the blob", self.blob_path(digest), e))?;
            if count == 0 {
                return Ok(Some((bytes, hasher.finish())));
            }
            bytes += count as u64;
            hasher.update(&buffer[..count]);
        }
    }

    fn check_layers(&self, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
        for name in self.layer_names()? {
            let dir = self.layers_dir().join(&name);
            let Some(diff_id) = diff_id_of(&name) else {
                let mend = mend(options, "it is removed", || self.discard(&dir))?;
                let detail = "this is no layer".into();
                report.faults.push(Fault { problem: Problem::Stray(dir), detail, mend });
                continue;
            };
            report.layers += 1;
            let (record, problem) = match read_record(&dir) {
                Ok(Some(record)) if record.diff_id != diff_id => {
                    (None, Some("its layer.json is about another layer".to_owned()))
                }
                Ok(Some(record)) => {
                    let problem = match record.format {
                        Format::Dir => self.layer_problem(&record, &dir.join(TREE), options)?,
                        Format::Erofs => self.file_problem(&record, &dir.join(FILE), options)?,
                    };
                    (Some(record), problem)
                }
                Ok(None) if !dir.exists() => continue,
                Ok(None) => (None, Some("its layer.json is missing".to_owned())),
                Err(e) => (None, Some(e.to_string())),
            };
            if let Some(record) =
                record.as_ref().filter(|record| problem.is_none() && record.format == Format::Dir)
            {
                self.check_copies(record, &dir, options, report)?;
            }
            if let Some(detail) = problem {
                let mend = self.mend_layer(&diff_id, record.as_ref(), options)?;
                report.faults.push(Fault { problem: Problem::Layer(diff_id), detail, mend });
            }
        }
        Ok(())
    }

    /// Copies with other owners: they have what the layer has, or are dropped.
    fn check_copies(
        &self,
        record: &LayerRecord,
        dir: &std::path::Path,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<()> {
        if options.depth < Depth::Full {
            return Ok(());
        }
        for copy in self.copies_of(dir)? {
            let (found, wanted) = (measure(&copy)?, measure(&dir.join(TREE))?);
            if found == wanted {
                continue;
            }
            let mend =
                mend(options, "it is removed, and made again when it is needed", || self.discard(&copy))?;
            let detail = format!(
                "a copy of the layer {} has {} entries of {} bytes, the layer {} of {}",
                record.diff_id, found.0, found.1, wanted.0, wanted.1
            );
            report.faults.push(Fault { problem: Problem::Stray(copy), detail, mend });
        }
        Ok(())
    }

    fn layer_problem(
        &self,
        record: &LayerRecord,
        tree: &std::path::Path,
        options: CheckOptions,
    ) -> Result<Option<String>> {
        if !fs::symlink_metadata(tree).is_ok_and(|m| m.is_dir()) {
            return Ok(Some("its tree fs/ is missing".into()));
        }
        if options.depth < Depth::Full {
            return Ok(None);
        }
        let (entries, bytes) = measure(tree)?;
        if bytes > record.bytes {
            let said = record.bytes;
            return Ok(Some(format!("its files have {bytes} bytes, its record says {said}")));
        }
        // Fewer bytes can be right: an archive may replace its own entries. Only a comparison tells.
        if options.depth < Depth::Deep && bytes == record.bytes && (entries > 0 || record.entries < 2) {
            return Ok(None);
        }
        let Some(source) = self.source_of(record)? else { return Ok(None) };
        let lease = self.lease("check a layer")?;
        let again = match lease.derive(source, None, Some(Format::Dir)) {
            Ok(again) => again,
            // Then it is the blob that is damaged, which is another fault.
            Err(Error::Mismatch { .. } | Error::Stream { .. } | Error::Corrupt { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(fresh) = again.layer_dir() else { return Ok(None) };
        let same = tree_digest(tree)? == tree_digest(&fresh.join(TREE))?;
        Ok((!same).then(|| "its tree is not what its blob unpacks to".into()))
    }

    /// The file of a layer has the checksum that was taken when it was written.
    fn file_problem(
        &self,
        record: &LayerRecord,
        path: &std::path::Path,
        options: CheckOptions,
    ) -> Result<Option<String>> {
        let io = |e| Error::io("read the layer's file", path, e);
        let mut file = match File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Some(format!("its file {FILE} is missing")));
            }
            other => other.map_err(io)?,
        };
        let Some(expected) = &record.file else { return Ok(Some("its record knows no file".into())) };
        let size = file.metadata().map_err(io)?.len();
        if size != expected.size {
            return Ok(Some(format!("its file has {size} bytes, its record says {}", expected.size)));
        }
        if let Some(problem) = expected.broken_seal(file.as_fd()).map_err(io)? {
            return Ok(Some(problem));
        }
        if options.depth < Depth::Full {
            return Ok(None);
        }
        let (digest, _) = digest_of(&mut file).map_err(io)?;
        if digest != expected.digest {
            return Ok(Some(format!(
                "its file has the checksum {digest}, its record says {}",
                expected.digest
            )));
        }
        if options.depth < Depth::Deep {
            return Ok(None);
        }
        let Some(source) = self.source_of(record)? else { return Ok(None) };
        let lease = self.lease("check a layer")?;
        lease.protect([&record.diff_id.0])?;
        let again = match lease.derive(source, None, Some(Format::Dir)) {
            Ok(again) => again,
            Err(Error::Mismatch { .. } | Error::Stream { .. } | Error::Corrupt { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(fresh) = again.layer_dir() else { return Ok(None) };
        let layer = self.layer_of(record.clone());
        drop(layer.open()?);
        let same = tree_digest(&layer.path)? == tree_digest(&fresh.join(TREE))?;
        Ok((!same).then(|| "its file does not show what its blob unpacks to".into()))
    }

    /// A blob that is here and unpacks to the layer.
    pub(super) fn source_of(&self, record: &LayerRecord) -> Result<Option<LayerSource>> {
        for form in &record.blobs {
            let blob = Descriptor::new(form.media_type.clone(), form.digest.clone(), form.size);
            if self.has_blob(&blob)? {
                return Ok(Some(LayerSource { blob, diff_id: record.diff_id.clone() }));
            }
        }
        Ok(None)
    }

    /// A damaged layer is taken away, and made again from its blob if that is here.
    fn mend_layer(
        &self,
        diff_id: &DiffId,
        record: Option<&LayerRecord>,
        options: CheckOptions,
    ) -> Result<Mend> {
        let source = match record {
            Some(record) => self.source_of(record)?,
            None => self.source_by_images(diff_id)?,
        };
        let Some(source) = source else {
            let known = record.and_then(|r| r.blobs.last()).map(|form| form.digest.clone());
            let removed = mend(options, "it is removed", || self.discard_layer(diff_id))?;
            return Ok(match known {
                Some(digest) => {
                    let origins = self.origins(&digest)?;
                    Mend::Fetch(digest, origins)
                }
                None if options.repair => Mend::Again,
                None => removed,
            });
        };
        mend(options, "it is made again from its blob", || {
            let lease = self.lease("repair a layer")?;
            lease.protect([&source.blob.digest, &diff_id.0])?;
            let again = lease.derive(source, None, Some(self.new_layers()?.format))?;
            self.discard_layer(diff_id)?;
            self.publish(vec![again])?;
            self.sync_names()
        })
    }

    fn discard_layer(&self, diff_id: &DiffId) -> Result<()> {
        self.unmount(diff_id);
        self.discard(&self.layer_dir(diff_id))
    }

    /// The blob of a layer whose record is lost, by an image that has both.
    fn source_by_images(&self, diff_id: &DiffId) -> Result<Option<LayerSource>> {
        for one in self.refs()? {
            let Ok(images) = self.images_of(&one.target) else { continue };
            for image in images {
                for layer in image.layers() {
                    if layer.diff_id == diff_id && self.has_blob(layer.blob)? {
                        let (blob, diff_id) = (layer.blob.clone(), diff_id.clone());
                        return Ok(Some(LayerSource { blob, diff_id }));
                    }
                }
            }
        }
        Ok(None)
    }

    fn check_refs(&self, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
        let mut refs = Vec::new();
        self.walk_refs(&mut |name, path| {
            refs.push((name, path.to_owned()));
            Ok(())
        })?;
        for (name, path) in refs {
            report.refs += 1;
            let Some(name) = name else {
                let mend = mend(options, "it is removed", || durable::remove_file(&path))?;
                let detail = "this is no ref".into();
                report.faults.push(Fault { problem: Problem::Stray(path), detail, mend });
                continue;
            };
            let shown = |target: Option<&Descriptor>| match (&name, target) {
                (Some(name), _) => name.familiar(),
                (None, Some(target)) => target.digest.to_string(),
                (None, None) => path.display().to_string(),
            };
            let target = match super::refs::read_ref(&path) {
                Ok(Some(target)) => target,
                Ok(None) => continue,
                Err(e) => {
                    let mend = mend(options, "it is removed", || durable::remove_file(&path))?;
                    let problem = Problem::Ref(shown(None));
                    report.faults.push(Fault { problem, detail: e.to_string(), mend });
                    continue;
                }
            };
            let detail = match self.missing(&target) {
                Ok(missing) if missing.is_empty() => continue,
                Ok(missing) => format!("not in the store: {}", missing.join(", ")),
                Err(e) => e.to_string(),
            };
            report.faults.push(Fault {
                problem: Problem::Ref(shown(Some(&target))),
                detail,
                mend: Mend::Again,
            });
        }
        Ok(())
    }

    fn check_index(&self, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
        let path = self.index_path();
        let same = self.with_refs_locked(|_, _| {
            let found = File::open(&path).and_then(|mut file| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map(|_| bytes)
            });
            Ok(found.is_ok_and(|bytes| self.index_bytes().is_ok_and(|wanted| wanted == bytes)))
        })?;
        if !same {
            // Nothing is lost: it is derived, and one behind after a crash at the wrong moment.
            self.with_refs_locked(|hold, lock| self.refresh_index(hold, lock))?;
            if options.repair {
                let detail = "it did not agree with the refs".into();
                let mend = Mend::Done("it is written again");
                report.faults.push(Fault { problem: Problem::Index, detail, mend });
            }
        }
        Ok(())
    }

    /// A damaged blob is removed. Is it still needed?
    fn after_removal(&self, digest: &Digest) -> Result<Mend> {
        for diff_id in self.layer_ids()? {
            if let Ok(Some(layer)) = self.layer(&diff_id)
                && layer.record.blobs.iter().any(|form| form.digest == *digest)
            {
                return Ok(Mend::Done("it is removed; the layer made from it is ready"));
            }
        }
        Ok(Mend::Fetch(digest.clone(), self.origins(digest)?))
    }
}

/// Does it, or offers it.
fn mend(options: CheckOptions, how: &'static str, work: impl FnOnce() -> Result<()>) -> Result<Mend> {
    if !options.repair {
        return Ok(Mend::Offered(how));
    }
    work()?;
    Ok(Mend::Done(how))
}

/// How many entries a tree has, and how many bytes its files.
fn measure(tree: &std::path::Path) -> Result<(u64, u64)> {
    let (mut entries, mut bytes) = (0, 0);
    let mut linked = std::collections::HashSet::new();
    walk(tree, &mut |node| {
        entries += u64::from(node.depth > 0);
        let stat = &node.stat;
        if node.kind() == FileType::RegularFile
            && (stat.st_nlink == 1 || linked.insert((stat.st_dev, stat.st_ino)))
        {
            bytes += u64::try_from(stat.st_size).unwrap_or_default();
        }
        Ok(true)
    })?;
    Ok((entries, bytes))
}
