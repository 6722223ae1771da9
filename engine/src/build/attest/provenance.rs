//! How an image was made: SLSA provenance, version 0.2 or 1.
//!
//! `mode=min` names sources, the commit of a directory, secrets (not their values) and the platform; `mode=max` adds build arguments, labels, the steps and the
//! build file. Who has secrets in build arguments shows them in `mode=max`, which is why it has to be asked for.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onggi_build::graph::{Graph, ImagePlace, MountKind, Network, Op, Target, VertexId};
use onggi_oci::{Platform, Reference};
use serde_json::{Map, Value, json};

use super::super::fetch::Vcs;
use super::{Told, purl};
use crate::error::Result;

/// What the fields mean: BuildKit's, but for the steps, which are onggi's.
const BUILD_TYPE: &str = "urn:onggi:build:1";

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// Sources and the platform.
    #[default]
    Min,
    /// Arguments, steps and the build file too.
    Max,
}

/// Which version of SLSA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvenanceVersion {
    /// 0.2
    #[default]
    V02,
    /// 1
    V1,
}

/// `--provenance`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// How much is told.
    pub mode: ProvenanceMode,
    /// In which version.
    pub version: ProvenanceVersion,
    /// A URL of whoever builds; may be empty.
    pub builder: String,
}

/// The vertices that a target needs, in the graph's order.
fn needed(graph: &Graph, target: &Target) -> Vec<VertexId> {
    let mut all = BTreeSet::new();
    let mut todo: Vec<VertexId> = target.vertex.into_iter().collect();
    while let Some(id) = todo.pop() {
        if all.insert(id) {
            todo.extend(graph.vertex(id).op.inputs());
        }
    }
    all.into_iter().collect()
}

/// The sources that are known by digest, each once.
fn materials(told: &Told<'_>, vertices: &[VertexId]) -> Result<Vec<Value>> {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    let mut add = |uri: String, algorithm: &str, hex: &str| {
        all.insert(uri.clone(), json!({ "uri": uri, "digest": { algorithm: hex } }));
    };
    for id in vertices {
        let vertex = told.graph.vertex(*id);
        match &vertex.op {
            Op::Image(image) => {
                let digest = told.bases.target(image).or_else(|| image.manifest.clone());
                let Some(digest) = digest else { continue };
                let uri = match &image.place {
                    ImagePlace::Registry => purl(&image.reference.parse::<Reference>()?, &vertex.platform),
                    ImagePlace::Layout(name) => format!("oci-layout://{name}"),
                };
                add(uri, digest.algorithm().name(), digest.hex());
            }
            Op::Http(http) => {
                if let Some((algorithm, hex)) = told.sources.get(id).and_then(|digest| digest.split_once(':'))
                {
                    add(http.url.clone(), algorithm, hex);
                }
            }
            Op::Git(git) => {
                if let Some(commit) = told.sources.get(id) {
                    let reference = git.reference.as_deref().map(|name| format!("#{name}"));
                    add(format!("{}{}", git.remote, reference.unwrap_or_default()), "sha1", commit);
                }
            }
            _ => {}
        }
    }
    if let Some(commit) = told.commit {
        add(told.request.context.clone(), "sha1", commit);
    }
    Ok(all.into_values().collect())
}

/// Whether the sources above are all: no program had a network, no files came from this machine.
fn is_complete(told: &Told<'_>, vertices: &[VertexId]) -> bool {
    vertices.iter().all(|id| match &told.graph.vertex(*id).op {
        Op::Local(_) => told.commit.is_some(),
        Op::Exec(exec) => exec.network == Network::None,
        _ => true,
    })
}

