//! Pulls from a registry that misbehaves in every way that is known to happen: either the pull
//! recovers, or it says what is wrong.
#![allow(clippy::unwrap_used)]

mod setup;

use std::time::{Duration, Instant};

use bytes::Bytes;
use onggi_oci::{ErrorKind, MediaType, Reference};
use onggi_registry_client::{Client, Credentials, Error, Options};
use onggi_testkit::{Auth, Fault, ImageMaker, Registry, TestImage};
use setup::{client, collect, fetch, options, reference};

fn image() -> TestImage {
    ImageMaker::new().layer(&[("hello", b"world")]).big_layer(1, 600_000).cmd(&["/hello"]).build()
}

fn loaded(auth: Auth) -> (Registry, TestImage, Reference) {
    let (registry, image) = (Registry::start(auth), image());
    registry.put_image("team/app", "v1", &image);
    let reference = reference(&registry, "team/app:v1");
    (registry, image, reference)
}

#[tokio::test]
async fn an_image_comes_whole() {
    let (registry, image, reference) = loaded(Auth::Open);
    let client = client();
    let resolved = client.resolve(&reference).await.unwrap();
    assert_eq!(resolved.digest, image.digest());
    assert_eq!(resolved.bytes, image.manifest);
    assert_eq!(resolved.media_type, MediaType::OciManifest);
    for (descriptor, bytes) in image.blobs() {
        assert_eq!(&fetch(&client, &reference, descriptor).await.unwrap(), bytes);
    }
    assert_eq!(registry.count("GET", "/blobs/"), 3);
    let peeked = client.peek(&reference).await.unwrap().unwrap();
    assert_eq!(peeked, resolved.descriptor());
    let by_digest = reference.with_digest(image.digest());
    assert_eq!(client.resolve(&by_digest).await.unwrap().digest, image.digest());
}

