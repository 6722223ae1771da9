//! Patterns inside of `${…}`: `*` and `?`, a backslash before what is meant literally.

use regex::{Regex, RegexBuilder};

use super::{MAX_EXPANDED, WordProblem};

/// The largest compiled pattern in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// One element of a pattern.
enum Part {
    Any,
    One,
    Literal(char),
}

/// Reads a pattern. A backslash before `}` and `/` was only needed to get them here.
fn parts(pattern: &str) -> Result<Vec<Part>, WordProblem> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => {
                let Some(escaped) = chars.next_if(|c| matches!(c, '*' | '?' | '\\' | '}' | '/')) else {
                    let next = chars.next().unwrap_or('\u{fffd}');
                    return Err(bad(pattern, format!("invalid escape '\\{next}'")));
                };
                Part::Literal(escaped)
            }
            c => Part::Literal(c),
        });
    }
    Ok(parts)
}

fn bad(pattern: &str, reason: impl Into<String>) -> WordProblem {
    WordProblem::Pattern { pattern: pattern.to_owned(), reason: reason.into() }
}

fn compile<'a>(
    pattern: &str,
    parts: impl Iterator<Item = &'a Part>,
    longest: bool,
    anchored: bool,
) -> Result<Regex, WordProblem> {
    let mut text = String::from(if anchored { "^" } else { "" });
    for part in parts {
        match part {
            Part::Any => text.push_str(if longest { ".*" } else { ".*?" }),
            Part::One => text.push('.'),
            Part::Literal(c) => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    RegexBuilder::new(&text).size_limit(MAX_COMPILED).build().map_err(|err| bad(pattern, err.to_string()))
}

/// The value without the shortest or longest beginning that matches.
pub(super) fn without_prefix(pattern: &str, value: &str, longest: bool) -> Result<String, WordProblem> {
    let regex = compile(pattern, parts(pattern)?.iter(), longest, true)?;
    let end = regex.find(value).map_or(0, |found| found.end());
    Ok(value[end..].to_owned())
}

/// The value without the shortest or longest end that matches. Expressions look from the left, so
/// both are turned around.
pub(super) fn without_suffix(pattern: &str, value: &str, longest: bool) -> Result<String, WordProblem> {
    let regex = compile(pattern, parts(pattern)?.iter().rev(), longest, true)?;
    let reversed: String = value.chars().rev().collect();
    let end = regex.find(&reversed).map_or(0, |found| found.end());
    Ok(reversed[end..].chars().rev().collect())
}

/// The value with the first or every longest match replaced.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    all: bool,
) -> Result<String, WordProblem> {
    let regex = compile(pattern, parts(pattern)?.iter(), true, false)?;
    if all {
        // BuildKit's replacement of all knows `$0` for the match; that of the first doesn't.
        let references = replacement.matches('$').count();
        let mut result = String::new();
        let mut end = 0;
        for found in regex.captures_iter(value) {
            let range = found.get_match().range();
            if result.len() + replacement.len() + references * range.len() > MAX_EXPANDED {
                return Err(WordProblem::TooLong);
            }
            result.push_str(&value[end..range.start]);
            found.expand(replacement, &mut result);
            end = range.end;
        }
        result.push_str(&value[end..]);
        return Ok(result);
    }
    Ok(match regex.find(value) {
        Some(found) => format!("{}{replacement}{}", &value[..found.start()], &value[found.end()..]),
        None => value.to_owned(),
    })
}
