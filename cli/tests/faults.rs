//! Registries that misbehave, in every way that the testkit knows: either the command recovers, or it fails in words
//! that name the thing. Afterwards the store has no fault and nothing half visible, and a registry that behaves
//! again is enough.

mod support;

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use onggi_testkit::{Auth, Digest, Fault, ImageMaker, Registry, TestImage};
use support::Onggi;

/// How a command ends.
#[derive(Debug)]
enum End {
    Recovers,
    /// With these words.
    Fails(Vec<String>),
}

struct Case {
    name: &'static str,
    auth: Auth,
    faults: Vec<(Fault, Option<u32>)>,
    end: End,
}

fn case(name: &'static str, faults: Vec<(Fault, Option<u32>)>, end: End) -> Case {
    Case { name, auth: Auth::Open, faults, end }
}

fn fails(words: &[&str]) -> End {
    End::Fails(words.iter().map(|&word| word.to_owned()).collect())
}

fn always(fault: Fault) -> Vec<(Fault, Option<u32>)> {
    vec![(fault, None)]
}

fn times(fault: Fault, times: u32) -> Vec<(Fault, Option<u32>)> {
    vec![(fault, Some(times))]
}

fn image() -> TestImage {
    ImageMaker::new().layer(&[("hello", b"world")]).big_layer(1, 300_000).cmd(&["/hello"]).build()
}

fn alice() -> (String, String) {
    ("alice".to_owned(), "s3cret".to_owned())
}

/// Stores credentials as `login` would.
fn log_in(onggi: &Onggi, registry: &Registry) {
    let (user, password) = alice();
    let mut command = onggi.command(["login", "-u", &user, "-p", &password, &registry.address()]);
    support::Done::of(&mut command).ok();
}

fn misbehave(registry: &Registry, faults: &[(Fault, Option<u32>)]) {
    for (fault, times) in faults {
        match times {
            Some(times) => registry.times(fault.clone(), *times),
            None => registry.always(fault.clone()),
        }
    }
}

/// Works through the cases, some at a time: most of them wait for something.
fn each(cases: Vec<Case>, run: impl Fn(Case) + Sync) {
    let cases = Mutex::new(cases.into_iter());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let next = cases.lock().expect("no case panics with the lock").next();
                    let Some(case) = next else { return };
                    run(case);
                }
            });
        }
    });
}

#[track_caller]
fn assert_said(case: &str, said: &str, words: &[String]) {
    for word in words {
        assert!(said.contains(word.as_str()), "{case}: {word:?} is not in: {said}");
    }
}

/// The command pulls, meets the faults, and ends as it should.
fn pull(case: Case) {
    let Case { name, auth, faults, end } = case;
    let (onggi, registry, image) = (Onggi::new(), Registry::start(auth), image());
    registry.put_image("team/app", "v1", &image);
    let reference = format!("{}/team/app:v1", registry.address());
    misbehave(&registry, &faults);
    let done = onggi.output(["pull", &reference]);
    assert_met(&registry, faults.len(), name);
    match end {
        End::Recovers => {
            assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
            assert_eq!(onggi.images(), reference, "{name}");
        }
        End::Fails(words) => {
            assert_eq!(done.code, Some(1), "{name}: {} {}", done.stdout, done.stderr);
            done.assert_failed_in_words();
            assert_said(name, &done.stderr, &words);
            assert_eq!(onggi.images(), "", "{name}: an image is visible");
        }
    }
    onggi.assert_store_is_clean();
    assert_eq!(onggi.unfinished(), [""; 0], "{name}");
    // Nothing that the fault left is in the way of a registry that behaves.
    let healthy = Registry::start(Auth::Open);
    healthy.put_image("team/app", "v1", &image);
    let reference = format!("{}/team/app:v1", healthy.address());
    assert_eq!(onggi.ok(["pull", "-q", &reference]), image.digest().to_string(), "{name}");
    onggi.assert_store_is_clean();
}

