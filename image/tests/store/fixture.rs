//! Stores, layers and images for the tests.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use onggi_image::layer::UnpackOptions;
use onggi_image::store::{Claim, LayerSource, Lease, Ref, Storage};
use onggi_image::{Result, Store};
use onggi_oci::{
    ContainerConfig, Descriptor, DiffId, Digest, ImageConfig, ImageManifest, Manifest, MediaType, Platform,
    Reference, RootFs,
};

/// A store in a directory of its own.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

pub(crate) fn home() -> Home {
    // Memory where there is: what is tested is order and names, not the disk.
    let base = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let dir = tempfile::Builder::new().prefix("onggi-test-").tempdir_in(base).unwrap();
    let store = open(dir.path());
    Home { dir, store }
}

pub(crate) fn open(dir: &Path) -> Store {
    // Directories, into which tests look; the other format has its own tests.
    let options = UnpackOptions::privileged();
    Store::open_with(&dir.join("root"), &dir.join("run"), options, Storage::Dir).unwrap()
}

/// Whether something that a test needs is there; counted if not.
pub(crate) fn needs(what: &str, there: bool) -> bool {
    there || !onggi_testkit::needs::missing(what).is_missing()
}

pub(crate) fn needs_root() -> bool {
    !onggi_testkit::needs::root().is_missing()
}

pub(crate) fn needs_tool(tool: &str) -> bool {
    !onggi_testkit::needs::programs(&[tool]).is_missing()
}

/// A tar with these files. A name that ends in `/` is a directory.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        let is_dir = name.ends_with('/');
        header.set_entry_type(if is_dir { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(if is_dir { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(length).collect()
}

/// An image that is not in a store yet.
pub(crate) struct Made {
    /// Compressed layers with what they are.
    pub(crate) layers: Vec<(LayerSource, Vec<u8>)>,
    pub(crate) config: (Descriptor, Vec<u8>),
    pub(crate) manifest: (Descriptor, Vec<u8>),
}

pub(crate) fn made(layers: &[Vec<u8>]) -> Made {
    made_for("linux/amd64", layers)
}

pub(crate) fn made_for(platform: &str, layers: &[Vec<u8>]) -> Made {
    let platform: Platform = platform.parse().unwrap();
    let layers: Vec<_> = layers
        .iter()
        .map(|tar| {
            let bytes = gzip(tar);
            let blob = Descriptor::of(MediaType::OciLayerGzip, &bytes);
            (LayerSource { blob, diff_id: DiffId(Digest::sha256(tar)) }, bytes)
        })
        .collect();
    let config = ImageConfig {
        created: Some("2024-01-02T03:04:05Z".into()),
        architecture: platform.architecture,
        os: platform.os,
        config: ContainerConfig { cmd: Some(vec!["/bin/sh".into()]), ..Default::default() },
        rootfs: RootFs {
            diff_ids: layers.iter().map(|(source, _)| source.diff_id.clone()).collect(),
            ..Default::default()
        },
        ..Default::default()
    };
    let config = config.to_bytes();
    let config = (Descriptor::of(MediaType::OciConfig, &config), config);
    let blobs = layers.iter().map(|(source, _)| source.blob.clone()).collect();
    let manifest = ImageManifest::new(MediaType::OciManifest, config.0.clone(), blobs);
    let manifest = Manifest::Image(manifest).to_bytes();
    let manifest = (Descriptor::of(MediaType::OciManifest, &manifest), manifest);
    Made { layers, config, manifest }
}

pub(crate) fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Does what a pull does, without the network. Returns how many layers it had to fetch.
pub(crate) fn pull(store: &Store, made: &Made, reference: &str) -> Result<usize> {
    let lease = store.lease("test pull")?;
    let fetched = fetch(&lease, made)?;
    store.set_refs(&[Ref::new(name(reference).with_default_tag(), &made.manifest.0)])?;
    Ok(fetched)
}

/// Everything but the ref.
pub(crate) fn fetch(lease: &Lease, made: &Made) -> Result<usize> {
    let mut fetched = 0;
    for (source, bytes) in &made.layers {
        let pending = match lease.claim_layer(&source.blob, &source.diff_id)? {
            Claim::Present => continue,
            Claim::Unpack(permit) => lease.unpack(source.clone(), permit)?,
            Claim::Fetch(permit) => {
                fetched += 1;
                let mut ingest = lease.ingest(source.clone(), permit)?;
                for chunk in bytes.chunks(10_000) {
                    ingest.put(chunk)?;
                }
                ingest.finish()?
            }
        };
        lease.store().publish(vec![pending])?;
    }
    let mut documents = Vec::new();
    for (descriptor, bytes) in [&made.config, &made.manifest] {
        lease.protect([&descriptor.digest])?;
        if !lease.store().has_blob(descriptor)? {
            documents.push(lease.stage(descriptor, bytes)?);
        }
    }
    lease.store().publish(documents)?;
    Ok(fetched)
}

/// Runs the test `test` of this program again as a process of its own, which does its work when it
/// finds `ONGGI_TEST_CHILD`.
pub(crate) fn child(test: &str, argument: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("ONGGI_TEST_CHILD", argument)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// In a child: the argument that it was started with.
pub(crate) fn child_argument() -> Option<std::path::PathBuf> {
    std::env::var_os("ONGGI_TEST_CHILD").map(Into::into)
}
