//! The message bus, as far as it takes to call the service manager: method calls and their answers, and one signal.
//!
//! ```text
//!  "\0AUTH EXTERNAL\r\nDATA\r\n" ──► ◄── "DATA\r\nOK …\r\n" ; "BEGIN\r\n" ──►     who we are the kernel says
//!
//!  a message   'l' kind flags 1 | length of body | serial | array of (field, variant) | padding to 8 | body
//! ```
//!
//! D-Bus Specification 0.43, "Message Protocol". Plain blocking I/O with a time limit: a library for
//! this brings an asynchronous runtime along, and `onggi oci` starts without any.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long the manager may take for an answer or a job. systemd's own limit for a call is 25 s.
const PATIENCE: Duration = Duration::from_secs(25);
/// The largest message that is read; the manager's are a few hundred bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// The longest line of the greeting.
const MAX_LINE: usize = 512;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Fields of a message's header.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A value with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    U64(u64),
    Text(String),
    Bytes(Vec<u8>),
    Numbers(Vec<u32>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::U64(_) => "t",
            Self::Text(_) => "s",
            Self::Bytes(_) => "ay",
            Self::Numbers(_) => "au",
        }
    }
}

/// A body that is being written. Everything is aligned to its own size, from the beginning of the body.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
}

impl Body {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: usize) {
        self.align(4);
        // Nothing here comes near the limit of a message, 128 MiB.
        self.bytes.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.number(usize::from(flag));
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array whose elements `fill` writes; they are aligned to `element`.
    pub(super) fn array(&mut self, element: usize, fill: impl FnOnce(&mut Self)) {
        self.number(0);
        let length = self.bytes.len() - 4;
        // The padding before the first element doesn't count.
        self.align(element);
        let start = self.bytes.len();
        fill(self);
        let count = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(length..length + 4) {
            place.copy_from_slice(&count.to_le_bytes());
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.flag(*value),
            Value::U64(value) => {
                self.align(8);
                self.bytes.extend(value.to_le_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Bytes(bytes) => self.array(1, |body| body.bytes.extend(bytes)),
            Value::Numbers(list) => self.array(4, |body| {
                for one in list {
                    body.bytes.extend(one.to_le_bytes());
                }
            }),
        }
    }

    /// `a(sv)`: names and values.
    pub(super) fn properties(&mut self, list: &[(&str, Value)]) {
        self.array(8, |body| {
            for (name, value) in list {
                body.align(8);
                body.text(name);
                body.variant(value);
            }
        });
    }
}

/// A body that is being read; what is missing or damaged is `None`.
struct Reading<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reading<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).ok()
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(*self.take(1)?.first()?);
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).ok()
    }
}

/// What was received.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    reply_to: Option<u32>,
    member: String,
    error: String,
    body: Vec<u8>,
}

/// An answer that is an error: its name and its words.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) name: String,
    pub(super) words: String,
}

/// A job of the service manager that is over.
#[derive(Debug)]
struct Job {
    path: String,
    result: String,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    address: String,
    serial: u32,
    /// Jobs that ended while something else was waited for.
    ended: Vec<Job>,
    until: Instant,
}

impl Bus {
    /// Connects to a bus by its address (D-Bus Specification, "Server Addresses"): `unix:path=…` or
    /// `unix:abstract=…`, several with semicolons.
    pub(super) fn connect(address: &str) -> Result<Self> {
        let failed = || Error::io("reach the bus at", address);
        let stream = open(address).map_err(failed())?;
        let set =
            stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        set.map_err(failed())?;
        let until = Instant::now() + PATIENCE;
        let mut bus = Self { stream, address: address.to_owned(), serial: 0, ended: Vec::new(), until };
        bus.greet().map_err(failed())?;
        bus.call(
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "Hello",
            "",
            &Body::default(),
        )?
        .map_err(|refusal| bus.refused("Hello", &refusal))?;
        Ok(bus)
    }

