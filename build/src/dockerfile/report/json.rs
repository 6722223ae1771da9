//! The shapes of BuildKit's `lint`, `outline` and `targets` subrequests. What is empty is left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::dockerfile::lint::Warning;
use crate::dockerfile::outline::{Argument, Need, Outline, TargetInfo};
use crate::dockerfile::problem::{Diagnostic, Lines};

#[derive(Serialize)]
struct Location {
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: u32,
}

impl Location {
    /// One range a line, as BuildKit has it.
    fn of(places: &[Lines]) -> Self {
        let range = |line| Range { start: Position { line }, end: Position { line } };
        Self { ranges: places.iter().flat_map(|place| place.first..=place.last).map(range).collect() }
    }
}

fn none(text: &str) -> bool {
    text.is_empty()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn no(truth: &bool) -> bool {
    !truth
}

fn print<T: Serialize>(answer: &T) -> String {
    let mut text = serde_json::to_string_pretty(answer).expect("texts and numbers always serialise");
    text.push('\n');
    text
}

/// The answer to a check.
pub(super) fn check(file: &str, text: &str, warnings: &[Warning], problem: Option<&Diagnostic>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        warnings: Option<Vec<Item<'a>>>,
        sources: [Source<'a>; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        build_error: Option<Failure>,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Item<'a> {
        rule_name: &'static str,
        description: &'static str,
        #[serde(skip_serializing_if = "String::is_empty")]
        url: String,
        detail: &'a str,
        location: Location,
    }

    impl<'a> Item<'a> {
        fn of(warning: &'a Warning) -> Self {
            Self {
                rule_name: warning.rule.name(),
                description: warning.rule.description(),
                url: warning.rule.url(),
                detail: &warning.detail,
                location: Location::of(&[warning.lines]),
            }
        }
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Source<'a> {
        file_name: &'a str,
        language: &'static str,
        data: String,
    }

    #[derive(Serialize)]
    struct Failure {
        message: String,
        location: Location,
    }

    print(&Answer {
        warnings: (!warnings.is_empty()).then(|| warnings.iter().map(Item::of).collect()),
        sources: [Source { file_name: file, language: "Dockerfile", data: BASE64.encode(text) }],
        build_error: problem
            .map(|problem| Failure { message: problem.to_string(), location: Location::of(&problem.lines) }),
    })
}

/// The answer to what a target takes.
pub(super) fn outline(text: &str, outline: &Outline) -> String {
    #[derive(Serialize)]
    struct Answer<'a> {
        #[serde(skip_serializing_if = "none")]
        name: &'a str,
        #[serde(skip_serializing_if = "none")]
        description: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        args: Vec<Arg<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        secrets: Vec<Needed<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ssh: Vec<Needed<'a>>,
        sources: [String; 1],
    }

    #[derive(Serialize)]
    struct Arg<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "none")]
        description: &'a str,
        #[serde(skip_serializing_if = "none")]
        value: &'a str,
        location: Location,
    }

    impl<'a> Arg<'a> {
        fn of(argument: &'a Argument) -> Self {
            Self {
                name: &argument.name,
                description: argument.description.as_deref().unwrap_or_default(),
                value: &argument.value,
                location: Location::of(&[argument.lines]),
            }
        }
    }

    #[derive(Serialize)]
    struct Needed<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "no")]
        required: bool,
        location: Location,
    }

    fn needed(needs: &[Need]) -> Vec<Needed<'_>> {
        needs
            .iter()
            .map(|need| Needed {
                name: &need.name,
                required: need.required,
                location: Location::of(&[need.lines]),
            })
            .collect()
    }

    print(&Answer {
        name: outline.name.as_deref().unwrap_or_default(),
        description: outline.description.as_deref().unwrap_or_default(),
        args: outline.arguments.iter().map(Arg::of).collect(),
        secrets: needed(&outline.secrets),
        ssh: needed(&outline.ssh),
        sources: [BASE64.encode(text)],
    })
}

/// The answer to what can be built.
pub(super) fn targets(text: &str, targets: &[TargetInfo]) -> String {
    #[derive(Serialize)]
    struct Answer<'a> {
        targets: Vec<Item<'a>>,
        sources: [String; 1],
    }

    #[derive(Serialize)]
    struct Item<'a> {
        #[serde(skip_serializing_if = "none")]
        name: &'a str,
        #[serde(skip_serializing_if = "no")]
        default: bool,
        #[serde(skip_serializing_if = "none")]
        description: &'a str,
        #[serde(skip_serializing_if = "none")]
        base: &'a str,
        #[serde(skip_serializing_if = "none")]
        platform: &'a str,
        location: Location,
    }

    let items = targets
        .iter()
        .map(|target| Item {
            name: target.name.as_deref().unwrap_or_default(),
            default: target.default,
            description: target.description.as_deref().unwrap_or_default(),
            base: &target.base,
            platform: target.platform.as_deref().unwrap_or_default(),
            location: Location::of(&[target.lines]),
        })
        .collect();
    print(&Answer { targets: items, sources: [BASE64.encode(text)] })
}