#[test]
fn a_pull_through_every_fault_of_a_blob() {
    let image = image();
    let layer = image.descriptors[2].digest.to_string();
    let config = image.descriptors[0].digest.to_string();
    let at_layer = |fault| Fault::At(format!("/blobs/{layer}"), Box::new(fault));
    let at_config = |fault| Fault::At(format!("/blobs/{config}"), Box::new(fault));
    let status = |status, after| at_layer(Fault::Status("/blobs/", status, after));
    let second = Duration::from_secs(1);
    let of_layer = |words: &str| fails(&[words, &layer]);
    each(
        vec![
            // These two wait for the time-out of a line on which nothing, or next to nothing, moves.
            case("a stall", times(at_layer(Fault::StallBlob(100_000)), 1), End::Recovers),
            case("a drip", times(at_layer(Fault::DripBlob(1, second / 10)), 1), End::Recovers),
            case("slow", always(at_layer(Fault::DripBlob(20_000, second / 10))), End::Recovers),
            case("a cut at the start", times(at_layer(Fault::CutBlob(1)), 1), End::Recovers),
            case("a cut in the middle", always(at_layer(Fault::CutBlob(200_000))), End::Recovers),
            case("three cuts", times(at_layer(Fault::CutBlob(200_000)), 3), End::Recovers),
            case("a config that is cut", times(at_config(Fault::CutBlob(10)), 1), End::Recovers),
            case("less than announced", times(at_layer(Fault::AnnounceMore(1000)), 1), End::Recovers),
            case(
                "a cut at a server without ranges",
                [times(at_layer(Fault::CutBlob(200_000)), 1), always(Fault::IgnoreRange)].concat(),
                End::Recovers,
            ),
            case(
                "a cut, and then another range than asked for",
                [times(at_layer(Fault::CutBlob(200_000)), 1), always(Fault::WrongContentRange)].concat(),
                of_layer("broke the protocol"),
            ),
            case(
                "cut for ever",
                always(at_layer(Fault::CutBlob(0))),
                of_layer("the connection to 127.0.0.1"),
            ),
            case("wrong bytes", always(at_layer(Fault::WrongBytes)), of_layer("is not what was promised")),
            case(
                "wrong bytes of the config",
                always(at_config(Fault::WrongBytes)),
                fails(&["has the wrong content: its digest is", &config]),
            ),
            case("too short", always(at_layer(Fault::WrongLength(-1))), of_layer("has the wrong size")),
            case("too long", always(at_layer(Fault::WrongLength(7))), of_layer("has the wrong size")),
            case("500 twice", times(status(500, None), 2), End::Recovers),
            case("503 for ever", always(status(503, None)), of_layer("HTTP status 503")),
            case("429 twice", times(status(429, Some(0)), 2), End::Recovers),
            case("429 for an hour", always(status(429, Some(3600))), fails(&["asks to wait 3600 s"])),
            case("404", always(status(404, None)), of_layer("is not in 127.0.0.1")),
            case("403", always(status(403, None)), of_layer("refused to")),
            case(
                "a redirect to a file",
                always(at_layer(Fault::RedirectBlobs("file://".into()))),
                of_layer("redirect"),
            ),
        ],
        pull,
    );
}

#[test]
fn a_pull_through_every_fault_of_a_manifest() {
    let of_image = |words: &str| fails(&[words, "team/app:v1"]);
    let status = |status| Fault::Status("/manifests/", status, None);
    let zeros = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let token = Auth::Token("alice".into(), "s3cret".into());
    each(
        vec![
            case("huge", always(Fault::HugeManifest(5 << 20)), of_image("larger than the limit of 4194304")),
            case("blank", always(Fault::HugeManifest(100)), of_image("is not valid")),
            case(
                "called an index",
                always(Fault::ManifestType("application/vnd.oci.image.index.v1+json")),
                of_image("is not valid"),
            ),
            case("called a page", always(Fault::ManifestType("text/html")), of_image("text/html")),
            case("another digest", always(Fault::DigestHeader(zeros)), of_image("its digest is")),
            case("no digest", always(Fault::DigestHeader("../../etc")), fails(&["Docker-Content-Digest"])),
            case("404", always(status(404)), of_image("the registry has no such image")),
            case("418", always(status(418)), of_image("HTTP status 418")),
            case("500 twice", times(status(500), 2), End::Recovers),
            case("500 for ever", always(status(500)), of_image("HTTP status 500")),
            Case { name: "tokens", auth: token.clone(), faults: Vec::new(), end: End::Recovers },
            Case {
                name: "a token taken back",
                auth: token.clone(),
                faults: times(Fault::At("/blobs/".into(), Box::new(Fault::RevokeTokens)), 1),
                end: End::Recovers,
            },
            Case {
                name: "a token server that fails",
                auth: token,
                faults: always(Fault::Status("/token", 500, None)),
                end: fails(&["no token for repository:team/app:pull: ", "HTTP status 500"]),
            },
            Case {
                name: "never content",
                auth: Auth::Never,
                faults: Vec::new(),
                end: fails(&["refused to", "team/app:v1", "hint: log in with `onggi login 127.0.0.1"]),
            },
            Case {
                name: "a password is wanted",
                auth: Auth::Basic("alice".into(), "s3cret".into()),
                faults: Vec::new(),
                end: fails(&["refused to", "team/app:v1", "onggi login"]),
            },
        ],
        pull,
    );
}

