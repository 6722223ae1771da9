//! Answers instead of a build: `--call=check`, `outline`, `targets`, for people and as JSON in the
//! shapes of BuildKit's subrequests.

mod json;
mod lenient;

use lenient::Lenient;

use super::excerpt::excerpt;
use super::instruction;
use super::lint::{Linter, Warning};
use super::outline::{self, Need, Outline, TargetInfo};
use super::plan::{self, Options, Plan};
use super::problem::{Diagnostic, Lines};
use super::syntax;
use crate::graph::Graph;
use crate::images::Images;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What is wrong, or could be better.
    Check,
    /// What the target takes.
    Outline,
    /// What can be built.
    Targets,
}

/// How the answer looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To be printed.
    pub text: String,
    /// Whether the exit status tells of a failure: a check found something.
    pub failed: bool,
    /// Base images that could not be had, each a sentence.
    pub missing: Vec<String>,
}

/// What people are shown of a build file that was translated: its own text, and where lines come from.
pub struct Shown<'a> {
    /// Its text.
    pub text: &'a str,
    /// Where lines of the Dockerfile are in it.
    pub origin: &'a dyn Fn(Lines) -> Lines,
}

/// Answers a question about a Dockerfile. A base image that can't be had counts as one with an empty config.
///
/// # Errors
/// The Dockerfile can't be read or planned. A check does not fail so: that is what it answers.
pub fn answer(
    call: Call,
    format: Format,
    text: &str,
    options: &Options,
    images: &(dyn Images + Sync),
) -> Result<Answer, Diagnostic> {
    answer_about(call, format, text, &Shown { text, origin: &|lines| lines }, options, images)
}

/// The same of one that is shown in another form.
///
/// # Errors
/// As [`answer`]; its lines are the Dockerfile's.
pub fn answer_about(
    call: Call,
    format: Format,
    text: &str,
    shown: &Shown<'_>,
    options: &Options,
    images: &(dyn Images + Sync),
) -> Result<Answer, Diagnostic> {
    let mut graph = Graph::default();
    let images = Lenient::new(images);
    match call {
        Call::Check => {
            let (result, mut warnings) = check(text, options, &images, &mut graph);
            for warning in &mut warnings {
                warning.lines = (shown.origin)(warning.lines);
            }
            let mut problem = result.err();
            for lines in problem.iter_mut().flat_map(|problem| &mut problem.lines) {
                *lines = (shown.origin)(*lines);
            }
            let failed = problem.is_some() || !warnings.is_empty();
            let text = match format {
                Format::Json => json::check(&options.file, shown.text, &warnings, problem.as_ref()),
                Format::Text => check_text(&options.file, shown.text, &warnings, problem.as_ref()),
            };
            Ok(Answer { text, failed, missing: images.missing() })
        }
        Call::Outline => {
            let mut outline = plan::plan(text, options, &images, &mut graph)?.outline;
            let arguments = outline.arguments.iter_mut().map(|argument| &mut argument.lines);
            let needs = outline.secrets.iter_mut().chain(&mut outline.ssh).map(|need| &mut need.lines);
            arguments.chain(needs).for_each(|lines| *lines = (shown.origin)(*lines));
            let text = match format {
                Format::Json => json::outline(shown.text, &outline),
                Format::Text => outline_text(&outline),
            };
            Ok(Answer { text, failed: false, missing: images.missing() })
        }
        Call::Targets => {
            let mut all = targets(text)?;
            for target in &mut all {
                target.lines = (shown.origin)(target.lines);
            }
            let text = match format {
                Format::Json => json::targets(shown.text, &all),
                Format::Text => targets_text(&all),
            };
            Ok(Answer { text, failed: false, missing: Vec::new() })
        }
    }
}

/// Checks a Dockerfile; of all stages if no target is named. Warnings are there also if it fails.
pub fn check(
    text: &str,
    options: &Options,
    images: &(dyn Images + Sync),
    graph: &mut Graph,
) -> (Result<Plan, Diagnostic>, Vec<Warning>) {
    let all_stages = options.target.as_deref().is_none_or(str::is_empty);
    plan::checked(text, &Options { all_stages, ..options.clone() }, images, graph)
}

/// The stages of a Dockerfile.
///
/// # Errors
/// It can't be read.
pub fn targets(text: &str) -> Result<Vec<TargetInfo>, Diagnostic> {
    let file = syntax::parse(text)?;
    let document = instruction::document(&file, &mut Linter::default())?;
    Ok(outline::targets(&document))
}

/// Warnings with the lines that they are about.
pub fn warnings_text(file: &str, text: &str, warnings: &[Warning]) -> String {
    let mut sorted: Vec<&Warning> = warnings.iter().collect();
    sorted.sort_by_key(|warning| warning.lines);
    let mut out = String::new();
    for warning in sorted {
        let url = warning.rule.url();
        let link = if url.is_empty() { String::new() } else { format!(" - {url}") };
        out.push_str(&format!("\nWARNING: {}{link}\n{}\n", warning.rule.name(), warning.detail));
        out.push_str(&excerpt(file, text, &[warning.lines], None));
    }
    out
}

