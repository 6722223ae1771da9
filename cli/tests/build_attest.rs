//! What is said of images beside them, and images for several platforms.

mod support;

use std::fs;
use std::path::PathBuf;

use onggi_testkit::{DockerRegistry, Security, needs};
use serde_json::Value;
use support::{Done, Onggi, tool};

/// A store with busybox, and a context.
struct Workshop {
    onggi: Onggi,
    context: PathBuf,
}

impl Workshop {
    fn new(build_file: &str) -> Option<Self> {
        let onggi = Onggi::with_busybox("busybox")?;
        let context = onggi.folder().join("context");
        fs::create_dir(&context).expect("a folder");
        fs::write(context.join("Dockerfile"), build_file).expect("a file");
        fs::write(context.join("file"), "content\n").expect("a file");
        Some(Self { onggi, context })
    }

    fn build(&self, words: &[&str]) -> Done {
        let context = self.context.to_str().expect("a path of ours");
        self.onggi.output(["build"].iter().chain(words).chain(&[context]))
    }

    fn metadata(&self, words: &[&str]) -> Value {
        let file = self.onggi.folder().join("metadata.json");
        let path = file.to_str().expect("a path of ours");
        self.build(&["--metadata-file", path].iter().chain(words).copied().collect::<Vec<_>>()).ok();
        serde_json::from_str(&fs::read_to_string(&file).expect("a file")).expect("JSON")
    }

    fn blob(&self, digest: &Value) -> Value {
        let hex = digest.as_str().expect("a digest").replace("sha256:", "");
        let text = fs::read(self.onggi.root().join("blobs/sha256").join(hex)).expect("a blob");
        serde_json::from_slice(&text).expect("JSON")
    }
}

const BUILD_FILE: &str = "FROM busybox\nARG TOKEN\nRUN --mount=type=secret,id=key mkdir -p /var/lib/dpkg && \
     printf 'Package: tool\\nStatus: install ok installed\\nVersion: 1.2\\nArchitecture: amd64\\n' > /var/lib/dpkg/status\n\
     COPY file /file\n";

