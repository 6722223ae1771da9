//! Questions that others answer: the host's name servers, asked from the host's network.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::ResolverWish;
use super::answer::{Names, Reply};

/// How long one server has for an answer: below the five seconds of a usual client.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each server is asked.
const ROUNDS: usize = 2;
/// More servers are not asked (as the C library).
const MAX_SERVERS: usize = 3;
/// An idle connection ends.
const IDLE: Duration = Duration::from_secs(10);
/// Connections of a container at the same time.
const MAX_CONNECTIONS: usize = 32;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers to ask.
#[derive(Debug)]
pub(super) struct Servers {
    fixed: bool,
    list: Vec<IpAddr>,
    read: Option<SystemTime>,
}

impl Servers {
    pub(super) fn new(list: Vec<IpAddr>) -> Self {
        Self { fixed: !list.is_empty(), list, read: None }
    }

    /// Those that were given, or those that the host has now.
    pub(super) fn all(&mut self) -> &[IpAddr] {
        if !self.fixed {
            let now = fs::metadata(RESOLV_CONF).and_then(|data| data.modified()).ok();
            if now != self.read || self.list.is_empty() {
                self.list = read_servers(Path::new(RESOLV_CONF));
                self.read = now;
            }
        }
        &self.list
    }
}

/// The name servers of a `resolv.conf`; the local one if it names none (resolv.conf(5)).
pub fn read_servers(path: &Path) -> Vec<IpAddr> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        // A zone (fe80::1%eth0) is not an address that std understands.
        words.next()?.parse().ok()
    };
    let mut list: Vec<IpAddr> = text.lines().filter_map(server).take(MAX_SERVERS).collect();
    if list.is_empty() {
        list.push(Ipv4Addr::LOCALHOST.into());
    }
    list
}

/// A question that was asked outside.
#[derive(Debug)]
pub(super) struct Pending {
    query: Vec<u8>,
    client: SocketAddr,
    socket: UdpSocket,
    asked: usize,
    pub(super) deadline: Instant,
    pub(super) done: bool,
}

impl Pending {
    /// Asks the first server that takes the question; the client hears of a failure.
    pub(super) fn begin(
        query: &[u8],
        client: SocketAddr,
        servers: &[IpAddr],
        udp: &UdpSocket,
    ) -> Option<Self> {
        let (asked, socket) = ask(query, servers, 0).or_else(|| {
            fail(query, client, udp);
            None
        })?;
        let deadline = Instant::now() + PATIENCE;
        Some(Self { query: query.into(), client, socket, asked, deadline, done: false })
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Hands an answer on.
    pub(super) fn receive(&mut self, udp: &UdpSocket, buffer: &mut [u8]) {
        match self.socket.recv(buffer) {
            // The socket is connected: only the server's own datagrams come here.
            Ok(length) if length >= 2 && buffer[..2] == self.query[..2] => {
                let _ = udp.send_to(&buffer[..length], self.client);
                self.done = true;
            }
            Ok(_) => {}
            // Nobody listens there: the next one.
            Err(_) => self.deadline = Instant::now(),
        }
    }

    /// Asks the next server if this one took too long.
    pub(super) fn check(&mut self, now: Instant, servers: &[IpAddr], udp: &UdpSocket) {
        if self.done || now < self.deadline {
            return;
        }
        if let Some((asked, socket)) = ask(&self.query, servers, self.asked) {
            self.socket = socket;
            self.asked = asked;
            self.deadline = now + PATIENCE;
        } else {
            fail(&self.query, self.client, udp);
            self.done = true;
        }
    }
}

/// Asks from the `start`th try on; the number of tries so far, and where the answer comes.
fn ask(query: &[u8], servers: &[IpAddr], start: usize) -> Option<(usize, UdpSocket)> {
    (start..servers.len() * ROUNDS).find_map(|number| {
        let server = SocketAddr::new(*servers.get(number % servers.len())?, super::PORT);
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(server).ok()?;
        socket.send(query).ok()?;
        Some((number + 1, socket))
    })
}

/// Tells the client that nobody answered (SERVFAIL), in the frame of its own question.
fn fail(query: &[u8], client: SocketAddr, udp: &UdpSocket) {
    let _ = udp.send_to(&failure(query), client);
}

fn failure(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    if let Some(flags) = answer.get_mut(2..4) {
        // A response to the same question; recursion is available; 2 is SERVFAIL (RFC 1035, 4.1.1).
        flags[0] |= 0x80;
        flags[1] = 0x82;
    }
    answer
}

/// Connections by TCP, each in a thread: they are rare.
#[derive(Debug)]
pub(super) struct Connections {
    wish: Arc<ResolverWish>,
    open: Arc<AtomicUsize>,
}

impl Connections {
    pub(super) fn new(wish: ResolverWish) -> Self {
        Self { wish: Arc::new(wish), open: Arc::default() }
    }

    /// Serves a connection, unless there are too many.
    pub(super) fn handle(&self, stream: TcpStream) {
        if self.open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (wish, open) = (Arc::clone(&self.wish), Arc::clone(&self.open));
        let thread = std::thread::Builder::new().spawn(move || {
            let _ = converse(stream, &wish);
            open.fetch_sub(1, Ordering::Relaxed);
        });
        if thread.is_err() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Question and answer until the client has no more.
fn converse(mut stream: TcpStream, wish: &ResolverWish) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut names = Names::new(wish);
    let mut servers = Servers::new(wish.servers.clone());
    loop {
        let query = read_message(&mut stream)?;
        let answer = match names.answer(&query, None) {
            Reply::Answer(bytes) => bytes,
            Reply::Forward => ask_by_tcp(&query, servers.all()).unwrap_or_else(|| failure(&query)),
            Reply::Ignore => return Ok(()),
        };
        write_message(&mut stream, &answer)?;
    }
}

fn ask_by_tcp(query: &[u8], servers: &[IpAddr]) -> Option<Vec<u8>> {
    servers.iter().find_map(|server| {
        let mut stream = TcpStream::connect_timeout(&(*server, super::PORT).into(), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write_message(&mut stream, query).ok()?;
        read_message(&mut stream).ok().filter(|answer| answer.get(..2) == query.get(..2))
    })
}

/// A message with its length before it (RFC 1035, 4.2.2).
fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        assert_eq!(read_servers(&path), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        fs::write(&path, "# x\nnameserver 10.0.0.1 # y\nsearch a\nnameserver bad\nnameserver ::1\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n").unwrap();
        assert_eq!(read_servers(&path).len(), 3);
        assert_eq!(failure(&[0, 7, 1, 0, 0, 1]), [0, 7, 0x81, 0x82, 0, 1]);
        assert_eq!(failure(&[0]), [0]);
    }
}
