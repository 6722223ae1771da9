//! Words of a Dockerfile: quotes, escapes and variables, as a shell would read them.
//!
//! ```text
//!   $NAME ${NAME}            the value, nothing if unset
//!   ${N:-w} ${N-w}           w if unset (with `:` also if empty)
//!   ${N:+w} ${N+w}           w if set (with `:` only if not empty)
//!   ${N:?w} ${N?w}           an error that says w if unset (with `:` also if empty)
//!   ${N#p} ${N##p}           without the shortest, the longest beginning that matches p
//!   ${N%p} ${N%%p}           without the shortest, the longest end that matches p
//!   ${N/p/w} ${N//p/w}       the first, every match of p replaced
//! ```
//! `'…'` is literal; in `"…"` variables count, and the escape character before `"`, `$` and itself.
//! Patterns have `*` and `?`.

mod pattern;

use std::iter::Peekable;
use std::str::Chars;

use super::quote::quoted;

/// How deep `${a:-${b:-…}}` may go: far more than anybody reads, and no overflow of the stack.
const MAX_NESTING: usize = 64;
/// The largest result of one expansion in bytes. `${x//a/bbbb}` after `${x//b/aaaa}` grows without end.
const MAX_EXPANDED: usize = 16 << 20;

/// Variables by name, in the order in which they were set last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(Vec<(String, String)>);

impl Variables {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets a variable; it is then the last one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.unset(&name);
        self.0.push((name, value.into()));
    }

    /// Removes a variable.
    pub fn unset(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// As an environment has them: `NAME=value`.
    pub fn to_env(&self) -> Vec<String> {
        self.0.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

/// How words are read. The default is what instructions do with the escape character `\`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lexer {
    /// `\`, or `` ` `` by `# escape=`.
    pub escape: char,
    /// Quotes group words and stay.
    pub keep_quotes: bool,
    /// Escape characters stay.
    pub keep_escapes: bool,
    /// Quotes are ordinary characters.
    pub ignore_quotes: bool,
    /// A variable that is unset stays as written.
    pub keep_unset: bool,
}

impl Lexer {
    /// With this escape character.
    pub fn new(escape: char) -> Self {
        Self { escape, keep_quotes: false, keep_escapes: false, ignore_quotes: false, keep_unset: false }
    }

    /// Expands a text.
    ///
    /// # Errors
    /// A quote or brace is not closed, a form is not known, `:?` demands a value, or the result is too large.
    pub fn expand(&self, text: &str, variables: &Variables) -> Result<Expanded, ExpandError> {
        let mut run = Run {
            lexer: *self,
            chars: text.trim_start_matches('\u{feff}').chars().peekable(),
            variables,
            keep_escapes: self.keep_escapes,
            depth: 0,
            used: Vec::new(),
            missing: Vec::new(),
        };
        match run.until(None, self.keep_escapes) {
            Ok((text, words)) => Ok(Expanded { text, words, used: run.used, missing: run.missing }),
            Err(problem) => Err(ExpandError { text: text.to_owned(), problem, missing: run.missing }),
        }
    }
}

/// An expanded text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// As one.
    pub text: String,
    /// Split at spaces that are neither quoted nor escaped.
    pub words: Vec<String>,
    /// Variables that were asked for and set, each once, in order.
    pub used: Vec<String>,
    /// Variables that were asked for and not set, each once, in order.
    pub missing: Vec<String>,
}

