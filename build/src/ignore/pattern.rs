//! One pattern: cheap comparisons for the usual forms, a regular expression for the rest.

use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

use super::PatternError;
use crate::lexical::clean;

/// The largest compiled pattern in bytes: one with thousands of classes is an attack.
const MAX_COMPILED: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    pub(super) negated: bool,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// The path itself.
    Exact,
    /// `dir/**`: what begins with `dir/`.
    Prefix(String),
    /// `**/name`: what ends with `/name`, and `name`.
    Suffix(String),
    /// All else.
    Regex(Regex),
}

impl Pattern {
    /// The pattern, or nothing if the text is blank.
    pub(super) fn new(text: &str) -> Result<Option<Self>, PatternError> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(None);
        }
        let cleaned = clean(trimmed);
        let (negated, pattern) = match cleaned.strip_prefix('!') {
            Some("") => return Err(PatternError::BareNegation),
            Some(rest) => (true, rest),
            None => (false, cleaned.as_str()),
        };
        let bad = || PatternError::Syntax { pattern: text.to_owned() };
        if !well_formed(pattern) {
            return Err(bad());
        }
        let form = compile(pattern).ok_or_else(bad)?;
        Ok(Some(Self { text: pattern.to_owned(), negated, form }))
    }

    /// The pattern as text, clean and without `!`.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.form {
            Form::Exact => path == self.text,
            Form::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Form::Suffix(suffix) => path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path),
            Form::Regex(regex) => regex.is_match(path),
        }
    }

    /// The components before the first with a wildcard, and whether there is one.
    pub(super) fn literal_prefix(&self) -> (&str, bool) {
        let mut end = 0;
        for component in self.text.split('/') {
            if component.contains(['*', '?', '[']) {
                return (self.text[..end].trim_end_matches('/'), true);
            }
            end = (end + component.len() + 1).min(self.text.len());
        }
        (&self.text, false)
    }
}

/// Whether Go's `path.Match` takes the pattern: brackets closed and not empty, nothing escaped at the end.
fn well_formed(pattern: &str) -> bool {
    /// One character of a class; there has to be another behind it.
    fn member(chars: &mut Peekable<Chars<'_>>) -> bool {
        match chars.next() {
            None | Some('-' | ']') => false,
            Some('\\') => chars.next().is_some() && chars.peek().is_some(),
            Some(_) => chars.peek().is_some(),
        }
    }

    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return false,
            '[' => {
                chars.next_if_eq(&'^');
                let mut members = 0;
                loop {
                    if members > 0 && chars.next_if_eq(&']').is_some() {
                        break;
                    }
                    if !member(&mut chars) {
                        return false;
                    }
                    if chars.next_if_eq(&'-').is_some() && !member(&mut chars) {
                        return false;
                    }
                    members += 1;
                }
            }
            _ => {}
        }
    }
    true
}

/// The cheapest form that says what the pattern says.
fn compile(pattern: &str) -> Option<Form> {
    #[derive(PartialEq)]
    enum Kind {
        Exact,
        Prefix,
        Suffix,
        Regex,
    }

    let mut regex = String::from("^");
    let mut kind = Kind::Exact;
    let mut in_class = false;
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                // `**/` is `**`.
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    regex.push_str("(.*/)?");
                    kind = Kind::Regex;
                } else if kind == Kind::Exact {
                    kind = Kind::Prefix;
                } else {
                    regex.push_str(".*");
                    kind = Kind::Regex;
                }
                if first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                kind = Kind::Regex;
            }
            '?' => {
                regex.push_str("[^/]");
                kind = Kind::Regex;
            }
            '\\' => match chars.next() {
                // Letters keep the meaning that they have in Go's expressions: `\d` is a digit.
                Some(next) if next.is_ascii_alphanumeric() => {
                    regex.push('\\');
                    regex.push(next);
                    kind = Kind::Regex;
                }
                Some(next) => {
                    regex.push_str(&regex::escape(next.encode_utf8(&mut [0; 4])));
                    kind = Kind::Regex;
                }
                None => return None,
            },
            '[' | ']' => {
                // A bracket inside of a class stands for itself.
                if c == '[' && in_class {
                    regex.push('\\');
                }
                in_class = c == '[';
                regex.push(c);
                kind = Kind::Regex;
            }
            '^' | '-' => regex.push(c),
            c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
        first = false;
    }
    Some(match kind {
        Kind::Exact => Form::Exact,
        Kind::Prefix => Form::Prefix(pattern[..pattern.len() - 2].to_owned()),
        Kind::Suffix => Form::Suffix(pattern[2..].to_owned()),
        Kind::Regex => {
            regex.push('$');
            Form::Regex(regex::RegexBuilder::new(&regex).size_limit(MAX_COMPILED).build().ok()?)
        }
    })
}
