use std::fs;

use super::*;

fn with_certs(registry: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Options) {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join(registry);
    fs::create_dir(&host).unwrap();
    for (name, text) in files {
        fs::write(host.join(name), text).unwrap();
    }
    let options =
        Options { certs_dirs: vec!["/nonexistent".into(), dir.path().to_owned()], ..Options::default() };
    (dir, options)
}

#[test]
fn schemes_by_host() {
    let options = Options { insecure: vec!["lan.example".into(), "other:5000".into()], ..Options::default() };
    let cases = [
        ("docker.io", "registry-1.docker.io", Scheme::Https, false),
        ("ghcr.io", "ghcr.io", Scheme::Https, false),
        ("localhost:5000", "localhost:5000", Scheme::Either, false),
        ("127.0.0.1:5000", "127.0.0.1:5000", Scheme::Either, false),
        ("127.9.9.9", "127.9.9.9", Scheme::Either, false),
        ("[::1]:5000", "[::1]:5000", Scheme::Either, false),
        ("10.0.0.1:5000", "10.0.0.1:5000", Scheme::Https, false),
        ("localhost.evil.example", "localhost.evil.example", Scheme::Https, false),
        ("lan.example:5000", "lan.example:5000", Scheme::Either, true),
        ("other:5000", "other:5000", Scheme::Either, true),
        ("other:5001", "other:5001", Scheme::Https, false),
    ];
    for (registry, authority, scheme, skip_verify) in cases {
        let hosts = hosts_of(registry, &options).unwrap();
        assert_eq!(hosts.len(), 1);
        assert_eq!(hosts[0].authority, authority);
        assert_eq!((hosts[0].scheme, hosts[0].tls.skip_verify), (scheme, skip_verify), "{registry}");
    }
    for nonsense in ["", "a b", "user@host", "host/path", "host?x", "host:port"] {
        assert!(hosts_of(nonsense, &options).is_err(), "{nonsense:?}");
    }
}

#[test]
fn certificates_by_directory() {
    let files = [("ca.crt", ""), ("more.crt", ""), ("client.cert", ""), ("client.key", ""), ("README", "")];
    let (dir, options) = with_certs("reg.example:5000", &files);
    let hosts = hosts_of("reg.example:5000", &options).unwrap();
    let host = dir.path().join("reg.example:5000");
    assert_eq!(hosts[0].tls.authorities, [host.join("ca.crt"), host.join("more.crt")]);
    assert_eq!(hosts[0].tls.identity, Some((host.join("client.cert"), host.join("client.key"))));
    assert_eq!(hosts_of("reg.example", &options).unwrap()[0].tls, TlsSettings::default());
    let (_dir, options) = with_certs("reg.example", &[("client.cert", "")]);
    assert!(hosts_of("reg.example", &options).unwrap_err().to_string().contains("its key"));
}

#[test]
fn mirrors_in_their_order() {
    let text = r#"
        server = "https://registry-1.docker.io"
        [host."https://zebra.example"]
          capabilities = ["pull"]
          ca = "zebra.crt"
        [host."http://aardvark.example:5000/proxy"]
          capabilities = ["pull", "resolve", "push"]
          client = [["me.cert", "me.key"]]
        [host."https://harbor.example/v2/hub"]
          override_path = true
          skip_verify = true
          [host."https://harbor.example/v2/hub".header]
            x-team = ["a", "b"]
    "#;
    let (dir, options) = with_certs("docker.io", &[("hosts.toml", text)]);
    let hosts = hosts_of("docker.io", &options).unwrap();
    let names: Vec<_> = hosts.iter().map(|host| (host.authority.as_str(), host.base_path.as_str())).collect();
    let expected = [
        ("zebra.example", "/v2"),
        ("aardvark.example:5000", "/proxy/v2"),
        ("harbor.example", "/v2/hub"),
        ("registry-1.docker.io", "/v2"),
    ];
    assert_eq!(names, expected);
    assert_eq!(hosts[0].capabilities, Capabilities { pull: true, resolve: false, push: false });
    assert_eq!(hosts[0].tls.authorities, [dir.path().join("docker.io/zebra.crt")]);
    assert_eq!(hosts[1].scheme, Scheme::Http);
    let pair = (dir.path().join("docker.io/me.cert"), dir.path().join("docker.io/me.key"));
    assert_eq!(hosts[1].tls.identity, Some(pair));
    assert!(hosts[2].tls.skip_verify && !hosts[2].own_names);
    assert_eq!(hosts[2].headers.len(), 2);
    assert_eq!(hosts[2].mirror_of.as_deref(), Some("docker.io"));
    assert_eq!((hosts[3].mirror_of.as_deref(), hosts[3].capabilities), (None, Capabilities::ALL));
}

#[test]
fn a_broken_file_is_named_with_what_is_wrong() {
    let cases = [
        ("server = ", "TOML"),
        ("server = 7", "server is not a string"),
        ("[host.\"ftp://x\"]", "ftp is not supported"),
        ("[host.\"https://x\"]\ncapabilities = [\"fly\"]", "\"fly\" is not known"),
        ("[host.\"https://x\"]\ndial_timeout = \"3s\"", "dial_timeout"),
        ("host = 3", "host is not a table"),
        ("colour = \"red\"", "colour"),
    ];
    for (text, words) in cases {
        let (_dir, options) = with_certs("reg.example", &[("hosts.toml", text)]);
        let error = hosts_of("reg.example", &options).unwrap_err().to_string();
        assert!(error.contains("hosts.toml") && error.contains(words), "{text}: {error}");
    }
}
