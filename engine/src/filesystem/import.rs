//! An image of a root filesystem in an archive, as `export` writes it.

use std::io::{self, Read};

use onggi_registry_client::Download;
use tokio::runtime::Runtime;

use onggi_image::layer::decoder;
use onggi_oci::{ContainerConfig, DiffId, Digest, History, ImageConfig, Platform, Reference, RootFs};

use super::commit::{add_image, add_layer};
use crate::Engine;
use crate::error::Result;

/// How to make an image of an archive.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// What the image is called; nothing if `None`.
    pub name: Option<Reference>,
    /// A remark.
    pub message: Option<String>,
    /// Instructions of a Dockerfile that change the config.
    pub changes: Vec<String>,
    /// What the image is for; this host if `None`.
    pub platform: Option<Platform>,
    /// Where it came from, for the history.
    pub origin: String,
}

impl Engine {
    /// Makes an image of one layer of an archive, plain or compressed by gzip or zstd, and returns its ID.
    ///
    /// # Errors
    /// The archive is damaged or hostile: then nothing is kept; those of writing to the store.
    pub fn import(&self, archive: impl Read, request: &ImportRequest) -> Result<Digest> {
        let mut config = ContainerConfig::default();
        super::instructions::apply(&mut config, &request.changes)?;
        let store = self.store()?;
        let lease = store.lease("import")?;
        let mut plain = decoder(archive, None)?;
        let layer = add_layer(&lease, |out| {
            io::copy(&mut plain, out)
                .map(drop)
                .map_err(|source| crate::Error::Process { op: "read the archive", source })
        })?;
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        let now = jiff::Timestamp::now().to_string();
        let image = ImageConfig {
            created: Some(now.clone()),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config,
            rootfs: RootFs { diff_ids: vec![DiffId(layer.digest.clone())], ..RootFs::default() },
            history: vec![History {
                created: Some(now),
                comment: Some(match &request.message {
                    Some(message) => message.clone(),
                    None => format!("Imported from {}", request.origin),
                }),
                ..History::default()
            }],
            ..ImageConfig::default()
        };
        add_image(store, &lease, &image, vec![layer], request.name.as_ref())
    }

    /// The same with an archive that an http or https URL names.
    ///
    /// # Errors
    /// As [`Engine::import`], and those of the download.
    pub fn import_url(&self, url: &str, request: &ImportRequest) -> Result<Digest> {
        // Before the first thread: an ordinary user enters a namespace here.
        self.store()?;
        let runtime = crate::network_runtime()?;
        let download = runtime.block_on(self.client()?.download(url))?;
        self.import(Waiting { runtime, download, chunk: bytes::Bytes::new() }, request)
    }
}

/// A download for those who read plainly.
struct Waiting {
    runtime: Runtime,
    download: Download,
    chunk: bytes::Bytes,
}

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            let next = self.runtime.block_on(self.download.chunk()).map_err(io::Error::other)?;
            let Some(chunk) = next else { return Ok(0) };
            self.chunk = chunk;
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
