//! Which hosts serve a registry, and how each is spoken to.
//!
//! ```text
//!   registry as named   certs.d/<registry>/hosts.toml        hosts, in the order they are asked
//!   ─────────────────────────────────────────────────────────────────────────────────────
//!   docker.io           (none)                               registry-1.docker.io
//!   docker.io           [host."https://mirror.lan"]          mirror.lan, registry-1.docker.io
//!   localhost:5000      (none)                               localhost:5000, HTTPS or else HTTP
//! ```
//!
//! Only the registry itself takes uploads, unless a host's capabilities name `push`.

mod mirrors;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::tls::TlsSettings;

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// HTTPS only.
    Https,
    /// Plain HTTP only.
    Http,
    /// HTTPS, and plain HTTP if the host does not speak TLS (loopback and insecure registries).
    Either,
}

/// What a host may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Content by digest.
    pub(crate) pull: bool,
    /// Which digest a tag means.
    pub(crate) resolve: bool,
    /// Uploads.
    pub(crate) push: bool,
}

impl Capabilities {
    pub(crate) const ALL: Self = Self { pull: true, resolve: true, push: true };
    const MIRROR: Self = Self { pull: true, resolve: true, push: false };
}

/// One host that serves a registry.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// `host` or `host:port`.
    pub(crate) authority: String,
    pub(crate) scheme: Scheme,
    /// The path before `/<repository>/manifests/…`: `/v2`, or what `override_path` says.
    pub(crate) base_path: String,
    /// Whether the repository goes by the registry's own name there.
    pub(crate) own_names: bool,
    pub(crate) capabilities: Capabilities,
    pub(crate) tls: TlsSettings,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The registry this is a mirror of, sent as `?ns=`.
    pub(crate) mirror_of: Option<String>,
}

/// The host that serves the registry which users call `docker.io`.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// The hosts that serve a registry, in the order they are to be asked.
pub(crate) fn hosts_of(registry: &str, options: &Options) -> Result<Vec<Host>> {
    let directory = options.certs_dirs.iter().map(|dir| dir.join(registry)).find(|dir| dir.is_dir());
    let fallback = || options.certs_dirs.iter().map(|dir| dir.join("_default")).find(|dir| dir.is_dir());
    if let Some(directory) = directory.or_else(fallback) {
        let file = directory.join("hosts.toml");
        if file.exists() {
            return mirrors::read(&file, registry, options);
        }
    }
    Ok(vec![own_host(registry, options)?])
}

/// The registry's own host, without mirrors.
fn own_host(registry: &str, options: &Options) -> Result<Host> {
    let authority = if registry == "docker.io" { DOCKER_HUB_HOST } else { registry };
    // Catches what is no host, such as "a/b" or "user@host", before it becomes part of a URL.
    let url = Url::parse(&format!("https://{authority}/")).ok().filter(|url| {
        url.path() == "/" && url.username().is_empty() && url.password().is_none() && url.query().is_none()
    });
    let Some(url) = url else {
        return Err(Error::Invalid {
            what: "registry",
            value: registry.to_owned(),
            problem: "it is not a host name with an optional port".to_owned(),
        });
    };
    let mut tls = tls_of(registry, options)?;
    if authority != registry && tls == TlsSettings::default() {
        tls = tls_of(authority, options)?;
    }
    let insecure = options.insecure.iter().any(|entry| matches_host(entry, authority, &url));
    tls.skip_verify |= insecure;
    let scheme = if insecure || is_loopback(&url) { Scheme::Either } else { Scheme::Https };
    Ok(Host {
        authority: authority.to_owned(),
        scheme,
        base_path: "/v2".to_owned(),
        own_names: true,
        capabilities: Capabilities::ALL,
        tls,
        headers: Vec::new(),
        mirror_of: None,
    })
}

/// Whether an entry of the insecure list, a host with or without a port, means this host.
fn matches_host(entry: &str, authority: &str, url: &Url) -> bool {
    entry == authority || Some(entry) == url.host_str()
}

/// Loopback is this machine: nobody listens in between.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) if host.ends_with(".localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

/// The certificates that `certs.d/<host>/` holds: every `*.crt` is an authority, every `*.cert`
/// with a `*.key` beside it is ours to show.
pub(crate) fn tls_of(authority: &str, options: &Options) -> Result<TlsSettings> {
    let mut settings = TlsSettings::default();
    let Some(directory) = options.certs_dirs.iter().map(|dir| dir.join(authority)).find(|dir| dir.is_dir())
    else {
        return Ok(settings);
    };
    let failed = |source| Error::File { operation: "list", path: directory.clone(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.sort();
    for file in files {
        match file.extension().and_then(std::ffi::OsStr::to_str) {
            Some("crt") => settings.authorities.push(file),
            Some("cert") if settings.identity.is_none() => {
                let key = file.with_extension("key");
                if !key.exists() {
                    return Err(missing(&file, &key));
                }
                settings.identity = Some((file, key));
            }
            _ => {}
        }
    }
    Ok(settings)
}

fn missing(certificate: &Path, key: &Path) -> Error {
    Error::Configuration {
        path: PathBuf::from(certificate),
        problem: format!("its key {} is missing", key.display()),
    }
}

#[cfg(test)]
mod tests;
