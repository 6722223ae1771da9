//! `--timeline`: how the time of a build was spent, as one page without anything from elsewhere.
//!
//! Stages are lanes, steps are bars, what was known is hollow, and the steps that decided how long it
//! took have a border.

use std::collections::{BTreeMap, BTreeSet};

use onggi_engine::build::builder::graph::VertexId;

use super::watch::{Outcome, Step, Watch};

const BAR: f64 = 22.0;
const WIDTH: f64 = 1000.0;

/// The whole page.
pub fn page(watch: &Watch) -> String {
    let begin = |step: &Step| step.began.duration_since(watch.began).as_secs_f64();
    let end = |step: &Step| begin(step) + step.took.unwrap_or_default().as_secs_f64();
    let total = watch.steps.iter().map(end).fold(0.001, f64::max);
    let critical = critical(&watch.steps, &end);
    let mut lanes: Vec<(String, Vec<&Step>)> = Vec::new();
    for step in &watch.steps {
        let name = step.stage.clone().unwrap_or_else(|| "sources".into());
        match lanes.iter_mut().find(|(lane, _)| *lane == name) {
            Some((_, steps)) => steps.push(step),
            None => lanes.push((name, vec![step])),
        }
    }
    let mut body = String::new();
    let mut y = 10.0;
    for (name, steps) in &lanes {
        body += &format!("<text x=\"0\" y=\"{:.0}\" class=\"lane\">{}</text>\n", y + 14.0, escaped(name));
        y += BAR;
        for step in steps {
            let x = begin(step) / total * WIDTH;
            let width = ((end(step) - begin(step)) / total * WIDTH).max(2.0);
            let mut class = match step.outcome {
                Outcome::Cached => "cached",
                Outcome::Failed => "failed",
                _ => "done",
            }
            .to_owned();
            if critical.contains(&step.vertex) {
                class += " critical";
            }
            let took = step.took.unwrap_or_default().as_secs_f64();
            let label = escaped(&step.name);
            body += &format!(
                "<g><title>{label}: {took:.3} s</title><rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" rx=\"3\" class=\"{class}\"/><text x=\"{:.1}\" y=\"{:.0}\">{label}</text></g>\n",
                BAR - 4.0,
                x + 4.0,
                y + 13.0
            );
            y += BAR;
        }
        y += BAR / 2.0;
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>build timeline</title><style>\
         body{{font:13px sans-serif;margin:2em;background:#fff;color:#222}}svg{{overflow:visible}}\
         rect.done{{fill:#7aa6d8}}rect.cached{{fill:#eef3f8;stroke:#7aa6d8}}rect.failed{{fill:#d9705f}}\
         rect.critical{{stroke:#c33;stroke-width:2}}text{{font-size:11px}}text.lane{{font-weight:bold;font-size:13px}}\
         </style></head><body><h1>Build: {total:.3} s</h1>\
         <p>Stages are lanes, steps are bars; hollow: known before; red border: the critical path.</p>\
         <svg width=\"100%\" viewBox=\"0 0 {WIDTH:.0} {y:.0}\" preserveAspectRatio=\"xMinYMin\">\n{body}</svg></body></html>\n"
    )
}

/// From the step that ended last back along the input that ended last.
fn critical(steps: &[Step], end: &dyn Fn(&Step) -> f64) -> BTreeSet<VertexId> {
    let by_vertex: BTreeMap<VertexId, &Step> = steps.iter().map(|step| (step.vertex, step)).collect();
    let later = |a: &&Step, b: &&Step| end(a).total_cmp(&end(b));
    let mut path = BTreeSet::new();
    let mut current = steps.iter().max_by(later);
    while let Some(step) = current {
        if !path.insert(step.vertex) {
            break;
        }
        current = step.inputs.iter().filter_map(|input| by_vertex.get(input).copied()).max_by(later);
    }
    path
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
