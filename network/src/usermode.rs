//! A network for a namespace without any right on the host's: a program turns the packets of a TAP
//! interface into connections of its own, which are the caller's.
//!
//! ```text
//!   container ── tap ── pasta (or slirp4netns) ── sockets of the caller ── the host's network
//!   <runroot>/networks/usermode/<container id>    which process it is, and what it publishes
//! ```
//!
//! `pasta` keeps addresses as they are, both ways: the container has the host's address, and whoever
//! connects to a published port is seen by his own. `slirp4netns` translates, so that every peer
//! looks like the gateway, but never like 127.0.0.1.

use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::namespace::NetworkNamespace;
use crate::port::{Protocol, Published};

/// The largest packet that both programs pass: 64 KiB without an Ethernet header, in whole words.
/// Fewer packets are less work: ten times the throughput of 1500.
const MTU: &str = "65520";
/// Where TAP interfaces come from.
const TUN: &str = "/dev/net/tun";
/// The name of the interface inside.
const INTERFACE: &str = "eth0";
/// How long slirp4netns may take for its socket.
const PATIENCE: Duration = Duration::from_secs(5);

/// A program that connects a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// `pasta` of passt.
    Pasta,
    /// `slirp4netns`.
    Slirp4netns,
}

impl Program {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }
}

/// The program that connects one container, as long as that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserMode {
    /// Which one.
    pub program: Program,
    /// Its process.
    pid: i32,
    /// When that started, in ticks after boot: the number alone may be another's by now.
    started: u64,
    /// What it publishes.
    pub ports: Vec<Published>,
}

/// The program that this host has, the better one first.
///
/// # Errors
/// [`Error::Unsupported`] with the remedy, if there is none or the caller may not make interfaces.
pub fn find() -> Result<(Program, PathBuf)> {
    let path = std::env::split_paths("/usr/bin:/usr/local/bin:/bin:/usr/sbin:/sbin").collect::<Vec<_>>();
    let found = [Program::Pasta, Program::Slirp4netns].into_iter().find_map(|program| {
        let file = path.iter().map(|dir| dir.join(program.name())).find(|file| file.is_file())?;
        Some((program, file))
    });
    let found = found.ok_or_else(|| {
        Error::unsupported(
            "a network without root",
            "it needs the program pasta (package passt) or slirp4netns; --network none and host need neither",
        )
    })?;
    match fs::File::options().read(true).write(true).open(TUN) {
        Ok(_) => Ok(found),
        Err(error) => Err(Error::unsupported(
            "a network without root",
            format!("{TUN} cannot be opened ({error}); `chmod 666 {TUN}` as root is what most hosts have"),
        )),
    }
}

/// Connects the namespace of a process. Returns when the interface is there.
///
/// # Errors
/// [`Error::Program`] with what the program said.
pub fn start(
    (program, file): &(Program, PathBuf),
    runroot: &Path,
    container: &str,
    inside: &NetworkNamespace,
    ports: &[Published],
) -> Result<()> {
    let dir = runroot.join("networks/usermode");
    fs::create_dir_all(&dir).map_err(Error::io("make", &dir))?;
    let pid_file = dir.join(format!(".{container}.pid"));
    let place = Place::make(dir.join(format!(".{container}.net")), inside)?;
    let pid = match program {
        Program::Pasta => start_pasta(file, &pid_file, &place.0, ports)?,
        Program::Slirp4netns => start_slirp(file, &dir, container, &place.0, ports)?,
    };
    drop(place);
    let started = start_time(pid).ok_or_else(|| failed(*program, "it ended at once"))?;
    let record = UserMode { program: *program, pid, started, ports: ports.to_vec() };
    let bytes = serde_json::to_vec(&record).expect("plain values always serialise");
    let path = dir.join(container);
    let written = fs::write(&path, bytes).map_err(Error::io("write", &path));
    if written.is_err() {
        record.end();
    }
    written
}

/// A namespace in the tree of files: the programs drop what they would need to look at a process, and the
/// container's first one may not be looked at. The mount is in the caller's own mount namespace.
struct Place(PathBuf);

impl Place {
    fn make(path: PathBuf, inside: &NetworkNamespace) -> Result<Self> {
        fs::write(&path, "").map_err(Error::io("make", &path))?;
        let source = format!("/proc/self/fd/{}", inside.as_fd().as_raw_fd());
        let place = Self(path);
        rustix::mount::mount_bind(source, &place.0)
            .map_err(|errno| Error::io("mount the network namespace on", &place.0)(errno.into()))?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.0);
    }
}

fn start_pasta(file: &Path, pid_file: &Path, namespace: &Path, ports: &[Published]) -> Result<i32> {
    let mut command = Command::new(file);
    command.args(["--config-net", "--quiet", "--no-map-gw", "--mtu", MTU, "--ns-ifname", INTERFACE]);
    // What listens on one side's loopback is not for the other side.
    command.args(["--tcp-ns", "none", "--udp-ns", "none"]);
    for (flag, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let mut any = false;
        for port in ports.iter().filter(|port| port.protocol == protocol) {
            let address = match port.host_ip {
                address if address.is_unspecified() => String::new(),
                address => format!("{address}/"),
            };
            command.args([flag, &format!("{address}{}:{}", port.host_port, port.container_port)]);
            any = true;
        }
        if !any {
            command.args([flag, "none"]);
        }
    }
    // The path is gone in a moment; the namespace is not.
    command.arg("--no-netns-quit").arg("--pid").arg(pid_file).arg("--netns").arg(namespace);
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| failed(Program::Pasta, error.to_string()))?;
    let text = fs::read_to_string(pid_file);
    let _ = fs::remove_file(pid_file);
    if !output.status.success() {
        return Err(failed(Program::Pasta, words(&output.stderr)));
    }
    let pid = text.ok().and_then(|text| text.trim().parse().ok());
    pid.ok_or_else(|| failed(Program::Pasta, "it did not say which process it is"))
}

