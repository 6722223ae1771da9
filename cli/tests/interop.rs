//! Images that other tools made, through a real registry, and back to other tools.

mod support;

use onggi_testkit::{DockerRegistry, Security, needs};
use support::{Onggi, busybox_archive, fixture, tool};

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

#[test]
fn what_onggi_pushed_other_tools_accept() {
    let onggi = Onggi::new();
    let Some(registry) = DockerRegistry::start(Security::Plain) else { return };
    if needs::programs(&["skopeo", "umoci"]).is_missing() {
        return;
    }
    let Some(archive) = busybox_archive(onggi.folder(), "localhost/base:latest") else { return };
    onggi.ok(["load".as_ref(), "--input".as_ref(), archive.as_os_str()]);
    let image = format!("{}/base:1", registry.address());
    onggi.ok(["tag", "localhost/base:latest", &image]);
    onggi.ok(["push", &image]);

    let layout = onggi.folder().join("copy");
    let target = format!("oci:{}:latest", layout.display());
    tool("skopeo", ["copy", "-q", "--src-tls-verify=false", &format!("docker://{image}"), &target]);
    let bundle = onggi.folder().join("bundle");
    tool(
        "umoci",
        [
            "unpack",
            "--rootless",
            "--image",
            &format!("{}:latest", layout.display()),
            bundle.to_str().expect("UTF-8"),
        ],
    );
    assert!(bundle.join("rootfs/bin/busybox").is_file());
}

#[test]
fn a_registry_with_password_and_tls_is_used_after_login() {
    let onggi = Onggi::new();
    let Some(registry) = DockerRegistry::start(Security::TlsWithPassword) else { return };
    let Some(archive) = busybox_archive(onggi.folder(), "localhost/base:latest") else { return };
    onggi.ok(["load".as_ref(), "--input".as_ref(), archive.as_os_str()]);
    let image = format!("{}/base:1", registry.address());
    onggi.ok(["tag", "localhost/base:latest", &image]);

    // An unknown certificate is refused, whoever it says it is.
    let refused = onggi.fails(["push", &image]);
    assert!(refused.stderr.to_lowercase().contains("certificate"), "{}", refused.stderr);

    let certs = onggi.folder().join("home/.config/onggi/certs.d").join(registry.address());
    std::fs::create_dir_all(&certs).expect("a folder");
    std::fs::copy(registry.ca(), certs.join("ca.crt")).expect("the certificate");
    let denied = onggi.fails(["push", &image]);
    assert!(denied.stderr.contains("onggi login"), "{}", denied.stderr);

    let secret = onggi.folder().join("secret");
    std::fs::write(&secret, DockerRegistry::PASSWORD).expect("a file");
    let mut login =
        onggi.command(["login", "-u", DockerRegistry::USER, "--password-stdin", &registry.address()]);
    login.stdin(std::fs::File::open(&secret).expect("the file"));
    let login = support::Done::of(&mut login).ok();
    assert!(!login.contains(DockerRegistry::PASSWORD));
    onggi.ok(["push", &image]);
    onggi.ok(["logout", &registry.address()]);
    onggi.fails(["pull", &image]);
}
