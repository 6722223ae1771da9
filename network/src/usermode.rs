//! A network for a namespace without any right on the host's: a program turns the packets of a TAP
//! interface into connections of its own, which are the caller's.
//!
//! ```text
//!   container ── tap ── pasta (or slirp4netns) ── sockets of the caller ── the host's network
//!   <runroot>/networks/usermode/<container id>    which process it is, and what it publishes
//! ```
//!
//! `pasta` keeps addresses as they are, both ways: the container has the host's address, and whoever
//! connects to a published port is seen by his own. `slirp4netns` translates: the container has an address
//! of its own, and this host looks like the gateway to it, never like 127.0.0.1.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::address::Subnet;
use crate::bridge::configure_ports;
use crate::error::{Error, Result};
use crate::namespace::NetworkNamespace;
use crate::port::{Protocol, Published};

/// The largest packet that both programs pass: 64 KiB without an Ethernet header, in whole words.
/// Fewer packets are less work: ten times the throughput of 1500.
pub(crate) const MTU: u32 = 65520;
/// Where TAP interfaces come from.
const TUN: &str = "/dev/net/tun";
/// The addresses of an interface that only brings what is published: those of slirp4netns, and two
/// link-local ones for pasta.
const SLIRP: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 2, 100), Ipv4Addr::new(10, 0, 2, 2)];
const PASTA: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 77, 2), Ipv4Addr::new(169, 254, 77, 1)];
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

/// What a namespace gets of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its whole network: the interface `eth0` with an address and the default route.
    Whole,
    /// A way out for bridges, which ask for it by the default route.
    Uplink,
    /// Only what is published: the rest goes by the bridges.
    Ports,
}

impl Part {
    /// The name of the interface inside.
    fn interface(self) -> &'static str {
        match self {
            Self::Whole => "eth0",
            Self::Uplink => "uplink",
            Self::Ports => "ports0",
        }
    }
}

/// Connects a namespace for `container`, an ID. Returns when the interface is there.
///
/// # Errors
/// [`Error::Program`] with what the program said.
pub fn start(
    (program, file): &(Program, PathBuf),
    runroot: &Path,
    container: &str,
    inside: &NetworkNamespace,
    part: Part,
    ports: &[Published],
) -> Result<()> {
    let dir = runroot.join("networks/usermode");
    fs::create_dir_all(&dir).map_err(Error::io("make", &dir))?;
    let (pid_file, place) = unfinished(&dir, container);
    let place = Place::make(place, inside)?;
    let pid = match program {
        Program::Pasta => start_pasta(file, &pid_file, &place.0, part, ports)?,
        Program::Slirp4netns => start_slirp(file, &dir, container, &place.0, part, ports)?,
    };
    drop(place);
    let started = start_time(pid).ok_or_else(|| failed(*program, "it ended at once"))?;
    let record = UserMode { program: *program, pid, started, ports: ports.to_vec() };
    let bytes = serde_json::to_vec(&record).expect("plain values always serialise");
    let path = dir.join(container);
    let mut done = fs::write(&path, bytes).map_err(Error::io("write", &path));
    if done.is_ok() && part == Part::Ports {
        let [own, peer] = if *program == Program::Pasta { PASTA } else { SLIRP };
        let subnet = Subnet::containing(own.into(), if *program == Program::Pasta { 30 } else { 24 });
        done =
            subnet.and_then(|subnet| inside.inside(|| configure_ports(part.interface(), own, peer, subnet)));
    }
    if done.is_err() {
        record.end();
        let _ = fs::remove_file(&path);
    }
    done
}

/// What is there while a program starts: its process ID, and a place for the namespace.
fn unfinished(dir: &Path, container: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!(".{container}.pid")), dir.join(format!(".{container}.net")))
}

/// Ends a program whose start was killed, and removes what that left.
fn end_unfinished(dir: &Path, container: &str) {
    let (pid_file, place) = unfinished(dir, container);
    let text = fs::read_to_string(&pid_file).unwrap_or_default();
    if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw)
        && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
    {
        // The number may be another's by now; the program's own words name the file.
        let words = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let named = pid_file.as_os_str().as_bytes();
        if words.split(|byte| *byte == 0).any(|word| word == named) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    let _ = fs::remove_file(&pid_file);
    if place.exists() {
        drop(Place(place));
    }
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

fn start_pasta(
    file: &Path,
    pid_file: &Path,
    namespace: &Path,
    part: Part,
    ports: &[Published],
) -> Result<i32> {
    let mut command = Command::new(file);
    command.args(["--quiet", "--no-map-gw", "--ns-ifname", part.interface(), "--mtu", &MTU.to_string()]);
    if part == Part::Ports {
        let [own, peer] = PASTA.map(|address| address.to_string());
        command.args(["--address", &own, "--netmask", "30", "--gateway", &peer]);
        command.args(["--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"]);
    } else {
        command.arg("--config-net");
    }
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
    part: Part,
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
    command.args(["--disable-host-loopback", "--api-socket"]).arg(&socket);
    if part != Part::Ports {
        command.args(["--configure", "--mtu", &MTU.to_string()]);
    }
    command.arg("--netns-type=path").arg(namespace).arg(part.interface());
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

/// Whether this host has a way out itself: without one neither program finds an interface to copy.
pub fn host_has_default_route() -> bool {
    let text = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    // Interface, destination, ...; and destination, its prefix, ..., interface.
    let four =
        text("route").lines().skip(1).any(|line| line.split_ascii_whitespace().nth(1) == Some("00000000"));
    let is_default = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words.next().is_some_and(|to| to.bytes().all(|digit| digit == b'0'))
            && words.next() == Some("00")
            && words.next_back() != Some("lo")
    };
    four || text("ipv6_route").lines().any(is_default)
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
    let dir = runroot.join("networks/usermode");
    match get(runroot, container)? {
        Some(record) => record.end(),
        None => end_unfinished(&dir, container),
    }
    let path = dir.join(container);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

impl UserMode {
    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    fn end(&self) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // The descriptor first: between a look and a signal the number could change hands.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if start_time(self.pid) == Some(self.started) {
            // A supervisor's children inherit its mask of signals, and neither program has anything to
            // clear up.
            let _ = pidfd_send_signal(&process, Signal::KILL);
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

/// The same of a container on bridges, which the program reaches by IPv4, or by its loopback.
pub(crate) fn check_bridged(address: IpAddr, protocol: Protocol) -> Result<()> {
    if address.is_ipv6() && !address.is_loopback() {
        return Err(Error::unsupported(
            format!("publishing on {address} without root"),
            "in networks with bridges ports are published on addresses of IPv4 and on [::1]",
        ));
    }
    check_address(address, protocol)
}

/// Field 22 of `/proc/PID/stat`; `None` of a process that has ended.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    // The state was field 3.
    fields.nth(18).filter(|_| !is_zombie)?.parse().ok()
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
