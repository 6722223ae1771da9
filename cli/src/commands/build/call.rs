//! `--call`: what a build file says of itself, and what is to be said of it.

use onggi_engine::Engine;
use onggi_engine::build::BuildRequest;
use onggi_engine::build::builder::Images;
use onggi_engine::build::builder::dockerfile::lint::Warning;
use onggi_engine::build::builder::dockerfile::outline::{Need, Outline, TargetInfo};
use onggi_engine::build::builder::dockerfile::{Diagnostic, Lines, report};
use onggi_engine::build::builder::graph::Graph;
use serde_json::{Value, json};

use super::values::CallAs;
use crate::failure::Failure;
use crate::output::human;
use crate::session::Session;

/// What came of it: what to print, and whether it is a failure.
struct Answer {
    text: String,
    status: Option<u8>,
    error: Option<Diagnostic>,
}

pub fn run(session: &Session, engine: &Engine, request: &BuildRequest, call: &CallAs) -> Result<(), Failure> {
    let mut answer = None;
    engine.call(request, &mut |called, images| {
        answer = Some(match call.method.as_str() {
            "targets" => targets(&called.text, call.json),
            "outline" => outline(&called.text, &called.options, images, call.json),
            _ => check(&called.text, &called.file, &called.options, images, call.json),
        });
    })?;
    let Some(answer) = answer else { return Ok(()) };
    session.print(&answer.text)?;
    if let Some(error) = answer.error {
        return Err(Failure::Input(format!("failed to solve: {error}")));
    }
    match answer.status {
        Some(status) if !call.ignore_status => Err(Failure::Silent(status)),
        _ => Ok(()),
    }
}

fn place(file: &str, lines: Lines) -> Value {
    json!({ "sourceIndex": 0, "file": file, "ranges": [{
        "start": { "line": lines.first, "character": 0 },
        "end": { "line": lines.last, "character": 0 },
    }] })
}

fn check(
    text: &str,
    file: &str,
    options: &onggi_engine::build::builder::dockerfile::plan::Options,
    images: &(dyn Images + Sync),
    as_json: bool,
) -> Answer {
    let mut graph = Graph::default();
    let (result, warnings) = report::check(text, options, images, &mut graph);
    let error = result.err();
    let status = if error.is_some() || !warnings.is_empty() { Some(1) } else { None };
    if !as_json {
        let mut out = String::new();
        for warning in &warnings {
            out += &shown(warning, file, text);
        }
        if warnings.is_empty() && error.is_none() {
            out += "Check complete, no warnings found.\n";
        } else if !warnings.is_empty() {
            let count = warnings.len();
            let word = if count == 1 { "warning has" } else { "warnings have" };
            out += &format!("Check complete, {count} {word} been found!\n");
        }
        return Answer { text: out, status, error };
    }
    let list: Vec<Value> = warnings
        .iter()
        .map(|warning| {
            json!({
                "ruleName": warning.rule.name(),
                "description": warning.rule.description(),
                "url": warning.rule.url(),
                "detail": warning.detail,
                "location": place(file, warning.lines),
            })
        })
        .collect();
    let mut value = json!({
        "warnings": list,
        "sources": [{ "filename": file, "language": "Dockerfile" }],
    });
    if let (Some(error), Some(object)) = (&error, value.as_object_mut()) {
        let lines = error.lines.first().copied().unwrap_or_default();
        object.insert(
            "buildError".into(),
            json!({ "message": error.to_string(), "location": place(file, lines) }),
        );
    }
    Answer { text: format!("{value:#}\n"), status, error: None }
}

fn shown(warning: &Warning, file: &str, text: &str) -> String {
    let mut out = format!(
        "WARNING: {} - {}\n{}\n{}\n\n",
        warning.rule.name(),
        warning.rule.url(),
        human::visible(warning.rule.description()),
        human::visible(&warning.detail)
    );
    let rule = "-".repeat(20);
    out += &format!("{file}:{}\n{rule}\n", warning.lines.first);
    for (number, line) in (1_u32..).zip(text.lines()) {
        if number + 2 >= warning.lines.first && number <= warning.lines.last + 2 {
            let inside = (warning.lines.first..=warning.lines.last).contains(&number);
            out += &format!("{number:4} | {} {}\n", if inside { ">>>" } else { "   " }, human::visible(line));
        }
    }
    out + &rule + "\n\n"
}

