//! Attestations: what an image consists of and how it was made, beside it in its index, as BuildKit lays them out.
//!
//! ```text
//!   index ─┬─ manifest of the image, for a platform
//!          └─ manifest, platform unknown/unknown, annotations vnd.docker.reference.type = attestation-manifest,
//!               │                                             vnd.docker.reference.digest = that of the image's manifest
//!               └─ layers: in-toto statements, application/vnd.in-toto+json
//! ```
//!
//! Nothing in them tells when or where they were made unless a time was given: the same input has the same digest, with
//! attestations too. For that the image's new layers are compressed at once: what is attested is what will be pushed.

mod provenance;
mod subject;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use onggi_build::graph::{Graph, Target, VertexId};
use onggi_build::{Assembled, StackLayer, sbom};
use onggi_image::snapshot::Snapshot;
use onggi_image::store::{Layer, LayerRecord, Lease};
use onggi_oci::{
    Descriptor, DiffId, Digest, ImageConfig, ImageManifest, Manifest, MediaType, Platform, Reference,
};
use serde_json::{Value, json};

use super::fetch::Vcs;
use super::images::Bases;
use super::{BuildRequest, Built};
use crate::Engine;
use crate::error::{Error, Result};
pub use provenance::{Provenance, ProvenanceMode, ProvenanceVersion};
pub(super) use subject::purl;

/// The media type of a statement.
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The annotation of a statement's descriptor.
const PREDICATE: &str = "in-toto.io/predicate-type";
const SPDX: &str = "https://spdx.dev/Document";
/// The time of a document about an image without one.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// What is told of the images of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attestations {
    /// `--sbom`
    pub sbom: bool,
    /// `--provenance`
    pub provenance: Option<Provenance>,
}

impl Attestations {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.sbom || self.provenance.is_some()
    }
}

/// What a build is told from.
pub(super) struct Told<'a> {
    pub(super) request: &'a BuildRequest,
    pub(super) graph: &'a Graph,
    pub(super) bases: &'a Bases<'a>,
    /// What URLs and repositories were.
    pub(super) sources: &'a BTreeMap<VertexId, String>,
    /// The build file's name and text.
    pub(super) file: (&'a str, &'a str),
    /// The commit of a context that is a repository.
    pub(super) commit: Option<&'a str>,
    /// The version control of a context that is a directory.
    pub(super) vcs: Option<Vcs>,
    /// The build's time, RFC 3339, if one was given.
    pub(super) time: Option<String>,
}

/// Something that is said of a result.
#[derive(Clone, Debug)]
pub(super) struct Predicate {
    pub(super) kind: &'static str,
    pub(super) value: Value,
    /// The file that it is where the result is files.
    file: &'static str,
}

impl Predicate {
    pub(super) fn is_provenance(&self) -> bool {
        self.kind != SPDX
    }

    /// The statement about these subjects.
    fn statement(&self, subjects: &[(String, Digest)]) -> Vec<u8> {
        let subjects: Vec<Value> = subjects
            .iter()
            .map(|(name, digest)| json!({ "name": name, "digest": { digest.algorithm().name(): digest.hex() } }))
            .collect();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": self.kind,
            "subject": subjects,
            "predicate": self.value,
        });
        serde_json::to_vec_pretty(&statement).unwrap_or_default()
    }
}

/// An attestation manifest with what it needs.
pub(super) struct Attested {
    /// How the index lists it.
    pub(super) descriptor: Descriptor,
    /// All documents, the manifest last.
    pub(super) documents: Vec<(Descriptor, Vec<u8>)>,
}

impl Engine {
    /// What is to be said of one platform's result.
    pub(super) fn predicates(
        &self,
        told: &Told<'_>,
        target: &Target,
        image: &Assembled,
        stack: &[StackLayer],
        names: &[Reference],
    ) -> Result<Vec<Predicate>> {
        let mut all = Vec::new();
        let wished = &told.request.attestations;
        if wished.sbom {
            let layers: Vec<Layer> = stack.iter().map(|one| one.layer.clone()).collect();
            let packages = if layers.is_empty() {
                Vec::new()
            } else {
                let tree = Snapshot::new(&layers, self.authority()?.overlay_xattr).mount(None)?;
                sbom::packages(tree.as_fd())
            };
            let name = names.first().map_or_else(
                || image.config_descriptor.digest.to_string(),
                |name| name.clone().with_default_tag().familiar(),
            );
            let subject = sbom::Subject {
                name: &name,
                digest: &image.manifest_descriptor.digest,
                created: image.config.created.as_deref().unwrap_or(NO_TIME),
                tool: concat!("onggi-", env!("CARGO_PKG_VERSION")),
            };
            let value = sbom::document(&subject, &packages);
            all.push(Predicate { kind: SPDX, value, file: "sbom.spdx.json" });
        }
        if let Some(wish) = &wished.provenance {
            let (kind, value) = provenance::predicate(told, wish, target)?;
            all.push(Predicate { kind, value, file: "provenance.json" });
        }
        Ok(all)
    }

