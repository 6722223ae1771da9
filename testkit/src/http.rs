//! A very small HTTP/1.1 server: a thread for each connection, so that a test can break, stall or
//! falsify any byte of an answer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A request as it came in.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The method.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query, unescaped, in order.
    pub query: Vec<(String, String)>,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Bytes of the body that came.
    pub body_len: u64,
}

impl Record {
    /// The first value of a parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Request {
    pub(crate) record: Record,
    pub(crate) body: Vec<u8>,
    /// The body broke off, or the server was told to break it off.
    pub(crate) broken: bool,
}

/// How the body of an answer goes out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Close the connection after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Fall silent after so many bytes of the body.
    pub(crate) stall: Option<usize>,
    /// So many bytes at a time, and a pause after each.
    pub(crate) drip: Option<(usize, Duration)>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// `Content-Length`, if it is not the body's.
    pub(crate) length: Option<u64>,
    pub(crate) pace: Pace,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), length: None, pace: Pace::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The errors envelope of the distribution specification.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Self::new(status).header("content-type", "application/json").body(body.to_string())
    }
}

/// What serves requests.
pub(crate) trait Service: Send + Sync + 'static {
    fn serve(&self, request: Request) -> Answer;
    /// How many bytes of this request's body to read before the connection is closed.
    fn cut_body(&self, record: &Record) -> Option<usize>;
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(service: Arc<dyn Service>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(stream), service, stop) = (stream, Arc::clone(&service), Arc::clone(&stop)) else {
                    continue;
                };
                std::thread::spawn(move || {
                    let _ = converse(&stream, service.as_ref(), &stop);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, stopped }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn converse(stream: &TcpStream, service: &dyn Service, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(mut record) = head(&mut reader)? {
        let limit = service.cut_body(&record);
        let (body, broken) = body(&mut reader, &record, limit)?;
        record.body_len = body.len() as u64;
        let is_head = record.method == "HEAD";
        let answer = service.serve(Request { record, body, broken });
        if broken {
            return Ok(());
        }
        if !send(stream, &answer, is_head, stop)? {
            return Ok(());
        }
    }
    Ok(())
}

fn head(reader: &mut impl BufRead) -> std::io::Result<Option<Record>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    let text = String::from_utf8_lossy(&line).into_owned();
    let mut words = text.split_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        // Not HTTP (a TLS handshake, say): hang up, as a plain server does.
        return Ok(None);
    };
    if !version.starts_with("HTTP/") {
        return Ok(None);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut record = Record { method: method.to_owned(), path: unescape(path), ..Record::default() };
    record.query = pairs(query);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(Some(record));
        }
        if let Some((name, value)) = line.split_once(':') {
            record.headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
}

pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (unescape(name), unescape(value))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn body(
    reader: &mut impl BufRead,
    record: &Record,
    limit: Option<usize>,
) -> std::io::Result<(Vec<u8>, bool)> {
    let mut body = Vec::new();
    if record.headers.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let read = reader.by_ref().take(size as u64).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if size == 0 || read < size {
                return Ok((body, read < size));
            }
        }
    }
    let length: u64 = record.headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let wanted = limit.map_or(length, |limit| length.min(limit as u64));
    let read = reader.by_ref().take(wanted).read_to_end(&mut body)? as u64;
    Ok((body, read < length))
}

/// Sends an answer as it is told to; false if the connection is at its end.
fn send(mut stream: &TcpStream, answer: &Answer, is_head: bool, stop: &AtomicBool) -> std::io::Result<bool> {
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let length = answer.length.unwrap_or(answer.body.len() as u64);
    head.extend(["content-length: ", &length.to_string(), "\r\n\r\n"]);
    stream.write_all(head.as_bytes())?;
    if is_head {
        return Ok(true);
    }
    let pace = answer.pace;
    let end = [pace.cut, pace.stall].into_iter().flatten().min().unwrap_or(usize::MAX).min(answer.body.len());
    let (piece, pause) = pace.drip.unwrap_or((end.max(1), Duration::ZERO));
    for part in answer.body[..end].chunks(piece.max(1)) {
        stream.write_all(part)?;
        std::thread::sleep(pause);
    }
    if pace.stall.is_some() {
        // Silent, but there, until the other side has had enough.
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut byte = [0];
        while !stop.load(Ordering::SeqCst) {
            match stream.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => break,
            }
        }
        return Ok(false);
    }
    Ok(end == answer.body.len() && length == answer.body.len() as u64)
}