/// A text that can't be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {problem}", quoted(.text))]
pub struct ExpandError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub problem: WordProblem,
    /// Variables that were asked for before and not set.
    pub missing: Vec<String>,
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordProblem {
    /// `'…` without end.
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    /// `"…` without end.
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    /// `${…` without end.
    #[error("syntax error: missing '}}'")]
    Brace,
    /// `${x/…` without a second slash.
    #[error("syntax error: missing '/' in ${{}}")]
    Slash,
    /// `${}`, `${:…`, `${{…`
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${x!…}`
    #[error("unsupported modifier ({modifier}) in substitution")]
    Modifier {
        /// What follows the name.
        modifier: String,
    },
    /// `${x?word}` where x is unset or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The word, or that it must not be so.
        message: String,
    },
    /// A backslash before something that needs none.
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// More than `MAX_NESTING` forms inside of each other.
    #[error("more than {MAX_NESTING} nested substitutions")]
    TooDeep,
    /// More than `MAX_EXPANDED` bytes.
    #[error("the result is longer than {MAX_EXPANDED} bytes")]
    TooLong,
}

/// The words of a text as they come.
#[derive(Default)]
struct Split {
    word: String,
    words: Vec<String>,
    inside: bool,
}

impl Split {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.push_literal(c);
        } else if self.inside && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
            self.inside = false;
        }
    }

    fn push_literal(&mut self, c: char) {
        self.word.push(c);
        self.inside = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Run<'a> {
    lexer: Lexer,
    chars: Peekable<Chars<'a>>,
    variables: &'a Variables,
    keep_escapes: bool,
    depth: usize,
    used: Vec<String>,
    missing: Vec<String>,
}

impl Run<'_> {
    /// Reads up to `stop`, which is taken, or to the end if there is none.
    fn until(
        &mut self,
        stop: Option<char>,
        keep_escapes: bool,
    ) -> Result<(String, Vec<String>), WordProblem> {
        if self.depth >= MAX_NESTING {
            return Err(WordProblem::TooDeep);
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        let result = self.until_inner(stop);
        self.keep_escapes = outer;
        self.depth -= 1;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), WordProblem> {
        let mut text = String::new();
        let mut split = Split::default();
        while let Some(&c) = self.chars.peek() {
            if text.len() > MAX_EXPANDED {
                return Err(WordProblem::TooLong);
            }
            if Some(c) == stop {
                self.chars.next();
                return Ok((text, split.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    value.chars().for_each(|c| split.push(c));
                }
                '\'' | '"' if !self.lexer.ignore_quotes => {
                    let inner = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    text.push_str(&inner);
                    split.word.push_str(&inner);
                    split.inside = true;
                }
                c if c == self.lexer.escape => {
                    self.chars.next();
                    if self.keep_escapes {
                        split.push_literal(c);
                        text.push(c);
                    }
                    // At the end it escapes nothing.
                    let Some(next) = self.chars.next() else { break };
                    split.push_literal(next);
                    text.push(next);
                }
                c => {
                    self.chars.next();
                    split.push(c);
                    text.push(c);
                }
            }
        }
        if stop.is_some() { Err(WordProblem::Brace) } else { Ok((text, split.finish())) }
    }

    /// Reads up to `stop`. At the end of the text that is what is missing, whatever else was open.
    fn enclosed(&mut self, stop: char, keep_escapes: bool) -> Result<String, WordProblem> {
        match self.until(Some(stop), keep_escapes) {
            Ok((text, _)) => Ok(text),
            Err(problem @ (WordProblem::TooDeep | WordProblem::TooLong)) => Err(problem),
            Err(problem) if self.chars.peek().is_some() => Err(problem),
            Err(_) if stop == '/' => Err(WordProblem::Slash),
            Err(_) => Err(WordProblem::Brace),
        }
    }

    fn single_quoted(&mut self) -> Result<String, WordProblem> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.chars.peek() {
                None => return Err(WordProblem::SingleQuote),
                Some('\'') => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                Some(&c) => {
                    self.chars.next();
                    text.push(c);
                }
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, WordProblem> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            if text.len() > MAX_EXPANDED {
                return Err(WordProblem::TooLong);
            }
            match self.chars.peek().copied() {
                None => return Err(WordProblem::DoubleQuote),
                Some('"') => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) => {
                    self.chars.next();
                    if c != self.lexer.escape {
                        text.push(c);
                        continue;
                    }
                    if self.keep_escapes {
                        text.push(c);
                    }
                    match self.chars.peek().copied() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == self.lexer.escape => {
                            self.chars.next();
                            text.push(next);
                        }
                        Some(_) => text.push(c),
                    }
                }
            }
        }
    }

    /// Takes a quote, which stays where quotes stay.
    fn quote(&mut self, text: &mut String) {
        let quote = self.chars.next();
        if self.lexer.keep_quotes {
            text.extend(quote);
        }
    }

    fn dollar(&mut self) -> Result<String, WordProblem> {
        self.chars.next();
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(match self.value(&name) {
            Some(value) => value,
            None if self.lexer.keep_unset => format!("${name}"),
            None => String::new(),
        })
    }

    /// What follows `${`.
    fn braced(&mut self) -> Result<String, WordProblem> {
        match self.chars.peek() {
            None => return Err(WordProblem::Brace),
            Some('{' | '}' | ':') => return Err(WordProblem::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        // The end of the text is shown as the character that stands for what isn't one.
        let mut next = || self.chars.next().unwrap_or('\u{fffd}');
        let mut operator = next();
        let mut modifier = operator.to_string();
        let empty_is_unset = operator == ':';
        if empty_is_unset {
            operator = next();
            modifier.push(operator);
        }
        match operator {
            '}' if !empty_is_unset => {
                return Ok(match self.value(&name) {
                    Some(value) => value,
                    None if self.lexer.keep_unset => format!("${{{name}}}"),
                    None => String::new(),
                });
            }
            '/' if !empty_is_unset => return self.replaced(&name),
            '+' | '-' | '?' => {}
            '#' | '%' if !empty_is_unset => {}
            '#' | '%' => return Err(WordProblem::Modifier { modifier }),
            _ if empty_is_unset => {
                let word = self.enclosed('}', false)?;
                return match self.value(&name) {
                    None if self.lexer.keep_unset => Ok(format!("${{{name}{modifier}{word}}}")),
                    _ => Err(WordProblem::Modifier { modifier }),
                };
            }
            _ => return Err(WordProblem::Modifier { modifier }),
        }

        let word = self.enclosed('}', matches!(operator, '#' | '%'))?;
        let value = self.value(&name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let given = value.as_deref().filter(|value| !(empty_is_unset && value.is_empty()));
        match operator {
            '-' => Ok(given.map_or(word, str::to_owned)),
            '+' => Ok(if given.is_some() { word } else { String::new() }),
            '?' => {
                if let Some(given) = given {
                    return Ok(given.to_owned());
                }
                let is = if value.is_none() { "unset" } else { "empty" };
                let message = if word.is_empty() { format!("is not allowed to be {is}") } else { word };
                Err(WordProblem::Required { name, message })
            }
            operator => {
                let value = value.unwrap_or_default();
                let (pattern, longest) = match word.strip_prefix(operator) {
                    Some(rest) => (rest, true),
                    None => (word.as_str(), false),
                };
                if operator == '#' {
                    pattern::without_prefix(pattern, &value, longest)
                } else {
                    pattern::without_suffix(pattern, &value, longest)
                }
            }
        }
    }

    /// What follows `${name/`.
    fn replaced(&mut self, name: &str) -> Result<String, WordProblem> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = self.enclosed('/', true)?;
        let replacement = self.enclosed('}', true)?;
        match self.value(name) {
            None if self.lexer.keep_unset => {
                let slashes = if all { "//" } else { "/" };
                Ok(format!("${{{name}{slashes}{pattern}/{replacement}}}"))
            }
            value => pattern::replace(&pattern, &value.unwrap_or_default(), &replacement, all),
        }
    }

    /// A name: letters, digits and `_`; or only digits; or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek().copied() {
            Some(c) if is_digit(c) => {
                while let Some(c) = self.chars.next_if(|c| is_digit(*c)) {
                    name.push(c);
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.chars.next();
                name.push(c);
            }
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_alphabetic() || is_digit(*c) || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name).map(str::to_owned);
        let seen = if value.is_some() { &mut self.used } else { &mut self.missing };
        if !seen.iter().any(|known| known == name) {
            seen.push(name.to_owned());
        }
        value
    }
}

/// A decimal digit of any script, as Go's `unicode.IsDigit` has it for those in use.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric() && !c.is_alphabetic())
}

#[cfg(test)]
mod tests;
