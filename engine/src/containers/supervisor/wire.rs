//! What a supervisor says to those who are attached to its container, and to its own workers.
//!
//! ```text
//!   <runroot>/attach/<id>        a listening socket, SOCK_SEQPACKET, its owner's alone (0600, peer credentials)
//!
//!   one message: a first byte, and what follows it
//!   supervisor → client          client → supervisor
//!     H flags    first of all      A flags        what it wants: first of all
//!     S          the program runs  I bytes        for the program's standard input
//!     F s text   it could not      C              no more of those
//!     O bytes    standard output   W rows columns the size of its terminal, two u16
//!     E bytes    standard error    K number       a signal for the program
//!     X status   the program ended D              it leaves, and wants nothing closed for that
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The longest message, without its first byte: as much as is read at once.
pub(crate) const MAX_BODY: usize = 16 << 10;
/// The most descriptors of one message: the kernel takes 253.
pub(crate) const MAX_DESCRIPTORS: usize = 250;

/// First bytes, and their flags.
pub(crate) const HELLO: u8 = b'H';
pub(crate) const STARTED: u8 = b'S';
pub(crate) const FAILED: u8 = b'F';
pub(crate) const OUTPUT: u8 = b'O';
pub(crate) const ERROR: u8 = b'E';
pub(crate) const EXITED: u8 = b'X';
pub(crate) const ATTACH: u8 = b'A';
pub(crate) const INPUT: u8 = b'I';
pub(crate) const CLOSE: u8 = b'C';
pub(crate) const RESIZE: u8 = b'W';
pub(crate) const KILL: u8 = b'K';
pub(crate) const DETACH: u8 = b'D';

/// Of a hello: the program has a terminal.
pub(crate) const HAS_TERMINAL: u8 = 1;
/// Of a hello: its standard input is open.
pub(crate) const HAS_INPUT: u8 = 2;
/// Of an attach: bytes for standard input will come.
pub(crate) const WANTS_INPUT: u8 = 1;
/// Of an attach: it wants what the program writes.
pub(crate) const WANTS_OUTPUT: u8 = 2;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire(OwnedFd);

/// A received message.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u8,
    pub(crate) body: &'a [u8],
    pub(crate) fds: Vec<OwnedFd>,
}

impl Wire {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Both ends, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends a message, waiting for room.
    pub(crate) fn send(&self, kind: u8, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.put(kind, body, fds, SendFlags::NOSIGNAL)
    }

    /// Sends a message if there is room; `false` if there is none.
    pub(crate) fn try_send(&self, kind: u8, body: &[u8]) -> io::Result<bool> {
        match self.put(kind, body, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn put(&self, kind: u8, body: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOBIG.into());
        }
        let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(body)];
        loop {
            match sendmsg(&self.0, &parts, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                other => return other.map(drop).map_err(Into::into),
            }
        }
    }

    /// The next message, waiting for it; `None` at the end.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut Vec<u8>) -> io::Result<Option<Message<'a>>> {
        buffer.resize(MAX_BODY, 0);
        let mut first = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(buffer)];
            match recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                // The other end was closed with something of ours unread. That is said once, before what it had sent.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        Ok(Some(Message { kind: first[0], body: buffer.get(..received.bytes - 1).unwrap_or_default(), fds }))
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
