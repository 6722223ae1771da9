//! The resolver of one container: a small process that answers on 127.0.0.11, inside the container's
//! network namespace, and reads who is there from the files of [`endpoint`](crate::endpoint).
//!
//! ```text
//!   container ──UDP, TCP──► 127.0.0.11:53 ─rule─► a port of the resolver's ──► a name of its networks? ──► answer
//!                                   (sockets of the container's namespace)      │ no
//!                                                                               └──► the host's servers, from
//!                                                                                    the host's namespace
//! ```
//!
//! The process ends with the container's first one, whoever else is killed: it waits for a pidfd.
//! What a container asks is parsed by `hickory-proto` and bounded here; answers from outside go
//! through as they are.

mod answer;
mod forward;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::companion;
use crate::error::{Error, Result};
use crate::namespace::NetworkNamespace;
use crate::port::Protocol;
use crate::ruleset;
use answer::{Names, Reply};
use forward::{Pending, Servers};

pub use forward::read_servers;

/// Where a container finds its resolver (as Docker's).
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
/// A message of UDP is at most this long with any sensible EDNS.
const MAX_UDP: usize = 4096;
/// Queries that wait for an answer from outside; the oldest gives way.
const MAX_PENDING: usize = 256;

/// What a resolver has to know.
#[derive(Clone, Debug)]
pub struct ResolverWish {
    /// The store.
    pub root: PathBuf,
    /// The store's volatile files.
    pub runroot: PathBuf,
    /// The container.
    pub container: String,
    /// Servers to ask in place of those of the host's `resolv.conf`.
    pub servers: Vec<std::net::IpAddr>,
}

/// Starts the resolver of a container, in a process of its own that nobody has to wait for.
/// `first` is the pidfd of the container's first process.
///
/// The calling process must have one thread.
///
/// # Errors
/// [`Error::System`], also if something listens there already.
pub fn start(wish: ResolverWish, inside: &NetworkNamespace, first: BorrowedFd<'_>) -> Result<()> {
    let address = SocketAddr::from((RESOLVER, PORT));
    let (udp, tcp) = inside.inside(|| {
        // Without it the address can't be had; the container's first process does the same later.
        onggi_sys::link::loopback_up()
            .map_err(Error::system("bring up the container's loopback interface"))?;
        listen(address).map_err(Error::system("listen on 127.0.0.11:53 in the container"))
    })?;
    companion::start(
        "start the container's resolver",
        c"onggi: resolver",
        &[udp.as_fd(), tcp.as_fd(), first],
        || serve(wish, &udp, &tcp, first),
    )
}

/// Where the container's questions arrive. The ports are any, so that a program of the container may have
/// port 53 on all addresses; a rule leads there. Without such rules in this kernel it is port 53.
fn listen(address: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let any = SocketAddr::new(address.ip(), 0);
    let (udp, tcp) = (UdpSocket::bind(any)?, TcpListener::bind(any)?);
    let ports = [(Protocol::Udp, udp.local_addr()?.port()), (Protocol::Tcp, tcp.local_addr()?.port())];
    match ruleset::redirect_names(address, &ports) {
        Ok(()) => Ok((udp, tcp)),
        Err(_) => Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?)),
    }
}

/// Answers until the container's first process ends.
fn serve(wish: ResolverWish, udp: &UdpSocket, tcp: &TcpListener, first: BorrowedFd<'_>) {
    if udp.set_nonblocking(true).is_err() {
        return;
    }
    let mut names = Names::new(&wish);
    let mut servers = Servers::new(wish.servers.clone());
    let for_tcp = forward::Connections::new(wish);
    // Connections may take their time; each has a thread.
    if tcp.set_nonblocking(true).is_err() {
        return;
    }
    let mut pending: Vec<Pending> = Vec::new();
    let mut buffer = vec![0; MAX_UDP];
    loop {
        let ready = wait(udp, tcp, first, &pending);
        if ready.ended {
            return;
        }
        if ready.tcp
            && let Ok((stream, _)) = tcp.accept()
        {
            for_tcp.handle(stream);
        }
        for (waiting, answered) in pending.iter_mut().zip(&ready.answered) {
            if *answered {
                waiting.receive(udp, &mut buffer);
            }
        }
        let now = Instant::now();
        for waiting in &mut pending {
            waiting.check(now, servers.all(), udp);
        }
        pending.retain(|waiting| !waiting.done);
        // Everything that is there: a burst must not overflow the socket's queue.
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            let query = &buffer[..length];
            match names.answer(query, Some(MAX_UDP)) {
                Reply::Answer(bytes) => {
                    let _ = udp.send_to(&bytes, client);
                }
                Reply::Forward => {
                    if pending.len() >= MAX_PENDING {
                        pending.remove(0);
                    }
                    pending.extend(Pending::begin(query, client, servers.all(), udp));
                }
                Reply::Ignore => {}
            }
        }
    }
}

#[derive(Default)]
struct Ready {
    ended: bool,
    tcp: bool,
    answered: Vec<bool>,
}

/// Waits for anything to happen.
fn wait(udp: &UdpSocket, tcp: &TcpListener, first: BorrowedFd<'_>, pending: &[Pending]) -> Ready {
    let mut list = vec![
        PollFd::from_borrowed_fd(first, PollFlags::IN),
        PollFd::new(tcp, PollFlags::IN),
        PollFd::new(udp, PollFlags::IN),
    ];
    list.extend(pending.iter().map(|waiting| PollFd::new(waiting.socket(), PollFlags::IN)));
    let soonest = pending.iter().map(|waiting| waiting.deadline).min();
    let timeout = soonest.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
    match poll(&mut list, timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ready::default(),
        Err(_) => return Ready { ended: true, ..Ready::default() },
    }
    let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    Ready {
        ended: is_ready(&list[0]),
        tcp: is_ready(&list[1]),
        answered: list[3..].iter().map(is_ready).collect(),
    }
}

/// A descriptor of a process, for whoever has only its number.
///
/// # Errors
/// [`Error::System`] if there is no such process.
pub fn pidfd(process: rustix::process::Pid) -> Result<OwnedFd> {
    rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())
        .map_err(Error::system("look at the container's first process"))
}