/// Each fault of a blob: how often it happens, and how the pull ends.
#[tokio::test]
async fn a_blob_through_every_fault() {
    #[derive(Debug)]
    enum End {
        /// Recovers after so many resumptions at least.
        Whole(u32),
        Fails(fn(&Error) -> bool),
    }
    use End::{Fails, Whole};
    let always = u32::MAX;
    let cases: [(Fault, u32, End); 20] = [
        (Fault::CutBlob(1), 1, Whole(1)),
        (Fault::CutBlob(0), 1, Whole(1)),
        (Fault::CutBlob(300_000), 1, Whole(1)),
        (Fault::CutBlob(300_000), 3, Whole(1)),
        // The cut is at one offset of the blob: who resumes behind it gets the rest.
        (Fault::CutBlob(300_000), always, Whole(1)),
        (Fault::CutBlob(0), always, Fails(|error| matches!(error, Error::Interrupted { .. }))),
        (Fault::StallBlob(200_000), 1, Whole(1)),
        (Fault::StallBlob(0), always, Fails(|error| matches!(error, Error::Stalled { .. }))),
        (Fault::DripBlob(1, Duration::from_millis(5)), 1, Whole(1)),
        (
            Fault::DripBlob(1, Duration::from_millis(5)),
            always,
            Fails(|error| matches!(error, Error::Stalled { .. })),
        ),
        (Fault::WrongBytes, 1, Fails(|error| matches!(error, Error::DigestMismatch { .. }))),
        (Fault::WrongLength(-1), always, Fails(|error| matches!(error, Error::SizeMismatch { .. }))),
        (Fault::WrongLength(7), always, Fails(|error| matches!(error, Error::SizeMismatch { .. }))),
        (Fault::AnnounceMore(100_000), 1, Whole(1)),
        (Fault::Status("/blobs/", 500, None), 2, Whole(0)),
        (
            Fault::Status("/blobs/", 503, None),
            always,
            Fails(|error| matches!(error, Error::Registry { status: 503, .. })),
        ),
        (Fault::Status("/blobs/", 429, Some(0)), 2, Whole(0)),
        (
            Fault::Status("/blobs/", 429, Some(3600)),
            1,
            Fails(|error| matches!(error, Error::RateLimited { .. })),
        ),
        (Fault::Status("/blobs/", 404, None), 1, Fails(|error| matches!(error, Error::BlobNotFound { .. }))),
        (Fault::Status("/blobs/", 403, None), 1, Fails(|error| matches!(error, Error::Denied { .. }))),
    ];
    for (fault, times, end) in cases {
        let (registry, image, reference) = loaded(Auth::Open);
        let client = client();
        client.resolve(&reference).await.unwrap();
        if times == always {
            registry.always(fault.clone());
        } else {
            registry.times(fault.clone(), times);
        }
        let (descriptor, bytes) = image.blobs().nth(2).unwrap();
        let start = Instant::now();
        let (result, resumes) = match client.blob(&reference, descriptor).await {
            Ok(mut stream) => (collect(&mut stream).await, stream.resumes()),
            Err(error) => (Err(error), 0),
        };
        match (end, result) {
            (Whole(least), Ok(got)) => {
                assert_eq!(&got, bytes, "{fault:?}");
                assert!(resumes >= least, "{fault:?}: {resumes} resumptions");
            }
            (Fails(expected), Err(error)) => assert!(expected(&error), "{fault:?}: {error:?}"),
            (end, result) => panic!("{fault:?}: wanted {end:?}, got {:?}", result.map(|bytes| bytes.len())),
        }
        assert!(start.elapsed() < Duration::from_secs(15), "{fault:?} took {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_resumed_transfer_asks_for_the_rest_only() {
    let (registry, image, reference) = loaded(Auth::Open);
    registry.times(Fault::CutBlob(400_000), 1);
    let (descriptor, bytes) = image.blobs().nth(2).unwrap();
    assert_eq!(&fetch(&client(), &reference, descriptor).await.unwrap(), bytes);
    let ranges: Vec<_> =
        registry.requests().iter().filter_map(|record| record.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=400000-"]);
}

#[tokio::test]
async fn a_server_without_ranges_is_skipped_forward_and_a_wrong_range_is_refused() {
    let (registry, image, reference) = loaded(Auth::Open);
    let (descriptor, bytes) = image.blobs().nth(2).unwrap();
    registry.times(Fault::CutBlob(400_000), 1);
    registry.always(Fault::IgnoreRange);
    assert_eq!(&fetch(&client(), &reference, descriptor).await.unwrap(), bytes);
    registry.behave();
    registry.times(Fault::CutBlob(400_000), 1);
    registry.always(Fault::WrongContentRange);
    let error = fetch(&client(), &reference, descriptor).await.unwrap_err();
    assert!(
        matches!(&error, Error::Protocol { problem, .. } if problem.contains("bytes from 400000")),
        "{error}"
    );
}

#[tokio::test]
async fn after_an_error_a_stream_gives_nothing_more() {
    let (registry, image, reference) = loaded(Auth::Open);
    registry.always(Fault::WrongBytes);
    let (descriptor, _) = image.blobs().nth(1).unwrap();
    let mut stream = client().blob(&reference, descriptor).await.unwrap();
    assert!(collect(&mut stream).await.is_err());
    assert!(stream.next_chunk().await.is_err());
    // Who hashes the bytes anyway may do so alone.
    let mut stream = client().blob(&reference, descriptor).await.unwrap().hashed_by_caller();
    assert_eq!(collect(&mut stream).await.unwrap().len() as u64, descriptor.size);
}

#[tokio::test]
async fn a_caller_that_is_slow_is_no_stall() {
    let (_registry, image, reference) = loaded(Auth::Open);
    let (descriptor, bytes) = image.blobs().nth(2).unwrap();
    let mut stream = client().blob(&reference, descriptor).await.unwrap();
    let mut got = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        if got.is_empty() {
            tokio::time::sleep(Duration::from_millis(800)).await;
        }
        got.extend_from_slice(&chunk);
    }
    assert_eq!(&got, bytes);
    assert_eq!(stream.resumes(), 0);
}

/// Each fault of a manifest, and what it is called.
#[tokio::test]
async fn a_manifest_through_every_fault() {
    let cases: [(Fault, ErrorKind, &str); 8] = [
        (Fault::HugeManifest(5 << 20), ErrorKind::Corrupt, "larger than the limit of 4194304 bytes"),
        (Fault::HugeManifest(100), ErrorKind::Corrupt, "not valid"),
        (Fault::ManifestType("application/vnd.oci.image.index.v1+json"), ErrorKind::Corrupt, "not valid"),
        (
            Fault::DigestHeader("sha256:0000000000000000000000000000000000000000000000000000000000000000"),
            ErrorKind::Corrupt,
            "its digest is",
        ),
        (Fault::DigestHeader("nonsense"), ErrorKind::Remote, "Docker-Content-Digest"),
        (Fault::Status("/manifests/", 404, None), ErrorKind::NotFound, "no such image"),
        (Fault::Status("/manifests/", 418, None), ErrorKind::Remote, "status 418"),
        (Fault::Status("/manifests/", 500, None), ErrorKind::Remote, "status 500"),
    ];
    for (fault, kind, words) in cases {
        let (registry, _, reference) = loaded(Auth::Open);
        registry.always(fault.clone());
        let error = client().resolve(&reference).await.unwrap_err();
        // A digest header of a huge manifest is wrong too, so either may be named first.
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        let text = error.to_string();
        let fine =
            text.contains(words) || matches!(fault, Fault::HugeManifest(100)) && text.contains("digest");
        assert!(fine, "{fault:?}: {text}");
    }
    let (_registry, image, reference) = loaded(Auth::Open);
    let missing = reference.with_tag("v2").unwrap();
    assert!(matches!(client().resolve(&missing).await, Err(Error::ManifestNotFound { .. })));
    assert_eq!(client().peek(&missing).await.unwrap(), None);
    // A digest that names other bytes.
    let mut descriptor = client().resolve(&reference).await.unwrap().descriptor();
    descriptor.size += 1;
    let error = client().manifest(&reference, &descriptor).await.unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
    assert_eq!(image.descriptors.len(), 3);
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let (registry, _, reference) = loaded(Auth::Open);
    registry.times(Fault::Status("/manifests/", 429, Some(1)), 1);
    let start = Instant::now();
    client().resolve(&reference).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn one_token_for_each_scope_however_many_ask() {
    let (registry, image, reference) = loaded(Auth::Token("alice".into(), "s3cret".into()));
    let client = client();
    client.resolve(&reference).await.unwrap();
    let fetches = image.blobs().map(|(descriptor, _)| {
        let (client, reference, descriptor) = (client.clone(), reference.clone(), descriptor.clone());
        tokio::spawn(async move { fetch(&client, &reference, &descriptor).await.map(|bytes| bytes.len()) })
    });
    for fetch in fetches.collect::<Vec<_>>() {
        fetch.await.unwrap().unwrap();
    }
    assert_eq!(registry.token_requests(&["repository:team/app:pull"]), 1);
    assert_eq!(registry.count("GET", "/token"), 1);
    // Without any request before, six at once still ask for one token.
    let (registry, image, reference) = loaded(Auth::Token("alice".into(), "s3cret".into()));
    let client = setup::client();
    let (descriptor, _) = image.blobs().next().unwrap();
    let fetches: Vec<_> = (0..6)
        .map(|_| {
            let (client, reference, descriptor) = (client.clone(), reference.clone(), descriptor.clone());
            tokio::spawn(async move { fetch(&client, &reference, &descriptor).await.map(drop) })
        })
        .collect();
    for fetch in fetches {
        fetch.await.unwrap().unwrap();
    }
    assert_eq!(registry.token_requests(&["repository:team/app:pull"]), 1);
}

#[tokio::test]
async fn a_token_that_was_taken_back_is_renewed_once() {
    let (registry, _, reference) = loaded(Auth::Token("alice".into(), "s3cret".into()));
    let client = client();
    client.resolve(&reference).await.unwrap();
    registry.times(Fault::RevokeTokens, 1);
    client.resolve(&reference).await.unwrap();
    assert_eq!(registry.token_requests(&["repository:team/app:pull"]), 2);
    // A registry that is never content is not asked forever.
    let (registry, _, reference) = loaded(Auth::Never);
    let error = setup::client().resolve(&reference).await.unwrap_err();
    assert!(matches!(error, Error::Denied { authenticated: false, .. }), "{error}");
    assert_eq!(registry.count("GET", "/manifests/"), 2);
    assert_eq!(registry.count("GET", "/token"), 1);
}

#[tokio::test]
async fn credentials_of_each_kind() {
    let password = |word: &str| Credentials::Password { username: "alice".into(), password: word.into() };
    let basic = || Auth::Basic("alice".into(), "s3cret".into());
    let token = || Auth::Token("alice".into(), "s3cret".into());
    let cases = [
        (basic(), password("s3cret"), true),
        (basic(), password("wrong"), false),
        (token(), password("s3cret"), true),
        (token(), password("wrong"), false),
        (token(), Credentials::IdentityToken("refresh-alice".into()), true),
        (token(), Credentials::IdentityToken("stale".into()), false),
    ];
    for (auth, credentials, right) in cases {
        let (registry, _, reference) = loaded(auth);
        let what = format!("{credentials:?} {right}");
        assert!(!what.contains("s3cret"), "a secret is printed: {what}");
        let login = client().login(&registry.address(), &credentials).await;
        assert_eq!(login.is_ok(), right, "{what}: {login:?}");
        if let Err(error) = login {
            assert!(matches!(error, Error::LoginFailed { .. }), "{what}: {error}");
        }
        let options = Options { credentials: Some((registry.address(), credentials)), ..options() };
        let pulled = Client::new(options).unwrap().resolve(&reference).await;
        assert_eq!(pulled.is_ok(), right, "{what}: {:?}", pulled.err());
        if let Err(error) = pulled {
            assert_eq!(error.kind(), ErrorKind::Denied, "{what}");
        }
    }
}

/// CVE-2020-15157 and its kin: what one host may see stays with it.
#[tokio::test]
async fn no_secret_goes_to_another_host() {
    for auth in [Auth::Basic("alice".into(), "s3cret".into()), Auth::Token("alice".into(), "s3cret".into())] {
        let (registry, image, reference) = loaded(auth);
        let elsewhere = Registry::start(Auth::Open);
        elsewhere.put_image("team/app", "v1", &image);
        let credentials = Credentials::Password { username: "alice".into(), password: "s3cret".into() };
        let options =
            || Options { credentials: Some((registry.address(), credentials.clone())), ..options() };
        let client = Client::new(options()).unwrap();
        client.resolve(&reference).await.unwrap();
        let (descriptor, bytes) = image.blobs().nth(1).unwrap();
        registry.always(Fault::RedirectBlobs(format!("http://{}", elsewhere.address())));
        assert_eq!(&fetch(&client, &reference, descriptor).await.unwrap(), bytes);
        assert_eq!(elsewhere.count("GET", "/blobs/"), 1);

        // The other host wants a login: it gets none.
        let thief = Registry::start(Auth::Basic("alice".into(), "s3cret".into()));
        thief.put_image("team/app", "v1", &image);
        registry.behave();
        registry.always(Fault::RedirectBlobs(format!("http://{}", thief.address())));
        assert!(fetch(&client, &reference, descriptor).await.is_err());

        // An upload session elsewhere: the bytes go there, the secrets do not.
        registry.behave();
        registry.always(Fault::UploadsAt(format!("http://{}", thief.address())));
        let new = Bytes::from_static(b"new");
        let descriptor = onggi_oci::Descriptor::of(MediaType::OciLayer, &new);
        let pushed = client
            .push_blob(&reference, &descriptor, &[], std::sync::Arc::new(new), std::sync::Arc::new(|_| {}))
            .await;
        assert!(pushed.is_err());
        for host in [&elsewhere, &thief] {
            assert!(!host.requests().is_empty());
            for record in host.requests() {
                assert_eq!(record.headers.get("authorization"), None, "{record:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_redirect_that_never_ends_is_left() {
    let (registry, image, reference) = loaded(Auth::Open);
    registry.always(Fault::RedirectBlobs(format!("http://{}", registry.address())));
    let (descriptor, _) = image.blobs().next().unwrap();
    let error = fetch(&client(), &reference, descriptor).await.unwrap_err();
    assert!(error.to_string().contains("redirects more than"), "{error}");
}

#[tokio::test]
async fn hosts_that_cannot_be_spoken_to() {
    // Nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody: Reference = format!("127.0.0.1:{port}/x:y").parse().unwrap();
    let error = client().resolve(&nobody).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    // No such name (RFC 6761 reserves it).
    let nowhere: Reference = "registry.invalid/x:y".parse().unwrap();
    let impatient = Options {
        timeouts: onggi_registry_client::Timeouts { connect: Duration::from_secs(3), ..options().timeouts },
        ..options()
    };
    let error = Client::new(impatient).unwrap().resolve(&nowhere).await.unwrap_err();
    assert!(
        matches!(error, Error::UnknownHost { .. } | Error::Unreachable { .. } | Error::Stalled { .. }),
        "{error:?}"
    );
    // `localhost` is found without a name server.
    let (registry, _, _) = loaded(Auth::Open);
    let port = registry.address().rsplit_once(':').unwrap().1.to_owned();
    let local: Reference = format!("localhost:{port}/team/app:v1").parse().unwrap();
    client().resolve(&local).await.unwrap();
}

#[tokio::test]
async fn a_proxy_is_asked_for_all_but_loopback_and_exceptions() {
    let proxy = Registry::start(Auth::Open);
    let certs = tempfile::tempdir().unwrap();
    for name in ["far.invalid", "near.invalid"] {
        std::fs::create_dir(certs.path().join(name)).unwrap();
        std::fs::write(certs.path().join(name).join("hosts.toml"), format!("server = \"http://{name}\""))
            .unwrap();
    }
    let proxied = onggi_registry_client::ProxyOptions {
        http: Some(proxy.address()),
        https: Some(proxy.address()),
        no_proxy: Some("near.invalid".into()),
    };
    let options = Options { proxy: proxied, certs_dirs: vec![certs.path().to_owned()], ..options() };
    let client = Client::new(options).unwrap();
    let through: Reference = "far.invalid/x:y".parse().unwrap();
    assert_eq!(client.resolve(&through).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(proxy.count("GET", "http://far.invalid/v2/x/manifests/y"), 1);
    proxy.clear_requests();
    let around: Reference = "near.invalid/x:y".parse().unwrap();
    client.resolve(&around).await.unwrap_err();
    let (_registry, _, local) = loaded(Auth::Open);
    client.resolve(&local).await.unwrap();
    assert!(proxy.requests().is_empty());
    // HTTPS goes by CONNECT, under the name it is meant for.
    let secure: Reference = "secure.invalid/x:y".parse().unwrap();
    client.resolve(&secure).await.unwrap_err();
    assert_eq!(proxy.count("CONNECT", "secure.invalid:443"), 1);
}

#[tokio::test]
async fn no_more_transfers_than_allowed() {
    let (_registry, image, reference) = loaded(Auth::Open);
    let client = Client::new(Options { transfers: 2, ..options() }).unwrap();
    let (descriptor, _) = image.blobs().nth(1).unwrap();
    let one = client.blob(&reference, descriptor).await.unwrap();
    let _two = client.blob(&reference, descriptor).await.unwrap();
    let third = client.blob(&reference, descriptor);
    assert!(tokio::time::timeout(Duration::from_millis(200), third).await.is_err());
    drop(one);
    client.blob(&reference, descriptor).await.unwrap();
}

#[tokio::test]
async fn tags_come_page_by_page() {
    let (registry, image, reference) = loaded(Auth::Open);
    for tag in ["a", "b", "c", "d"] {
        registry.put_image("team/app", tag, &image);
    }
    assert_eq!(client().tags(&reference).await.unwrap(), ["a", "b", "c", "d", "v1"]);
    assert!(registry.count("GET", "/tags/list") > 1);
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_may_fail() {
    let (origin, image, reference) = loaded(Auth::Open);
    let mirror = Registry::start(Auth::Open);
    mirror.put_image("team/app", "v1", &image);
    let certs = tempfile::tempdir().unwrap();
    let host = certs.path().join(origin.address());
    std::fs::create_dir(&host).unwrap();
    std::fs::write(
        host.join("hosts.toml"),
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", origin.address(), mirror.address()),
    )
    .unwrap();
    let client = || Client::new(Options { certs_dirs: vec![certs.path().to_owned()], ..options() }).unwrap();
    let (descriptor, bytes) = image.blobs().nth(2).unwrap();
    let first = client();
    first.resolve(&reference).await.unwrap();
    assert_eq!(&fetch(&first, &reference, descriptor).await.unwrap(), bytes);
    assert_eq!((mirror.count("GET", "team/app"), origin.count("GET", "team/app")), (2, 0));
    assert_eq!(mirror.requests()[0].parameter("ns"), Some(origin.address().as_str()));
    // The mirror breaks off for good in the middle: the registry itself gives the rest.
    mirror.always(Fault::CutBlob(100_000));
    mirror.always(Fault::Status("nothing", 500, None));
    mirror.clear_requests();
    let second = client();
    let mut stream = second.blob(&reference, descriptor).await.unwrap();
    let head = stream.next_chunk().await.unwrap().unwrap();
    mirror.behave();
    mirror.always(Fault::Status("/blobs/", 404, None));
    mirror.always(Fault::CutBlob(0));
    let mut all = head.to_vec();
    all.extend(collect(&mut stream).await.unwrap());
    assert_eq!(&all, bytes);
    assert!(origin.requests().iter().any(|record| record.headers.contains_key("range")));
    // Uploads never go to a mirror.
    mirror.clear_requests();
    let new = Bytes::from_static(b"new");
    let descriptor = onggi_oci::Descriptor::of(MediaType::OciLayer, &new);
    client()
        .push_blob(
            &reference,
            &descriptor,
            &[],
            std::sync::Arc::new(new.clone()),
            std::sync::Arc::new(|_| {}),
        )
        .await
        .unwrap();
    assert!(mirror.requests().is_empty());
    assert_eq!(origin.blob("team/app", &descriptor.digest), Some(new));
}
