//! Manifests and indexes, OCI's and Docker's.
//!
//! ```text
//!   index     {schemaVersion:2, mediaType, manifests:[descriptor{platform}…], annotations}
//!   manifest  {schemaVersion:2, mediaType, config:descriptor, layers:[descriptor…], annotations}
//! ```
//!
//! One digest must have one meaning (CVE-2021-41190): a document that could be read as both kinds,
//! whose `mediaType` contradicts the media type it came with, or which spells a field in another
//! case (Go's decoder would accept it, others not) is refused.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::config::null_default;
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::media_type::MediaType;
use crate::platform::Platform;

/// The largest manifest or index in bytes, which is also what registries accept (4 MiB).
pub const MAX_MANIFEST: u64 = 4 << 20;
/// The most layers of an image: overlayfs stacks no more than 500.
pub const MAX_LAYERS: usize = 500;
/// The most manifests of an index; the largest in public use have a few dozen.
pub const MAX_MANIFESTS: usize = 4096;

/// Fields that decide which kind of document it is.
const DECISIVE: [&str; 7] =
    ["schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "signatures"];

/// The manifest of one image for one platform (image-spec "Image Manifest").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    schema_version: u32,
    /// Its own media type; OCI documents may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The type of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image's config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free metadata.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl ImageManifest {
    /// A manifest of this type (OCI's or Docker's) without annotations.
    pub fn new(media_type: MediaType, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Whether it is a runnable image rather than an artifact that only uses the same form.
    pub fn is_runnable(&self) -> bool {
        self.config.media_type.is_config()
    }
}

/// A list of manifests, usually one for each platform (image-spec "Image Index").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    schema_version: u32,
    /// Its own media type; OCI documents may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, or further indexes.
    #[serde(deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free metadata.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl ImageIndex {
    /// An index of this type (OCI's or Docker's) without annotations.
    pub fn new(media_type: MediaType, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The manifest that serves `wanted` best; among equals the first. Entries for attestations
    /// (`unknown/unknown`) never match. An index of a single entry without a platform serves all.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let ranked = self.manifests.iter().filter_map(|d| Some((wanted.rank(d.platform.as_ref()?)?, d)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, d)| d).or(match &self.manifests[..] {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        })
    }

    /// The platforms on offer, for a message.
    pub fn platforms(&self) -> Vec<String> {
        let known = self.manifests.iter().filter_map(|d| d.platform.as_ref());
        known.filter(|p| p.os != "unknown").map(ToString::to_string).collect()
    }
}

/// What a reference points to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a handful exist at a time; a box would only add a hop")]
pub enum Manifest {
    /// One image.
    Image(ImageManifest),
    /// A choice of images.
    Index(ImageIndex),
}

impl Manifest {
    /// Reads a manifest or index and makes sure that it can be read in one way only.
    ///
    /// `media_type` is what it was called by whoever handed it over (a descriptor, a registry's
    /// `Content-Type`); it must agree with the content.
    ///
    /// # Errors
    /// Larger than [`MAX_MANIFEST`]; not JSON; contradictions; Docker's schema 1.
    pub fn parse(bytes: &[u8], media_type: Option<&MediaType>) -> Result<Self> {
        const WHAT: &str = "manifest";
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(Error::TooLarge { what: WHAT, size: bytes.len() as u64, limit: MAX_MANIFEST });
        }
        let invalid = |problem: String| Error::Document { what: WHAT, problem };
        let json = |source| Error::Json { what: WHAT, source };
        let schema1 = || Error::UnsupportedDocument {
            what: "Docker manifest schema 1",
            problem: "it was retired in 2019; pull and push the image once with an old Docker to convert it",
        };