fn outline(
    text: &str,
    options: &onggi_engine::build::builder::dockerfile::plan::Options,
    images: &(dyn Images + Sync),
    as_json: bool,
) -> Answer {
    let mut graph = Graph::default();
    let plan = onggi_engine::build::builder::dockerfile::plan::plan(text, options, images, &mut graph);
    let outline = match plan {
        Ok(plan) => plan.outline,
        Err(error) => return Answer { text: String::new(), status: Some(1), error: Some(error) },
    };
    let text = if as_json { format!("{:#}\n", outline_json(&outline)) } else { outline_text(&outline) };
    Answer { text, status: None, error: None }
}

fn outline_json(outline: &Outline) -> Value {
    let mut value = json!({});
    let Some(object) = value.as_object_mut() else { return value };
    for (key, text) in [("name", &outline.name), ("description", &outline.description)] {
        if let Some(text) = text {
            object.insert(key.into(), text.as_str().into());
        }
    }
    let arguments: Vec<Value> = outline
        .arguments
        .iter()
        .map(|one| {
            let mut argument = json!({ "name": one.name });
            if let Some(object) = argument.as_object_mut() {
                if let Some(description) = &one.description {
                    object.insert("description".into(), description.as_str().into());
                }
                if !one.value.is_empty() {
                    object.insert("value".into(), one.value.as_str().into());
                }
                object.insert("location".into(), place("Dockerfile", one.lines));
            }
            argument
        })
        .collect();
    let needs = |all: &[Need]| -> Vec<Value> {
        all.iter()
            .map(|one| {
                let mut need = json!({ "name": one.name, "location": place("Dockerfile", one.lines) });
                if let (true, Some(object)) = (one.required, need.as_object_mut()) {
                    object.insert("required".into(), true.into());
                }
                need
            })
            .collect()
    };
    for (key, list) in
        [("args", arguments), ("secrets", needs(&outline.secrets)), ("ssh", needs(&outline.ssh))]
    {
        if !list.is_empty() {
            object.insert(key.into(), list.into());
        }
    }
    value
}

fn outline_text(outline: &Outline) -> String {
    let mut out = String::new();
    if let Some(name) = &outline.name {
        out += &format!("TARGET:      {}\n", human::visible(name));
    }
    if let Some(description) = &outline.description {
        out += &format!("DESCRIPTION: {}\n", human::visible(description));
    }
    if !outline.arguments.is_empty() {
        out += "\nBUILD ARG    VALUE    DESCRIPTION\n";
        for one in &outline.arguments {
            let description = one.description.as_deref().unwrap_or_default();
            out += &human::visible(&format!("{}    {}    {description}", one.name, one.value));
            out += "\n";
        }
    }
    for (title, needs) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !needs.is_empty() {
            out += &format!("\n{title}    REQUIRED\n");
            for one in needs {
                out += &format!("{}    {}\n", human::visible(&one.name), one.required);
            }
        }
    }
    out
}

fn targets(text: &str, as_json: bool) -> Answer {
    let targets = match report::targets(text) {
        Ok(targets) => targets,
        Err(error) => return Answer { text: String::new(), status: Some(1), error: Some(error) },
    };
    if !as_json {
        let mut out = String::from("TARGET    DESCRIPTION\n");
        for one in &targets {
            let name = one.name.as_deref().unwrap_or("(default)");
            let mark = if one.default && one.name.is_some() { " (default)" } else { "" };
            let description = one.description.as_deref().unwrap_or_default();
            out += &human::visible(&format!("{name}{mark}    {description}"));
            out += "\n";
        }
        return Answer { text: out, status: None, error: None };
    }
    let list: Vec<Value> = targets.iter().map(target_json).collect();
    let value = json!({ "targets": list });
    Answer { text: format!("{value:#}\n"), status: None, error: None }
}

fn target_json(one: &TargetInfo) -> Value {
    let mut target = json!({ "base": one.base, "location": place("Dockerfile", one.lines) });
    if let Some(object) = target.as_object_mut() {
        for (key, text) in
            [("name", &one.name), ("description", &one.description), ("platform", &one.platform)]
        {
            if let Some(text) = text {
                object.insert(key.into(), text.as_str().into());
            }
        }
        if one.default {
            object.insert("default".into(), true.into());
        }
    }
    target
}
