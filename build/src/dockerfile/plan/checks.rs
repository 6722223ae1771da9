//! Checks that look at more than one line.

use onggi_oci::{Platform, Reference};

use super::Planner;
use super::arguments::NOT_VARIABLES;
use crate::dockerfile::instruction::{Argument, Instruction, Stage};
use crate::dockerfile::lint::{Linter, Rule};
use crate::dockerfile::outline::Capture;
use crate::dockerfile::problem::{Lines, similar};
use crate::dockerfile::quote::quoted;
use crate::dockerfile::words::{Expanded, Variables};
use crate::lexical::clean;

/// Among how many variables the one that was meant is looked for: each is compared.
const MAX_SUGGESTED: usize = 1000;
/// Words of names whose values should not be seen.
const SECRETS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words that make a name harmless again.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Names of stages that are taken, or given twice.
pub(super) fn stage_names(stages: &[Stage], linter: &mut Linter) {
    let mut seen = Vec::new();
    for stage in stages {
        let Some(name) = &stage.name else { continue };
        if matches!(name.as_str(), "context" | "scratch") {
            let detail =
                format!("Stage name should not use the same name as reserved stage {}", quoted(name));
            linter.warn(Rule::ReservedStageName, stage.lines, detail);
        }
        if seen.contains(&name) {
            let detail = format!("Duplicate stage name {}, stage names should be unique", quoted(name));
            linter.warn(Rule::DuplicateStageName, stage.lines, detail);
        }
        seen.push(name);
    }
}

/// Instructions in capitals and in small letters.
pub(super) fn casing(stages: &[Stage], linter: &mut Linter) {
    let keywords = || {
        stages.iter().flat_map(|stage| {
            let rest = stage.instructions.iter().map(|instruction| (&instruction.name, instruction.lines));
            std::iter::once((&stage.keyword, stage.lines)).chain(rest)
        })
    };
    let lower = keywords().filter(|(word, _)| **word == word.to_lowercase()).count();
    let upper =
        keywords().filter(|(word, _)| **word == word.to_uppercase() && **word != word.to_lowercase()).count();
    let mostly_lower = lower > upper;
    for (word, lines) in keywords() {
        let casing = match mostly_lower {
            true if *word != word.to_lowercase() => "lowercase",
            false if *word != word.to_uppercase() => "uppercase",
            _ => continue,
        };
        let detail = format!("Command '{word}' should match the case of the command majority ({casing})");
        linter.warn(Rule::ConsistentInstructionCasing, lines, detail);
    }
}

/// Bases that are no names if nobody gives arguments.
pub(super) fn default_bases(
    planner: &mut Planner<'_>,
    globals: &Variables,
    arguments: &[Instruction],
    stages: &[Stage],
) {
    let none = std::collections::BTreeMap::new();
    let mut capture = Capture::default();
    // What fails here fails again where it counts.
    let Ok(defaults) =
        super::arguments::global(globals.clone(), planner.lexer, arguments, &none, &mut capture)
    else {
        return;
    };
    for stage in stages {
        let Ok(name) = planner.lexer.expand(&stage.base, &defaults) else { return };
        if name.text.parse::<Reference>().is_err() {
            let detail =
                format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
            planner.linter.warn(Rule::InvalidDefaultArgInFrom, stage.lines, detail);
        }
    }
}

