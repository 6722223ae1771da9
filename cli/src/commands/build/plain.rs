//! Progress as lines: each with the number of its step, as buildx writes them.

use std::collections::BTreeMap;
use std::io::Write;

use super::watch::{Outcome, Show, Step, line_of, told};
use crate::output::human;

/// Writes lines to the error stream.
#[derive(Debug)]
pub struct Plain {
    explain: bool,
    /// Which step the last line belongs to.
    current: usize,
    /// The beginning of a line that is not at its end yet.
    open: BTreeMap<usize, Vec<u8>>,
}

impl Plain {
    pub fn new(explain: bool) -> Self {
        Self { explain, current: 0, open: BTreeMap::new() }
    }

    fn write(&mut self, step: &Step, text: &str) {
        let mut out = String::new();
        if self.current != step.number {
            if self.current != 0 {
                out += "\n";
            }
            if self.current != 0 && step.outcome != Outcome::Running || !step.said.is_empty() {
                out += &format!("#{} {}\n", step.number, human::visible(&step.name));
            }
            self.current = step.number;
        }
        out += &format!("#{} {text}\n", step.number);
        // A watcher that has gone is no reason to stop building.
        let _ = std::io::stderr().write_all(out.as_bytes());
    }
}

impl Show for Plain {
    fn began(&mut self, step: &Step) {
        self.write(step, &human::visible(&step.name));
    }

    fn said(&mut self, step: &Step, bytes: &[u8]) {
        let mut text = self.open.remove(&step.number).unwrap_or_default();
        text.extend_from_slice(bytes);
        let seconds = step.began.elapsed().as_secs_f64();
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            self.write(step, &format!("{seconds:.3} {}", line_of(&line)));
        }
        if !text.is_empty() {
            self.open.insert(step.number, text);
        }
    }

    fn ended(&mut self, step: &Step, error: Option<&str>) {
        if let Some(rest) = self.open.remove(&step.number) {
            let seconds = step.took.unwrap_or_default().as_secs_f64();
            self.write(step, &format!("{seconds:.3} {}", line_of(&rest)));
        }
        let seconds = step.took.unwrap_or_default().as_secs_f64();
        let text = match step.outcome {
            Outcome::Running => return,
            Outcome::Cached => "CACHED".to_owned(),
            Outcome::Done => format!("DONE {seconds:.1}s"),
            Outcome::Failed => format!("ERROR: {}", human::visible(error.unwrap_or("failed"))),
            Outcome::Canceled => "CANCELED".to_owned(),
        };
        self.write(step, &text);
    }

    fn explained(&mut self, step: &Step) {
        if let (true, Some(verdict)) = (self.explain, &step.verdict) {
            for line in told(verdict).lines() {
                self.write(step, &format!("why: {line}"));
            }
        }
    }

    fn finish(&mut self, _steps: &[Step], _total: usize) {}

    fn line(&mut self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}
