//! From layers to what comes out: documents, refs, outputs.

use onggi_build::cache::shared::Steps;
use onggi_build::graph::Target;
use onggi_build::{Assembled, FailedState, StackLayer, assemble};
use onggi_image::store::{Lease, Ref};
use onggi_oci::{
    ContainerConfig, Descriptor, ImageConfig, ImageIndex, Manifest, MediaType, Reference, RootFs,
};

use super::attest::{Predicate, Told, attested};
use super::output::Result as Finished;
use super::share::{self, CachePlace};
use super::{Built, KeptState, Output};
use crate::Engine;
use crate::error::{Error, Result};
use crate::filesystem::add_image;

/// A moment in seconds since 1970, as documents have it.
pub(super) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

impl Engine {
    /// Writes the documents and the refs, and what else is to come out.
    pub(super) fn finish(
        &self,
        told: &Told<'_>,
        lease: &Lease,
        results: &[(&Target, &Vec<StackLayer>)],
        names: &[Reference],
        epoch: Option<(i64, &'static str)>,
        steps: &Steps,
    ) -> Result<Built> {
        let request = told.request;
        let store = self.store()?;
        let seconds = epoch.map(|(seconds, _)| seconds);
        let mut images = Vec::new();
        let mut documents: Vec<(Descriptor, Vec<u8>)> = Vec::new();
        let mut entries = Vec::new();
        let mut said: Vec<Vec<Predicate>> = Vec::new();
        let mut provenance = Vec::new();
        for (target, layers) in results {
            let mut annotations = request.annotations.clone();
            if request.cache_to.iter().any(|to| to.place == CachePlace::Inline) {
                annotations.insert(share::INLINE.into(), share::inline(steps, layers));
            }
            let told_of = if request.attestations.any() { self.settled(lease, layers)? } else { Vec::new() };
            let stack = if request.attestations.any() { &told_of } else { *layers };
            let image = assemble(target, stack, seconds, &annotations, &rfc3339);
            let mut predicates = Vec::new();
            if request.attestations.any() {
                predicates = self.predicates(told, target, &image, stack, names)?;
                let own = predicates.iter().filter(|one| one.is_provenance());
                provenance.extend(own.map(|one| (target.platform.clone(), one.value.clone())));
            }
            said.push(predicates);
            let Assembled { config_bytes, config_descriptor, manifest_bytes, manifest_descriptor, .. } =
                image;
            images.push((
                target.platform.clone(),
                manifest_descriptor.clone(),
                config_descriptor.digest.clone(),
            ));
            entries.push(manifest_descriptor.clone());
            documents.extend([(config_descriptor, config_bytes), (manifest_descriptor, manifest_bytes)]);
        }
        let Some((_, first, id)) = images.first().cloned() else {
            return Err(Error::BuildFile {
                file: "the build file".into(),
                problem: "it has no result".into(),
            });
        };
        for ((_, image, _), predicates) in images.iter().zip(&said) {
            if !predicates.is_empty() {
                let attested = attested(image, names, predicates);
                entries.push(attested.descriptor);
                documents.extend(attested.documents);
            }
        }
        let mut target = Descriptor::new(first.media_type.clone(), first.digest.clone(), first.size);
        if entries.len() > 1 {
            let bytes = Manifest::Index(ImageIndex::new(MediaType::OciIndex, entries)).to_bytes();
            target = Descriptor::of(MediaType::OciIndex, &bytes);
            documents.push((target.clone(), bytes));
        }
        lease.protect(documents.iter().map(|(descriptor, _)| &descriptor.digest))?;
        let mut pending = Vec::new();
        for (descriptor, bytes) in &documents {
            if !store.has_blob(descriptor)? {
                pending.push(lease.stage(descriptor, bytes)?);
            }
        }
        if !pending.is_empty() {
            store.publish(pending)?;
        }
        let mut built =
            Built { target: target.clone(), id, images, epoch, names: names.to_vec(), provenance };
        let mut refs: Vec<Ref> = Vec::new();
        for output in &request.outputs {
            let (Output::Image(own) | Output::Registry(own)) = output else { continue };
            let names = if own.is_empty() { names } else { own };
            refs.extend(names.iter().map(|tag| Ref::new(tag.clone().with_default_tag(), &target)));
            if names.is_empty() {
                refs.push(Ref::nameless(&target));
            }
        }
        if !refs.is_empty() {
            let known = store.refs()?;
            if !refs.iter().all(|one| known.contains(one)) {
                store.set_refs(&refs)?;
                for name in refs.iter().filter_map(|one| one.name.as_ref()) {
                    self.note_image("tag", &target.digest, name);
                }
            }
        }
        let mut sent = None;
        let mut finished = Vec::new();
        for ((_, stack), predicates) in results.iter().zip(&said) {
            finished.push(Finished { stack, predicates });
        }
        for output in &request.outputs {
            sent = self.write_output(output, lease, &built, &finished)?.or(sent);
        }
        // What others will ask the registry for.
        built.target = sent.unwrap_or(built.target);
        Ok(built)
    }

    /// A stack with its new layers compressed: what is said of an image is said of what will be sent.
    fn settled(&self, lease: &Lease, stack: &[StackLayer]) -> Result<Vec<StackLayer>> {
        let settle = |one: &StackLayer| {
            if one.blob.digest != one.diff_id().0 {
                return Ok(one.clone());
            }
            let blob = self.compressed(lease, &one.layer, &|_| Ok(false))?;
            Ok(StackLayer { blob, ..one.clone() })
        };
        stack.iter().map(settle).collect()
    }
}

/// Keeps what a program that failed began with as an image without a name.
pub(super) fn keep(engine: &Engine, lease: &Lease, state: FailedState<'_>) -> Result<KeptState> {
    let FailedState { exec, env, platform, layers } = state;
    let shell = match &exec.args[..] {
        [shell, flag, _] if flag == "-c" => Some(shell.clone()),
        _ => None,
    };
    let image = ImageConfig {
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os: platform.os.clone(),
        config: ContainerConfig {
            env,
            user: exec.user.clone(),
            working_dir: exec.cwd.clone(),
            cmd: shell.clone().map(|shell| vec![shell]),
            ..ContainerConfig::default()
        },
        rootfs: RootFs {
            diff_ids: layers.iter().map(|one| one.diff_id().clone()).collect(),
            ..RootFs::default()
        },
        ..ImageConfig::default()
    };
    let blobs = layers.into_iter().map(|one| one.blob).collect();
    let image = add_image(engine.store()?, lease, &image, blobs, None)?;
    Ok(KeptState { image, shell })
}
