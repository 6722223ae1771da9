//! `WWW-Authenticate`: whatever a host says, credentials go to no place that is neither HTTPS nor ours to test with.

use onggi_registry_client::Challenge;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

/// One header a line.
pub fn feed(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, value);
        }
    }
    let origin = Url::parse("https://registry.example/v2/").expect("a URL");
    let secure = |realm: &Url| {
        let host = realm.host_str().unwrap_or_default();
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let own = name == "localhost"
            || name.ends_with(".localhost")
            || name.starts_with("127.")
            || name == "[::1]";
        realm.scheme() == "https" || realm.scheme() == "http" && own
    };
    for have_credentials in [false, true] {
        match Challenge::choose(&headers, &origin, have_credentials) {
            Ok(Some(Challenge::Bearer { realm, .. })) => assert!(secure(&realm), "{realm}"),
            Ok(Some(Challenge::Basic)) => assert!(have_credentials),
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// What registries say.
pub fn seeds() -> Vec<Vec<u8>> {
    super::texts(&[
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
        "Basic realm=\"Registry Realm\"\nBearer realm=\"https://a.example/t\"",
        r#"Basic realm="a \" b", Bearer realm="https://a.example/t",error="invalid_token""#,
        r#"Bearer realm="http://127.0.0.1:5001/token",service="s",scope="repository:a:pull,push repository:b:pull""#,
        "Bearer realm=/token, service=x\nNegotiate\nDigest qop=auth, nonce=\"x\"",
        "Bearer realm=\"http://localhost.evil.example/t\"",
    ])
}
