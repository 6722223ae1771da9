//! Against the distribution project's own registry, and skopeo on the other side.
#![allow(clippy::unwrap_used)]

mod setup;

use std::process::Command;
use std::sync::Arc;

use onggi_oci::{Manifest, Reference};
use onggi_registry_client::{Client, Credentials, Error, Options, Pushed, UploadOptions};
use onggi_testkit::{DockerRegistry, ImageMaker, Security, TestImage, needs};
use setup::{fetch, options};

fn image() -> TestImage {
    ImageMaker::new().layer(&[("bin/hello", b"#!/bin/sh\necho hello\n")]).big_layer(3, 3_000_000).build()
}

async fn push(client: &Client, to: &Reference, image: &TestImage, from: &[Reference]) -> Vec<Pushed> {
    let mut ways = Vec::new();
    for (descriptor, bytes) in image.blobs() {
        ways.push(
            client.push_blob(to, descriptor, from, Arc::new(bytes.clone()), Arc::new(|_| {})).await.unwrap(),
        );
    }
    client.push_manifest(to, &image.media_type, image.manifest.clone()).await.unwrap();
    ways
}

async fn pull(client: &Client, from: &Reference, image: &TestImage) {
    let resolved = client.resolve(from).await.unwrap();
    assert_eq!(resolved.bytes, image.manifest);
    let Manifest::Image(manifest) = resolved.manifest else { panic!("not an image") };
    for (descriptor, (_, bytes)) in
        std::iter::once(&manifest.config).chain(&manifest.layers).zip(image.blobs())
    {
        assert_eq!(&fetch(client, from, descriptor).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn plain_registry() {
    let Some(registry) = DockerRegistry::start(Security::Plain) else { return };
    let client = Client::new(options()).unwrap();
    let (image, to) = (image(), format!("{}/team/app:v1", registry.address()).parse::<Reference>().unwrap());
    assert!(matches!(client.resolve(&to).await, Err(Error::ManifestNotFound { .. })));
    assert_eq!(push(&client, &to, &image, &[]).await, vec![Pushed::Uploaded; 3]);
    pull(&client, &to, &image).await;
    assert_eq!(push(&client, &to, &image, &[]).await, vec![Pushed::Existed; 3]);
    let second: Reference = format!("{}/other:v1", registry.address()).parse().unwrap();
    let mounted = Pushed::Mounted { from: "team/app".into() };
    assert_eq!(push(&client, &second, &image, std::slice::from_ref(&to)).await, vec![mounted; 3]);
    assert_eq!(client.tags(&to).await.unwrap(), ["v1"]);
    let peeked = client.peek(&to).await.unwrap().unwrap();
    assert_eq!(peeked.digest, image.digest());

    // In chunks, of a length that nobody knows.
    let chunked = Options { upload: UploadOptions { chunk: 1 << 20 }, ..options() };
    let chunked = Client::new(chunked).unwrap();
    let third: Reference = format!("{}/third:v1", registry.address()).parse().unwrap();
    for (descriptor, bytes) in image.blobs() {
        let mut upload = chunked.upload(&third).await.unwrap();
        for part in bytes.chunks(100_000) {
            upload.write(part).await.unwrap();
        }
        upload.finish(&descriptor.digest).await.unwrap();
    }
    client.push_manifest(&third, &image.media_type, image.manifest.clone()).await.unwrap();
    pull(&client, &third, &image).await;
    client.delete_manifest(&third.with_digest(image.digest())).await.unwrap();
    assert_eq!(client.peek(&third).await.unwrap(), None);
}

#[tokio::test]
async fn registry_with_tls_and_password() {
    let Some(registry) = DockerRegistry::start(Security::TlsWithPassword) else { return };
    let (image, to) = (image(), format!("{}/team/app:v1", registry.address()).parse::<Reference>().unwrap());
    let credentials = |password: &str| Credentials::Password {
        username: DockerRegistry::USER.into(),
        password: password.into(),
    };
    // An authority that nobody told us of, even on loopback.
    let error = Client::new(options()).unwrap().resolve(&to).await.unwrap_err();
    assert!(matches!(error, Error::UntrustedCertificate { .. }), "{error:?}");

    let trusting = Options { certs_dirs: vec![registry.certs_dir()], ..options() };
    let client = Client::new(trusting.clone()).unwrap();
    let error = client.resolve(&to).await.unwrap_err();
    assert!(matches!(error, Error::Denied { authenticated: false, .. }), "{error:?}");
    let error = client.login(&registry.address(), &credentials("wrong")).await.unwrap_err();
    assert!(matches!(error, Error::LoginFailed { .. }), "{error:?}");
    client.login(&registry.address(), &credentials(DockerRegistry::PASSWORD)).await.unwrap();

    let right = Some((registry.address(), credentials(DockerRegistry::PASSWORD)));
    let client = Client::new(Options { credentials: right.clone(), ..trusting }).unwrap();
    push(&client, &to, &image, &[]).await;
    pull(&client, &to, &image).await;
    // Configured as insecure, its certificate does not matter.
    let careless = Options { insecure: vec![registry.address()], credentials: right, ..options() };
    pull(&Client::new(careless).unwrap(), &to, &image).await;
    // Asked by plain HTTP, it says what it wants.
    let certs = tempfile::tempdir().unwrap();
    let host = certs.path().join(registry.address());
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("hosts.toml"), format!("server = \"http://{}\"", registry.address())).unwrap();
    let plain = Options { certs_dirs: vec![certs.path().to_owned()], ..options() };
    let error = Client::new(plain).unwrap().resolve(&to).await.unwrap_err();
    assert!(matches!(error, Error::ServerSpeaksHttps { .. }), "{error:?}");
}

#[tokio::test]
async fn registry_that_wants_a_certificate() {
    let Some(registry) = DockerRegistry::start(Security::MutualTls) else { return };
    let (image, to) = (image(), format!("{}/team/app:v1", registry.address()).parse::<Reference>().unwrap());
    let trusting = |certs| Client::new(Options { certs_dirs: vec![certs], ..options() }).unwrap();
    let error = trusting(registry.certs_dir()).resolve(&to).await.unwrap_err();
    // In TLS 1.3 the refusal comes after the handshake, as an alert or as no more than a hang-up.
    assert!(matches!(error, Error::Tls { .. } | Error::Interrupted { .. }), "{error:?}");
    let client = trusting(registry.certs_dir_with_identity());
    push(&client, &to, &image, &[]).await;
    pull(&client, &to, &image).await;
}

#[tokio::test]
async fn https_where_only_http_is_spoken() {
    let Some(registry) = DockerRegistry::start(Security::Plain) else { return };
    let certs = tempfile::tempdir().unwrap();
    let host = certs.path().join(registry.address());
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("hosts.toml"), format!("server = \"https://{}\"", registry.address())).unwrap();
    let secure = Options { certs_dirs: vec![certs.path().to_owned()], ..options() };
    let name: Reference = format!("{}/x:y", registry.address()).parse().unwrap();
    let error = Client::new(secure).unwrap().resolve(&name).await.unwrap_err();
    assert!(matches!(error, Error::ServerSpeaksHttp { .. }), "{error:?}");
}

#[tokio::test]
async fn skopeo_takes_ours_and_we_take_skopeos() {
    if needs::programs(&["skopeo"]).is_missing() {
        return;
    }
    let Some(registry) = DockerRegistry::start(Security::Plain) else { return };
    let client = Client::new(options()).unwrap();
    let image = image();
    let ours: Reference = format!("{}/ours:v1", registry.address()).parse().unwrap();
    push(&client, &ours, &image, &[]).await;
    let dir = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:v1", dir.path().join("layout").display());
    let skopeo = |from: &str, to: &str| {
        let done = Command::new("skopeo")
            .args([
                "copy",
                "-q",
                "--preserve-digests",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                from,
                to,
            ])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    skopeo(&format!("docker://{ours}"), &layout);
    skopeo(&layout, &format!("docker://{}/theirs:v2", registry.address()));
    let theirs: Reference = format!("{}/theirs:v2", registry.address()).parse().unwrap();
    pull(&client, &theirs, &image).await;
}