fn start_slirp(
    file: &Path,
    dir: &Path,
    container: &str,
    namespace: &Path,
    ports: &[Published],
) -> Result<i32> {
    let program = Program::Slirp4netns;
    // A path of a socket has at most 107 bytes.
    let socket = dir.join(format!(".{}.s", container.get(..12).unwrap_or(container)));
    let _ = fs::remove_file(&socket);
    let log_path = dir.join(format!(".{container}.log"));
    let log = fs::File::create(&log_path).map_err(Error::io("make", &log_path))?;
    let copy = log.try_clone().map_err(Error::io("copy", &log_path))?;
    let mut command = Command::new(file);
    command.args(["--configure", "--disable-host-loopback", "--mtu", MTU, "--api-socket"]).arg(&socket);
    command.arg("--netns-type=path").arg(namespace).arg(INTERFACE);
    let spawned = command.stdin(Stdio::null()).stdout(log).stderr(copy).spawn();
    let mut child = spawned.map_err(|error| failed(program, error.to_string()))?;
    let outcome = (|| {
        let begin = Instant::now();
        // The socket appears when the interface is configured.
        while !socket.exists() {
            let ended = child.try_wait().map_err(Error::system("wait for slirp4netns"))?;
            if ended.is_some() || begin.elapsed() > PATIENCE {
                return Err(failed(program, words(&fs::read(&log_path).unwrap_or_default())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        ports.iter().try_for_each(|port| forward(&socket, port))
    })();
    let _ = fs::remove_file(&log_path);
    let _ = fs::remove_file(&socket);
    if outcome.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome?;
    i32::try_from(child.id()).map_err(|_| failed(program, "its number is none"))
}

/// Asks slirp4netns for a port.
fn forward(socket: &Path, port: &Published) -> Result<()> {
    let program = Program::Slirp4netns;
    if port.protocol == Protocol::Sctp || port.host_ip.is_ipv6() {
        return Err(Error::unsupported(
            format!("publishing {} on {}", port.protocol, port.host_ip),
            "slirp4netns knows TCP and UDP of IPv4; pasta knows more",
        ));
    }
    let request = serde_json::json!({
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port.protocol.name(),
            "host_addr": port.host_ip.to_string(),
            "host_port": port.host_port,
            "guest_port": port.container_port,
        },
    });
    let asked = (|| -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.to_string().as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.take(64 << 10).read_to_string(&mut answer)?;
        Ok(answer)
    })();
    match asked {
        Ok(answer) if answer.contains("\"return\"") => Ok(()),
        Ok(answer) => Err(failed(program, answer)),
        Err(error) => Err(failed(program, error.to_string())),
    }
}

/// What connects a container, if anything does.
///
/// # Errors
/// [`Error::Io`]; a record that can't be read counts as none.
pub fn get(runroot: &Path, container: &str) -> Result<Option<UserMode>> {
    let path = runroot.join("networks/usermode").join(container);
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// The container that publishes a port, by its short ID. `state` is the directory of networks.
pub(crate) fn holder(state: &Path, wanted: &Published) -> Option<String> {
    let entries = fs::read_dir(state.join("usermode")).ok()?.flatten();
    entries.into_iter().find_map(|entry| {
        let record: UserMode = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
        let same = |port: &Published| {
            let any = port.host_ip.is_unspecified() || wanted.host_ip.is_unspecified();
            port.protocol == wanted.protocol
                && port.host_port == wanted.host_port
                && (any || port.host_ip == wanted.host_ip)
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        let alive = start_time(record.pid) == Some(record.started);
        (alive && record.ports.iter().any(same)).then(|| name.get(..12).unwrap_or(&name).to_owned())
    })
}

/// Ends what connected a container that has ended.
///
/// # Errors
/// [`Error::Io`].
pub fn release(runroot: &Path, container: &str) -> Result<()> {
    if let Some(record) = get(runroot, container)? {
        record.end();
    }
    let path = runroot.join("networks/usermode").join(container);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

impl UserMode {
    fn end(&self) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // The descriptor first: between a look and a signal the number could change hands.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if start_time(self.pid) == Some(self.started) {
            let _ = pidfd_send_signal(&process, Signal::TERM);
            // slirp4netns is a child of whoever started it.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    }
}

/// Addresses that the programs can publish on.
pub(crate) fn check_address(address: IpAddr, protocol: Protocol) -> Result<()> {
    if protocol == Protocol::Sctp {
        return Err(Error::unsupported(
            "publishing SCTP without root",
            format!("neither pasta nor slirp4netns forwards it to {address}"),
        ));
    }
    Ok(())
}

/// Field 22 of `/proc/PID/stat`.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn failed(program: Program, words: impl Into<String>) -> Error {
    Error::Program { program: program.name(), words: words.into() }
}

/// The lines of a program that say something.
fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Failed to send"))
        .collect();
    if lines.is_empty() { "it said nothing".into() } else { lines.join("; ") }
}
