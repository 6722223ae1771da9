//! `hosts.toml`, the mirrors of one registry, as containerd reads it.
//!
//! ```text
//!   server = "https://registry-1.docker.io"      asked last; the default is the registry itself
//!
//!   [host."https://mirror.lan:5000"]             asked in the order they stand here
//!     capabilities = ["pull", "resolve"]         which is also the default
//!     ca = "mirror.crt"                          one or several, relative to this file
//!     client = [["me.cert", "me.key"]]
//!     skip_verify = false
//!     override_path = false                      true: the URL's path stands in for /v2
//!     [host."https://mirror.lan:5000".header]
//!       x-team = "build"
//! ```
//!
//! A key that is not in the picture is an error, so that a restriction is never silently lost.

use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{Capabilities, Host, Scheme, own_host};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::tls::TlsSettings;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Clients>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: toml::Table,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    /// A file with both certificate and key, or several, of which the first is taken.
    Files(OneOrMany),
    /// Pairs of certificate and key.
    Pairs(Vec<Vec<String>>),
}

/// The hosts that the file names, and the registry itself last.
pub(super) fn read(path: &Path, registry: &str, options: &Options) -> Result<Vec<Host>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File {
        operation: "read",
        path: path.to_owned(),
        source,
    })?;
    let file = Parser { path, registry, options };
    let root: toml::Table =
        text.parse().map_err(|error: toml::de::Error| file.problem(&error.to_string()))?;
    let mut hosts = Vec::new();
    if let Some(sections) = root.get("host") {
        let sections = sections.as_table().ok_or_else(|| file.problem("host is not a table"))?;
        for (url, section) in sections {
            let section: Section = section.clone().try_into().map_err(|error: toml::de::Error| {
                file.problem(&format!("[host.{url:?}]: {}", error.message()))
            })?;
            hosts.push(file.host(url, section, true)?);
        }
    }
    let server = root.get("server").map(|server| {
        server.as_str().map(str::to_owned).ok_or_else(|| file.problem("server is not a string"))
    });
    // What stands beside server and host is about the server.
    let mut rest = root.clone();
    rest.remove("host");
    rest.remove("server");
    let section: Section = toml::Value::Table(rest)
        .try_into()
        .map_err(|error: toml::de::Error| file.problem(error.message()))?;
    match server.transpose()?.filter(|server| !server.is_empty()) {
        Some(server) => {
            let mut host = file.host(&server, section, false)?;
            // The same host as without the file: its certs.d directory and loopback rule hold too.
            let own = own_host(registry, options)?;
            if host.authority == own.authority && host.tls == TlsSettings::default() {
                host.tls = own.tls;
            }
            hosts.push(host);
        }
        None => hosts.push(own_host(registry, options)?),
    }
    Ok(hosts)
}

struct Parser<'a> {
    path: &'a Path,
    registry: &'a str,
    options: &'a Options,
}

impl Parser<'_> {
    fn host(&self, address: &str, section: Section, mirror: bool) -> Result<Host> {
        let with_scheme =
            if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
        let url = Url::parse(&with_scheme)
            .map_err(|error| self.problem(&format!("{address:?} is not a URL: {error}")))?;
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            other => return Err(self.problem(&format!("{address:?}: the scheme {other} is not supported"))),
        };
        let Some(name) = url.host_str() else {
            return Err(self.problem(&format!("{address:?} names no host")));
        };
        let authority = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        let path = url.path().trim_end_matches('/');
        let base_path = match (section.override_path, path) {
            (true, path) => path.to_owned(),
            (false, path) if path.ends_with("/v2") => path.to_owned(),
            (false, path) => format!("{path}/v2"),
        };
        let mut tls = super::tls_of(&authority, self.options)?;
        if let Some(ca) = section.ca {
            tls.authorities = match ca {
                OneOrMany::One(file) => vec![self.beside(&file)],
                OneOrMany::Many(files) => files.iter().map(|file| self.beside(file)).collect(),
            };
        }
        if let Some(client) = section.client {
            tls.identity = self.identity(client)?;
        }
        tls.skip_verify |= section.skip_verify;
        Ok(Host {
            own_names: base_path == "/v2",
            authority,
            scheme,
            base_path,
            capabilities: self.capabilities(section.capabilities, mirror)?,
            tls,
            headers: self.headers(&section.header)?,
            mirror_of: mirror.then(|| self.registry.to_owned()),
        })
    }

    fn capabilities(&self, named: Option<Vec<String>>, mirror: bool) -> Result<Capabilities> {
        let Some(named) = named else {
            return Ok(if mirror { Capabilities::MIRROR } else { Capabilities::ALL });
        };
        let mut capabilities = Capabilities { pull: false, resolve: false, push: false };
        for name in named {
            match name.as_str() {
                "pull" => capabilities.pull = true,
                "resolve" => capabilities.resolve = true,
                "push" => capabilities.push = true,
                other => return Err(self.problem(&format!("the capability {other:?} is not known"))),
            }
        }
        Ok(capabilities)
    }

    fn identity(&self, client: Clients) -> Result<Option<(PathBuf, PathBuf)>> {
        let both = |file: &String| (self.beside(file), self.beside(file));
        Ok(match client {
            Clients::Files(OneOrMany::One(file)) => Some(both(&file)),
            Clients::Files(OneOrMany::Many(files)) => files.first().map(both),
            Clients::Pairs(pairs) => match pairs.first().map(Vec::as_slice) {
                None => None,
                Some([file]) => Some(both(file)),
                Some([certificate, key]) if key.is_empty() => Some(both(certificate)),
                Some([certificate, key]) => Some((self.beside(certificate), self.beside(key))),
                Some(_) => return Err(self.problem("client wants pairs of a certificate and a key")),
            },
        })
    }

    fn headers(&self, table: &toml::Table) -> Result<Vec<(HeaderName, HeaderValue)>> {
        let mut headers = Vec::new();
        for (name, value) in table {
            let values = match value {
                toml::Value::String(value) => vec![value.as_str()],
                toml::Value::Array(values) => values.iter().filter_map(toml::Value::as_str).collect(),
                _ => return Err(self.problem(&format!("the header {name:?} is not a string"))),
            };
            for value in values {
                let invalid = || self.problem(&format!("{name:?} is not a valid header"));
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
                headers.push((name, HeaderValue::from_str(value).map_err(|_| invalid())?));
            }
        }
        Ok(headers)
    }

    fn beside(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(file)
    }

    fn problem(&self, problem: &str) -> Error {
        Error::Configuration { path: self.path.to_owned(), problem: problem.to_owned() }
    }
}
