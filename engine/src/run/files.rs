//! The three files that a container gets from the engine: `hostname`, `hosts`, `resolv.conf`. They
//! lie in the container's directory and are bind-mounted over those of the image.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

use super::Network;

/// What every `hosts` begins with (as Docker's).
const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// A generated file and where it goes.
#[derive(Debug)]
pub(super) struct HostFile {
    /// Where it lies.
    pub source: PathBuf,
    /// Where the container sees it.
    pub target: &'static str,
}

/// Writes the files into `dir`.
pub(super) fn write(dir: &Path, hostname: &str, network: Network) -> Result<[HostFile; 3]> {
    let hosts = match network {
        Network::None => format!("{LOCAL_HOSTS}127.0.1.1\t{hostname}\n"),
        Network::Host => of_host("/etc/hosts")?,
    };
    let file = |name: &str, target, text: &str| -> Result<HostFile> {
        let source = dir.join(name);
        fs::write(&source, text).map_err(|e| Error::Write { path: source.clone(), source: e })?;
        Ok(HostFile { source, target })
    };
    Ok([
        file("hostname", "/etc/hostname", &format!("{hostname}\n"))?,
        file("hosts", "/etc/hosts", &hosts)?,
        file("resolv.conf", "/etc/resolv.conf", &of_host("/etc/resolv.conf")?)?,
    ])
}

/// The text of a file of the host; empty where there is none.
fn of_host(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::Read { path: path.into(), source }),
    }
}
