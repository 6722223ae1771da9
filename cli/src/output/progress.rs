//! Transfers while they run: one line a layer, and a summary.
//!
//! ```text
//!   on a terminal, redrawn:                                            elsewhere, a line when a stage begins:
//!     b47a222d28fa: Pull complete                                        b47a222d28fa: Downloading
//!     9f3b2c1d0e4f: Downloading [=====>      ] 12.3MB/48.1MB 31.2MB/s    9f3b2c1d0e4f: Waiting
//!     0a1b2c3d4e5f: Waiting                                              b47a222d28fa: Pull complete
//! ```
//!
//! `-q` shows nothing. Bars are drawn ten times a second at most, whatever the number of calls.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use onggi_engine::progress::{Progress, Stage};

use super::human;

/// How often bars are drawn in a second: smooth for the eye, nothing for the processor.
const DRAWS_PER_SECOND: u8 = 10;

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// For `pull`, `push`, `load`: progress is their output.
    Stdout,
    /// For `run` and other commands whose output belongs to something else.
    Stderr,
}

impl Sink {
    fn writer(self) -> Box<dyn Write + Send> {
        match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
        }
    }
}

/// The watcher that shows transfers to a person.
pub(crate) struct Transfers {
    surface: Surface,
    layers: RwLock<HashMap<String, Layer>>,
    started: Instant,
    moved: AtomicU64,
    finished: AtomicBool,
}

enum Surface {
    Quiet,
    Lines(Mutex<Box<dyn Write + Send>>),
    /// Text goes above the bars while they move, and below them afterwards.
    Bars(MultiProgress, Sink),
}

struct Layer {
    stage: Stage,
    transferred: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Transfers {
    /// Bars on a terminal, lines elsewhere, nothing if `quiet`.
    pub(crate) fn new(sink: Sink, quiet: bool) -> Self {
        let terminal = match sink {
            Sink::Stdout => io::stdout().is_terminal(),
            Sink::Stderr => io::stderr().is_terminal(),
        };
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let surface = if quiet {
            Surface::Quiet
        } else if terminal && !dumb {
            let target = match sink {
                Sink::Stdout => ProgressDrawTarget::stdout_with_hz(DRAWS_PER_SECOND),
                Sink::Stderr => ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND),
            };
            Surface::Bars(MultiProgress::with_draw_target(target), sink)
        } else {
            Surface::Lines(Mutex::new(sink.writer()))
        };
        Self::on(surface)
    }

    fn on(surface: Surface) -> Self {
        Self {
            surface,
            layers: RwLock::default(),
            started: Instant::now(),
            moved: AtomicU64::new(0),
            finished: AtomicBool::new(false),
        }
    }

    /// Ends the display and prints what was moved: `Pulled 5 layers, 192.3MB in 3.4s (56.6MB/s), 2 already exist`.
    pub(crate) fn finish(&self, verb: &str) {
        let summary = self.summary(verb, self.started.elapsed());
        self.rest();
        self.finished.store(true, Ordering::Relaxed);
        self.message(&summary);
    }

    fn summary(&self, verb: &str, elapsed: Duration) -> String {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        let count = |wanted: fn(&Stage) -> bool| layers.values().filter(|layer| wanted(&layer.stage)).count();
        let moved = count(|stage| matches!(stage, Stage::PullComplete | Stage::Pushed));
        let existing = count(|stage| matches!(stage, Stage::AlreadyExists | Stage::LayerAlreadyExists));
        let mounted = count(|stage| matches!(stage, Stage::Mounted { .. }));
        let bytes = self.moved.load(Ordering::Relaxed);
        let plural = if moved == 1 { "" } else { "s" };
        let mut text =
            format!("{verb} {moved} layer{plural}, {} in {}", human::size(bytes), human::elapsed(elapsed));
        let rate = rate(bytes, elapsed);
        // Below a tenth of a second the rate says more about the clock than about the network.
        if bytes > 0 && elapsed >= Duration::from_millis(100) {
            let _ = write!(text, " ({}/s)", human::short_size(rate));
        }
        if existing > 0 {
            let _ = write!(text, ", {existing} already exist{}", if existing == 1 { "s" } else { "" });
        }
        if mounted > 0 {
            let _ = write!(text, ", {mounted} mounted");
        }
        text
    }

