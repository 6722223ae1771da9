//! Ports of a container on `[::1]`. The kernel routes 127.0.0.1 to a bridge where it is asked to, but never
//! its loopback address of IPv6, so a small process takes these connections and makes others in
//! their place. The container sees the bridge's address as their source.
//!
//! ```text
//!   client ──► [::1]:port  relay ──► container's address:port     TCP: splice, nothing is copied to our memory
//!                                                                 UDP: a socket for each client
//! ```
//!
//! It has one thread and one poll, ends with the container's first process, and asks the container's
//! record for the address each time: a container that left the network isn't reached any more.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, connect, ipproto, listen, shutdown, socket_with,
    sockopt::{set_socket_reuseaddr, socket_error},
};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::companion;
use crate::endpoint::Endpoints;
use crate::error::{Error, Result};
use crate::port::{Protocol, Published, Reservation};

/// What waits to be accepted (as `SOMAXCONN` of old).
const BACKLOG: i32 = 128;
/// Connections at once; more wait. Each has six descriptors and at most 128 KiB of the kernel's memory.
const MAX_CONNECTIONS: usize = 512;
/// Clients of UDP at once; who was silent for longest gives way.
const MAX_CLIENTS: usize = 256;
/// How long a client of UDP may be silent (as Docker's proxy).
const SILENCE: Duration = Duration::from_secs(90);
/// What a pipe holds.
const CHUNK: usize = 64 << 10;
/// The longest message of UDP.
const MAX_UDP: usize = 64 << 10;

/// Whether a port is reached through a relay only.
pub(crate) fn is_needed(port: &Published) -> bool {
    is_relayed(port.host_ip)
}

/// The same of an address.
pub(crate) fn is_relayed(address: IpAddr) -> bool {
    address.is_ipv6() && address.is_loopback()
}

/// Whether the protocol can be relayed.
pub(crate) fn check(protocol: Protocol) -> Result<()> {
    if protocol == Protocol::Sctp {
        return Err(Error::unsupported(
            "publishing SCTP on [::1]",
            "only TCP and UDP are passed on from there; name another address of the host",
        ));
    }
    Ok(())
}

/// Starts the relay of these ports, if there are any.
pub(crate) fn start(
    ports: &[Reservation],
    files: &Endpoints,
    container: &str,
    first: BorrowedFd<'_>,
) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let kept: Vec<_> = ports.iter().map(|port| port.socket.as_fd()).chain([first]).collect();
    companion::start("start what passes on connections to [::1]", c"onggi: ports", &kept, || {
        let places = ports.iter().filter_map(|port| Place::open(port).ok()).collect();
        Relay { files, container, first, places, connections: Vec::new(), clients: Vec::new() }.run();
    })
}

/// A port that is relayed.
struct Place {
    published: Published,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Place {
    fn open(port: &Reservation) -> io::Result<Self> {
        let copy = port.socket.try_clone()?;
        let socket = if port.published.protocol == Protocol::Udp {
            let socket = UdpSocket::from(copy);
            socket.set_nonblocking(true)?;
            Socket::Udp(socket)
        } else {
            // Connections take this over: what is left of them doesn't keep the next one from the port.
            set_socket_reuseaddr(&copy, true)?;
            listen(&copy, BACKLOG)?;
            let listener = TcpListener::from(copy);
            listener.set_nonblocking(true)?;
            Socket::Tcp(listener)
        };
        Ok(Self { published: port.published, socket })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Udp(socket) => socket.as_fd(),
        }
    }
}

/// One direction of a connection.
struct Way {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes in the pipe.
    held: usize,
    /// Whether nothing more comes.
    ended: bool,
    /// Whether the other side was told so.
    told: bool,
}

