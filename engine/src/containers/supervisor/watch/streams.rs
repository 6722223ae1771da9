//! What a program reads and writes: its output to the log and to those who are attached, their input to it.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use super::Supervisor;
use crate::containers::supervisor::client::Said;
use crate::containers::supervisor::wire::{
    CLOSE, DETACH, ERROR, EXITED, HAS_INPUT, HAS_TERMINAL, INPUT, KILL, MAX_BODY, OUTPUT, RESIZE,
};
use crate::logs::Stream;

/// End of transmission: what a user types at the end.
const END_OF_INPUT: u8 = 4;

/// What goes to a program.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) fd: Option<OwnedFd>,
    pub(super) pending: Vec<u8>,
    /// Close it when that is written.
    pub(super) closing: bool,
}

impl Supervisor<'_> {
    /// Tells everybody that the program has ended. Whoever wants to hear of the next one comes again.
    pub(super) fn dismiss(&mut self, code: u8) {
        self.tell_all(EXITED, &[code]);
        for client in &mut self.clients {
            client.output = false;
            client.input = false;
        }
    }

    pub(super) fn tell_all(&mut self, kind: u8, body: &[u8]) {
        for client in &mut self.clients {
            client.tell(kind, body);
        }
    }

    pub(super) fn flags(&self) -> u8 {
        let terminal = if self.facts.terminal { HAS_TERMINAL } else { 0 };
        terminal | if self.input.fd.is_some() { HAS_INPUT } else { 0 }
    }

    /// Reads once what the program wrote.
    pub(super) fn carry(&mut self, at: usize) {
        let Some(program) = &mut self.program else { return };
        let Some(fd) = program.output.get(at).and_then(Option::as_ref) else { return };
        let mut bytes = [0; MAX_BODY];
        match rustix::io::read(fd, &mut bytes) {
            // EIO: nobody has the other side of the terminal any more.
            Ok(0) | Err(Errno::IO) => {
                if let Some(slot) = program.output.get_mut(at) {
                    *slot = None;
                }
            }
            Ok(count) => {
                let bytes = bytes.get(..count).unwrap_or_default();
                let (stream, kind) = if at == 0 { (Stream::Stdout, OUTPUT) } else { (Stream::Stderr, ERROR) };
                // The writer counts what it could not write, and says so in the log.
                let _ = self.log.write(stream, bytes);
                for client in self.clients.iter_mut().filter(|client| client.output) {
                    client.tell(kind, bytes);
                }
            }
            Err(_) => {}
        }
    }

    /// The same if there is anything; whether there was.
    pub(super) fn carry_what_is_there(&mut self, at: usize) -> bool {
        let Some(fd) = self.program.as_ref().and_then(|program| program.output.get(at)?.as_ref()) else {
            return false;
        };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let there = poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::IN);
        if there {
            self.carry(at);
        }
        there
    }

    /// Takes one message of a client.
    pub(super) fn hear(&mut self, at: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let said = self.clients.get_mut(at).map_or(Ok(Said::Gone), |client| client.hear(&mut buffer));
        match said {
            Ok(Said::Message(INPUT)) => {
                if self.input.fd.is_some() && !self.input.closing {
                    self.input.pending.extend_from_slice(&buffer);
                    self.feed();
                }
            }
            Ok(Said::Message(CLOSE)) => self.input_ends(at),
            Ok(Said::Message(RESIZE)) => self.resize(&buffer),
            Ok(Said::Message(KILL)) => {
                if let [number, ..] = buffer[..] {
                    self.signal(i32::from(number));
                }
            }
            Ok(Said::Message(DETACH)) => {
                if let Some(client) = self.clients.get_mut(at) {
                    client.input = false;
                    client.gone = true;
                }
            }
            Ok(Said::Message(_) | Said::Nothing) => {}
            Ok(Said::Gone) | Err(_) => {
                self.input_ends(at);
                if let Some(client) = self.clients.get_mut(at) {
                    client.gone = true;
                }
            }
        }
        self.buffer = buffer;
    }

    /// A client that fed the program has no more.
    fn input_ends(&mut self, at: usize) {
        let fed = self.clients.get_mut(at).is_some_and(|client| std::mem::take(&mut client.input));
        if fed && self.facts.input_once {
            if self.facts.terminal {
                self.input.pending.push(END_OF_INPUT);
            } else {
                self.input.closing = true;
            }
            self.feed();
        }
    }

    fn resize(&self, body: &[u8]) {
        let Some(terminal) = self.program.as_ref().and_then(|program| program.output[0].as_ref()) else {
            return;
        };
        if let [a, b, c, d] = *body
            && self.facts.terminal
        {
            let (rows, columns) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = tcsetwinsize(terminal, size);
        }
    }

    /// Gives the program what it takes of its input.
    pub(super) fn feed(&mut self) {
        let input = &mut self.input;
        let Some(fd) = &input.fd else {
            input.pending.clear();
            return;
        };
        while !input.pending.is_empty() {
            match rustix::io::write(fd, &input.pending) {
                Ok(count) => drop(input.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads any more.
                Err(_) => {
                    *input = Input::default();
                    return;
                }
            }
        }
        if input.closing {
            *input = Input::default();
        }
    }
}

pub(super) fn never_wait(fd: &OwnedFd) -> rustix::io::Result<()> {
    fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)
}