impl Planner<'_> {
    /// Variables of `FROM` that nobody declared.
    pub(super) fn check_from(&mut self, missing: &[String], capture: &Capture, lines: Lines) {
        if missing.is_empty() {
            return;
        }
        let known: Vec<&str> =
            capture.defined.keys().map(String::as_str).chain(self.globals.names()).collect();
        for name in missing.iter().filter(|name| !known.contains(&name.as_str())) {
            let mut detail = format!("FROM argument '{name}' is not declared");
            if let Some(meant) = similar(name, known.iter().copied(), false) {
                detail.push_str(&format!(" (did you mean {meant}?)"));
            }
            self.linter.warn(Rule::UndefinedArgInFrom, lines, detail);
        }
    }

    /// `--platform` of `FROM` that says nothing new, or always the same.
    pub(super) fn check_platform(&mut self, stage: &Stage, written: &str, expanded: &Expanded) {
        const TARGET: &str = "TARGETPLATFORM";
        if let ([name], []) = (expanded.used.as_slice(), expanded.missing.as_slice())
            && name == TARGET
            && self.globals.get(TARGET) == Some(&expanded.text)
        {
            let detail = format!(
                "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
            );
            self.linter.warn(Rule::RedundantTargetPlatform, stage.lines, detail);
        }
        if !expanded.used.is_empty() || !expanded.missing.is_empty() {
            return;
        }
        let Ok(platform) = expanded.text.parse::<Platform>() else { return };
        let name = stage.name.as_deref().unwrap_or_default();
        if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let detail =
                format!("FROM --platform flag should not use constant value {}", quoted(&expanded.text));
            self.linter.warn(Rule::FromPlatformFlagConstDisallowed, stage.lines, detail);
        }
    }

    /// An image for another machine than wanted.
    pub(super) fn check_base_platform(
        &mut self,
        name: &str,
        wanted: &Platform,
        got: &Platform,
        lines: Lines,
    ) {
        if wanted.os != got.os || wanted.architecture != got.architecture {
            let detail = format!(
                "Base image {name} was pulled with platform {}, expected {} for current build",
                quoted(&got.to_string()),
                quoted(&wanted.to_string())
            );
            self.linter.warn(Rule::InvalidBaseImagePlatform, lines, detail);
        }
    }

    /// A source of a copy that the ignore file leaves out.
    pub(super) fn check_ignored(&mut self, source: &str, instruction: &str, lines: Lines) {
        if self.ignore.is_empty() {
            return;
        }
        let source = clean(source);
        let root = matches!(source.as_str(), "." | "/");
        if root && !self.ignore.excludes_root()
            || self.ignore.may_return_below(if root { "" } else { &source })
        {
            return;
        }
        if self.ignore.excludes(&source) {
            let detail = format!(
                "Attempting to {instruction} file {} that is excluded by .dockerignore",
                quoted(&source)
            );
            self.linter.warn(Rule::CopyIgnoredFile, lines, detail);
        }
    }
}

/// Variables that are used and were never set.
pub(super) fn undefined(
    linter: &mut Linter,
    missing: &[String],
    declared: &[Argument],
    variables: &Variables,
    lines: Lines,
) {
    for name in missing {
        if declared.iter().any(|argument| argument.name == *name) || NOT_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let mut detail = format!("Usage of undefined variable '${name}'");
        let few = variables.names().count() <= MAX_SUGGESTED;
        if let Some(meant) = similar(name, variables.names().filter(|_| few), false) {
            detail.push_str(&format!(" (did you mean ${meant}?)"));
        }
        linter.warn(Rule::UndefinedVar, lines, detail);
    }
}

/// A name that sounds like a secret.
pub(super) fn secret(linter: &mut Linter, instruction: &str, name: &str, lines: Lines) {
    let has =
        |list: &[&str]| name.split('_').any(|word| list.iter().any(|known| word.eq_ignore_ascii_case(known)));
    if has(&SECRETS) && !has(&HARMLESS) {
        let detail =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {})", quoted(name));
        linter.warn(Rule::SecretsUsedInArgOrEnv, lines, detail);
    }
}

/// `ENV a b`
pub(super) fn legacy(linter: &mut Linter, instruction: &str, lines: Lines) {
    let detail = format!(
        "\"{instruction} key=value\" should be used instead of legacy \"{instruction} key value\" format"
    );
    linter.warn(Rule::LegacyKeyValueFormat, lines, detail);
}

/// An instruction of which the last counts, again.
pub(super) fn once(linter: &mut Linter, instruction: &str, last: &mut Option<Lines>, lines: Lines) {
    if let Some(before) = last.replace(lines) {
        let detail = format!(
            "Multiple {instruction} instructions should not be used in the same stage because only the last one will be used"
        );
        linter.warn(Rule::MultipleInstructionsDisallowed, before, detail);
    }
}
