//! The three files that a container gets from the engine: `hostname`, `hosts`, `resolv.conf`. They
//! lie in the container's directory and are bind-mounted over those of the image.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::{HostAddress, Names};

use super::request::Network;

/// What every `hosts` begins with (as Docker's).
const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// A generated file and where it goes.
#[derive(Debug)]
pub(crate) struct HostFile {
    /// Where it lies.
    pub source: PathBuf,
    /// Where the container sees it.
    pub target: &'static str,
}

/// Names and name servers that the caller adds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolver {
    /// Name servers in place of the host's.
    pub servers: Vec<IpAddr>,
    /// Search domains in place of the host's; a single `.` for none.
    pub search: Vec<String>,
    /// Options of the resolver in place of the host's.
    pub options: Vec<String>,
    /// Containers that it finds by names of its own choice (`--link`).
    #[serde(default)]
    pub links: Vec<Link>,
    /// Further names and their addresses.
    pub hosts: Vec<(String, HostAddress)>,
}

/// A container that another one finds by a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name or ID.
    pub container: String,
    /// The name in the other one.
    pub alias: String,
}

impl std::str::FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (container, alias) = match text.split(':').collect::<Vec<_>>()[..] {
            [container] => (container, container),
            [container, alias] => (container, alias),
            _ => return Err(format!("bad format for links: {text}")),
        };
        let is_name = |name: &str| !name.is_empty() && !name.contains(char::is_whitespace);
        if !is_name(container) || !is_name(alias) {
            return Err(format!("bad format for links: {text}"));
        }
        Ok(Self { container: container.trim_start_matches('/').into(), alias: alias.into() })
    }
}

impl Resolver {
    /// With the container's own resolver as the only server, if it has one: that knows the others.
    fn of_network(&self, names: &Names) -> Self {
        let mut own = self.clone();
        let Some(address) = names.resolver else { return own };
        own.servers = vec![address];
        if names.undotted && own.options.is_empty() {
            own.options.push("ndots:0".into());
        }
        own
    }

    /// The host's `resolv.conf` with the caller's lines in place of its own.
    fn resolv_conf(&self, of_host: &str) -> String {
        let (servers, search, options) =
            (!self.servers.is_empty(), !self.search.is_empty(), !self.options.is_empty());
        if !(servers || search || options) {
            return of_host.to_owned();
        }
        let replaced = |line: &str| match line.split_whitespace().next() {
            Some("nameserver") => servers,
            Some("search" | "domain") => search,
            Some("options") => options,
            _ => false,
        };
        let kept = of_host.lines().filter(|line| !replaced(line)).map(|line| format!("{line}\n"));
        let mut text: String = kept.collect();
        text.extend(self.servers.iter().map(|server| format!("nameserver {server}\n")));
        if search && self.search != ["."] {
            text += &format!("search {}\n", self.search.join(" "));
        }
        if options {
            text += &format!("options {}\n", self.options.join(" "));
        }
        text
    }
}

/// Writes the files into `dir`.
pub(crate) fn write(
    dir: &Path,
    hostname: &str,
    network: &Network,
    resolver: &Resolver,
    names: &Names,
    linked: &[(String, IpAddr)],
) -> Result<[HostFile; 3]> {
    let mut hosts = match network {
        Network::Host => of_host("/etc/hosts")?,
        _ if names.addresses.is_empty() => format!("{LOCAL_HOSTS}127.0.1.1\t{hostname}\n"),
        _ => {
            let own = names.addresses.iter().map(|address| format!("{address}\t{hostname}\n"));
            format!("{LOCAL_HOSTS}{}", own.collect::<String>())
        }
    };
    if !hosts.is_empty() && !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    hosts.extend(linked.iter().map(|(names, address)| format!("{address}\t{names}\n")));
    for (name, address) in &resolver.hosts {
        hosts += &format!("{}\t{name}\n", address.resolve(names)?);
    }
    let resolv_conf = resolver.of_network(names).resolv_conf(&of_host("/etc/resolv.conf")?);
    let file = |name: &str, target, text: &str| -> Result<HostFile> {
        let source = dir.join(name);
        fs::write(&source, text).map_err(|e| Error::Write { path: source.clone(), source: e })?;
        Ok(HostFile { source, target })
    };
    Ok([
        file("hostname", "/etc/hostname", &format!("{hostname}\n"))?,
        file("hosts", "/etc/hosts", &hosts)?,
        file("resolv.conf", "/etc/resolv.conf", &resolv_conf)?,
    ])
}

/// The files of another container, in whose directory `dir` they are.
pub(crate) fn of(dir: &Path) -> [HostFile; 3] {
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")]
        .map(|(name, target)| HostFile { source: dir.join(name), target })
}

/// The host name that was written into `dir`.
pub(crate) fn hostname_of(dir: &Path) -> Result<String> {
    let path = dir.join("hostname");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// The text of a file of the host; empty where there is none.
fn of_host(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::Read { path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_lines_replace_those_of_the_same_kind() {
        let host = "# note\nnameserver 10.0.0.1\nsearch lan\noptions edns0\n";
        let mut resolver = Resolver::default();
        assert_eq!(resolver.resolv_conf(host), host);
        resolver.servers = vec!["1.1.1.1".parse().unwrap()];
        resolver.search = vec![".".into()];
        assert_eq!(resolver.resolv_conf(host), "# note\noptions edns0\nnameserver 1.1.1.1\n");
        resolver.search = vec!["a.b".into(), "c".into()];
        assert!(resolver.resolv_conf(host).contains("\nsearch a.b c\n"));
    }
}
