//! The arguments of an instruction, by the kind of instruction.

use super::super::problem::Problem;

/// What separates arguments where no quotes count.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Arguments between blanks.
pub(super) fn blank_separated(rest: &str) -> Vec<String> {
    if rest.is_empty() {
        return Vec::new();
    }
    // Blanks are never at the ends here, but others that `trim` does not take may be.
    let mut words = Vec::new();
    let mut word = String::new();
    let mut blank = false;
    for c in rest.chars() {
        match (is_blank(c), blank) {
            (true, false) => words.push(std::mem::take(&mut word)),
            (true, true) => {}
            (false, _) => word.push(c),
        }
        blank = is_blank(c);
    }
    words.push(word);
    words
}

/// A JSON list of texts. `None` if it is none; an error if it is a list of something else.
fn json(rest: &str) -> Result<Option<Vec<String>>, Problem> {
    let rest = rest.trim_start();
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else {
        return Ok(None);
    };
    list.into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(Problem::JsonStrings),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// A JSON list, or the rest of the line as one.
pub(super) fn command(rest: &str) -> Result<(Vec<String>, bool), Problem> {
    if rest.is_empty() {
        return Ok((Vec::new(), false));
    }
    Ok(match json(rest)? {
        Some(list) => (list, true),
        None => (vec![rest.to_owned()], false),
    })
}

/// A JSON list, or arguments between blanks.
pub(super) fn list(rest: &str) -> Result<(Vec<String>, bool), Problem> {
    Ok(match json(rest)? {
        Some(list) => (list, true),
        None => (blank_separated(rest), false),
    })
}

/// `NONE`, or `CMD` and a command.
pub(super) fn healthcheck(rest: &str) -> Result<(Vec<String>, bool), Problem> {
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    if end == 0 {
        return Ok((Vec::new(), false));
    }
    let (kind, command_line) = rest.split_at(end);
    let (arguments, json) = command(command_line.trim_start())?;
    Ok((std::iter::once(kind.to_owned()).chain(arguments).collect(), json))
}

/// Words with their quotes and escapes as written, which separate nothing inside of them.
pub(super) fn words(rest: &str, escape: char) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut blank_word = false;
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if blank_word || !word.is_empty() {
                all.push(std::mem::take(&mut word));
            }
            blank_word = false;
            continue;
        }
        if c == escape && quote != Some('\'') {
            // At the end it is left out.
            if let Some(next) = chars.next() {
                word.push(c);
                word.push(next);
            }
            continue;
        }
        match quote {
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                blank_word = true;
            }
            Some(open) if open == c => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if blank_word || !word.is_empty() {
        all.push(word);
    }
    all
}

/// `key=value …`, or `key value` with the whole rest as value: triples of key, value and `=` or nothing.
pub(super) fn pairs(rest: &str, instruction: &'static str, escape: char) -> Result<Vec<String>, Problem> {
    let words = words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let at = rest.find(is_blank).ok_or(Problem::TwoArguments { instruction })?;
        let value = rest[at..].trim_start_matches(is_blank);
        return Ok(vec![rest[..at].to_owned(), value.to_owned(), String::new()]);
    }
    let mut triples = Vec::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else { return Err(Problem::NoEquals { word }) };
        triples.extend([key.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(triples)
}
