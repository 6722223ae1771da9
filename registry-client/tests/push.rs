//! Pushes: nothing is sent that is there, and what breaks is taken up.
#![allow(clippy::unwrap_used)]

mod setup;

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use onggi_oci::{Descriptor, Digest, ErrorKind, MediaType, Reference};
use onggi_registry_client::{BlobSource, Client, Credentials, Error, Options, Pushed, UploadOptions};
use onggi_testkit::{Auth, Fault, ImageMaker, Registry, TestImage};
use setup::{client, options, reference};

async fn push(client: &Client, to: &Reference, image: &TestImage, from: &[Reference]) -> Vec<Pushed> {
    let mut ways = Vec::new();
    for (descriptor, bytes) in image.blobs() {
        let source = Arc::new(bytes.clone());
        ways.push(client.push_blob(to, descriptor, from, source, Arc::new(|_| {})).await.unwrap());
    }
    let digest = client.push_manifest(to, &image.media_type, image.manifest.clone()).await.unwrap();
    assert_eq!(digest, image.digest());
    ways
}

fn image() -> TestImage {
    ImageMaker::new().layer(&[("a", b"b")]).big_layer(7, 900_000).build()
}

fn alice(registry: &Registry) -> Client {
    let credentials = Credentials::Password { username: "alice".into(), password: "s3cret".into() };
    Client::new(Options { credentials: Some((registry.address(), credentials)), ..options() }).unwrap()
}

#[tokio::test]
async fn an_image_goes_once_and_to_a_second_repository_by_mount() {
    let registry = Registry::start(Auth::Token("alice".into(), "s3cret".into()));
    let (client, image) = (alice(&registry), image());
    let to = reference(&registry, "team/app:v1");
    assert_eq!(push(&client, &to, &image, &[]).await, vec![Pushed::Uploaded; 3]);
    assert_eq!(registry.manifest("team/app", "v1"), Some(image.manifest.clone()));
    assert_eq!(registry.token_requests(&["repository:team/app:pull,push"]), 1);

    registry.clear_requests();
    assert_eq!(push(&client, &to, &image, &[]).await, vec![Pushed::Existed; 3]);
    assert_eq!(registry.count("POST", "/uploads/") + registry.count("PUT", "/uploads/"), 0);

    let second = reference(&registry, "team/other:v1");
    let mounted = Pushed::Mounted { from: "team/app".into() };
    assert_eq!(push(&client, &second, &image, std::slice::from_ref(&to)).await, vec![mounted; 3]);
    let body: u64 =
        registry.requests().iter().filter(|r| r.path.contains("/uploads/")).map(|r| r.body_len).sum();
    assert_eq!(body, 0);
    // Both repositories in one token.
    assert_eq!(registry.token_requests(&["repository:team/other:pull,push", "repository:team/app:pull"]), 1);
}

#[tokio::test]
async fn a_declined_mount_continues_in_the_session_it_opened() {
    let registry = Registry::start(Auth::Open);
    let (client, image) = (client(), image());
    let to = reference(&registry, "team/app:v1");
    push(&client, &to, &image, &[]).await;
    registry.clear_requests();
    registry.always(Fault::DeclineMounts);
    let second = reference(&registry, "team/other:v1");
    let ways = push(&client, &second, &image, std::slice::from_ref(&to)).await;
    assert_eq!(ways, vec![Pushed::Uploaded; 3]);
    assert_eq!(registry.count("POST", "/uploads/"), 3, "one session for each blob");
}

#[tokio::test]
async fn a_broken_upload_goes_on_where_it_broke() {
    let layer = ImageMaker::new().big_layer(9, 2_000_000).build();
    let (descriptor, bytes) = layer.blobs().nth(1).unwrap();
    // (fault, times, whether the whole blob is sent anew)
    let cases = [
        (vec![(Fault::CutUpload(700_000), 1)], false),
        (vec![(Fault::CutUpload(700_000), 2)], false),
        (vec![(Fault::CutUpload(700_000), 1), (Fault::ForgetBrokenUploads, 1)], true),
        (vec![(Fault::CutUpload(0), 1)], true),
        (vec![(Fault::Status("/uploads/session", 500, None), 1)], true),
    ];
    for (faults, anew) in cases {
        let registry = Registry::start(Auth::Open);
        let to = reference(&registry, "x:y");
        for (fault, times) in faults.clone() {
            registry.times(fault, times);
        }
        let most = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&most);
        let progress = Arc::new(move |sent| {
            seen.fetch_max(sent, Ordering::Relaxed);
        });
        let pushed = client().push_blob(&to, descriptor, &[], Arc::new(bytes.clone()), progress).await;
        assert_eq!(pushed.unwrap(), Pushed::Uploaded, "{faults:?}");
        assert_eq!(registry.blob("x", &descriptor.digest).as_ref(), Some(bytes), "{faults:?}");
        assert_eq!(most.load(Ordering::Relaxed), descriptor.size);
        let patched = registry.count("PATCH", "/uploads/") > 0;
        assert_eq!(patched, !anew, "{faults:?}");
    }
}

