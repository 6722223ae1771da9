//! The grammar of `--cache-from` and `--cache-to`, as buildx has it.

use std::path::PathBuf;

use onggi_engine::build::{CacheFrom, CacheMode, CachePlace, CacheTo};
use onggi_engine::oci::Reference;

use super::values::{fields, truth};
use crate::failure::Failure;

/// The entry of a layout that is meant if none is named, as in BuildKit.
const DEFAULT_TAG: &str = "latest";

/// Backends that need a service of their own.
const SERVICES: [&str; 3] = ["gha", "s3", "azblob"];

/// The kind, before anything else of it is read: each has options of its own.
fn kind(flag: &str, fields: &[(String, String)]) -> Result<String, Failure> {
    let kind = fields.iter().find(|(key, _)| key == "type").map(|(_, kind)| kind.as_str());
    match kind {
        Some(kind @ ("registry" | "local" | "inline")) => Ok(kind.to_owned()),
        None | Some("") => Err(Failure::Input(format!("invalid {flag}: type is required"))),
        Some(kind) if SERVICES.contains(&kind) => Err(Failure::Input(format!(
            "{flag} type={kind} is not supported: known are registry, local and inline (a local directory can be kept by the service's own client)"
        ))),
        Some(kind) => Err(Failure::Input(format!(
            "{flag} type={kind} is unknown: known are registry, local and inline"
        ))),
    }
}

/// `--cache-from REF` or `type=registry,ref=…` or `type=local,src=…[,tag=…][,digest=…]`
pub fn cache_from(text: &str) -> Result<CacheFrom, Failure> {
    let bad = |why: String| Failure::Input(format!("invalid --cache-from {text:?}: {why}"));
    let reference = |name: &str| name.parse::<Reference>().map_err(|error| bad(error.to_string()));
    if !text.contains('=') {
        return Ok(CacheFrom::Registry(reference(text)?));
    }
    let fields = fields(text).map_err(bad)?;
    let kind = kind("--cache-from", &fields)?;
    let (mut name, mut src, mut tag, mut digest) = (None, None, None, None);
    for (key, value) in fields {
        match key.as_str() {
            "type" => {}
            "ref" => name = Some(reference(&value)?),
            "src" | "source" => src = Some(PathBuf::from(value)),
            "tag" => tag = Some(value),
            "digest" => {
                digest =
                    Some(value.parse().map_err(|error: onggi_engine::oci::Error| bad(error.to_string()))?);
            }
            other => return Err(bad(format!("the option {other} is not supported"))),
        }
    }
    if kind == "local" {
        if name.is_some() {
            return Err(bad("ref belongs to type=registry".into()));
        }
        let dir = src.ok_or_else(|| bad("src is required".into()))?;
        return Ok(CacheFrom::Local { dir, tag: tag.unwrap_or_else(|| DEFAULT_TAG.into()), digest });
    }
    if src.is_some() || tag.is_some() || digest.is_some() {
        return Err(bad("src, tag and digest belong to type=local".into()));
    }
    Ok(CacheFrom::Registry(name.ok_or_else(|| bad("ref is required".into()))?))
}

