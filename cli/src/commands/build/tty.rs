//! Progress as a live tree on a terminal: what runs with its last lines, what is done with its time.

use std::io::Write;
use std::time::{Duration, Instant};

use super::watch::{Outcome, Show, Step, line_of};
use crate::output::human;

/// How often it is drawn.
const INTERVAL: Duration = Duration::from_millis(100);
/// How many lines of a running step are shown.
const SAID: usize = 6;

/// Draws on the error stream.
#[derive(Debug)]
pub struct Tty {
    began: Instant,
    drawn: Option<Instant>,
    /// How many lines were drawn, which are to be drawn over.
    lines: usize,
}

impl Tty {
    pub fn new(began: Instant) -> Self {
        Self { began, drawn: None, lines: 0 }
    }

    fn draw(&mut self, steps: &[Step], total: usize, last: bool) {
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stderr());
        let (rows, columns) =
            size.map_or((24, 80), |size| (usize::from(size.ws_row.max(5)), usize::from(size.ws_col.max(20))));
        let done = steps.iter().filter(|step| step.outcome != Outcome::Running).count();
        let state = if last { "FINISHED" } else { "" };
        let seconds = self.began.elapsed().as_secs_f64();
        let mut lines = vec![format!("[+] Building {seconds:.1}s ({done}/{}) {state}", total.max(done))];
        for step in steps {
            lines.extend(draw_step(step, columns));
        }
        // What runs is at the end; a screen shows no more.
        if !last && lines.len() > rows - 1 {
            let surplus = lines.len() - (rows - 1);
            lines.drain(1..=surplus);
        }
        let mut out = String::new();
        if self.lines > 0 {
            out += &format!("\x1b[{}A\x1b[J", self.lines);
        }
        for line in &lines {
            let cut: String = line.chars().take(columns.saturating_sub(1)).collect();
            out += &cut;
            out.push('\n');
        }
        self.lines = lines.len();
        self.drawn = Some(Instant::now());
        let _ = std::io::stderr().write_all(out.as_bytes());
    }
}

fn draw_step(step: &Step, columns: usize) -> Vec<String> {
    let took = step.took.unwrap_or_else(|| step.began.elapsed()).as_secs_f64();
    let mark = match step.outcome {
        Outcome::Cached => "CACHED ",
        Outcome::Failed => "ERROR ",
        Outcome::Canceled => "CANCELED ",
        Outcome::Running | Outcome::Done => "",
    };
    let name = format!(" => {mark}{}", human::visible(&step.name));
    let time = format!("{took:.1}s");
    let room = columns.saturating_sub(time.len() + 2);
    let cut: String = name.chars().take(room).collect();
    let mut lines = vec![format!("{cut:<room$} {time}")];
    if step.outcome == Outcome::Running {
        let said = String::from_utf8_lossy(&step.said);
        let all: Vec<&str> = said.lines().collect();
        for line in &all[all.len().saturating_sub(SAID)..] {
            lines.push(format!(" => => # {}", line_of(line.as_bytes())));
        }
    }
    lines
}

impl Show for Tty {
    fn began(&mut self, _: &Step) {}
    fn said(&mut self, _: &Step, _: &[u8]) {}
    fn ended(&mut self, _: &Step, _: Option<&str>) {}
    fn explained(&mut self, _: &Step) {}

    fn tick(&mut self, steps: &[Step], total: usize) -> Option<Duration> {
        let due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= INTERVAL);
        if due {
            self.draw(steps, total, false);
        }
        Some(INTERVAL)
    }

    fn finish(&mut self, steps: &[Step], total: usize) {
        self.draw(steps, total, true);
        self.lines = 0;
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}
