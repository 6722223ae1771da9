//! Pushes of images that were built here: layers are compressed on the way out, once, and always into the same bytes.

mod support;

use std::fmt::Write;
use std::fs;
use std::io::Read;

use onggi_testkit::{Auth, DockerRegistry, Fault, Registry, Security, needs};
use serde_json::Value;
use support::{Onggi, tool};

/// Bytes of the large file: enough that its layer is sent while it is compressed.
const LARGE: usize = 12 << 20;

/// Builds an image of a large and a small layer under this name; gives its ID.
fn build(onggi: &Onggi, name: &str) -> String {
    let context = onggi.folder().join("context");
    fs::create_dir_all(&context).expect("a folder");
    let mut text = String::with_capacity(LARGE);
    let mut number = 1_u32;
    while text.len() < LARGE {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        writeln!(text, "line {} of {}", text.len() / 9, number >> 20).expect("memory");
    }
    fs::write(context.join("large"), text).expect("a file");
    fs::write(context.join("small"), "small\n").expect("a file");
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY large /\nCOPY small /\nCMD [\"/x\"]\n")
        .expect("a file");
    let mut command = onggi.command(["build", "-q", "-t", name]);
    command.arg(&context).env("SOURCE_DATE_EPOCH", "1700000000");
    support::Done::of(&mut command).ok()
}

fn manifest(registry: &Registry, repository: &str, tag: &str) -> Value {
    serde_json::from_slice(&registry.manifest(repository, tag).expect("it was pushed")).expect("JSON")
}

fn media_types(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["mediaType"].as_str().expect("a type")).collect()
}

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

#[test]
fn a_built_image_goes_out_compressed_and_compresses_once() {
    let (onggi, registry) = (Onggi::new(), Registry::start(Auth::Open));
    let name = format!("{}/team/app:1", registry.address());
    let id = build(&onggi, &name);
    let first = onggi.ok(["push", "-q", &name]);
    let sent = manifest(&registry, "team/app", "1");
    assert_eq!(media_types(&sent), [GZIP, GZIP]);
    let large: onggi_engine::oci::Digest =
        sent["layers"][0]["digest"].as_str().expect("text").parse().expect("a digest");
    let blob = registry.blob("team/app", &large).expect("the large layer");
    assert!(blob.len() < LARGE / 2, "{} bytes", blob.len());
    let mut tar = Vec::new();
    // One member, since some readers take no more.
    flate2::bufread::GzDecoder::new(&blob[..]).read_to_end(&mut tar).expect("gzip");
    let config: Value = serde_json::from_str(&onggi.ok(["inspect", &name])).expect("JSON");
    let diff_id = &config[0]["RootFS"]["Layers"][0];
    assert_eq!(diff_id.as_str(), Some(&*onggi_engine::oci::Digest::sha256(&tar).to_string()));
    assert!(
        config[0]["RepoDigests"].to_string().contains(&format!("{}/team/app@{first}", registry.address()))
    );
    assert_eq!(config[0]["Id"].as_str(), Some(&*id));

    // A second time nothing is sent, and to another repository the registry links what it has.
    registry.clear_requests();
    assert_eq!(onggi.ok(["push", "-q", &name]), first);
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 0);
    let other = format!("{}/team/other:1", registry.address());
    onggi.ok(["tag", &name, &other]);
    assert_eq!(onggi.ok(["push", "-q", &other]), first);
    assert_eq!(registry.count("PUT", "/blobs/uploads/") + registry.count("PATCH", "/blobs/uploads/"), 0);

    // Another store, and another registry: the same bytes. What was pulled keeps its digest.
    let (second, elsewhere) = (Onggi::new(), Registry::start(Auth::Open));
    let far = format!("{}/team/app:1", elsewhere.address());
    assert_eq!(build(&second, &far), id);
    assert_eq!(second.ok(["push", "-q", &far]), first);
    let third = Onggi::new();
    third.ok(["pull", "-q", &far]);
    assert_eq!(third.ok(["images", "-q", "--no-trunc"]), id);
    third.ok(["tag", &far, &other]);
    assert_eq!(third.ok(["push", "-q", &other]), first);

    // With its last name the image goes, and the compressed layers with it.
    onggi.assert_store_is_clean();
    onggi.ok(["rmi", &name]);
    onggi.ok(["rmi", &other]);
    onggi.ok(["builder", "prune", "-af"]);
    onggi.assert_store_is_clean();
    assert_eq!(fs::read_dir(onggi.root().join("blobs/sha256")).expect("a folder").count(), 0);
}