    /// Leaves every line as it is now.
    fn rest(&self) {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        for bar in layers.values().filter_map(|layer| layer.bar.as_ref()) {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
    }

    fn line(&self, text: &str) {
        match &self.surface {
            Surface::Quiet => {}
            // Nobody to tell when the reader of our output is gone; the transfer itself goes on.
            Surface::Lines(out) => {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = writeln!(out, "{text}").and_then(|()| out.flush());
            }
            Surface::Bars(_, sink) if self.finished.load(Ordering::Relaxed) => {
                let mut out = sink.writer();
                let _ = writeln!(out, "{text}").and_then(|()| out.flush());
            }
            Surface::Bars(bars, _) => {
                let _ = bars.println(text);
            }
        }
    }

    fn announce(&self, id: &str, size: Option<u64>) {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = layers.get(id) {
            if let (Some(bar), Some(size)) = (&layer.bar, size) {
                bar.set_length(size);
            }
            return;
        }
        let bar = match &self.surface {
            Surface::Bars(bars, _) => {
                let bar = bars.add(match size {
                    Some(size) => ProgressBar::new(size),
                    None => ProgressBar::no_length(),
                });
                bar.set_style(style(&Stage::Waiting, false));
                bar.set_prefix(short(id));
                bar.set_message(words(&Stage::Waiting));
                bar.tick();
                Some(bar)
            }
            _ => None,
        };
        layers.insert(id.to_owned(), Layer { stage: Stage::Waiting, transferred: AtomicU64::new(0), bar });
    }

    /// Runs `act` on a layer, which is announced first if it was not.
    fn with_layer(&self, id: &str, act: impl FnOnce(&Layer)) {
        let known = self.layers.read().unwrap_or_else(PoisonError::into_inner).contains_key(id);
        if !known {
            self.announce(id, None);
        }
        if let Some(layer) = self.layers.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            act(layer);
        }
    }
}

impl Progress for Transfers {
    fn layer(&self, id: &str, size: Option<u64>) {
        self.announce(id, size);
    }

    fn stage(&self, id: &str, stage: Stage) {
        self.with_layer(id, |_| {});
        let text = words(&stage);
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        let Some(layer) = layers.get_mut(id) else { return };
        if layer.stage == stage && stage != Stage::Waiting {
            return;
        }
        if let Some(bar) = &layer.bar {
            bar.set_style(style(&stage, bar.length().is_some()));
            if matches!(stage, Stage::Downloading | Stage::Pushing) {
                bar.reset_eta();
            }
            if stage.is_final() {
                bar.abandon_with_message(text);
            } else {
                bar.set_message(text);
            }
            layer.stage = stage;
        } else {
            layer.stage = stage;
            drop(layers);
            self.line(&format!("{}: {text}", short(id)));
        }
    }

    fn advance(&self, id: &str, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.with_layer(id, |layer| {
            layer.transferred.fetch_add(bytes, Ordering::Relaxed);
            if let Some(bar) = &layer.bar {
                bar.inc(bytes);
            }
        });
    }

    fn position(&self, id: &str, bytes: u64) {
        self.with_layer(id, |layer| {
            layer.transferred.store(bytes, Ordering::Relaxed);
            if let Some(bar) = &layer.bar {
                bar.set_position(bytes);
            }
        });
    }

    fn message(&self, text: &str) {
        self.line(&human::visible(text));
    }
}

impl Drop for Transfers {
    /// An error leaves the lines standing where they were, and the cursor below them.
    fn drop(&mut self) {
        self.rest();
    }
}

/// The first twelve hexadecimal digits, as Docker shows them.
fn short(id: &str) -> String {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    human::visible(&hex.chars().take(12).collect::<String>()).into_owned()
}

/// A stage in Docker's words.
fn words(stage: &Stage) -> String {
    match stage {
        Stage::Waiting => "Waiting".to_owned(),
        Stage::Downloading => "Downloading".to_owned(),
        Stage::DownloadComplete => "Download complete".to_owned(),
        Stage::Unpacking => "Unpacking".to_owned(),
        Stage::PullComplete => "Pull complete".to_owned(),
        Stage::AlreadyExists => "Already exists".to_owned(),
        Stage::Retrying { attempt } => format!("Retrying (attempt {})", attempt.saturating_add(1)),
        Stage::Pushing => "Pushing".to_owned(),
        Stage::Pushed => "Pushed".to_owned(),
        Stage::LayerAlreadyExists => "Layer already exists".to_owned(),
        Stage::Mounted { from } => format!("Mounted from {}", human::visible(from)),
        other => format!("{other:?}"),
    }
}

