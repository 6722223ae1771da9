//! The media types of images (image-spec "Media types", and Docker's schema 2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a layer's tar is compressed, as its media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// A plain tar.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
}

macro_rules! media_types {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What some bytes are.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum MediaType {
            $($(#[$doc])* $name,)*
            /// Anything else: artifacts, attestations, types of the future.
            Other(Box<str>),
        }

        impl MediaType {
            /// The registered text.
            pub fn as_str(&self) -> &str {
                match self { $(Self::$name => $text,)* Self::Other(text) => text }
            }
        }

        impl From<&str> for MediaType {
            /// Parameters (`; charset=utf-8`) and case do not count.
            fn from(text: &str) -> Self {
                let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                match essence.as_str() { $($text => Self::$name,)* other => Self::Other(other.into()) }
            }
        }
    };
}

media_types! {
    /// An OCI image index.
    OciIndex = "application/vnd.oci.image.index.v1+json",
    /// An OCI image manifest.
    OciManifest = "application/vnd.oci.image.manifest.v1+json",
    /// An OCI image config.
    OciConfig = "application/vnd.oci.image.config.v1+json",
    /// The empty JSON object of artifacts.
    OciEmpty = "application/vnd.oci.empty.v1+json",
    /// A plain tar layer.
    OciLayer = "application/vnd.oci.image.layer.v1.tar",
    /// A gzip-compressed layer.
    OciLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip",
    /// A Zstandard-compressed layer.
    OciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd",
    /// A plain layer that must not be distributed (deprecated).
    OciForeignLayer = "application/vnd.oci.image.layer.nondistributable.v1.tar",
    /// A gzip layer that must not be distributed (deprecated).
    OciForeignLayerGzip = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    /// A Zstandard layer that must not be distributed (deprecated).
    OciForeignLayerZstd = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    /// Docker's manifest list.
    DockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json",
    /// Docker's image manifest, schema 2.
    DockerManifest = "application/vnd.docker.distribution.manifest.v2+json",
    /// Docker's manifest, schema 1: recognised so that it can be refused by name.
    DockerSchema1 = "application/vnd.docker.distribution.manifest.v1+json",
    /// The same, signed.
    DockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws",
    /// Docker's image config.
    DockerConfig = "application/vnd.docker.container.image.v1+json",
    /// Docker's gzip layer.
    DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip",
    /// Docker's plain layer.
    DockerLayer = "application/vnd.docker.image.rootfs.diff.tar",
    /// Docker's Zstandard layer, as some builders write it.
    DockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd",
    /// Docker's layer from a foreign URL.
    DockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
}

impl MediaType {
    /// A list of manifests for several platforms?
    pub fn is_index(&self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerIndex)
    }

    /// The manifest of one image?
    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// The config of a runnable image?
    pub fn is_config(&self) -> bool {
        matches!(self, Self::OciConfig | Self::DockerConfig)
    }

    /// A filesystem layer?
    pub fn is_layer(&self) -> bool {
        self.compression().is_some()
    }

    /// A layer that may lie outside the registry? onggi never follows its URLs.
    pub fn is_foreign(&self) -> bool {
        matches!(
            self,
            Self::OciForeignLayer
                | Self::OciForeignLayerGzip
                | Self::OciForeignLayerZstd
                | Self::DockerForeignLayer
        )
    }

    /// How a layer of this type is compressed; `None` for what is no layer.
    pub fn compression(&self) -> Option<LayerCompression> {
        Some(match self {
            Self::OciLayer | Self::OciForeignLayer | Self::DockerLayer => LayerCompression::None,
            Self::OciLayerGzip
            | Self::OciForeignLayerGzip
            | Self::DockerLayerGzip
            | Self::DockerForeignLayer => LayerCompression::Gzip,
            Self::OciLayerZstd | Self::OciForeignLayerZstd | Self::DockerLayerZstd => LayerCompression::Zstd,
            _ => return None,
        })
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MediaType {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.into())
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok((&*text).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_count() {
        let with = MediaType::from("Application/vnd.oci.image.index.v1+JSON; charset=utf-8");
        assert_eq!(with, MediaType::OciIndex);
        assert!(with.is_index());
    }

    #[test]
    fn every_layer_type_says_its_compression() {
        for (text, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", LayerCompression::None),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", LayerCompression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", LayerCompression::Zstd),
        ] {
            assert_eq!(MediaType::from(text).compression(), Some(compression));
            assert_eq!(MediaType::from(text).as_str(), text);
        }
        assert_eq!(MediaType::OciConfig.compression(), None);
    }
}
