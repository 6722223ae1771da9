//! Watching a build: what happens to each step, kept for the log, the picture and the end, and told to
//! whoever shows it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use onggi_engine::build::builder::dockerfile::lint::Warning;
use onggi_engine::build::builder::graph::{Graph, VertexId};
use onggi_engine::build::builder::solve::{Event, Monitor, Verdict};
use onggi_engine::build::{BuildLogs, BuildMonitor, Built, LoggedStep};
use onggi_engine::{Engine, Error};

use super::excerpt;
use super::plain::Plain;
use super::raw::Raw;
use super::tty::Tty;
use super::values::{ExplainFormat, ProgressKind};
use crate::failure::Failure;
use crate::output::human;

/// How many lines of a step that failed are shown again.
const LAST_LINES: usize = 20;
/// How much of a step's output is kept for that.
const KEPT_OUTPUT: usize = 64 << 10;

/// A step that was begun.
#[derive(Debug)]
pub struct Step {
    pub vertex: VertexId,
    /// From 1, in the order in which they began.
    pub number: usize,
    pub name: String,
    pub stage: Option<String>,
    pub inputs: Vec<VertexId>,
    pub began: Instant,
    pub took: Option<Duration>,
    pub outcome: Outcome,
    /// The end of what it said.
    pub said: Vec<u8>,
    pub verdict: Option<Verdict>,
}

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Running,
    Cached,
    Done,
    Failed,
    Canceled,
}

/// Shows steps.
pub trait Show {
    fn began(&mut self, step: &Step);
    fn said(&mut self, step: &Step, bytes: &[u8]);
    fn ended(&mut self, step: &Step, error: Option<&str>);
    fn explained(&mut self, step: &Step);
    /// Time went by.
    fn tick(&mut self, _steps: &[Step], _total: usize) -> Option<Duration> {
        None
    }
    /// Nothing more comes.
    fn finish(&mut self, steps: &[Step], total: usize);
    /// A line that belongs to no step.
    fn line(&mut self, text: &str);
}

/// Shows nothing.
struct Quiet;

impl Show for Quiet {
    fn began(&mut self, _: &Step) {}
    fn said(&mut self, _: &Step, _: &[u8]) {}
    fn ended(&mut self, _: &Step, _: Option<&str>) {}
    fn explained(&mut self, _: &Step) {}
    fn finish(&mut self, _: &[Step], _: usize) {}
    fn line(&mut self, _: &str) {}
}

/// One build that is watched.
pub struct Watch {
    show: Box<dyn Show>,
    kind: ProgressKind,
    explain: Option<ExplainFormat>,
    logs: BuildLogs,
    graph: Graph,
    pub steps: Vec<Step>,
    places: BTreeMap<VertexId, usize>,
    pub began: Instant,
    verdicts: BTreeMap<VertexId, Verdict>,
    /// Whether the terminal belongs to somebody else, and what failed was told.
    handed_over: bool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("steps", &self.steps).finish_non_exhaustive()
    }
}

impl Watch {
    pub fn new(engine: &Engine, kind: ProgressKind, explain: Option<ExplainFormat>) -> Result<Self, Failure> {
        let began = Instant::now();
        let show: Box<dyn Show> = match kind {
            ProgressKind::Auto | ProgressKind::Plain => {
                Box::new(Plain::new(explain == Some(ExplainFormat::Text)))
            }
            ProgressKind::Tty => Box::new(Tty::new(began)),
            ProgressKind::Rawjson => Box::new(Raw),
            ProgressKind::Quiet | ProgressKind::None => Box::new(Quiet),
        };
        Ok(Self {
            show,
            kind,
            explain,
            logs: engine.new_build_logs()?,
            graph: Graph::default(),
            steps: Vec::new(),
            places: BTreeMap::new(),
            began,
            verdicts: BTreeMap::new(),
            handed_over: false,
        })
    }

    fn total(&self) -> usize {
        self.graph.vertices.len().max(self.steps.len())
    }

    /// The build is over, well or not.
    pub fn finish(&mut self) {
        self.end_show();
        self.logs.finish();
        if self.explain == Some(ExplainFormat::Text) && self.kind == ProgressKind::Tty {
            for step in &self.steps {
                if let Some(verdict) = &step.verdict {
                    self.show.line(&format!("{}: {}", human::visible(&step.name), told(verdict)));
                }
            }
        }
    }

    fn end_show(&mut self) {
        let total = self.total();
        if !self.handed_over {
            self.show.finish(&self.steps, total);
        }
    }

    /// Makes room for a shell where a step failed.
    fn hand_over(&mut self) {
        self.end_show();
        self.tell_last_words();
        self.handed_over = true;
        self.print("a shell where the step failed; the build ends when it does");
    }

