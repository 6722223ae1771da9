//! Netlink, as far as networks of containers need it: one socket, requests in a buffer, answers.
//!
//! ```text
//!   nlmsghdr  length u32 │ type u16 │ flags u16 │ sequence u32 │ port u32
//!   payload   a fixed header of the family, then attributes
//!   attribute length u16 │ type u16 │ value, padded to 4      (a nest is an attribute whose value is attributes)
//! ```
//!
//! Several requests go out in one write and are answered in order, so that a container's interface
//! costs a handful of system calls and no helper program. Numbers of headers and of `route` are in
//! the host's byte order, those of `nft` in the network's.

pub(crate) mod nft;
pub(crate) mod route;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
/// A dump's datagram is at most this large (`NLMSG_GOODSIZE` is a page; the kernel goes up to 32 KiB).
const RECEIVE: usize = 64 << 10;

/// The kernel answers at once, but for locks that others hold.
const PATIENCE: Duration = Duration::from_secs(20);

/// A socket of one netlink family, in the network namespace in which it was made.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// One answer that is not an acknowledgement: its type and what follows the header.
#[derive(Debug)]
pub(crate) struct Answer {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Socket {
    /// For interfaces, addresses and routes of the current network namespace.
    pub(crate) fn open_route() -> io::Result<Self> {
        // NETLINK_ROUTE is 0.
        Self::open(None)
    }