#[test]
fn what_is_cut_is_resumed_and_who_is_never_content_is_not_asked_for_ever() {
    let (onggi, image) = (Onggi::new(), image());
    let registry = Registry::start(Auth::Open);
    registry.put_image("team/app", "v1", &image);
    let layer = format!("/blobs/{}", image.descriptors[2].digest);
    registry.times(Fault::At(layer, Box::new(Fault::CutBlob(200_000))), 1);
    onggi.ok(["pull", &format!("{}/team/app:v1", registry.address())]);
    let ranges: Vec<_> =
        registry.requests().iter().filter_map(|record| record.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=200000-"], "the rest is asked for, and nothing twice");

    let registry = Registry::start(Auth::Never);
    onggi.fails(["pull", &format!("{}/team/app:v1", registry.address())]);
    let asked = registry.requests().len();
    assert!(asked <= 6, "{asked} requests to a registry that refuses every one");

    // A token server that fails is asked as often as any, not that often for each attempt at the image.
    let registry = Registry::start(Auth::Token("alice".into(), "s3cret".into()));
    registry.always(Fault::Status("/token", 503, None));
    onggi.fails(["pull", &format!("{}/team/app:v1", registry.address())]);
    assert!(registry.count("GET", "/token") <= 8, "{} tokens", registry.count("GET", "/token"));

    // Redirects in a circle.
    let registry = Registry::start(Auth::Open);
    registry.put_image("team/app", "v2", &ImageMaker::new().layer(&[("new", b"layer")]).build());
    registry.always(Fault::RedirectBlobs(format!("http://{}", registry.address())));
    let done = onggi.fails(["pull", &format!("{}/team/app:v2", registry.address())]);
    assert!(done.stderr.contains("redirect"), "{}", done.stderr);
    assert!(registry.requests().len() < 40, "{} requests", registry.requests().len());
    onggi.assert_store_is_clean();
}

/// CVE-2020-15157 and its kin.
#[test]
fn no_secret_goes_to_another_host() {
    let (user, password) = alice();
    for auth in [Auth::Basic(user.clone(), password.clone()), Auth::Token(user, password)] {
        let (onggi, image) = (Onggi::new(), image());
        let (registry, elsewhere) = (Registry::start(auth), Registry::start(Auth::Open));
        registry.put_image("team/app", "v1", &image);
        elsewhere.put_image("team/app", "v1", &image);
        log_in(&onggi, &registry);
        let reference = format!("{}/team/app:v1", registry.address());
        registry.always(Fault::RedirectBlobs(format!("http://{}", elsewhere.address())));
        onggi.ok(["pull", &reference]);
        assert!(elsewhere.count("GET", "/blobs/") > 0);

        // A push whose uploads are sent elsewhere.
        let pushed = format!("{}/team/new:v1", registry.address());
        registry.behave();
        registry.always(Fault::DeclineMounts);
        registry.always(Fault::UploadsAt(format!("http://{}", elsewhere.address())));
        onggi.ok(["tag", &reference, &pushed]);
        let _ = onggi.output(["push", &pushed]);
        assert!(registry.count("POST", "/blobs/uploads/") > 0);
        let secrets: Vec<_> = elsewhere
            .requests()
            .into_iter()
            .filter(|record| {
                record.headers.contains_key("authorization") || record.headers.contains_key("cookie")
            })
            .collect();
        assert!(secrets.is_empty(), "{secrets:?}");
        onggi.assert_store_is_clean();
    }
}

/// Documents that lie, from a registry that keeps to the protocol.
#[test]
fn documents_that_contradict_themselves_or_their_content_are_refused() {
    let (onggi, registry, image) = (Onggi::new(), Registry::start(Auth::Open), image());
    for (_, bytes) in image.blobs() {
        registry.put_blob("team/app", bytes);
    }
    let manifest = String::from_utf8(image.manifest.to_vec()).expect("JSON");
    let media_type = image.media_type.to_string();
    let layer = &image.descriptors[2];
    let size = format!("\"size\":{}", layer.size);
    let config_size = format!("\"size\":{}", image.descriptors[0].size);
    let layers = manifest.find("\"layers\":").expect("layers");
    let other = registry.put_blob("team/app", &r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#.into());
    let index = "\"manifests\":[],";
    let page = registry.put_blob("team/app", &"<html>".into());
    // The manifest, and words that say what is wrong.
    let with_config = |digest: &Digest, size: usize| {
        manifest
            .replace(&image.descriptors[0].digest.to_string(), &digest.to_string())
            .replace(&config_size, &format!("\"size\":{size}"))
    };
    let cases: [(&str, String, Vec<String>); 8] = [
        (
            "a layer said to be longer",
            manifest.replace(&size, &format!("\"size\":{}", layer.size + 1)),
            vec!["size".into(), layer.digest.to_string()],
        ),
        (
            "a layer said to be shorter",
            manifest.replace(&size, &format!("\"size\":{}", layer.size - 1)),
            vec!["size".into(), layer.digest.to_string()],
        ),
        (
            "a config of a terabyte",
            manifest.replace(&config_size, "\"size\":1099511627776"),
            vec!["is larger than the limit".into(), image.descriptors[0].digest.to_string()],
        ),
        (
            "two documents in one",
            manifest.replace("\"layers\":", &format!("{index}\"layers\":")),
            vec!["is not valid".into(), "team/app:v1".into()],
        ),
        ("a config without layers", with_config(&other, 42), vec!["its manifest lists 2 layers".into()]),
        (
            "a config that is a page",
            with_config(&page, 6),
            vec!["team/app:v1 is damaged".into(), page.to_string()],
        ),
        (
            "a path in place of a digest",
            manifest.replace(&layer.digest.to_string(), "sha256:../../../../etc/passwd"),
            vec!["is not valid".into(), "../../etc/passwd".into()],
        ),
        ("cut off", manifest[..layers].to_owned(), vec!["is not valid".into(), "team/app:v1".into()]),
    ];
    for (name, text, words) in cases {
        assert_ne!(text, manifest, "{name}");
        registry.put_manifest("team/app", Some("v1"), &media_type, &text.into());
        let done = onggi.fails(["pull", &format!("{}/team/app:v1", registry.address())]);
        assert_said(name, &done.stderr, &words);
        assert_eq!(onggi.images(), "", "{name}");
        onggi.assert_store_is_clean();
        assert_eq!(onggi.unfinished(), [""; 0], "{name}");
    }
    registry.put_manifest("team/app", Some("v1"), &media_type, &image.manifest);
    onggi.ok(["pull", &format!("{}/team/app:v1", registry.address())]);
    onggi.assert_store_is_clean();
}

/// A layer whose archive is not the one that the config promises (its diff ID).
#[test]
fn a_layer_that_unpacks_to_something_else_is_refused() {
    let (onggi, registry) = (Onggi::new(), Registry::start(Auth::Open));
    let (image, other) = (image(), ImageMaker::new().layer(&[("evil", b"!")]).big_layer(3, 1000).build());
    let config = String::from_utf8(image.config.to_vec()).expect("JSON");
    let manifest = String::from_utf8(other.manifest.to_vec()).expect("JSON");
    let (from, to) = (&other.descriptors[0], &image.descriptors[0]);
    let manifest = manifest
        .replace(&from.digest.to_string(), &to.digest.to_string())
        .replace(&format!("\"size\":{}", from.size), &format!("\"size\":{}", to.size));
    for (_, bytes) in other.blobs().chain(image.blobs().take(1)) {
        registry.put_blob("team/app", bytes);
    }
    registry.put_manifest("team/app", Some("v1"), image.media_type.as_str(), &manifest.into());
    let done = onggi.fails(["pull", &format!("{}/team/app:v1", registry.address())]);
    let promised =
        config.split('"').filter(|word| word.starts_with("sha256:")).any(|id| done.stderr.contains(id));
    assert!(promised, "no diff ID of the config is named: {}", done.stderr);
    assert_eq!(onggi.images(), "");
    onggi.assert_store_is_clean();
}

/// The registry's thread may still be at a broken request when the command has long ended well.
fn assert_met(registry: &Registry, faults: usize, name: &str) {
    for _ in 0..500 {
        if registry.misbehaved() >= faults as u64 {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{name}: the fault was not met");
}

/// The command pushes, meets the faults, and ends as it should.
fn push(case: Case) {
    let Case { name, auth, faults, end } = case;
    let (onggi, registry, image) = (Onggi::new(), Registry::start(auth), image());
    let reference = format!("{}/team/app:v1", registry.address());
    onggi.load(&image, &reference);
    if name.contains("token") {
        log_in(&onggi, &registry);
    }
    misbehave(&registry, &faults);
    let done = onggi.output(["push", &reference]);
    assert_met(&registry, faults.len(), name);
    match end {
        End::Recovers => {
            assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
            assert_eq!(registry.manifest("team/app", "v1").as_ref(), Some(&image.manifest), "{name}");
            for (descriptor, bytes) in image.blobs() {
                assert_eq!(registry.blob("team/app", &descriptor.digest).as_ref(), Some(bytes), "{name}");
            }
        }
        End::Fails(words) => {
            assert_eq!(done.code, Some(1), "{name}: {} {}", done.stdout, done.stderr);
            done.assert_failed_in_words();
            assert_said(name, &done.stderr, &words);
            assert_eq!(registry.manifest("team/app", "v1"), None, "{name}: it has a manifest all the same");
            assert!(registry.requests().len() < 60, "{name}: {} requests", registry.requests().len());
        }
    }
    onggi.assert_store_is_clean();
    // A registry that behaves gets everything.
    let healthy = Registry::start(Auth::Open);
    let second = format!("{}/team/app:v1", healthy.address());
    onggi.ok(["tag", &reference, &second]);
    onggi.ok(["push", &second]);
    assert_eq!(healthy.manifest("team/app", "v1"), Some(image.manifest), "{name}");
}

#[test]
fn a_push_through_every_fault() {
    let uploads = |status, after| Fault::Status("/blobs/uploads/", status, after);
    let zeros = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let token = Auth::Token("alice".into(), "s3cret".into());
    let manifests = |status| Fault::Status("/manifests/", status, None);
    each(
        vec![
            case("a cut", times(Fault::CutUpload(100_000), 1), End::Recovers),
            case("two cuts", times(Fault::CutUpload(100_000), 2), End::Recovers),
            case(
                "a cut, and the session is forgotten",
                [times(Fault::CutUpload(100_000), 1), times(Fault::ForgetBrokenUploads, 1)].concat(),
                End::Recovers,
            ),
            case("500 twice", times(uploads(500, None), 2), End::Recovers),
            case("429 twice", times(uploads(429, Some(0)), 2), End::Recovers),
            case("500 for the manifest", times(manifests(500), 1), End::Recovers),
            case("503 for ever", always(uploads(503, None)), fails(&["HTTP status 503", "team/app"])),
            case("cut for ever", always(Fault::CutUpload(0)), fails(&["127.0.0.1", "sha256:"])),
            case("429 for an hour", always(uploads(429, Some(3600))), fails(&["asks to wait 3600 s"])),
            case("403", always(uploads(403, None)), fails(&["refused to", "team/app"])),
            case("404", always(uploads(404, None)), fails(&["HTTP status 404", "team/app"])),
            case("507", always(uploads(507, None)), fails(&["HTTP status 507", "team/app"])),
            case(
                "uploads at a place where nobody is",
                always(Fault::UploadsAt("http://127.0.0.1:1".into())),
                fails(&["127.0.0.1:1"]),
            ),
            case(
                "uploads at a file",
                always(Fault::UploadsAt("file://".into())),
                fails(&["names no session"]),
            ),
            case(
                "a manifest that arrives as another",
                always(Fault::DigestHeader(zeros)),
                fails(&["its digest is", "team/app:v1"]),
            ),
            Case {
                name: "a token taken back",
                auth: token.clone(),
                faults: times(Fault::At("/manifests/".into(), Box::new(Fault::RevokeTokens)), 1),
                end: End::Recovers,
            },
            Case {
                name: "a token server that fails",
                auth: token.clone(),
                faults: always(Fault::Status("/token", 500, None)),
                end: fails(&["no token for repository:team/app:", "HTTP status 500"]),
            },
            Case {
                name: "a token server that is another's",
                auth: token,
                faults: always(Fault::Realm("http://token.example/".into())),
                end: fails(&["token.example"]),
            },
            case("no manifest", always(manifests(500)), fails(&["HTTP status 500", "team/app:v1"])),
            case(
                "a manifest is too large",
                always(manifests(413)),
                fails(&["HTTP status 413", "team/app:v1"]),
            ),
            Case {
                name: "never content",
                auth: Auth::Never,
                faults: Vec::new(),
                end: fails(&["refused to", "team/app", "onggi login"]),
            },
            Case {
                name: "anonymous",
                auth: Auth::Token("alice".into(), "s3cret".into()),
                faults: Vec::new(),
                end: fails(&["refused to", "team/app", "onggi login"]),
            },
        ],
        push,
    );
}
