//! `onggi logs`: what a container's program wrote.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;

use jiff::Timestamp;
use onggi_engine::logs::{Entry, LogQuery, LogSink, Stream};

use super::filter::moment;
use crate::failure::Failure;
use crate::session::Session;

/// Show what a container's program wrote
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Show the attributes that --log-opt gave the log
    #[arg(long)]
    details: bool,
    /// Go on as long as the container runs
    #[arg(short, long)]
    follow: bool,
    /// Show what is not older than this: a date, seconds since 1970, or a span such as 42m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show so many lines from the end, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Show what is not younger than this: a date, seconds since 1970, or a span such as 42m
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// A container by name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let query = LogQuery {
            since: self.since.as_deref().map(moment).transpose()?,
            until: self.until.as_deref().map(moment).transpose()?,
            // As with Docker, what is no number means all.
            tail: self.tail.parse().ok(),
            follow: self.follow,
        };
        let engine = session.engine()?;
        let mut printer = Printer {
            options: &self,
            output: BufWriter::new(io::stdout().lock()),
            error: BufWriter::new(io::stderr().lock()),
            begun: [true; 2],
            failed: None,
        };
        engine.logs(&self.container, &query, &mut printer)?;
        printer.failed.map_or(Ok(()), |error| Err(Failure::Output(error)))
    }
}

struct Printer<'a> {
    options: &'a Options,
    output: BufWriter<io::StdoutLock<'a>>,
    error: BufWriter<io::StderrLock<'a>>,
    /// Of each stream: whether the next entry begins a line.
    begun: [bool; 2],
    failed: Option<io::Error>,
}

impl Printer<'_> {
    fn note<T>(&mut self, result: io::Result<T>) -> ControlFlow<()> {
        match result {
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn put(&mut self, entry: &Entry) -> io::Result<()> {
        let mut prefix = String::new();
        let begins = &mut self.begun[usize::from(entry.stream == Stream::Stderr)];
        if *begins {
            if self.options.timestamps {
                prefix = fixed(entry.time) + " ";
            }
            if self.options.details {
                let pairs: Vec<String> = entry
                    .attributes
                    .iter()
                    .map(|(key, value)| format!("{}={}", escaped(key), escaped(value)))
                    .collect();
                prefix += &pairs.join(",");
                prefix.push(' ');
            }
        }
        *begins = !entry.is_partial();
        let out: &mut dyn Write = match entry.stream {
            Stream::Stdout => &mut self.output,
            Stream::Stderr => &mut self.error,
        };
        out.write_all(prefix.as_bytes())?;
        out.write_all(&entry.line)
    }
}

impl LogSink for Printer<'_> {
    fn entry(&mut self, entry: &Entry) -> ControlFlow<()> {
        let put = self.put(entry);
        self.note(put)
    }

    fn pause(&mut self) -> ControlFlow<()> {
        let flushed = self.output.flush().and_then(|()| self.error.flush());
        self.note(flushed)
    }
}

/// RFC 3339 with all nine digits, as Docker prints it.
pub(super) fn fixed(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// As Go's `url.QueryEscape`.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_attributes_are_as_dockers() {
        let time: Timestamp = "2026-01-02T03:04:05.5Z".parse().expect("a time");
        assert_eq!(fixed(time), "2026-01-02T03:04:05.500000000Z");
        assert_eq!(escaped("a b/ö-_.~"), "a+b%2F%C3%B6-_.~");
    }
}
