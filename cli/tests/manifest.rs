//! Manifest lists: images that were built apart under one name.

mod support;

use std::fs;

use onggi_testkit::{DockerRegistry, Security, needs};
use serde_json::Value;
use support::{Onggi, tool};

/// An image with its architecture as a label.
fn image(onggi: &Onggi, arch: &str, name: &str) {
    let context = onggi.folder().join("context");
    let _ = fs::create_dir(&context);
    fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY f /f\n",
    )
    .expect("a file");
    fs::write(context.join("f"), arch).expect("a file");
    let platform = format!("linux/{arch}");
    onggi.ok(["build", "-q", "--platform", &platform, "-t", name, context.to_str().expect("a path of ours")]);
}

fn platforms(index: &str) -> Vec<String> {
    let index: Value = serde_json::from_str(index).expect("JSON");
    let entries = index["manifests"].as_array().expect("manifests").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .map(|entry| {
            let platform = &entry["platform"];
            let parts = ["os", "architecture", "variant"].map(|part| text(&platform[part]));
            parts.join("/").trim_end_matches('/').to_owned()
        })
        .collect()
}

#[test]
fn images_of_several_platforms_get_one_name() {
    if needs::root().is_missing() || needs::programs(&["skopeo"]).is_missing() {
        return;
    }
    let Some(registry) = DockerRegistry::start(Security::Plain) else { return };
    let (one, two) = (Onggi::new(), Onggi::new());
    let at = |name: &str| format!("{}/{name}", registry.address());
    // One machine built for one platform and pushed, the other for another.
    image(&one, "amd64", &at("app:amd64"));
    one.ok(["push", "-q", &at("app:amd64")]);
    image(&two, "arm64", "app:arm64");
    let list = at("app:1");
    two.ok(["manifest", "create", &list]);
    two.fails(["manifest", "create", &list]);
    two.ok(["manifest", "create", "--amend", &list, "app:arm64", &at("app:amd64")]);
    assert_eq!(platforms(&two.ok(["manifest", "inspect", &list])), ["linux/arm64", "linux/amd64"]);
    two.ok(["manifest", "annotate", "--arch", "arm", "--variant", "v7", &list, "app:arm64"]);
    assert_eq!(platforms(&two.ok(["manifest", "inspect", &list])), ["linux/arm/v7", "linux/amd64"]);
    two.ok(["manifest", "annotate", "--arch", "arm64", &list, "app:arm64"]);
    two.assert_store_is_clean();

    let digest = two.ok(["manifest", "push", &list]);
    two.ok(["manifest", "push", "-p", &list, &format!("docker://{}", at("other:2"))]);
    assert_eq!(two.output(["manifest", "exists", &list]).code, Some(1));
    for (name, arch) in [("app:1", "amd64"), ("app:1", "arm64"), ("other:2", "amd64"), ("other:2", "arm64")] {
        let text = tool(
            "skopeo",
            ["--override-arch", arch, "inspect", "--tls-verify=false", &format!("docker://{}", at(name))],
        );
        let image: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(image["Labels"]["arch"], arch);
    }
    // From the registry, as a whole and each with its manifest.
    let shown = one.ok(["manifest", "inspect", &list]);
    assert_eq!(platforms(&shown), ["linux/arm64", "linux/amd64"]);
    assert!(digest.starts_with("sha256:"), "{digest}");
    let each: Value = serde_json::from_str(&one.ok(["manifest", "inspect", "-v", &list])).expect("JSON");
    assert_eq!(each[1]["Descriptor"]["platform"]["architecture"], "amd64");
    assert!(each[1]["OCIManifest"]["layers"].is_array() && each[1]["Ref"].as_str().is_some(), "{each}");
}

#[test]
fn what_is_no_list_is_named() {
    if needs::root().is_missing() {
        return;
    }
    let onggi = Onggi::new();
    image(&onggi, "amd64", "app:1");
    onggi.ok(["manifest", "create", "list", "app:1"]);
    onggi.ok(["manifest", "exists", "list"]);
    for (words, part) in [
        (&["manifest", "add", "none", "app:1"][..], "no such manifest list"),
        (&["manifest", "add", "app:1", "app:1"], "no manifest list but an image"),
        (&["manifest", "annotate", "list", "app:2", "--os", "linux"], "app:2"),
        (&["manifest", "rm", "app:1"], "no manifest list but an image"),
        (&["manifest", "create", "list", "app:1"], "--amend"),
    ] {
        let done = onggi.fails(words);
        assert!(done.stderr.contains(part), "no {part:?} in {}", done.stderr);
    }
    onggi.ok(["manifest", "remove", "list", "app:1"]);
    assert!(platforms(&onggi.ok(["manifest", "inspect", "list"])).is_empty());
    onggi.ok(["manifest", "rm", "list"]);
    assert_eq!(onggi.images(), "app:1");
    onggi.assert_store_is_clean();
}
