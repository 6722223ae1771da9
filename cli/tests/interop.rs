//! Images that other tools made, through a real registry, and back to other tools.

mod support;

use onggi_testkit::{DockerRegistry, Security};
use support::{Onggi, fixture, tool};

/// Copies an OCI layout to the registry with skopeo, and gives the name it has there.
fn push_with_skopeo(registry: &DockerRegistry, layout: &std::path::Path, name: &str) -> String {
    let image = format!("{}/{name}:1", registry.address());
    let from = format!("oci:{}:latest", layout.display());
    tool("skopeo", ["copy", "-q", "--dest-tls-verify=false", &from, &format!("docker://{image}")]);
    image
}

fn digest_by_skopeo(image: &str) -> String {
    let reference = format!("docker://{image}");
    tool("skopeo", ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &reference])
}

#[test]
fn an_image_that_skopeo_pushed_is_pulled_run_and_pushed_back_unchanged() {
    let onggi = Onggi::new();
    let Some(registry) = DockerRegistry::start(Security::Plain) else { return };
    let Some(layout) = fixture("debian-small") else { return };
    let image = push_with_skopeo(&registry, &layout, "debian");

    onggi.ok(["pull", &image]);
    let said = onggi.ok(["run", "--rm", "--network", "none", &image, "python3", "-c", "print(6 * 7)"]);
    assert_eq!(said, "42");

    let copy = format!("{}/elsewhere/debian:2", registry.address());
    onggi.ok(["tag", &image, &copy]);
    onggi.ok(["push", &copy]);
    assert_eq!(digest_by_skopeo(&copy), digest_by_skopeo(&image), "a pulled image keeps its digest");
    onggi.assert_store_is_clean();
}
