use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn store(text: &str) -> (tempfile::TempDir, CredentialStore) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, text).unwrap();
    (dir, CredentialStore { docker_config: Some(path), auth_file: None })
}

fn password(username: &str, password: &str) -> Credentials {
    Credentials::Password { username: username.to_owned(), password: password.to_owned() }
}

#[test]
fn entries_as_real_programs_write_them() {
    // user:pass is dXNlcjpwYXNz, a:b:c is YTpiOmM=
    let (_dir, store) = store(
        r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNz"},
            "https://old.example/v1/": {"auth": "YTpiOmM="},
            "reg.example:5000": {"auth": "", "identitytoken": "refresh"},
            "quay.io": {"auth": "dXNlcjpwYXNz"},
            "quay.io/team": {"auth": "YTpiOmM="},
            "quay.io/team/app": {"registrytoken": "bearer"},
            "helped.example": {},
            "plain.example": {"username": "u", "password": "p"}
        }}"#,
    );
    let cases = [
        ("docker.io", "library/alpine", Some(password("user", "pass"))),
        ("old.example", "x", Some(password("a", "b:c"))),
        ("reg.example:5000", "x", Some(Credentials::IdentityToken("refresh".into()))),
        ("reg.example", "x", None),
        ("quay.io", "other", Some(password("user", "pass"))),
        ("quay.io", "team/x/y", Some(password("a", "b:c"))),
        ("quay.io", "team/app", Some(Credentials::RegistryToken("bearer".into()))),
        ("helped.example", "x", None),
        ("plain.example", "x", Some(password("u", "p"))),
    ];
    for (registry, repository, expected) in cases {
        assert_eq!(store.find(registry, repository).unwrap(), expected, "{registry}/{repository}");
    }
}

#[test]
fn broken_files_are_named() {
    for text in [
        "[]",
        "{",
        r#"{"auths": {"r.example": {"auth": "***"}}}"#,
        r#"{"auths": {"r.example": {"auth": "bm9jb2xvbg=="}}}"#,
        r#"{"credsStore": "../evil"}"#,
        r#"{"credsStore": 7}"#,
    ] {
        let (_dir, store) = store(text);
        let error = store.find("r.example", "x").unwrap_err();
        assert!(matches!(error, Error::Configuration { .. }), "{text}: {error}");
        assert!(error.to_string().contains("config.json"), "{text}: {error}");
    }
    let nowhere = CredentialStore { docker_config: Some("/nonexistent/config.json".into()), auth_file: None };
    assert_eq!(nowhere.find("r.example", "x").unwrap(), None);
}

#[test]
fn a_login_keeps_everything_else_and_is_private() {
    let (dir, store) =
        store(r#"{"HttpHeaders": {"X": "y"}, "auths": {"quay.io": {"auth": "dXNlcjpwYXNz"}}}"#);
    let path = dir.path().join("config.json");
    let stored = store.save("docker.io", &password("me", "secret")).unwrap();
    assert_eq!(stored, Stored::PlainText { path: fs::canonicalize(&path).unwrap() });
    let text: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(text["HttpHeaders"]["X"], "y");
    assert_eq!(text["auths"]["quay.io"]["auth"], "dXNlcjpwYXNz");
    assert_eq!(text["auths"][DOCKER_HUB_KEY]["auth"], "bWU6c2VjcmV0");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    assert_eq!(store.find("docker.io", "library/alpine").unwrap(), Some(password("me", "secret")));
    assert_eq!(store.erase("docker.io").unwrap().len(), 1);
    assert_eq!(store.find("docker.io", "library/alpine").unwrap(), None);
    assert_eq!(store.erase("docker.io").unwrap(), []);
    assert!(store.find("quay.io", "x").unwrap().is_some());
    // A link stays a link: its target is replaced.
    let link = dir.path().join("link.json");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let linked = CredentialStore { docker_config: Some(link.clone()), auth_file: None };
    linked.save("reg.example", &password("me", "secret")).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(store.find("reg.example", "").unwrap().is_some());
}

#[test]
fn the_first_login_makes_the_directory_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/config.json");
    let store = CredentialStore { docker_config: Some(path.clone()), auth_file: None };
    store.save("reg.example", &password("me", "secret")).unwrap();
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

/// A helper that keeps its secrets in a directory, as a script.
#[test]
fn helpers_keep_what_they_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("docker-credential-test");
    let kept = dir.path().join("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {kept} ;;\nget) cat > /dev/null; cat {kept} 2>/dev/null || \
         {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\nerase) cat > /dev/null; rm -f {kept} ;;\nesac\n",
        kept = kept.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let helper = docker_credential::Helper { program: program.to_string_lossy().into_owned() };
    assert_eq!(helper.get("reg.example").unwrap(), None);
    for credentials in [password("me", "secret"), Credentials::IdentityToken("refresh".into())] {
        helper.store("reg.example", &credentials).unwrap();
        assert_eq!(helper.get("reg.example").unwrap(), Some(credentials));
    }
    helper.erase("reg.example").unwrap();
    assert_eq!(helper.get("reg.example").unwrap(), None);
    let missing = docker_credential::Helper::named("not-installed-anywhere").unwrap();
    let error = missing.get("reg.example").unwrap_err();
    assert!(error.to_string().contains("not installed"), "{error}");
    assert!(docker_credential::Helper::named("../evil").is_err());
}

#[test]
fn helpers_are_chosen_by_registry() {
    let (_dir, store) = store(
        r#"{"credsStore": "all", "credHelpers": {"gcr.io": "gcloud", "none.example": ""},
            "auths": {"none.example": {"auth": "dXNlcjpwYXNz"}}}"#,
    );
    let file = AuthFile::read(store.docker_config.as_ref().unwrap()).unwrap().unwrap();
    let program = |registry: &str| configured(&file, registry).unwrap().map(|helper| helper.program);
    assert_eq!(program("gcr.io").as_deref(), Some("docker-credential-gcloud"));
    assert_eq!(program("docker.io").as_deref(), Some("docker-credential-all"));
    assert_eq!(program("none.example"), None);
    assert_eq!(store.find("none.example", "x").unwrap(), Some(password("user", "pass")));
}