#[test]
fn an_image_says_what_is_in_it_and_how_it_was_made() {
    let Some(shop) = Workshop::new(BUILD_FILE) else { return };
    let words = [
        "-t",
        "app",
        "--timestamp",
        "1700000000",
        "--sbom",
        "--provenance=mode=max",
        "--build-arg",
        "TOKEN=t0ken",
    ];
    let metadata = shop.metadata(&words);
    let index = shop.blob(&metadata["containerimage.digest"]);
    let entries = index["manifests"].as_array().expect("manifests");
    assert_eq!(entries.len(), 2, "{index}");
    let (image, beside) = (&entries[0], &entries[1]);
    assert_eq!(
        (beside["platform"]["os"].as_str(), beside["platform"]["architecture"].as_str()),
        (Some("unknown"), Some("unknown"))
    );
    assert_eq!(beside["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(beside["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    let manifest = shop.blob(&beside["digest"]);
    let layers = manifest["layers"].as_array().expect("layers");
    let kinds: Vec<_> =
        layers.iter().map(|layer| layer["annotations"]["in-toto.io/predicate-type"].clone()).collect();
    assert_eq!(kinds, ["https://spdx.dev/Document", "https://slsa.dev/provenance/v0.2"]);
    let (sbom, provenance) = (shop.blob(&layers[0]["digest"]), shop.blob(&layers[1]["digest"]));
    for statement in [&sbom, &provenance] {
        let subject = &statement["subject"][0];
        assert!(
            subject["name"].as_str().expect("a name").starts_with("pkg:docker/app@latest?platform=linux%2F")
        );
        assert_eq!(
            format!("sha256:{}", subject["digest"]["sha256"].as_str().expect("a digest")),
            image["digest"]
        );
    }
    let packages = sbom["predicate"]["packages"].to_string();
    assert!(packages.contains("\"tool\"") && packages.contains("\"1.2\""), "{packages}");
    let predicate = &provenance["predicate"];
    assert_eq!(predicate["invocation"]["parameters"]["args"]["build-arg:TOKEN"], "t0ken");
    assert_eq!(predicate["invocation"]["parameters"]["secrets"][0]["id"], "key");
    assert_eq!(predicate["metadata"]["buildFinishedOn"], "2023-11-14T22:13:20Z");
    assert!(
        predicate["materials"][0]["uri"].as_str().expect("a URI").starts_with("pkg:docker/busybox@latest")
    );
    assert_eq!(&metadata["buildx.build.provenance"], predicate);
    // The layers are what will be pushed.
    let layers = shop.blob(&image["digest"])["layers"].clone();
    assert!(layers[1]["mediaType"].as_str().expect("a type").ends_with("+gzip"), "{layers}");

    // Others say the same, with another store and at another time.
    let Some(other) = Workshop::new(BUILD_FILE) else { return };
    assert_eq!(other.metadata(&words)["containerimage.digest"], metadata["containerimage.digest"]);
    assert_eq!(shop.onggi.ok(["run", "--rm", "app", "cat", "/file"]), "content");
    shop.onggi.assert_store_is_clean();

    // Less is told unless more was asked for.
    let less = shop.metadata(&["-t", "app", "--provenance", "--build-arg", "TOKEN=t0ken"]).to_string();
    assert!(!less.contains("t0ken") && less.contains("pkg:docker/busybox"), "{less}");
    let newer = shop.metadata(&["--attest", "type=provenance,version=v1,builder-id=https://b.example"]);
    assert_eq!(newer["buildx.build.provenance"]["runDetails"]["builder"]["id"], "https://b.example");
}

#[test]
fn the_commit_of_a_directory_is_told() {
    let Some(shop) = Workshop::new("FROM scratch\nCOPY file /file\n") else { return };
    let context = shop.onggi.folder().join("context");
    let git = |words: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(words).current_dir(&context);
        Done::of(command.env("GIT_CONFIG_GLOBAL", "/dev/null")).ok()
    };
    for words in [
        &["init", "--quiet", "."][..],
        &["add", "."],
        &["commit", "--quiet", "-m", "first"],
        &["remote", "add", "origin", "https://me:t0ken@git.example/app.git"],
    ] {
        git(words);
    }
    let wanted = serde_json::json!({
        "revision": git(&["rev-parse", "HEAD"]),
        "source": "https://git.example/app.git",
    });
    let told = shop.metadata(&["--provenance"])["buildx.build.provenance"].clone();
    assert_eq!(told["metadata"]["urn:onggi:build:1#metadata"]["vcs"], wanted, "{told}");
    let told = shop.metadata(&["--provenance=version=v1"])["buildx.build.provenance"].clone();
    assert_eq!(told["runDetails"]["metadata"]["vcs"], wanted, "{told}");
}

#[test]
fn files_have_what_is_said_of_them_beside_them() {
    let Some(shop) = Workshop::new("FROM scratch\nCOPY file /dir/file\n") else { return };
    let out = shop.onggi.folder().join("out");
    let path = out.to_str().expect("a path of ours");
    shop.build(&["--sbom", "--provenance", "-o", path]).ok();
    for name in ["sbom.spdx.json", "provenance.json"] {
        let text = fs::read_to_string(out.join(name)).expect("a file");
        let statement: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(statement["subject"][0]["name"], "dir/file");
        assert_eq!(statement["subject"].as_array().expect("subjects").len(), 1);
    }
    assert_eq!(fs::read_to_string(out.join("dir/file")).expect("a file"), "content\n");
    let archive = shop.onggi.folder().join("out.tar");
    shop.build(&["--provenance", "-o", &format!("type=tar,dest={}", archive.display())]).ok();
    let listed = tool("tar", ["-tf", archive.to_str().expect("a path of ours")]);
    assert!(listed.contains("provenance.json") && listed.contains("dir/file"), "{listed}");
}

#[test]
fn one_index_for_several_platforms_goes_to_a_registry() {
    let Some(shop) = Workshop::new("FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY file /file\n")
    else {
        return;
    };
    let Some(registry) = DockerRegistry::start(Security::Plain) else { return };
    if needs::programs(&["skopeo"]).is_missing() {
        return;
    }
    let (one, two) = (format!("{}/app:1", registry.address()), format!("{}/other:2", registry.address()));
    let iid = shop.onggi.folder().join("iid");
    let metadata = shop.metadata(&[
        "--platform",
        "linux/amd64,linux/arm64",
        "--provenance",
        "--iidfile",
        iid.to_str().expect("a path of ours"),
        "-o",
        &format!("type=image,push=true,\"name={one},{two}\""),
    ]);
    assert_eq!(metadata["containerimage.config.digest"], Value::Null);
    assert_eq!(
        fs::read_to_string(&iid).expect("a file"),
        metadata["containerimage.digest"].as_str().expect("a digest")
    );
    assert!(metadata["buildx.build.provenance/linux/arm64"].is_object(), "{metadata}");
    for name in [&one, &two] {
        let raw = tool("skopeo", ["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")]);
        let index: Value = serde_json::from_str(&raw).expect("JSON");
        assert_eq!(index["manifests"].as_array().expect("manifests").len(), 4, "{raw}");
        for arch in ["amd64", "arm64"] {
            let words =
                ["--override-arch", arch, "inspect", "--tls-verify=false", &format!("docker://{name}")];
            let text = tool("skopeo", words);
            let image: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(
                (&image["Labels"]["arch"], &image["Architecture"]),
                (&Value::from(arch), &Value::from(arch))
            );
        }
    }
    // What is told of a push is what the registry has, also where layers were compressed on the way.
    let metadata = shop.metadata(&["-t", &one, "--push"]);
    let name = format!("docker://{one}");
    let found = tool("skopeo", ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &name]);
    assert_eq!(metadata["containerimage.digest"], found.as_str());
    // As files, each platform has a directory.
    let out = shop.onggi.folder().join("out");
    let path = out.to_str().expect("a path of ours");
    shop.build(&["--platform", "linux/amd64,linux/arm64", "--provenance", "-o", path]).ok();
    for name in ["linux_amd64/file", "linux_arm64/provenance.json"] {
        assert!(out.join(name).exists(), "{name}");
    }
    let done = shop.build(&["--platform", "linux/amd64,linux/arm64", "-o", "type=tar,dest=/dev/null"]);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("type=tar holds one platform"), "{}", done.stderr);
}