    /// The same as files: a layer to put above the others of a result that is files.
    pub(super) fn attest_files(
        &self,
        lease: &Lease,
        stack: &[StackLayer],
        predicates: &[Predicate],
    ) -> Result<Option<StackLayer>> {
        if predicates.is_empty() {
            return Ok(None);
        }
        let layers: Vec<Layer> = stack.iter().map(|one| one.layer.clone()).collect();
        let xattr = self.authority()?.overlay_xattr;
        let subjects = if layers.is_empty() {
            Vec::new()
        } else {
            subject::files(Snapshot::new(&layers, xattr).mount(None)?.as_fd())?
        };
        let dir = lease.directory("attestations")?;
        let failed = |path: PathBuf| move |source| Error::Write { path, source };
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&dir, mode).map_err(failed(dir.clone()))?;
        for predicate in predicates {
            if subjects.iter().any(|(name, _)| name == predicate.file) {
                let problem = format!("the result has a file {} already", predicate.file);
                return Err(Error::flag("--attest", problem));
            }
            let path = dir.join(predicate.file);
            let mut file = File::create(&path).map_err(failed(path.clone()))?;
            std::io::Write::write_all(&mut file, &predicate.statement(&subjects))
                .map_err(failed(path.clone()))?;
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).map_err(failed(path))?;
        }
        let digest = Digest::sha256(b"attestations");
        let record = LayerRecord::directory(DiffId(digest.clone()), xattr);
        let blob = Descriptor::new(MediaType::OciLayer, digest, 0);
        Ok(Some(StackLayer { blob, layer: Layer::at(dir, record), created: None }))
    }
}

/// The attestation manifest about an image.
pub(super) fn attested(image: &Descriptor, names: &[Reference], predicates: &[Predicate]) -> Attested {
    let platform = image.platform.clone().unwrap_or_else(Platform::host);
    let subjects: Vec<(String, Digest)> = if names.is_empty() {
        vec![("_".to_owned(), image.digest.clone())]
    } else {
        names.iter().map(|name| (purl(name, &platform), image.digest.clone())).collect()
    };
    let mut documents = Vec::new();
    for predicate in predicates {
        let bytes = predicate.statement(&subjects);
        let mut descriptor = Descriptor::of(MediaType::from(IN_TOTO), &bytes);
        descriptor.annotations.insert(PREDICATE.into(), predicate.kind.into());
        documents.push((descriptor, bytes));
    }
    let layers: Vec<Descriptor> = documents.iter().map(|(descriptor, _)| descriptor.clone()).collect();
    let mut config =
        ImageConfig { architecture: "unknown".into(), os: "unknown".into(), ..ImageConfig::default() };
    config.rootfs.diff_ids = layers.iter().map(|layer| DiffId(layer.digest.clone())).collect();
    let config = config.to_bytes();
    let config_descriptor = Descriptor::of(MediaType::OciConfig, &config);
    let manifest = ImageManifest::new(MediaType::OciManifest, config_descriptor.clone(), layers);
    documents.push((config_descriptor, config));
    let manifest = Manifest::Image(manifest).to_bytes();
    let mut descriptor = Descriptor::of(MediaType::OciManifest, &manifest);
    documents.push((descriptor.clone(), manifest));
    descriptor.platform = Some(Platform::new("unknown", "unknown", None));
    for (key, value) in [
        ("vnd.docker.reference.digest", image.digest.to_string()),
        ("vnd.docker.reference.type", "attestation-manifest".into()),
    ] {
        descriptor.annotations.insert(key.into(), value);
    }
    Attested { descriptor, documents }
}

impl Built {
    /// How each platform's image was made, if that is told.
    pub fn provenance(&self) -> impl Iterator<Item = (&Platform, &Value)> {
        self.provenance.iter().map(|(platform, value)| (platform, value))
    }
}
