//! Flags of an instruction, held against those that it has.

use super::super::lint::boolean;
use super::super::problem::{Diagnostic, Lines, Problem};

/// How a flag is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--link`, `--link=false`
    Bool,
    /// `--chown=x`
    Text,
    /// The same, any number of times.
    Texts,
}

/// Flags that were given.
pub(super) struct Flags {
    values: Vec<(&'static str, String)>,
}

impl Flags {
    /// Reads flags.
    pub(super) fn read(
        given: &[String],
        known: &[(&'static str, Kind)],
        lines: Lines,
    ) -> Result<Self, Diagnostic> {
        let mut values: Vec<(&'static str, String)> = Vec::new();
        for flag in given {
            let fail = |problem| Err(Diagnostic::at(problem, lines).with_word(flag.as_str()));
            let Some(text) = flag.strip_prefix("--") else {
                return fail(Problem::NoFlag { text: flag.clone() });
            };
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text, None),
            };
            let Some((known_name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                return fail(Problem::UnknownFlag { name: name.to_owned() }).map_err(
                    |problem: Diagnostic| {
                        problem.with_word(format!("--{name}")).suggest(
                            name,
                            known.iter().map(|(known, _)| *known),
                            false,
                        )
                    },
                );
            };
            if *kind != Kind::Texts && values.iter().any(|(seen, _)| seen == known_name) {
                return fail(Problem::DuplicateFlag { name: name.to_owned() });
            }
            let missing = || Problem::FlagValue { name: name.to_owned() };
            let value = match (kind, value) {
                (Kind::Bool, None) => "true".to_owned(),
                (Kind::Bool, Some(value)) => match value.to_ascii_lowercase().as_str() {
                    "" => return fail(missing()),
                    lower @ ("true" | "false") => lower.to_owned(),
                    _ => {
                        return fail(Problem::FlagBoolean { name: name.to_owned(), value: value.to_owned() });
                    }
                },
                (_, None) => return fail(missing()),
                (_, Some(value)) => value.to_owned(),
            };
            values.push((known_name, value));
        }
        Ok(Self { values })
    }

    /// The value of a flag; none if it was not given or is empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.values.iter().find(|(known, _)| *known == name)?;
        (!value.is_empty()).then(|| value.clone())
    }

    /// The values of a flag that may be given several times.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.values.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a flag is on, if it was given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).as_deref().and_then(boolean)
    }
}