impl Way {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { read, write, held: 0, ended: false, told: false })
    }

    /// Moves what can be moved now.
    fn pump(&mut self, from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            if self.held == 0 && !self.ended {
                match splice(from, None, &self.write, None, CHUNK, flags) {
                    Ok(0) => self.ended = true,
                    Ok(count) => self.held = count,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::INTR) => continue,
                    Err(errno) => return Err(errno.into()),
                }
            }
            while self.held > 0 {
                match splice(&self.read, None, to, None, self.held, flags) {
                    Ok(count) => self.held = self.held.saturating_sub(count),
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            if self.ended {
                if !self.told {
                    shutdown(to, Shutdown::Write)?;
                    self.told = true;
                }
                return Ok(());
            }
        }
    }
}

/// A connection, and the one that was made in its place.
struct Connection {
    client: OwnedFd,
    server: OwnedFd,
    /// Whether the second one is still being made.
    connecting: bool,
    /// Where else the container may answer.
    others: Vec<SocketAddr>,
    there: Way,
    back: Way,
}

impl Connection {
    fn begin(client: OwnedFd, mut targets: Vec<SocketAddr>) -> io::Result<Self> {
        let server = next_of(&mut targets)?;
        let (there, back) = (Way::new()?, Way::new()?);
        Ok(Self { client, server, connecting: true, others: targets, there, back })
    }

    /// What to wait for, of the client and of the server.
    fn events(&self) -> [PollFlags; 2] {
        if self.connecting {
            return [PollFlags::empty(), PollFlags::OUT];
        }
        let of = |reads: &Way, writes: &Way| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, reads.held == 0 && !reads.ended);
            events.set(PollFlags::OUT, writes.held > 0);
            events
        };
        [of(&self.there, &self.back), of(&self.back, &self.there)]
    }

    /// Goes on; whether there is more to come.
    fn go_on(&mut self) -> io::Result<bool> {
        if self.connecting {
            if socket_error(&self.server)?.is_err() {
                self.server = next_of(&mut self.others)?;
                return Ok(true);
            }
            self.connecting = false;
        }
        self.there.pump(&self.client, &self.server)?;
        self.back.pump(&self.server, &self.client)?;
        Ok(!(self.there.told && self.back.told))
    }
}

/// A connection that begins to the first of these places.
fn next_of(targets: &mut Vec<SocketAddr>) -> io::Result<OwnedFd> {
    if targets.is_empty() {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let target = targets.remove(0);
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(_) => next_of(targets),
    }
}

/// Who speaks UDP to one of the ports.
struct Client {
    place: usize,
    address: SocketAddr,
    /// Connected to the container.
    socket: UdpSocket,
    heard: Instant,
}

struct Relay<'a> {
    files: &'a Endpoints,
    container: &'a str,
    first: BorrowedFd<'a>,
    places: Vec<Place>,
    connections: Vec<Connection>,
    clients: Vec<Client>,
}

/// What something is ready of.
#[derive(Clone, Copy)]
enum Ready {
    End,
    Place(usize),
    Connection(usize),
    Client(usize),
}