fn check_text(file: &str, text: &str, warnings: &[Warning], problem: Option<&Diagnostic>) -> String {
    let mut out = match warnings.len() {
        0 if problem.is_none() => "Check complete, no warnings found.\n".to_owned(),
        0 => String::new(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    out.push_str(&warnings_text(file, text, warnings));
    if let Some(problem) = problem {
        out.push_str(&format!("\n{}ERROR: {problem}\n", problem.excerpt(file, text)));
    }
    out
}

fn outline_text(outline: &Outline) -> String {
    let mut out = String::new();
    if outline.name.is_some() || outline.description.is_some() {
        let mut rows = vec![["TARGET:".to_owned(), outline.name.clone().unwrap_or_else(|| "default".into())]];
        if let Some(description) = &outline.description {
            rows.push(["DESCRIPTION:".to_owned(), description.clone()]);
        }
        out.push_str(&table(&rows));
        out.push('\n');
    }
    if !outline.arguments.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned)];
        rows.extend(outline.arguments.iter().map(|argument| {
            let description = argument.description.clone().unwrap_or_default();
            [argument.name.clone(), argument.value.clone(), description]
        }));
        out.push_str(&table(&rows));
        out.push('\n');
    }
    for (heading, needs) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if needs.is_empty() {
            continue;
        }
        let mut rows = vec![[heading.to_owned(), "REQUIRED".to_owned()]];
        let required = |need: &Need| if need.required { "true".to_owned() } else { String::new() };
        rows.extend(needs.iter().map(|need| [need.name.clone(), required(need)]));
        out.push_str(&table(&rows));
        out.push('\n');
    }
    out
}

fn targets_text(targets: &[TargetInfo]) -> String {
    let mut rows = vec![["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for target in targets {
        let name = match (&target.name, target.default) {
            (Some(name), true) => format!("{name} (default)"),
            (Some(name), false) => name.clone(),
            (None, true) => "(default)".to_owned(),
            (None, false) => continue,
        };
        rows.push([name, target.description.clone().unwrap_or_default()]);
    }
    table(&rows)
}

/// Columns three blanks apart.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}   ")).collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use onggi_oci::{ErrorKind, Platform};

    use super::*;
    use crate::graph::ImageSource;
    use crate::images::ResolvedImage;

    struct None;

    impl Images for None {
        fn resolve(&self, image: &ImageSource, _: &Platform) -> crate::Result<ResolvedImage> {
            Err(crate::Error::Caller {
                op: "find",
                object: image.reference.clone(),
                kind: ErrorKind::NotFound,
                source: "nothing here".into(),
            })
        }
    }

    const TEXT: &str = "ARG V=1\n# last does it\nFROM scratch as last\nARG V\n# W is wide\nARG W=2\n";

    fn ask(call: Call, format: Format) -> Answer {
        let options = Options { file: "Dockerfile".to_owned(), ..Options::default() };
        answer(call, format, TEXT, &options, &None).unwrap()
    }

    #[test]
    fn for_people() {
        let check = ask(Call::Check, Format::Text);
        assert!(check.failed);
        assert!(check.text.starts_with(
            "Check complete, 1 warning has been found!\n\nWARNING: FromAsCasing - \
             https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n'as' and 'FROM' keywords' casing do not match\n\
             Dockerfile:3\n"
        ));
        assert_eq!(
            ask(Call::Outline, Format::Text).text,
            "TARGET:        last\nDESCRIPTION:   does it\n\nBUILD ARG   VALUE   DESCRIPTION\nV           1\nW           2       is wide\n\n"
        );
        assert_eq!(
            ask(Call::Targets, Format::Text).text,
            "TARGET           DESCRIPTION\nlast (default)   does it\n"
        );
    }

    #[test]
    fn for_programs() {
        let parse =
            |call| -> serde_json::Value { serde_json::from_str(&ask(call, Format::Json).text).unwrap() };
        let check = parse(Call::Check);
        assert_eq!(check["warnings"][0]["ruleName"], "FromAsCasing");
        assert_eq!(check["warnings"][0]["location"]["ranges"][0]["start"]["line"], 3);
        let outline = parse(Call::Outline);
        assert_eq!(outline["args"][1]["description"], "is wide");
        assert_eq!(outline["args"][0]["location"]["ranges"][0]["start"]["line"], 1);
        let targets = parse(Call::Targets);
        assert_eq!(targets["targets"][0]["default"], true);
        assert!(targets["targets"][0].get("platform").is_none());
    }

    #[test]
    fn images_that_cannot_be_had_are_empty() {
        let options = Options { file: "Dockerfile".to_owned(), ..Options::default() };
        let text = "ARG A=1\nFROM nowhere:$A\nRUN x";
        let check = answer(Call::Check, Format::Text, text, &options, &None).unwrap();
        assert_eq!(
            (check.failed, check.missing),
            (false, vec!["find docker.io/library/nowhere:1: nothing here".to_owned()])
        );
        let outline = answer(Call::Outline, Format::Text, text, &options, &None).unwrap();
        assert!(outline.text.contains("A           1"));
    }

    #[test]
    fn a_check_says_why_it_failed() {
        let options = Options { file: "Dockerfile".to_owned(), ..Options::default() };
        let ask = |format| answer(Call::Check, format, "FROM scratch\nCOPI a b", &options, &None).unwrap();
        assert!(ask(Format::Text).text.contains("^^^^\n"));
        let json: serde_json::Value = serde_json::from_str(&ask(Format::Json).text).unwrap();
        assert_eq!(
            json["buildError"]["message"],
            "dockerfile parse error on line 2: unknown instruction: COPI (did you mean COPY?)"
        );
        assert!(json["warnings"].is_null());
    }
}