/// What the caller wished.
fn parameters(told: &Told<'_>, mode: ProvenanceMode, vertices: &[VertexId]) -> Map<String, Value> {
    let (mut secrets, mut agents, mut locals) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for id in vertices {
        match &told.graph.vertex(*id).op {
            Op::Local(local) => {
                locals.insert(local.name.clone());
            }
            Op::Exec(exec) => {
                for mount in &exec.mounts {
                    match &mount.kind {
                        MountKind::Secret(secret) => {
                            *secrets.entry(secret.id.clone()).or_insert(true) &= !secret.required;
                        }
                        MountKind::Ssh(ssh) => *agents.entry(ssh.id.clone()).or_insert(true) &= !ssh.required,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let list = |all: BTreeMap<String, bool>| -> Vec<Value> {
        all.into_iter().map(|(id, optional)| json!({ "id": id, "optional": optional })).collect()
    };
    let mut args = Map::new();
    let mut arg = |name: String, value: &str| args.insert(name, value.into());
    if let Some(target) = &told.request.target {
        arg("target".into(), target);
    }
    if mode == ProvenanceMode::Max {
        for (name, value) in &told.request.build_args {
            arg(format!("build-arg:{name}"), value);
        }
        for (name, value) in &told.request.labels {
            arg(format!("label:{name}"), value);
        }
    }
    let mut parameters = Map::new();
    parameters.insert("frontend".into(), "dockerfile.v0".into());
    let mut put = |name: &str, value: Value, empty: bool| {
        if !empty {
            parameters.insert(name.into(), value);
        }
    };
    put("args", args.clone().into(), args.is_empty());
    let (secrets, agents) = (list(secrets), list(agents));
    put("secrets", json!(secrets), secrets.is_empty());
    put("ssh", json!(agents), agents.is_empty());
    let locals: Vec<Value> = locals.into_iter().map(|name| json!({ "name": name })).collect();
    put("locals", json!(locals), locals.is_empty());
    parameters
}

/// The steps, each with those that it reads.
fn steps(graph: &Graph, vertices: &[VertexId]) -> Value {
    let id_of =
        |id: &VertexId| format!("step{}", vertices.iter().position(|one| one == id).unwrap_or_default());
    let steps: Vec<Value> = vertices
        .iter()
        .map(|id| {
            let vertex = graph.vertex(*id);
            let inputs: Vec<String> = vertex.op.inputs().iter().map(id_of).collect();
            json!({ "id": id_of(id), "name": vertex.name, "platform": vertex.platform.to_string(), "inputs": inputs })
        })
        .collect();
    json!({ "steps": steps })
}

/// The commit that files of a directory belong to, in buildx' words.
fn of_vcs(vcs: &Vcs) -> Value {
    let mut all = json!({ "revision": vcs.revision });
    if let Some(source) = &vcs.source {
        all["source"] = source.as_str().into();
    }
    all
}

/// The predicate, and its type.
pub(super) fn predicate(
    told: &Told<'_>,
    wish: &Provenance,
    target: &Target,
) -> Result<(&'static str, Value)> {
    let vertices = needed(told.graph, target);
    let max = wish.mode == ProvenanceMode::Max;
    let materials = materials(told, &vertices)?;
    let complete = is_complete(told, &vertices);
    let parameters = parameters(told, wish.mode, &vertices);
    let (file, text) = told.file;
    let source = json!({ "filename": file, "data": STANDARD.encode(text) });
    let platform = Platform::host().to_string();
    let mut origin = Map::new();
    if let Some(commit) = told.commit {
        origin.insert("uri".into(), told.request.context.clone().into());
        origin.insert("digest".into(), json!({ "sha1": commit }));
    }
    match wish.version {
        ProvenanceVersion::V02 => {
            origin.insert("entryPoint".into(), file.into());
            let mut metadata = json!({
                "completeness": { "parameters": max, "environment": true, "materials": complete },
                "reproducible": false,
            });
            if let Some(time) = &told.time {
                metadata["buildStartedOn"] = json!(time);
                metadata["buildFinishedOn"] = json!(time);
            }
            let mut value = json!({
                "builder": { "id": wish.builder },
                "buildType": BUILD_TYPE,
                "materials": materials,
                "invocation": {
                    "configSource": origin,
                    "parameters": parameters,
                    "environment": { "platform": platform },
                },
            });
            let mut own = Map::new();
            if max {
                value["buildConfig"] = steps(told.graph, &vertices);
                own.insert("source".into(), source);
            }
            if let Some(vcs) = &told.vcs {
                own.insert("vcs".into(), of_vcs(vcs));
            }
            if !own.is_empty() {
                metadata[format!("{BUILD_TYPE}#metadata")] = own.into();
            }
            value["metadata"] = metadata;
            Ok(("https://slsa.dev/provenance/v0.2", value))
        }
        ProvenanceVersion::V1 => {
            origin.insert("path".into(), file.into());
            let mut metadata = json!({
                "completeness": { "request": max, "resolvedDependencies": complete },
                "reproducible": false,
            });
            if let Some(time) = &told.time {
                metadata["startedOn"] = json!(time);
                metadata["finishedOn"] = json!(time);
            }
            let mut internal = json!({ "builderPlatform": platform });
            if max {
                internal["buildConfig"] = steps(told.graph, &vertices);
                metadata["source"] = source;
            }
            if let Some(vcs) = &told.vcs {
                metadata["vcs"] = of_vcs(vcs);
            }
            let value = json!({
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": { "configSource": origin, "request": parameters },
                    "internalParameters": internal,
                    "resolvedDependencies": materials,
                },
                "runDetails": { "builder": { "id": wish.builder }, "metadata": metadata },
            });
            Ok(("https://slsa.dev/provenance/v1", value))
        }
    }
}
