//! Those who are attached to a container, from the supervisor's side.
//!
//! Nothing here waits. What a client does not take yet is kept for it, and as long as there is any of
//! that nothing more is read from the program: as in a pipe, a program waits for who reads it. Its log
//! waits for nobody.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::wire::{ATTACH, MAX_BODY, WANTS_INPUT, WANTS_OUTPUT, Wire};

/// One that is attached.
#[derive(Debug)]
pub(super) struct Client {
    wire: Wire,
    queue: VecDeque<(u8, Vec<u8>)>,
    /// Whether it wants what the program writes.
    pub(super) output: bool,
    /// Whether its end closes the program's input, where that is open once only.
    pub(super) input: bool,
    /// Whether it is gone.
    pub(super) gone: bool,
}

/// What a client said.
#[derive(Debug)]
pub(super) enum Said {
    /// What it wants was noted.
    Nothing,
    /// One message.
    Message(u8),
    /// It is gone.
    Gone,
}

impl Client {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { wire: Wire::new(fd), queue: VecDeque::new(), output: false, input: false, gone: false }
    }

    /// One that need not say what it wants.
    pub(super) fn known(wire: Wire, input: bool, output: bool) -> Self {
        Self { wire, queue: VecDeque::new(), output, input, gone: false }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }

    /// Whether there is something that it did not take yet.
    pub(super) fn is_behind(&self) -> bool {
        !self.queue.is_empty() && !self.gone
    }

    /// Says something, now or when it has room.
    pub(super) fn tell(&mut self, kind: u8, body: &[u8]) {
        if self.gone {
            return;
        }
        if self.queue.is_empty() {
            match self.wire.try_send(kind, body) {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        self.queue.push_back((kind, body.to_vec()));
    }

    /// Says what had to wait.
    pub(super) fn flush(&mut self) {
        while let Some((kind, body)) = self.queue.front() {
            match self.wire.try_send(*kind, body) {
                Ok(true) => drop(self.queue.pop_front()),
                Ok(false) => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// Takes one message, whose body is left in `buffer`.
    pub(super) fn hear(&mut self, buffer: &mut Vec<u8>) -> io::Result<Said> {
        let (kind, length) = match self.wire.receive(buffer)? {
            None => return Ok(Said::Gone),
            Some(message) if message.kind == ATTACH => {
                let flags = message.body.first().copied().unwrap_or_default();
                self.input = flags & WANTS_INPUT != 0;
                self.output = flags & WANTS_OUTPUT != 0;
                return Ok(Said::Nothing);
            }
            Some(message) => (message.kind, message.body.len()),
        };
        buffer.truncate(length.min(MAX_BODY));
        Ok(Said::Message(kind))
    }
}
