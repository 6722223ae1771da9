//! Texts as a Dockerfile has to have them, so that it reads the same.

/// Characters that mean nothing in any place of a Dockerfile.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_./:@%+=-,~{}$?*".contains(c)
}

/// A text where variables are expanded and quotes taken off: what would mean something but a variable is escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '$' if chars.peek() == Some(&'$') => {
                chars.next();
                out.push_str("\\$");
            }
            '\\' | '"' | '\'' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

/// The same as one word of a line.
pub(super) fn word(text: &str) -> String {
    if !text.is_empty() && text.chars().all(is_plain) && !text.contains("$$") {
        return text.to_owned();
    }
    // Within double quotes a single one means nothing, and a backslash before it would stay.
    format!("\"{}\"", escaped(text).replace("\\'", "'"))
}

/// A list as JSON on one line.
pub(super) fn json<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let words: Vec<String> =
        words.into_iter().map(|word| serde_json::Value::from(word.as_ref()).to_string()).collect();
    format!("[{}]", words.join(", "))
}

/// `key=value` of a comma-separated list, as Go's CSV reader takes it.
pub(super) fn field(key: &str, value: &str) -> String {
    let pair = format!("{key}={value}");
    if pair.contains([',', '"']) { format!("\"{}\"", pair.replace('"', "\"\"")) } else { pair }
}

/// `--name=value`, which a blank or a quote may not end.
pub(super) fn flag(name: &str, value: &str) -> String {
    if value.chars().any(|c| c.is_whitespace() || "\"'\\".contains(c)) {
        format!("--{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("--{name}={value}")
    }
}
