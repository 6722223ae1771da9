//! Small images, made in memory.

use std::io::Write;

use bytes::Bytes;
use onggi_oci::{Descriptor, Digest, MediaType};
use serde_json::json;

/// Makes an image layer by layer.
#[derive(Clone, Debug, Default)]
pub struct ImageMaker {
    layers: Vec<(Bytes, Bytes)>,
    cmd: Vec<String>,
    settings: Vec<(String, serde_json::Value)>,
    docker: bool,
}

/// An image: every document and blob of it.
#[derive(Clone, Debug)]
pub struct TestImage {
    /// The manifest.
    pub manifest: Bytes,
    /// The manifest's media type.
    pub media_type: MediaType,
    /// The config.
    pub config: Bytes,
    /// The layers as they are transferred.
    pub layers: Vec<Bytes>,
    /// Descriptors of config and layers, in this order.
    pub descriptors: Vec<Descriptor>,
}

impl ImageMaker {
    /// An image without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a gzipped layer of regular files.
    #[must_use]
    pub fn layer(self, files: &[(&str, &[u8])]) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            header.set_mtime(1);
            archive.append_data(&mut header, path, *content).expect("an entry in memory");
        }
        self.tar(archive.into_inner().expect("an archive in memory"))
    }

    /// Adds a layer of one file of so many bytes that do not compress; `seed` makes it unlike others.
    #[must_use]
    pub fn big_layer(self, seed: u64, size: usize) -> Self {
        let content = noise(seed, size);
        self.layer(&[(&format!("big-{seed}"), &content)])
    }

    /// Adds a gzipped layer of this archive.
    #[must_use]
    pub fn tar(mut self, archive: Vec<u8>) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive).expect("memory");
        self.layers.push((archive.into(), gzip.finish().expect("memory").into()));
        self
    }

    /// Sets the command.
    #[must_use]
    pub fn cmd(mut self, words: &[&str]) -> Self {
        self.cmd = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Sets a field of the config's `config`, e.g. `User` or `WorkingDir`.
    #[must_use]
    pub fn set(mut self, field: &str, value: impl Into<serde_json::Value>) -> Self {
        self.settings.push((field.to_owned(), value.into()));
        self
    }

    /// Uses Docker's media types in place of OCI's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// The image, for this machine's platform.
    pub fn build(self) -> TestImage {
        let platform = onggi_oci::Platform::host();
        let diff_ids: Vec<String> =
            self.layers.iter().map(|(tar, _)| Digest::sha256(tar).to_string()).collect();
        let mut config = json!({
            "architecture": platform.architecture, "os": platform.os,
            "config": { "Cmd": self.cmd },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|_| json!({ "created_by": "testkit" })).collect::<Vec<_>>(),
        });
        for (field, value) in self.settings {
            config["config"][field] = value;
        }
        let config = Bytes::from(config.to_string());
        let (media_type, config_type, layer_type) = if self.docker {
            (MediaType::DockerManifest, MediaType::DockerConfig, MediaType::DockerLayer)
        } else {
            (MediaType::OciManifest, MediaType::OciConfig, MediaType::OciLayerGzip)
        };
        let layers: Vec<Bytes> = self.layers.into_iter().map(|(_, gzip)| gzip).collect();
        let mut descriptors = vec![Descriptor::of(config_type, &config)];
        descriptors.extend(layers.iter().map(|layer| Descriptor::of(layer_type.clone(), layer)));
        let plain = |descriptor: &Descriptor| {
            json!({
                "mediaType": descriptor.media_type.to_string(),
                "digest": descriptor.digest.to_string(),
                "size": descriptor.size,
            })
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type.to_string(),
            "config": plain(&descriptors[0]),
            "layers": descriptors[1..].iter().map(plain).collect::<Vec<_>>(),
        });
        TestImage { manifest: manifest.to_string().into(), media_type, config, layers, descriptors }
    }
}

impl TestImage {
    /// The manifest's digest.
    pub fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    /// An OCI layout with the image under this name, as the members of an archive.
    pub fn layout(&self, name: &str) -> Vec<(String, Bytes)> {
        let manifest = Descriptor::of(self.media_type.clone(), &self.manifest);
        let entry = json!({
            "mediaType": manifest.media_type.to_string(),
            "digest": manifest.digest.to_string(),
            "size": manifest.size,
            "annotations": { "io.containerd.image.name": name },
        });
        let index = json!({
            "schemaVersion": 2, "mediaType": MediaType::OciIndex.to_string(), "manifests": [entry],
        });
        let blob = |descriptor: &Descriptor| format!("blobs/sha256/{}", descriptor.digest.hex());
        let mut members = vec![
            ("oci-layout".to_owned(), Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#)),
            ("index.json".to_owned(), index.to_string().into()),
            (blob(&manifest), self.manifest.clone()),
        ];
        members.extend(self.blobs().map(|(descriptor, bytes)| (blob(descriptor), bytes.clone())));
        members
    }

    /// Config and layers with their descriptors.
    pub fn blobs(&self) -> impl Iterator<Item = (&Descriptor, &Bytes)> {
        self.descriptors.iter().zip(std::iter::once(&self.config).chain(&self.layers))
    }
}

/// Bytes that do not compress (xorshift64*).
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