#[tokio::test]
async fn uploads_that_cannot_succeed_say_why() {
    let registry = Registry::start(Auth::Open);
    let to = reference(&registry, "x:y");
    let bytes = Bytes::from_static(b"content");
    let right = Descriptor::of(MediaType::OciLayer, &bytes);
    let quiet = || Arc::new(|_| {});
    // The source holds something else.
    let other = Arc::new(Bytes::from_static(b"CONTENT"));
    let error = client().push_blob(&to, &right, &[], other, quiet()).await.unwrap_err();
    assert!(error.to_string().contains("provided digest did not match"), "{error}");
    // The source is too short, or cannot be read.
    let short = Arc::new(Bytes::from_static(b"con"));
    let error = client().push_blob(&to, &right, &[], short, quiet()).await.unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
    struct Broken;
    impl BlobSource for Broken {
        fn open(&self, _: u64) -> std::io::Result<Box<dyn Read + Send>> {
            Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied))
        }
    }
    let error = client().push_blob(&to, &right, &[], Arc::new(Broken), quiet()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    // Not allowed.
    let closed = Registry::start(Auth::Token("alice".into(), "s3cret".into()));
    let to = reference(&closed, "x:y");
    let error = client().push_blob(&to, &right, &[], Arc::new(bytes), quiet()).await.unwrap_err();
    assert!(matches!(error, Error::Denied { authenticated: false, .. }), "{error}");
    // A manifest before its blobs.
    let image = image();
    let error = client().push_manifest(&reference(&registry, "x:y"), &image.media_type, image.manifest).await;
    assert!(error.unwrap_err().to_string().contains("manifest blob unknown"));
}

#[tokio::test]
async fn a_blob_that_is_made_while_it_is_sent() {
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let digest = Digest::sha256(&content);
    let small = Options { upload: UploadOptions { chunk: 300_000 }, ..options() };
    let cases: [(usize, Option<Fault>); 6] = [
        (1_000_000, None),
        (1_000_000, Some(Fault::CutUpload(100_000))),
        (1_000_000, Some(Fault::CutUpload(0))),
        (1_000_000, Some(Fault::Status("/uploads/session", 502, None))),
        // One chunk, and nothing at all.
        (1000, None),
        (0, None),
    ];
    for (length, fault) in cases {
        let registry = Registry::start(Auth::Open);
        let to = reference(&registry, "x:y");
        let digest =
            if length == content.len() { digest.clone() } else { Digest::sha256(&content[..length]) };
        if let Some(fault) = fault.clone() {
            registry.times(fault, 1);
        }
        let mut upload = Client::new(small.clone()).unwrap().upload(&to).await.unwrap();
        for part in content[..length].chunks(77_777) {
            upload.write(part).await.unwrap();
        }
        upload.finish(&digest).await.unwrap();
        assert_eq!(registry.blob("x", &digest).unwrap(), &content[..length], "{length} {fault:?}");
    }
    // A session that is lost is an error: what was sent cannot be made again.
    let registry = Registry::start(Auth::Open);
    let to = reference(&registry, "x:y");
    registry.times(Fault::CutUpload(100_000), 1);
    registry.times(Fault::ForgetBrokenUploads, 1);
    let mut upload = Client::new(small.clone()).unwrap().upload(&to).await.unwrap();
    assert!(upload.write(&content).await.is_err());
    // Given up, it leaves nothing.
    let mut upload = Client::new(small).unwrap().upload(&to).await.unwrap();
    upload.write(&content).await.unwrap();
    upload.cancel().await.unwrap();
    assert_eq!(registry.count("DELETE", "/uploads/"), 1);
}

#[tokio::test]
async fn a_registry_that_does_not_take_bytes_has_stalled() {
    // Accepts connections, answers the first requests, and then reads nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    std::thread::spawn(move || {
        use std::io::Write;
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0_u8; 4096];
            while let Ok(n) = stream.read(&mut head) {
                let text = String::from_utf8_lossy(&head[..n]).into_owned();
                let answer = if text.starts_with("HEAD") {
                    "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n".to_owned()
                } else if text.starts_with("POST") {
                    format!(
                        "HTTP/1.1 202 X\r\nlocation: http://{address}/v2/x/blobs/uploads/1\r\ncontent-length: 0\r\n\r\n"
                    )
                } else if text.starts_with("GET /v2/ ") {
                    "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n".to_owned()
                } else {
                    break;
                };
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
            keep.lock().unwrap().push(stream);
        }
    });
    let bytes = Bytes::from(vec![1_u8; 64 << 20]);
    let descriptor = Descriptor::of(MediaType::OciLayer, &bytes);
    let to: Reference = format!("{address}/x:y").parse().unwrap();
    let options =
        Options { retry: onggi_registry_client::RetryPolicy { retries: 0, ..options().retry }, ..options() };
    let client = Client::new(options).unwrap();
    let error = client.push_blob(&to, &descriptor, &[], Arc::new(bytes), Arc::new(|_| {})).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
    drop(kept);
}