/// Bytes per second.
fn rate(bytes: u64, elapsed: Duration) -> u64 {
    let millis = elapsed.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

fn style(stage: &Stage, sized: bool) -> ProgressStyle {
    let template = match (stage, sized) {
        (Stage::Downloading | Stage::Pushing, true) => "{prefix}: {msg} [{bar:30}] {moved}/{whole} {rate}",
        (Stage::Downloading | Stage::Pushing, false) => "{prefix}: {msg} {moved} {rate}",
        _ => "{prefix}: {msg}",
    };
    // The templates above are constants and sound: a test reads each.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style
        .progress_chars("=> ")
        .with_key("moved", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&human::short_size(state.pos()));
        })
        .with_key("whole", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&human::short_size(state.len().unwrap_or(0)));
        })
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            #[expect(
                clippy::cast_sign_loss,
                clippy::cast_possible_truncation,
                reason = "a rate, and `as` saturates"
            )]
            let rate = state.per_sec() as u64;
            if rate > 0 {
                let _ = write!(out, "{}/s", human::short_size(rate));
            }
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const ID: &str = "sha256:b47a222d28fa95680198398973d0a29b82a968f03e7ef361cc8ded562e4d84a3";

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines() -> (Transfers, Shared) {
        let out = Shared::default();
        (Transfers::on(Surface::Lines(Mutex::new(Box::new(out.clone())))), out)
    }

    fn text(out: &Shared) -> String {
        String::from_utf8(out.0.lock().expect("lock").clone()).expect("UTF-8")
    }

    #[test]
    fn without_a_terminal_each_stage_is_a_line() {
        let (transfers, out) = lines();
        transfers.message("latest: Pulling from library/debian");
        transfers.layer(ID, Some(1000));
        transfers.stage(ID, Stage::Downloading);
        transfers.advance(ID, 400);
        transfers.advance(ID, 600);
        transfers.stage(ID, Stage::Downloading);
        transfers.stage(ID, Stage::PullComplete);
        transfers.stage("sha256:0000000000001", Stage::AlreadyExists);
        assert_eq!(
            text(&out),
            "latest: Pulling from library/debian\nb47a222d28fa: Downloading\nb47a222d28fa: Pull complete\n\
             000000000000: Already exists\n"
        );
        assert_eq!(
            transfers.summary("Pulled", Duration::from_secs(2)),
            "Pulled 1 layer, 1kB in 2.0s (500B/s), 1 already exists"
        );
    }

    #[test]
    fn a_push_says_what_was_not_sent() {
        let (transfers, out) = lines();
        transfers
            .stage("sha256:aaaaaaaaaaaaaaaa", Stage::Mounted { from: "library/debian\x1b[2J".to_owned() });
        transfers.stage("sha256:bbbbbbbbbbbbbbbb", Stage::LayerAlreadyExists);
        assert_eq!(
            text(&out),
            "aaaaaaaaaaaa: Mounted from library/debian\\u{1b}[2J\nbbbbbbbbbbbb: Layer already exists\n"
        );
        assert_eq!(
            transfers.summary("Pushed", Duration::ZERO),
            "Pushed 0 layers, 0B in 0.0s, 1 already exists, 1 mounted"
        );
    }

    #[test]
    fn quiet_is_quiet_and_still_counts() {
        let transfers = Transfers::new(Sink::Stdout, true);
        transfers.stage(ID, Stage::Pushing);
        transfers.advance(ID, 7);
        assert_eq!(transfers.moved.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn bars_follow_their_layer() {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let transfers = Transfers::on(Surface::Bars(bars, Sink::Stdout));
        transfers.layer(ID, Some(1000));
        transfers.stage(ID, Stage::Downloading);
        transfers.advance(ID, 400);
        transfers.position(ID, 100);
        {
            let layers = transfers.layers.read().expect("lock");
            let bar = layers[ID].bar.as_ref().expect("a bar");
            assert_eq!(
                (bar.position(), bar.length(), bar.message()),
                (100, Some(1000), "Downloading".to_owned())
            );
            assert_eq!(bar.prefix(), "b47a222d28fa");
        }
        transfers.stage(ID, Stage::PullComplete);
        let layers = transfers.layers.read().expect("lock");
        assert!(layers[ID].bar.as_ref().expect("a bar").is_finished());
    }

    #[test]
    fn every_style_is_sound() {
        for stage in [Stage::Downloading, Stage::Pushing, Stage::Unpacking, Stage::PullComplete] {
            for sized in [true, false] {
                let _ = style(&stage, sized);
            }
        }
        for template in
            ["{prefix}: {msg} [{bar:30}] {moved}/{whole} {rate}", "{prefix}: {msg} {moved} {rate}"]
        {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
