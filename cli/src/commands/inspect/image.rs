//! An image as `docker image inspect` shows it.

use onggi_engine::ImageDetails;
use onggi_engine::oci::Reference;
use serde_json::{Value, json};

/// The object that `docker image inspect` prints.
pub(super) fn value(details: &ImageDetails) -> Value {
    let ImageDetails { image, summary, size } = details;
    let names = |list: Option<&Vec<Reference>>| -> Vec<String> {
        list.into_iter().flatten().map(Reference::familiar).collect()
    };
    let mut digests = names(summary.as_ref().map(|s| &s.digests));
    for one in summary.iter().flat_map(|s| &s.refs).filter(|one| one.is_tag()) {
        if let Some(name) = &one.name {
            digests.push(name.with_digest(one.target.digest.clone()).familiar());
        }
    }
    digests.sort();
    digests.dedup();
    let config = &image.config;
    let mut object = json!({
        "Id": image.id,
        "RepoTags": names(summary.as_ref().map(|s| &s.tags)),
        "RepoDigests": digests,
        "Parent": "",
        "Comment": config.history.last().and_then(|step| step.comment.as_deref()).unwrap_or_default(),
        "Created": config.created,
        "DockerVersion": "",
        "Author": config.author.as_deref().unwrap_or_default(),
        "Config": config.config,
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": size,
        "GraphDriver": { "Data": Value::Null, "Name": "overlay" },
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
        "Descriptor": {
            "mediaType": image.target.media_type,
            "digest": image.target.digest,
            "size": image.target.size,
        },
    });
    if let (Some(variant), Some(object)) = (&config.variant, object.as_object_mut()) {
        object.insert("Variant".into(), json!(variant));
    }
    object
}