    /// For nftables of the current network namespace.
    pub(crate) fn open_netfilter() -> io::Result<Self> {
        Self::open(Some(NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        rustix::net::sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { fd, sequence: 1 })
    }

    /// Sends all requests in one write and reads the answer to each; the index of the first that
    /// failed, with its error. All are tried by the kernel in any case.
    pub(crate) fn execute(&mut self, requests: &Requests) -> Result<(), (usize, io::Error)> {
        let first = self.send(requests).map_err(|error| (0, error))?;
        let mut waiting = requests.acknowledged();
        let mut failed: Option<(usize, io::Error)> = None;
        let mut buffer = vec![0; RECEIVE];
        while waiting > 0 {
            let length = self.receive(&mut buffer).map_err(|error| (0, error))?;
            for message in Messages(&buffer[..length]) {
                if message.kind != ERROR {
                    continue;
                }
                let index = message.sequence.wrapping_sub(first) as usize;
                waiting -= 1;
                let code = i32::from_ne_bytes(first_four(message.body));
                if code != 0 && failed.as_ref().is_none_or(|(other, _)| index < *other) {
                    failed = Some((index, io::Error::from_raw_os_error(-code)));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// A batch of nftables: it happens as a whole or not at all, and only failures are told. The
    /// index of the first message that failed.
    pub(crate) fn transact(&mut self, requests: &Requests) -> Result<(), (usize, io::Error)> {
        let first = self.send(requests).map_err(|error| (0, error))?;
        // The end of the frame is not answered; the change before it is.
        let last = first.wrapping_add(requests.count().saturating_sub(2));
        let mut failed: Option<(usize, io::Error)> = None;
        let mut buffer = vec![0; RECEIVE];
        loop {
            let length = self.receive(&mut buffer).map_err(|error| (0, error))?;
            for message in Messages(&buffer[..length]) {
                if message.kind != ERROR {
                    continue;
                }
                let index = message.sequence.wrapping_sub(first) as usize;
                let code = i32::from_ne_bytes(first_four(message.body));
                if code != 0 && failed.as_ref().is_none_or(|(other, _)| index < *other) {
                    failed = Some((index, io::Error::from_raw_os_error(-code)));
                }
                // Of the messages only the last that changes something asks for an answer; it
                // comes after those of all failures before it. A batch that can't begin gets one
                // answer alone.
                if message.sequence == last || (code != 0 && index == 0) {
                    return failed.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one request and gives all that comes until the end of a dump, or the single answer.
    pub(crate) fn ask(&mut self, requests: &Requests) -> io::Result<Vec<Answer>> {
        self.send(requests)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; RECEIVE];
        loop {
            let length = self.receive(&mut buffer)?;
            for message in Messages(&buffer[..length]) {
                match message.kind {
                    DONE => return Ok(answers),
                    ERROR => {
                        let code = i32::from_ne_bytes(first_four(message.body));
                        return if code == 0 {
                            Ok(answers)
                        } else {
                            Err(io::Error::from_raw_os_error(-code))
                        };
                    }
                    kind => answers.push(Answer { kind, body: message.body.to_vec() }),
                }
            }
        }
    }

    /// Stamps and sends; gives the sequence number of the first.
    fn send(&mut self, requests: &Requests) -> io::Result<u32> {
        let first = self.sequence;
        let mut bytes = requests.bytes.clone();
        for (number, &start) in (0_u32..).zip(&requests.starts) {
            let sequence = first.wrapping_add(number);
            bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        self.sequence = first.wrapping_add(requests.count());
        let to = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.fd, &bytes, SendFlags::empty(), &to)?;
        Ok(first)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok((length, _)) => return Ok(length),
            }
        }
    }
}

/// Requests to send together.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn count(&self) -> u32 {
        u32::try_from(self.starts.len()).unwrap_or(u32::MAX)
    }

    fn acknowledged(&self) -> usize {
        let asks = |start: &&usize| {
            u16::from_ne_bytes([self.bytes[**start + 6], self.bytes[**start + 7]]) & ACK != 0
        };
        self.starts.iter().filter(asks).count()
    }

    /// Adds a request: `fixed` is the family's own header.
    pub(crate) fn add(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend(fixed);
        pad(&mut self.bytes);
        fill(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Where attributes of a request are written.
#[derive(Debug)]
pub(crate) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        // Values are addresses, names and small structures.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        pad(self.0);
    }

    /// A string with the NUL that the kernel expects.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// A number in network byte order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes without an attribute's header: a structure inside a nest.
    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.0.extend(value);
        pad(self.0);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The attributes in `bytes`: type without flags, and value.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of one attribute.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A NUL-terminated string.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The first four bytes; zeros where there are fewer.
pub(crate) fn first_four(bytes: &[u8]) -> [u8; 4] {
    let mut four = [0; 4];
    for (to, from) in four.iter_mut().zip(bytes) {
        *to = *from;
    }
    four
}

struct Messages<'a>(&'a [u8]);

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.get(..HEADER)?;
        let length = usize::try_from(u32::from_ne_bytes(first_four(header))).ok()?;
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        Some(Message { kind, sequence: u32::from_ne_bytes(first_four(&header[8..])), body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let mut requests = Requests::new();
        requests.add(16, ACK, &[1, 2, 3, 4], |attributes| {
            attributes.text(3, "lo");
            attributes.nest(18, |inner| inner.u32(1, 7));
        });
        assert_eq!(requests.bytes.len(), 16 + 4 + 8 + 12);
        assert_eq!(first_four(&requests.bytes), 40_u32.to_ne_bytes());
        let found: Vec<_> = attributes(&requests.bytes[20..]).collect();
        assert_eq!(found[0], (3, &b"lo\0"[..]));
        assert_eq!(attribute(found[1].1, 1), Some(&7_u32.to_ne_bytes()[..]));
        assert_eq!(requests.acknowledged(), 1);
    }

    #[test]
    fn what_is_cut_off_ends_the_list() {
        for end in 0..12 {
            let bytes = [8, 0, 1, 0, 9, 9, 9, 9, 8, 0, 2, 0];
            assert!(attributes(&bytes[..end]).count() <= 1, "{end}");
        }
        // A length of less than its own header.
        assert_eq!(attributes(&[0, 0, 1, 0, 0, 0, 0, 0]).count(), 0);
        assert_eq!(Messages(&[0; 64]).count(), 0);
    }
}