/// `--cache-to REF` or `type=registry,ref=…` or `type=local,dest=…[,tag=…]` or `type=inline`, with `mode=min|max`
pub fn cache_to(text: &str) -> Result<CacheTo, Failure> {
    let bad = |why: String| Failure::Input(format!("invalid --cache-to {text:?}: {why}"));
    let reference = |name: &str| {
        let name = name.parse::<Reference>().map_err(|error| bad(error.to_string()))?;
        if name.digest().is_some() {
            return Err(bad("a cache can't be written to a digest".into()));
        }
        Ok(name)
    };
    if !text.contains('=') {
        let place = CachePlace::Registry(reference(text)?);
        return Ok(CacheTo { place, mode: CacheMode::Min, ignore_error: false });
    }
    let fields = fields(text).map_err(bad)?;
    let kind = kind("--cache-to", &fields)?;
    let (mut name, mut dest, mut tag) = (None, None, None);
    let (mut mode, mut ignore_error) = (CacheMode::Min, false);
    for (key, value) in fields {
        let only = |known: &str| {
            let same = if matches!(known, "true" | "false") {
                truth(&value).map_err(bad)? == (known == "true")
            } else {
                value == known
            };
            if same {
                Ok(())
            } else {
                Err(bad(format!("{key}={value} is not supported, only {key}={known}")))
            }
        };
        match key.as_str() {
            "type" => {}
            "ref" => name = Some(reference(&value)?),
            "dest" | "destination" => dest = Some(PathBuf::from(&value)),
            "tag" => tag = Some(value),
            "mode" => {
                mode = match value.as_str() {
                    "min" => CacheMode::Min,
                    "max" => CacheMode::Max,
                    other => {
                        return Err(bad(format!("the mode {other:?} is unknown: known are min and max")));
                    }
                }
            }
            "ignore-error" => ignore_error = truth(&value).map_err(bad)?,
            // What is written is an OCI artifact with layers in gzip.
            "oci-mediatypes" | "image-manifest" => only("true")?,
            "compression" => only("gzip")?,
            "force-compression" => only("false")?,
            other => return Err(bad(format!("the option {other} is not supported"))),
        }
    }
    let place = match kind.as_str() {
        "registry" => CachePlace::Registry(name.take().ok_or_else(|| bad("ref is required".into()))?),
        "local" => CachePlace::Local {
            dir: dest.take().ok_or_else(|| bad("dest is required".into()))?,
            tag: tag.take().unwrap_or_else(|| DEFAULT_TAG.into()),
        },
        "inline" if mode == CacheMode::Max => {
            return Err(bad(
                "an image holds its own layers only: mode=max needs type=registry or type=local".into(),
            ));
        }
        _ => CachePlace::Inline,
    };
    if name.is_some() || dest.is_some() || tag.is_some() {
        return Err(bad("ref belongs to type=registry, dest and tag to type=local".into()));
    }
    Ok(CacheTo { place, mode, ignore_error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_buildx_s() {
        let name: Reference = "app:cache".parse().unwrap();
        assert_eq!(cache_from("app:cache").unwrap(), CacheFrom::Registry(name.clone()));
        assert_eq!(cache_from("type=registry,ref=app:cache").unwrap(), CacheFrom::Registry(name));
        let local = CacheFrom::Local { dir: "x".into(), tag: "latest".into(), digest: None };
        assert_eq!(cache_from("type=local,src=x").unwrap(), local);
        for bad in [
            "type=registry",
            "type=local",
            "type=local,src=x,ref=y",
            "type=gha",
            "src=x",
            "type=tape,src=x",
            "A B",
        ] {
            assert!(cache_from(bad).is_err(), "{bad}");
        }
        let Err(Failure::Input(text)) = cache_from("type=s3,bucket=b") else { panic!("it is accepted") };
        assert!(text.contains("type=s3 is not supported"), "{text}");
    }

    #[test]
    fn destinations_are_buildx_s() {
        let to = cache_to("type=local,dest=d,mode=max,ignore-error=true").unwrap();
        let place = CachePlace::Local { dir: "d".into(), tag: "latest".into() };
        assert_eq!(to, CacheTo { place, mode: CacheMode::Max, ignore_error: true });
        assert_eq!(cache_to("type=inline").unwrap().place, CachePlace::Inline);
        assert!(matches!(cache_to("app").unwrap().place, CachePlace::Registry(_)));
        for bad in [
            "type=inline,mode=max",
            "type=registry",
            "type=local,dest=d,mode=all",
            "type=azblob",
            "type=local,dest=d,compression=zstd",
            "type=local,dest=d,level=9",
        ] {
            assert!(cache_to(bad).is_err(), "{bad}");
        }
    }
}