        #[expect(
            clippy::zero_sized_map_values,
            reason = "only the names count, the values are skipped unread"
        )]
        let fields: BTreeMap<String, IgnoredAny> = serde_json::from_slice(bytes).map_err(json)?;
        for name in fields.keys() {
            if let Some(known) = DECISIVE.iter().find(|k| k.eq_ignore_ascii_case(name) && *k != name) {
                return Err(invalid(format!("the field {name:?} is a misspelt {known:?}")));
            }
        }
        let has = |name| fields.contains_key(name);
        if has("fsLayers")
            || matches!(media_type, Some(MediaType::DockerSchema1 | MediaType::DockerSchema1Signed))
        {
            return Err(schema1());
        }
        let parsed = match (has("manifests"), has("layers") || has("config")) {
            (true, true) => return Err(invalid("it is an index and an image manifest at once".into())),
            (false, false) => return Err(invalid("it has neither \"manifests\" nor \"layers\"".into())),
            (true, false) => Self::Index(serde_json::from_slice(bytes).map_err(json)?),
            (false, true) => Self::Image(serde_json::from_slice(bytes).map_err(json)?),
        };
        let (version, own, count, limit) = match &parsed {
            Self::Image(m) => (m.schema_version, &m.media_type, m.layers.len(), MAX_LAYERS),
            Self::Index(i) => (i.schema_version, &i.media_type, i.manifests.len(), MAX_MANIFESTS),
        };
        if version != 2 {
            return Err(invalid(format!("schemaVersion is {version}, not 2")));
        }
        if count > limit {
            return Err(invalid(format!("it lists {count} parts, more than the limit of {limit}")));
        }
        for (who, said) in [("its own mediaType", own.as_ref()), ("the media type it came with", media_type)]
        {
            let Some(said) = said else { continue };
            let agrees = match &parsed {
                Self::Image(_) => said.is_manifest(),
                Self::Index(_) => said.is_index(),
            };
            if !agrees {
                return Err(invalid(format!("{who} is {said}, which does not match its content")));
            }
        }
        if let (Some(own), Some(given)) = (own, media_type)
            && own != given
        {
            return Err(invalid(format!("its mediaType is {own}, but it came as {given}")));
        }
        Ok(parsed)
    }

    /// The document as onggi writes it: compact JSON in the specification's order of fields.
    pub fn to_bytes(&self) -> Vec<u8> {
        let written = match self {
            Self::Image(manifest) => serde_json::to_vec(manifest),
            Self::Index(index) => serde_json::to_vec(index),
        };
        written.expect("maps with text keys and plain values always serialise")
    }

    /// The media type: its own, else what its form implies.
    pub fn media_type(&self) -> MediaType {
        match self {
            Self::Image(m) => m.media_type.clone().unwrap_or(MediaType::OciManifest),
            Self::Index(i) => i.media_type.clone().unwrap_or(MediaType::OciIndex),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use proptest::prelude::*;

    fn descriptor(media_type: MediaType, content: &[u8]) -> Descriptor {
        Descriptor::of(media_type, content)
    }

    fn image() -> ImageManifest {
        ImageManifest::new(
            MediaType::OciManifest,
            descriptor(MediaType::OciConfig, b"{}"),
            vec![descriptor(MediaType::OciLayerGzip, b"layer")],
        )
    }

    #[test]
    fn a_manifest_reads_back_and_knows_its_type() {
        let manifest = Manifest::Image(image());
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::parse(&bytes, None).unwrap(), manifest);
        assert_eq!(Manifest::parse(&bytes, Some(&MediaType::OciManifest)).unwrap(), manifest);
    }

    #[test]
    fn contradictions_are_refused() {
        let text = String::from_utf8(Manifest::Image(image()).to_bytes()).unwrap();
        let cases = [
            (text.clone(), Some(MediaType::OciIndex), "does not match its content"),
            (text.clone(), Some(MediaType::DockerManifest), "but it came as"),
            (text.replace("image.manifest", "image.index"), None, "does not match its content"),
            (text.replace("{\"schema", "{\"manifests\":[],\"schema"), None, "at once"),
            (text.replace("\"layers\"", "\"Layers\""), None, "misspelt"),
            (text.replace("\"schemaVersion\":2", "\"schemaVersion\":1"), None, "schemaVersion is 1"),
            (text.replace("sha256:", "sha256:/"), None, "invalid digest"),
            (text.replace("\"size\":2", "\"size\":-2"), None, "not valid"),
            (text.replace("\"layers\":", "\"layers\":[],\"layers\":"), None, "duplicate field"),
            ("{}".into(), None, "neither"),
            ("[1]".into(), None, "not valid"),
            ("{\"schemaVersion\":1,\"fsLayers\":[]}".into(), None, "schema 1"),
        ];
        for (text, media_type, expected) in cases {
            let error = Manifest::parse(text.as_bytes(), media_type.as_ref()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let bytes = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
        assert!(matches!(Manifest::parse(&bytes, None), Err(Error::TooLarge { .. })));
        let layer = descriptor(MediaType::OciLayerGzip, b"layer");
        let many = ImageManifest { layers: vec![layer; MAX_LAYERS + 1], ..image() };
        assert!(Manifest::parse(&Manifest::Image(many).to_bytes(), None).is_err());
    }

    #[test]
    fn an_index_gives_the_best_platform() {
        let entry = |platform: &str| Descriptor {
            platform: Some(platform.parse().unwrap()),
            ..descriptor(MediaType::OciManifest, platform.as_bytes())
        };
        let index = ImageIndex::new(
            MediaType::OciIndex,
            vec![entry("unknown/unknown"), entry("linux/386"), entry("linux/arm64/v8"), entry("linux/amd64")],
        );
        let chosen = |wanted: &str| {
            index.select(&wanted.parse().unwrap()).map(|d| d.platform.as_ref().unwrap().to_string())
        };
        assert_eq!(chosen("linux/amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(chosen("linux/arm64").as_deref(), Some("linux/arm64"));
        assert_eq!(chosen("linux/s390x"), None);
        assert_eq!(index.platforms(), ["linux/386", "linux/arm64", "linux/amd64"]);
    }

    proptest! {
        #[test]
        fn indexes_round_trip(sizes in proptest::collection::vec(0u64..1 << 62, 0..5), note in ".*") {
            let manifests = sizes.iter()
                .map(|size| Descriptor::new(MediaType::OciManifest, Digest::sha256(&size.to_le_bytes()), *size))
                .collect();
            let mut index = ImageIndex::new(MediaType::OciIndex, manifests);
            index.annotations.insert("note".into(), note);
            let index = Manifest::Index(index);
            prop_assert_eq!(Manifest::parse(&index.to_bytes(), None).unwrap(), index);
        }

        #[test]
        fn parsing_never_panics(bytes: Vec<u8>) {
            let _ = Manifest::parse(&bytes, None);
        }
    }
}
