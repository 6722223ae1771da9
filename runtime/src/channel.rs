//! The socket between the parent and the container's first process.
//!
//! A `SOCK_SEQPACKET` pair: one message is one record, a first byte and what
//! follows, at most one descriptor with it.
//!
//! ```text
//!  parent → child   M            ids are mapped, cgroups joined
//!                   R  +fd       the root filesystem, a detached mount
//!                   G            go on (hooks are done)
//!  child → parent   P  +fd       the terminal's master side
//!                   N  +fd       the seccomp notification descriptor
//!                   H            mounts are in place: time for the hooks
//!                   I  +fd       pid and pidfd of a process in the container
//!                   C            created: it waits for the start
//!                   T  +fd       a mount of a running container
//!                   E  json      a report; the child ends
//!  end of file                   the program runs (all is close-on-exec)
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ExecProblem, Stage};

/// The longest message: a report with two long paths in it.
const MAX_MESSAGE: usize = 16 << 10;

/// First bytes.
pub(crate) const MAPPED: u8 = b'M';
pub(crate) const ROOT: u8 = b'R';
pub(crate) const GO: u8 = b'G';
pub(crate) const PTY: u8 = b'P';
pub(crate) const NOTIFY: u8 = b'N';
pub(crate) const HOOKS: u8 = b'H';
pub(crate) const CHILD: u8 = b'I';
pub(crate) const CREATED: u8 = b'C';
pub(crate) const TREE: u8 = b'T';
pub(crate) const REPORT: u8 = b'E';

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// A received record.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
    pub(crate) fd: Option<OwnedFd>,
}

/// What went wrong in the child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Setup { stage: Stage, object: String, errno: i32 },
    Exec(ExecProblem),
    Hook { stage: String, index: usize, path: std::path::PathBuf, why: String },
}

impl Report {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Setup { stage, object, errno } => {
                Error::Setup { stage, object, source: io::Error::from_raw_os_error(errno) }
            }
            Self::Exec(problem) => Error::Exec { problem },
            Self::Hook { stage, index, path, why } => {
                let known = ["createContainer", "startContainer"];
                let stage = known.into_iter().find(|name| *name == stage).unwrap_or("container");
                Error::Hook { stage, index, path, why }
            }
        }
    }
}

impl Channel {
    /// Both ends, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(a), Self(b)))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn send(&self, kind: u8, body: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(body)];
        loop {
            match sendmsg(&self.0, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                other => return other.map(|_| ()).map_err(Into::into),
            }
        }
    }

    /// The next record; `None` at the end of file.
    pub(crate) fn receive(&self) -> io::Result<Option<Message>> {
        let mut first = [0];
        let mut body = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut body)];
            match recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                // The other end was closed with something of ours unread. That is said once, before what it had sent.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        body.truncate(received.bytes - 1);
        Ok(Some(Message { kind: first[0], body, fd }))
    }

    /// Whether nobody holds the other end: its process has ended.
    pub(crate) fn is_abandoned(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut ends = [PollFd::new(&self.0, PollFlags::empty())];
        poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(ends[0].revents().contains(PollFlags::HUP))
    }

    /// Waits for one kind of record; anything else, also the end, is an error.
    pub(crate) fn expect(&self, kind: u8) -> io::Result<Message> {
        match self.receive()? {
            Some(message) if message.kind == kind => Ok(message),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Sends a report, as well as it goes.
    pub(crate) fn report(&self, report: &Report) {
        let body = serde_json::to_vec(report).unwrap_or_default();
        let _ = self.send(REPORT, body.get(..MAX_MESSAGE - 1).unwrap_or(&body), None);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_arrives_though_something_was_sent_to_who_had_ended() {
        let (parent, child) = Channel::pair().unwrap();
        child.report(&Report::Setup { stage: Stage::Attach, object: "/dev".into(), errno: 5 });
        parent.send(ROOT, &[], None).unwrap();
        drop(child);
        assert_eq!(parent.receive().unwrap().unwrap().kind, REPORT);
        assert!(parent.receive().unwrap().is_none());
    }
}