    fn greet(&mut self) -> io::Result<()> {
        // The server asks the kernel who we are; the empty DATA says that this is right.
        self.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\n")?;
        let mut accepted = false;
        while !accepted {
            let line = self.line()?;
            match line.split(' ').next() {
                Some("DATA") => {}
                Some("OK") => accepted = true,
                _ => return Err(io::Error::new(io::ErrorKind::PermissionDenied, line)),
            }
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.len() < MAX_LINE {
            self.stream.read_exact(&mut byte)?;
            if byte == [b'\n'] {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            line.push(byte[0]);
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Calls a method and waits for its answer: the body, or a refusal.
    pub(super) fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        body: &Body,
    ) -> Result<std::result::Result<Vec<u8>, Refusal>> {
        let address = self.address.clone();
        let failed = || Error::io("talk to the bus at", &address);
        self.serial += 1;
        let serial = self.serial;
        let mut message = Body { bytes: vec![b'l', CALL, 0, 1] };
        message.number(body.bytes.len());
        message.number(usize::try_from(serial).unwrap_or_default());
        message.array(8, |fields| {
            let texts = [
                (PATH, "o", path),
                (DESTINATION, "s", destination),
                (INTERFACE, "s", interface),
                (MEMBER, "s", member),
            ];
            for (field, kind, text) in texts {
                fields.align(8);
                fields.bytes.push(field);
                fields.signature(kind);
                fields.text(text);
            }
            if !signature.is_empty() {
                fields.align(8);
                fields.bytes.push(SIGNATURE);
                fields.signature("g");
                fields.signature(signature);
            }
        });
        message.align(8);
        message.bytes.extend(&body.bytes);
        self.until = Instant::now() + PATIENCE;
        self.stream.write_all(&message.bytes).map_err(failed())?;
        loop {
            let message = self.receive().map_err(failed())?;
            match message.kind {
                RETURN if message.reply_to == Some(serial) => return Ok(Ok(message.body)),
                ERROR if message.reply_to == Some(serial) => {
                    let words = Reading { bytes: &message.body, at: 0 }.text().unwrap_or_default().to_owned();
                    return Ok(Err(Refusal { name: message.error, words }));
                }
                _ => self.note(&message),
            }
        }
    }

    /// Waits for the end of a job, the answer of a call that began it: its result.
    pub(super) fn result_of(&mut self, answer: &[u8]) -> Result<String> {
        let damaged =
            || Error::io("talk to the bus at", &self.address)(io::Error::from(io::ErrorKind::InvalidData));
        let job = Reading { bytes: answer, at: 0 }.text().ok_or_else(damaged)?.to_owned();
        loop {
            if let Some(found) = self.ended.iter().position(|one| one.path == job) {
                return Ok(self.ended.swap_remove(found).result);
            }
            let message =
                self.receive().map_err(Error::io("wait for the service manager at", &self.address))?;
            self.note(&message);
        }
    }

    /// Keeps the end of a job; other signals are not for us.
    fn note(&mut self, message: &Message) {
        if message.kind != SIGNAL || message.member != "JobRemoved" {
            return;
        }
        let mut body = Reading { bytes: &message.body, at: 0 };
        let mut read = || {
            body.number()?;
            let path = body.text()?.to_owned();
            body.text()?;
            Some(Job { path, result: body.text()?.to_owned() })
        };
        self.ended.extend(read());
    }

    fn receive(&mut self) -> io::Result<Message> {
        if Instant::now() > self.until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let mut start = Reading { bytes: &head, at: 4 };
        let body = usize::try_from(start.number().ok_or_else(damaged)?).map_err(|_| damaged())?;
        start.number();
        let fields = usize::try_from(start.number().ok_or_else(damaged)?).map_err(|_| damaged())?;
        // One end of this socket is this host's, so bytes have its order.
        if head[0] != b'l' || body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(damaged());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest)?;
        let (fields, body) = (rest.get(..fields), rest.get(fields.next_multiple_of(8)..));
        let (fields, body) = (fields.ok_or_else(damaged)?, body.ok_or_else(damaged)?);
        let mut message = Message { kind: head[1], body: body.to_vec(), ..Message::default() };
        let mut reading = Reading { bytes: fields, at: 0 };
        while reading.at < fields.len() {
            reading.align(8);
            let Some(&[field]) = reading.take(1) else { break };
            let text = match reading.signature().ok_or_else(damaged)? {
                "u" => {
                    let number = reading.number().ok_or_else(damaged)?;
                    if field == REPLY_SERIAL {
                        message.reply_to = Some(number);
                    }
                    continue;
                }
                "s" | "o" => reading.text().ok_or_else(damaged)?,
                "g" => reading.signature().ok_or_else(damaged)?,
                _ => return Err(damaged()),
            };
            match field {
                MEMBER => text.clone_into(&mut message.member),
                ERROR_NAME => text.clone_into(&mut message.error),
                _ => {}
            }
        }
        Ok(message)
    }

    /// The error for a call that was refused.
    pub(super) fn refused(&self, call: &str, refusal: &Refusal) -> Error {
        Error::Refused {
            call: call.to_owned(),
            address: self.address.clone(),
            words: format!("{} ({})", refusal.words, refusal.name),
        }
    }
}

fn open(address: &str) -> io::Result<UnixStream> {
    let mut failure = io::Error::from(io::ErrorKind::Unsupported);
    for one in address.split(';') {
        let Some(pairs) = one.strip_prefix("unix:") else { continue };
        for pair in pairs.split(',') {
            let socket = match pair.split_once('=') {
                Some(("path", path)) => SocketAddr::from_pathname(unescaped(path)),
                Some(("abstract", name)) => SocketAddr::from_abstract_name(unescaped(name)),
                _ => continue,
            };
            match socket.and_then(|socket| UnixStream::connect_addr(&socket)) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

/// `%20` and so on.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped =
            digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_as_the_specification_has_it() {
        let mut body = Body::default();
        body.text("ab");
        body.properties(&[("M", Value::U64(1)), ("B", Value::Bool(true)), ("P", Value::Numbers(vec![7]))]);
        let expected: &[u8] = &[
            2, 0, 0, 0, b'a', b'b', 0, 0, // s
            57, 0, 0, 0, 0, 0, 0, 0, // the array: its length, padding to 8
            1, 0, 0, 0, b'M', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, // (s t)
            1, 0, 0, 0, b'B', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0, // (s b)
            1, 0, 0, 0, b'P', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, // (s au)
        ];
        let length = expected.len() - 16;
        assert_eq!(body.bytes[8..12], u32::try_from(length).unwrap().to_le_bytes());
        assert_eq!(body.bytes[16..], expected[16..]);
    }

    #[test]
    fn addresses() {
        assert_eq!(unescaped("/run/a%20b%"), "/run/a b%");
        assert_eq!(open("tcp:host=localhost,port=1").unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_eq!(open("unix:path=/no/such/socket").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn damaged_bodies_are_no_values() {
        for bytes in [&[][..], &[255, 255, 255, 255], &[4, 0, 0, 0, b'a'], &[1, 0, 0, 0, 0xff, 0]] {
            assert_eq!(Reading { bytes, at: 0 }.text(), None);
        }
    }
}
