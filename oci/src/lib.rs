//! The vocabulary of container images.
//!
//! Everything here is a value: parsed from bytes or text, bounded, validated, and printed back.
//! Nothing here reads a file or opens a connection. The raw bytes of a manifest or config stay with
//! their owner, because a digest names bytes, not their meaning.
//!
//! ```text
//!   Reference ──names──► Manifest ─┬─ Index ──► Descriptor{platform} ──► Manifest
//!                                  └─ Image ─┬► Descriptor(config) ──► ImageConfig ──► DiffId…
//!                                            └► Descriptor(layer)…
//! ```
//!
//! The types of the `oci-spec` crate are not used for images: they accept digests of any algorithm,
//! drop what Docker adds to a config (`Healthcheck`, `Shell`, `OnBuild`) and do not check that media
//! type and content agree. The runtime's bundle does use `oci-spec`.
#![forbid(unsafe_code)]

mod config;
mod descriptor;
mod digest;
mod error;
mod manifest;
mod media_type;
mod platform;
mod reference;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, MAX_CONFIG, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, DiffId, Digest, Hasher};
pub use error::{Error, ErrorKind, Result};
pub use manifest::{ImageIndex, ImageManifest, MAX_LAYERS, MAX_MANIFEST, MAX_MANIFESTS, Manifest};
pub use media_type::{LayerCompression, MediaType};
pub use platform::Platform;
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, Reference};
