//! A container's place in a network.
//!
//! ```text
//!   <runroot>/networks/<network id>/
//!     endpoints/<container id>     this record, of a container that runs or is about to
//!     endpoints/.<container id>    the same while it is written
//!     addresses/<address>          a link whose target is the container's id: it is made with its content at once
//! ```
//!
//! Only containers that run have any: a reboot takes them away with all interfaces.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::definition::{Definition, Range};
use crate::error::{Error, Result};
use crate::port::Published;

/// The most that is read of a record.
const MAX_RECORD: u64 = 4 << 20;

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The container's ID.
    pub container: String,
    /// What people call it.
    pub name: String,
    /// Other names that it has in this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Its addresses, at most one of each version.
    pub addresses: Vec<IpAddr>,
    /// More addresses, without a claim: link-local ones that the caller chose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<IpAddr>,
    /// Its hardware address.
    pub mac: Mac,
    /// Its interface's name inside.
    pub interface: String,
    /// The name of the other end, on the bridge.
    pub port: String,
    /// Its ports that are published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Published>,
}

/// What a container wishes of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointWish {
    /// Other names that it has in this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// An address of IPv4.
    #[serde(default)]
    pub ipv4: Option<IpAddr>,
    /// An address of IPv6.
    #[serde(default)]
    pub ipv6: Option<IpAddr>,
    /// A hardware address.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Link-local addresses.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
}

impl Endpoint {
    /// The first digits of the container's ID, by which others find it.
    pub fn short_container(&self) -> &str {
        self.container.get(..12).unwrap_or(&self.container)
    }

    /// Its IPv4 address.
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv6)
    }

    /// Whether others in the network may call it so. `name` is in lower case.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
            || self.short_container() == name
            || self.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
    }
}

/// The files of one network's endpoints.
#[derive(Debug)]
pub(crate) struct Endpoints {
    dir: PathBuf,
}

impl Endpoints {
    pub(crate) fn of(state: &Path, network: &Definition) -> Self {
        Self { dir: state.join(&network.id) }
    }

    /// Where the records are: whoever waits for changes looks at this directory.
    pub(crate) fn records(&self) -> PathBuf {
        self.dir.join("endpoints")
    }

    fn addresses(&self) -> PathBuf {
        self.dir.join("addresses")
    }

    pub(crate) fn prepare(&self) -> Result<()> {
        for dir in [self.records(), self.addresses()] {
            fs::create_dir_all(&dir).map_err(Error::io("make", dir))?;
        }
        Ok(())
    }

    /// All of them; what is being written is left out.
    pub(crate) fn all(&self) -> Result<Vec<Endpoint>> {
        let mut all = Vec::new();
        for id in names(&self.records())? {
            all.extend(self.get(&id)?);
        }
        all.sort_by(|a: &Endpoint, b| a.name.cmp(&b.name));
        Ok(all)
    }

    pub(crate) fn get(&self, container: &str) -> Result<Option<Endpoint>> {
        let path = self.records().join(container);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_RECORD).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::Damaged { path, problem: error.to_string() })
    }

    /// Writes a record, at once for every reader.
    pub(crate) fn put(&self, endpoint: &Endpoint) -> Result<()> {
        let path = self.records().join(&endpoint.container);
        let beside = self.unfinished(&endpoint.container);
        let bytes = serde_json::to_vec(endpoint).expect("plain values always serialise");
        let written = File::create(&beside).and_then(|mut file| file.write_all(&bytes));
        written.and_then(|()| fs::rename(&beside, &path)).map_err(Error::io("write", path))
    }

    /// Where a record is while it is written.
    fn unfinished(&self, container: &str) -> PathBuf {
        self.records().join(format!(".{container}"))
    }

    /// Takes an address: the wished one, or the lowest that is free.
    pub(crate) fn claim(
        &self,
        network: &Definition,
        range: &Range,
        wish: Option<IpAddr>,
        container: &str,
    ) -> Result<IpAddr> {
        if let Some(address) = wish {
            if !range.subnet.is_host(address) {
                let why = format!(
                    "{address} is no address of a host in {} of network {}",
                    range.subnet, network.name
                );
                return Err(Error::invalid("IP address", why));
            }
            if address != range.gateway && self.take(address, container)? {
                return Ok(address);
            }
            let holder =
                if address == range.gateway { "(the gateway)".into() } else { self.holder(address)? };
            return Err(Error::AddressTaken { address, network: network.name.clone(), holder });
        }
        let from = range.ip_range.unwrap_or(range.subnet);
        let taken: std::collections::HashSet<String> = names(&self.addresses())?.into_iter().collect();
        let candidates = (0..).map_while(|offset| from.nth(offset));
        for address in candidates.filter(|address| range.subnet.is_host(*address)) {
            if address != range.gateway
                && !taken.contains(&address.to_string())
                && self.take(address, container)?
            {
                return Ok(address);
            }
        }
        Err(Error::AddressesExhausted { network: network.name.clone(), range: from })
    }

    /// Whether the address was free, and now is the container's.
    fn take(&self, address: IpAddr, container: &str) -> Result<bool> {
        let path = self.addresses().join(address.to_string());
        match symlink(container, &path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::io("make", path)(error)),
        }
    }

    fn holder(&self, address: IpAddr) -> Result<String> {
        let all = self.all()?;
        let found = all.iter().find(|endpoint| endpoint.addresses.contains(&address));
        Ok(found.map_or_else(|| "another container".to_owned(), |endpoint| endpoint.name.clone()))
    }

    /// Gives back the record and the addresses of a container.
    pub(crate) fn release(&self, endpoint: &Endpoint) -> Result<()> {
        for address in &endpoint.addresses {
            remove(&self.addresses().join(address.to_string()))?;
        }
        remove(&self.unfinished(&endpoint.container))?;
        remove(&self.records().join(&endpoint.container))
    }

    /// Gives back what a container holds that has no record: it died before it had one.
    pub(crate) fn release_claims(&self, container: &str) -> Result<()> {
        for address in names(&self.addresses())? {
            let path = self.addresses().join(address);
            if fs::read_link(&path).is_ok_and(|holder| holder == Path::new(container)) {
                remove(&path)?;
            }
        }
        remove(&self.unfinished(container))
    }

    /// Containers that hold something here, with or without a record.
    pub(crate) fn holders(&self) -> Result<Vec<String>> {
        let mut all = entries(&self.records())?;
        for name in &mut all {
            *name = name.trim_start_matches('.').to_owned();
        }
        for address in names(&self.addresses())? {
            let holder = fs::read_link(self.addresses().join(address)).ok();
            all.extend(holder.and_then(|id| id.into_os_string().into_string().ok()));
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Forgets the network.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &self.dir)(error)),
            _ => Ok(()),
        }
    }
}

/// The names in a directory, without those of records that are being written.
fn names(dir: &Path) -> Result<Vec<String>> {
    Ok(entries(dir)?.into_iter().filter(|name| !name.starts_with('.')).collect())
}

fn entries(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", dir)(error)),
    };
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
