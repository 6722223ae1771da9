//! Directives: `# name=value` above everything else.

use super::super::problem::Problem;

/// A directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// `syntax`, `escape` or `check`.
    pub name: String,
    /// Its value as written.
    pub value: String,
    /// Its line.
    pub line: u32,
}

/// Reads directives until something else comes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    done: bool,
    seen: Vec<String>,
}

impl Reader {
    /// The directive on this line, if it is one and all above are.
    pub(super) fn read(&mut self, line: &str, number: u32) -> Result<Option<Directive>, Problem> {
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix('#').and_then(name_and_value) else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(Problem::DirectiveTwice { name });
        }
        self.seen.push(name.clone());
        Ok(Some(Directive { name, value: value.to_owned(), line: number }))
    }
}

/// `name=value` of a comment that is a directive.
pub(crate) fn name_and_value(comment: &str) -> Option<(String, &str)> {
    let (name, value) = comment.trim_start().split_once('=')?;
    let name = name.trim_end().to_ascii_lowercase();
    let value = value.trim();
    (matches!(name.as_str(), "syntax" | "escape" | "check") && !value.is_empty()).then_some((name, value))
}

/// The first word of `# check=` in a text, which may begin with `#!`.
pub fn check_directive(text: &str) -> Option<(&str, u32)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::default();
    for (number, line) in (1..).zip(text.lines()) {
        if number == 1 && line.starts_with("#!") {
            continue;
        }
        let found = reader.read(line, number).ok().flatten()?;
        if found.name == "check" {
            let (_, value) = line.split_once('=')?;
            return Some((value.trim().split(' ').next().unwrap_or_default(), number));
        }
    }
    None
}