    /// The last lines of the step that failed.
    fn tell_last_words(&self) {
        let Some(step) = self.steps.iter().find(|step| step.outcome == Outcome::Failed) else { return };
        let said = String::from_utf8_lossy(&step.said);
        let lines: Vec<&str> = said.lines().collect();
        let mut text = format!("------\n > {}:\n", human::visible(&step.name));
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            text += &format!("{}\n", line_of(line.as_bytes()));
        }
        text += "------";
        self.print(&text);
    }

    /// Says what came out.
    pub fn finished(&mut self, built: &Built) {
        if !matches!(self.kind, ProgressKind::Plain | ProgressKind::Auto | ProgressKind::Tty) {
            return;
        }
        let mut lines = vec![format!("writing image {}", built.id)];
        lines.extend(built.names.iter().map(|tag| format!("naming to {}", tag.clone().with_default_tag())));
        if let Some((seconds, source)) = built.epoch {
            lines.push(format!("no time is later than {seconds} ({source})"));
        }
        for line in lines {
            self.show.line(&format!("=> {line}"));
        }
    }

    /// Says what failed: the step's last lines, the build file's lines, and how to look at it.
    pub fn failed(&mut self, error: &Error) {
        if self.kind == ProgressKind::None {
            return;
        }
        if !self.handed_over {
            self.tell_last_words();
        }
        if let Some(text) = excerpt::of(error) {
            self.print(&text);
        }
        if self.steps.iter().any(|step| step.outcome == Outcome::Failed) {
            self.print(&format!("the whole log: onggi build logs {}", self.logs.name()));
        }
        if !self.handed_over && excerpt::is_of_a_program(error) {
            self.print(
                "a shell where it failed: the same command with --debug-shell (or --debug-shell=before)",
            );
            if let Some(command) = excerpt::before(error) {
                self.print(&format!("what it began with: {command}"));
            }
        }
    }

    #[expect(clippy::print_stderr, reason = "progress belongs to the error stream")]
    fn print(&self, text: &str) {
        eprintln!("{text}");
    }

    /// All verdicts as JSON.
    pub fn explanations(&self) -> String {
        let all: Vec<_> = self
            .steps
            .iter()
            .filter_map(|step| {
                let verdict = step.verdict.as_ref()?;
                Some(serde_json::json!({ "step": step.name, "stage": step.stage, "verdict": verdict }))
            })
            .collect();
        serde_json::to_string_pretty(&all).unwrap_or_default() + "\n"
    }

    fn step(&mut self, vertex: VertexId) -> Option<&mut Step> {
        let place = self.places.get(&vertex)?;
        self.steps.get_mut(*place)
    }

    fn end(&mut self, vertex: VertexId, outcome: Outcome, error: Option<&str>) {
        let Some(place) = self.places.get(&vertex).copied() else { return };
        let Some(step) = self.steps.get_mut(place) else { return };
        step.outcome = outcome;
        step.took = Some(step.began.elapsed());
        let logged = LoggedStep {
            name: step.name.clone(),
            outcome: match outcome {
                Outcome::Running => "running",
                Outcome::Cached => "cached",
                Outcome::Done => "done",
                Outcome::Failed => "failed",
                Outcome::Canceled => "canceled",
            }
            .into(),
            seconds: step.took.unwrap_or_default().as_secs_f64(),
        };
        self.logs.step(place, logged);
        self.show.ended(&self.steps[place], error);
    }
}

/// A line of a program's output: tabs are tabs, of a line that was written over the last version counts, and
/// what would steer the terminal is shown.
pub fn line_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\n', '\r']);
    let last = text.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
    last.split('\t').map(human::visible).collect::<Vec<_>>().join("\t")
}

/// A verdict in one line.
pub fn told(verdict: &Verdict) -> String {
    if verdict.hit {
        return "known".into();
    }
    let mut text = verdict.reason.clone();
    for change in verdict.changes.iter().take(10) {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        text += &format!("\n    {}: {} -> {}", change.what, side(&change.old), side(&change.new));
    }
    text.lines().map(|line| human::visible(line).into_owned()).collect::<Vec<_>>().join("\n")
}

impl Monitor for Watch {
    fn event(&mut self, vertex: VertexId, event: Event<'_>) {
        match event {
            Event::Started => {
                let Some(of) = self.graph.vertices.get(vertex.0) else { return };
                let place = self.steps.len();
                self.places.insert(vertex, place);
                let verdict = self.verdicts.remove(&vertex);
                self.steps.push(Step {
                    vertex,
                    number: place + 1,
                    name: of.name.clone(),
                    stage: of.stage.clone(),
                    inputs: of.op.inputs(),
                    began: Instant::now(),
                    took: None,
                    outcome: Outcome::Running,
                    said: Vec::new(),
                    verdict,
                });
                self.show.began(&self.steps[place]);
                if self.steps[place].verdict.is_some() {
                    self.show.explained(&self.steps[place]);
                }
            }
            Event::Cached => self.end(vertex, Outcome::Cached, None),
            Event::Done => self.end(vertex, Outcome::Done, None),
            Event::Canceled => self.end(vertex, Outcome::Canceled, None),
            Event::Failed(error) => self.end(vertex, Outcome::Failed, Some(&error.to_string())),
            Event::Output(bytes) => {
                let Some(place) = self.places.get(&vertex).copied() else { return };
                self.logs.output(place, bytes);
                if let Some(step) = self.step(vertex) {
                    step.said.extend_from_slice(bytes);
                    if step.said.len() > 2 * KEPT_OUTPUT {
                        step.said.drain(..step.said.len() - KEPT_OUTPUT);
                    }
                }
                self.show.said(&self.steps[place], bytes);
            }
            Event::Shell => self.hand_over(),
            // It comes before the step begins.
            Event::Explained(verdict) => {
                self.verdicts.insert(vertex, verdict.clone());
            }
        }
    }

    fn tick(&mut self) -> Option<Duration> {
        let total = self.total();
        self.show.tick(&self.steps, total)
    }
}

impl BuildMonitor for Watch {
    fn planned(&mut self, graph: &Graph, warnings: &[Warning], file: &str, _text: &str) {
        self.graph = graph.clone();
        for warning in warnings {
            let line = warning.lines.first;
            self.show.line(&format!(
                "warning: {}: {} (line {line} of {file})",
                warning.rule.name(),
                human::visible(&warning.detail)
            ));
        }
    }

    fn notice(&mut self, text: &str) {
        self.show.line(&human::visible(text));
    }
}