impl Relay<'_> {
    fn run(mut self) {
        // A soft limit of 1024 is for programs that use select(2).
        let limit = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        let _ = onggi_sys::memory::forget_unused_pages();
        let mut buffer = vec![0; MAX_UDP];
        loop {
            let Ok(ready) = self.wait() else { return };
            let mut over = Vec::new();
            for one in ready {
                match one {
                    Ready::End => return,
                    Ready::Place(at) => self.arrive(at, &mut buffer),
                    Ready::Connection(at) => {
                        if !self.connections[at].go_on().unwrap_or_default() {
                            over.push(at);
                        }
                    }
                    Ready::Client(at) => self.answer(at, &mut buffer),
                }
            }
            over.dedup();
            for at in over.into_iter().rev() {
                self.connections.remove(at);
            }
            self.clients.retain(|client| client.heard.elapsed() < SILENCE);
        }
    }

    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut of = vec![Ready::End];
        let mut fds = vec![PollFd::from_borrowed_fd(self.first, PollFlags::IN)];
        let has_room = self.connections.len() < MAX_CONNECTIONS;
        for (at, place) in self.places.iter().enumerate() {
            if has_room || matches!(place.socket, Socket::Udp(_)) {
                of.push(Ready::Place(at));
                fds.push(PollFd::from_borrowed_fd(place.fd(), PollFlags::IN));
            }
        }
        for (at, one) in self.connections.iter().enumerate() {
            for (fd, events) in [&one.client, &one.server].into_iter().zip(one.events()) {
                // What nothing is wanted of would wake us for its end, again and again.
                if !events.is_empty() {
                    of.push(Ready::Connection(at));
                    fds.push(PollFd::new(fd, events));
                }
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            of.push(Ready::Client(at));
            fds.push(PollFd::new(&client.socket, PollFlags::IN));
        }
        let oldest = self.clients.iter().map(|client| client.heard).min();
        let left = oldest.map(|heard| SILENCE.saturating_sub(heard.elapsed()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
        let ready = of.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(one, _)| one).collect())
    }

    /// Where the container is now, the version of the client's first.
    fn targets(&self, at: usize) -> Vec<SocketAddr> {
        let Ok(Some(endpoint)) = self.files.get(self.container) else { return Vec::new() };
        let published = &self.places[at].published;
        if !endpoint.ports.contains(published) {
            return Vec::new();
        }
        let addresses = [endpoint.ipv6(), endpoint.ipv4()].into_iter().flatten();
        addresses.map(|address| SocketAddr::new(address, published.container_port)).collect()
    }

    /// Takes a connection, or all messages that are there.
    fn arrive(&mut self, at: usize, buffer: &mut [u8]) {
        if let Socket::Tcp(listener) = &self.places[at].socket {
            if let Ok((client, _)) = listener.accept()
                && client.set_nonblocking(true).is_ok()
                && let Ok(connection) = Connection::begin(client.into(), self.targets(at))
            {
                self.connections.push(connection);
            }
            return;
        }
        while let Socket::Udp(socket) = &self.places[at].socket
            && let Ok((length, address)) = socket.recv_from(buffer)
        {
            if let Some(client) = self.client(at, address) {
                let _ = client.socket.send(&buffer[..length]);
            }
        }
    }

    /// Who speaks from this address, known or new.
    fn client(&mut self, place: usize, address: SocketAddr) -> Option<&mut Client> {
        let known = self.clients.iter().position(|one| one.place == place && one.address == address);
        let at = known.or_else(|| self.new_client(place, address))?;
        let client = self.clients.get_mut(at)?;
        client.heard = Instant::now();
        Some(client)
    }

    fn new_client(&mut self, place: usize, address: SocketAddr) -> Option<usize> {
        // Nobody says whether he is heard, so it is the version that every container has.
        let target = *self.targets(place).last()?;
        let any: IpAddr =
            if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        socket.set_nonblocking(true).ok()?;
        let longest = self.clients.iter().enumerate().min_by_key(|(_, client)| client.heard);
        if let Some((silent, _)) = longest.filter(|_| self.clients.len() >= MAX_CLIENTS) {
            self.clients.swap_remove(silent);
        }
        self.clients.push(Client { place, address, socket, heard: Instant::now() });
        Some(self.clients.len() - 1)
    }

    /// Passes on what the container says to a client.
    fn answer(&mut self, at: usize, buffer: &mut [u8]) {
        // Somebody may have given way since the wait.
        let Some(client) = self.clients.get_mut(at) else { return };
        let Some(Socket::Udp(socket)) = self.places.get(client.place).map(|place| &place.socket) else {
            return;
        };
        // An error is told once: nothing listens there.
        while let Ok(length) = client.socket.recv(buffer) {
            client.heard = Instant::now();
            let _ = socket.send_to(&buffer[..length], client.address);
        }
    }
}