#[test]
fn zstd_and_levels_are_asked_for() {
    let (onggi, registry) = (Onggi::new(), Registry::start(Auth::Open));
    let name = format!("{}/team/app:1", registry.address());
    build(&onggi, &name);
    let gzip = onggi.ok(["push", "-q", &name]);
    let size = |manifest: &Value| manifest["layers"][0]["size"].as_u64().expect("a number");
    let usual = size(&manifest(&registry, "team/app", "1"));
    onggi.ok(["push", "-q", "--compression-format", "zstd", &name]);
    let sent = manifest(&registry, "team/app", "1");
    assert_eq!(media_types(&sent), [ZSTD, ZSTD]);
    onggi.ok(["push", "-q", "--compression-level=1", &name]);
    let quick = manifest(&registry, "team/app", "1");
    assert_eq!(media_types(&quick), [GZIP, GZIP]);
    assert_ne!(size(&quick), usual);
    assert_eq!(onggi.ok(["push", "-q", &name]), gzip, "the usual level is remembered");

    // What was pulled compressed stays so unless it is asked for.
    let puller = Onggi::new();
    puller.ok(["pull", "-q", &name]);
    assert_eq!(
        puller.ok(["push", "-q", "--compression-format=zstd", "--force-compression=false", &name]),
        gzip
    );
    puller.ok(["push", "-q", "--compression-format=zstd", &name]);
    assert_eq!(manifest(&registry, "team/app", "1"), sent);
    puller.assert_store_is_clean();

    for (arguments, words) in [
        (["--compression-format", "xz"], "there are gzip and zstd"),
        (["--compression-format", "zstd:chunked"], "zstd:chunked is not supported"),
        (["--compression-level", "10"], "gzip has the levels 1 to 9"),
    ] {
        let done = onggi.fails(["push", arguments[0], arguments[1], &name]);
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
}

#[test]
fn a_registry_without_uploads_in_parts_gets_the_layer_as_a_whole() {
    let (onggi, registry) = (Onggi::new(), Registry::start(Auth::Open));
    let name = format!("{}/team/app:1", registry.address());
    build(&onggi, &name);
    registry.times(Fault::Status("/blobs/uploads/", 500, None), 3);
    onggi.ok(["push", "-q", &name]);
    let digest = onggi.ok(["push", "-q", &name]);
    let patient = Registry::start(Auth::Open);
    let second = format!("{}/team/app:1", patient.address());
    onggi.ok(["tag", &name, &second]);
    assert_eq!(onggi.ok(["push", "-q", &second]), digest);
    onggi.assert_store_is_clean();
}

#[test]
fn other_tools_take_what_was_built_and_pushed() {
    let onggi = Onggi::new();
    let Some(registry) = DockerRegistry::start(Security::Plain) else { return };
    if needs::programs(&["skopeo"]).is_missing() {
        return;
    }
    let name = format!("{}/app:1", registry.address());
    build(&onggi, &name);
    let digest = onggi.ok(["push", "-q", &name]);
    let copy = onggi.folder().join("copy");
    tool(
        "skopeo",
        [
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
            &format!("dir:{}", copy.display()),
        ],
    );
    let written = fs::read(copy.join("manifest.json")).expect("a manifest");
    assert_eq!(onggi_engine::oci::Digest::sha256(&written).to_string(), digest);
    onggi.ok(["push", "-q", "--compression-format=zstd", &name]);
    tool(
        "skopeo",
        [
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
            &format!("oci:{}:z", copy.display()),
        ],
    );
}
