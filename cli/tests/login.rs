//! Credentials against a real registry with a password and a certificate of its own authority.

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use onggi_testkit::{DockerRegistry, ImageMaker, Security};
use support::{Done, Onggi};

/// The words about the unknown authority, and the registry with its authority known to the user.
fn start() -> Option<(Onggi, DockerRegistry)> {
    let registry = DockerRegistry::start(Security::TlsWithPassword)?;
    Some((Onggi::new(), registry))
}

fn trust(onggi: &Onggi, registry: &DockerRegistry) {
    let dir = onggi.folder().join("home/.config/onggi/certs.d").join(registry.address());
    fs::create_dir_all(&dir).expect("a folder");
    fs::copy(registry.ca(), dir.join("ca.crt")).expect("the authority's certificate");
}

/// `login` with this password on standard input.
fn login(onggi: &Onggi, registry: &DockerRegistry, password: &str, path: &Path) -> Done {
    let script = onggi.folder().join("password");
    fs::File::create(&script).and_then(|mut file| writeln!(file, "{password}")).expect("a file");
    let address = registry.address();
    let mut command = onggi.command(["login", "-u", DockerRegistry::USER, "--password-stdin", &address]);
    let old = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(path.to_owned()).chain(std::env::split_paths(&old));
    command.env("PATH", std::env::join_paths(paths).expect("a path"));
    Done::of(command.stdin(Stdio::from(fs::File::open(&script).expect("a file"))))
}

fn image() -> onggi_testkit::TestImage {
    ImageMaker::new().layer(&[("hello", b"world")]).big_layer(5, 100_000).build()
}

#[test]
fn credentials_are_checked_kept_used_and_forgotten() {
    let Some((onggi, registry)) = start() else { return };
    let (address, config) = (registry.address(), onggi.docker_config().join("config.json"));
    let none = Path::new("/nonexistent");

    // An authority that nobody knows.
    let done = login(&onggi, &registry, DockerRegistry::PASSWORD, none);
    done.assert_failed_in_words();
    assert!(done.stderr.contains(&format!("the certificate of {address} is not trusted")), "{}", done.stderr);
    assert!(done.stderr.contains(&format!("certs.d/{address}/ca.crt")), "no remedy: {}", done.stderr);
    assert!(!config.exists(), "credentials were kept that were never checked");
    trust(&onggi, &registry);

    // A wrong password.
    let done = login(&onggi, &registry, "guessed", none);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("did not accept the credentials"), "{}", done.stderr);
    assert!(!done.stderr.contains("guessed") && !config.exists());

    // Before a login nothing can be done, and the error says what to do.
    let reference = format!("{address}/team/app:v1");
    onggi.load(&image(), &reference);
    let done = onggi.fails(["push", &reference]);
    assert!(done.stderr.contains(&format!("onggi login {address}")), "{}", done.stderr);

    // The right one, kept in plain text: said, and for the user's eyes alone.
    let done = login(&onggi, &registry, DockerRegistry::PASSWORD, none);
    let warning = done.stderr.clone();
    assert_eq!(done.ok(), "Login Succeeded");
    assert!(warning.contains("stored unencrypted") && warning.contains("config.json"), "{warning}");
    let mode = fs::metadata(&config).expect("the configuration").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    onggi.ok(["push", &reference]);
    onggi.ok(["rmi", "-f", &reference]);
    assert_eq!(onggi.ok(["pull", "-q", &reference]), image().digest().to_string());

    assert_eq!(onggi.ok(["logout", &address]), format!("Removing login credentials for {address}"));
    let text = fs::read_to_string(&config).unwrap_or_default();
    assert!(!text.contains(&address), "{text}");
    let done = onggi.fails(["pull", &reference]);
    assert!(done.stderr.contains(&format!("onggi login {address}")), "{}", done.stderr);
    assert_eq!(onggi.ok(["logout", &address]), format!("Not logged in to {address}"));
}

/// A program as Docker's credential helpers are, which keeps what it is given in files beside itself.
const HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$1" >>calls
case $1 in
store) cat >stored ;;
get)
    cat >/dev/null
    [ -e stored ] && exec cat stored
    echo 'credentials not found in native keychain'
    exit 1
    ;;
erase) cat >/dev/null; rm -f stored ;;
esac
"#;

#[test]
fn a_credential_helper_keeps_the_secret() {
    let Some((onggi, registry)) = start() else { return };
    trust(&onggi, &registry);
    let (address, bin) = (registry.address(), onggi.folder().join("bin"));
    let config = onggi.docker_config().join("config.json");
    let helper = bin.join("docker-credential-vault");
    fs::create_dir(&bin).expect("a folder");
    fs::write(&helper, HELPER).expect("a script");
    fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).expect("a mode");
    fs::write(&config, r#"{"credsStore":"vault","HttpHeaders":{"X-Kept":"yes"}}"#).expect("a file");
    let run = |words: &[&str]| {
        let mut command: Command = onggi.command(words);
        let old = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(bin.clone()).chain(std::env::split_paths(&old));
        Done::of(command.env("PATH", std::env::join_paths(paths).expect("a path")))
    };

    let done = login(&onggi, &registry, DockerRegistry::PASSWORD, &bin);
    assert!(!done.stderr.contains("unencrypted"), "{}", done.stderr);
    done.ok();
    let text = fs::read_to_string(&config).expect("the configuration");
    assert!(text.contains(&address) && text.contains("X-Kept"), "{text}");
    assert!(!text.contains("\"auth\""), "the secret is in the file: {text}");
    let stored = fs::read_to_string(bin.join("stored")).expect("what the helper keeps");
    assert!(stored.contains(DockerRegistry::PASSWORD) && stored.contains(&address), "{stored}");

    let reference = format!("{address}/team/app:v1");
    onggi.load(&image(), &reference);
    run(&["push", &reference]).ok();
    run(&["pull", &reference]).ok();
    let calls = fs::read_to_string(bin.join("calls")).expect("calls");
    assert!(calls.contains("get"), "{calls}");

    run(&["logout", &address]).ok();
    assert!(!bin.join("stored").exists(), "the helper was not told");
    run(&["pull", &reference]).assert_failed_in_words();

    // A helper that is not there is named.
    fs::write(&config, r#"{"credsStore":"gone"}"#).expect("a file");
    let done = run(&["pull", &reference]);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("docker-credential-gone"), "{}", done.stderr);
    // And one that is no program's name does not become a path.
    fs::write(&config, r#"{"credsStore":"../../bin/sh"}"#).expect("a file");
    let done = run(&["pull", &reference]);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("is not the name of a credential helper"), "{}", done.stderr);
}
