//! Cuts a template into tokens, by the rules of Go's `text/template`.
//!
//! ```text
//!   REPO {{- range $i, $t := .RepoTags }}{{ printf "%s" $t }}{{ end }}
//!   └text┘ └────────── action ─────────┘ …
//! ```
//!
//! Blanks separate the operands of a command (`.A .B` is two, `.A.B` is one), so they are tokens.

use super::error::Error;

/// One token and where it stands in the source (byte offset).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
    pub(super) end: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Text(String),
    LeftDelim,
    RightDelim,
    Space,
    /// A word: a keyword, a function, or `true`, `false`, `nil`.
    Word(String),
    /// `.Name`, without the dot.
    Field(String),
    /// `$` or `$name`, with the dollar.
    Variable(String),
    Dot,
    /// A number as written; also a character constant.
    Int(i128),
    Float(f64),
    Str(String),
    Pipe,
    LeftParen,
    RightParen,
    Declare,
    Assign,
    Comma,
    /// Any other printable character; no rule of the grammar takes it.
    Char(char),
    Eof,
}

const LEFT: &str = "{{";
const RIGHT: &str = "}}";

/// The tokens of a whole template, with [`Kind::Eof`] at the end.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, Error> {
    let mut lexer = Lexer { source, pos: 0, out: Vec::new(), parens: 0 };
    lexer.template()?;
    Ok(lexer.out)
}

struct Lexer<'a> {
    source: &'a str,
    pos: usize,
    out: Vec<Token>,
    parens: u32,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn fail(&self, message: impl Into<String>) -> Error {
        Error::parse(self.source, self.pos, message)
    }

    fn push(&mut self, kind: Kind, at: usize) {
        self.out.push(Token { kind, at, end: self.pos });
    }

    fn template(&mut self) -> Result<(), Error> {
        let mut trim_left = false;
        loop {
            let start = self.pos;
            let (text_end, found) = match self.rest().find(LEFT) {
                Some(offset) => (self.pos + offset, true),
                None => (self.source.len(), false),
            };
            let mut text = &self.source[start..text_end];
            self.pos = text_end + if found { LEFT.len() } else { 0 };
            let trim_right = found && self.at_left_trim();
            if trim_right {
                self.pos += 2;
                text = text.trim_end();
            }
            if trim_left {
                text = text.trim_start();
            }
            if !text.is_empty() {
                self.out.push(Token { kind: Kind::Text(text.to_owned()), at: start, end: text_end });
            }
            if !found {
                self.push(Kind::Eof, self.pos);
                return Ok(());
            }
            trim_left = if self.rest().starts_with("/*") { self.comment()? } else { self.action(text_end)? };
        }
    }

    /// `{{- ` trims the text before it. The blank tells it from a negative number.
    fn at_left_trim(&self) -> bool {
        let mut chars = self.rest().chars();
        chars.next() == Some('-') && chars.next().is_some_and(is_space)
    }

    /// The length of the closing delimiter here, and whether it trims what follows.
    fn right_delim(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        if rest.starts_with(RIGHT) {
            return Some((2, false));
        }
        let after = rest.strip_prefix(is_space)?;
        after.starts_with("-}}").then_some((4, true))
    }

    fn comment(&mut self) -> Result<bool, Error> {
        let Some(length) = self.rest().find("*/") else {
            return Err(self.fail("unclosed comment"));
        };
        self.pos += length + 2;
        let Some((length, trim)) = self.right_delim() else {
            return Err(self.fail("comment ends before closing delimiter"));
        };
        self.pos += length;
        Ok(trim)
    }

    /// From behind `{{` to behind `}}`; says whether the text that follows is trimmed.
    fn action(&mut self, opened_at: usize) -> Result<bool, Error> {
        self.push(Kind::LeftDelim, opened_at);
        self.parens = 0;
        loop {
            let at = self.pos;
            if let Some((length, trim)) = self.right_delim() {
                if self.parens > 0 {
                    return Err(self.fail("unclosed left paren"));
                }
                self.pos += length;
                self.push(Kind::RightDelim, at);
                return Ok(trim);
            }
            let Some(c) = self.peek() else {
                return Err(self.fail("unclosed action"));
            };
            match c {
                _ if is_space(c) => {
                    // A blank may belong to a trimming delimiter, ` -}}`: stop before that one.
                    while self.peek().is_some_and(is_space) && self.right_delim().is_none() {
                        self.pos += 1;
                    }
                    self.push(Kind::Space, at);
                }
                '|' => self.single(Kind::Pipe),
                ',' => self.single(Kind::Comma),
                '=' => self.single(Kind::Assign),
                '(' => {
                    self.parens += 1;
                    self.single(Kind::LeftParen);
                }
                ')' => {
                    let Some(parens) = self.parens.checked_sub(1) else {
                        return Err(self.fail("unexpected right paren"));
                    };
                    self.parens = parens;
                    self.single(Kind::RightParen);
                }
                ':' => {
                    if !self.rest().starts_with(":=") {
                        return Err(self.fail("expected :="));
                    }
                    self.pos += 2;
                    self.push(Kind::Declare, at);
                }
                '"' | '`' | '\'' => self.quoted(c)?,
                '$' => {
                    self.pos += 1;
                    let name = self.word();
                    self.end_of_word()?;
                    self.push(Kind::Variable(format!("${name}")), at);
                }
                '.' if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    self.pos += 1;
                    let name = self.word();
                    if name.is_empty() {
                        self.push(Kind::Dot, at);
                    } else {
                        self.end_of_word()?;
                        self.push(Kind::Field(name), at);
                    }
                }
                '.' | '+' | '-' | '0'..='9' => self.number()?,
                _ if is_word(c) => {
                    let word = self.word();
                    self.end_of_word()?;
                    self.push(Kind::Word(word), at);
                }
                '!'..='~' => self.single(Kind::Char(c)),
                _ => {
                    let message = format!("unrecognized character in action: {}", named(c));
                    return Err(self.fail(message));
                }
            }
        }
    }

    fn single(&mut self, kind: Kind) {
        let at = self.pos;
        self.pos += 1;
        self.push(kind, at);
    }

    fn word(&mut self) -> String {
        let rest = self.rest();
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let word = rest[..length].to_owned();
        self.pos += length;
        word
    }

    /// A name must be followed by something that ends it.
    fn end_of_word(&self) -> Result<(), Error> {
        match self.peek() {
            None | Some('.' | ',' | '|' | ':' | '=' | '(' | ')') => Ok(()),
            Some(c) if is_space(c) || self.right_delim().is_some() => Ok(()),
            Some(c) => Err(self.fail(format!("bad character {}", named(c)))),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<(), Error> {
        let at = self.pos;
        self.pos += 1;
        let body_at = self.pos;
        let what = match quote {
            '"' => "quoted string",
            '`' => "raw quoted string",
            _ => "character constant",
        };
        let mut escaped = false;
        loop {
            match self.peek() {
                None => return Err(self.fail(format!("unterminated {what}"))),
                Some('\n') if quote != '`' => return Err(self.fail(format!("unterminated {what}"))),
                Some(c) if c == quote && !escaped => break,
                Some(c) => {
                    escaped = c == '\\' && !escaped && quote != '`';
                    self.pos += c.len_utf8();
                }
            }
        }
        let body = &self.source[body_at..self.pos];
        let text = if quote == '`' { Some(body.to_owned()) } else { unescape(body) };
        self.pos += 1;
        let whole = &self.source[at..self.pos];
        let kind = match (quote, text) {
            ('\'', text) => match text.as_deref().map(|t| (t.chars().next(), t.chars().count())) {
                Some((Some(c), 1)) => Kind::Int(i128::from(u32::from(c))),
                _ => return Err(self.fail(format!("malformed character constant: {whole}"))),
            },
            (_, Some(text)) => Kind::Str(text),
            (_, None) => return Err(self.fail(format!("invalid syntax: {whole}"))),
        };
        self.push(kind, at);
        Ok(())
    }

    fn number(&mut self) -> Result<(), Error> {
        let at = self.pos;
        let rest = self.rest();
        let mut previous = ' ';
        let hex = rest.trim_start_matches(['+', '-']).starts_with("0x");
        let length = rest
            .find(|c: char| {
                let sign =
                    matches!(c, '+' | '-') && (previous == ' ' || (!hex && matches!(previous, 'e' | 'E')));
                let part = c.is_ascii_alphanumeric() || c == '_' || c == '.';
                previous = c;
                !(sign || part)
            })
            .unwrap_or(rest.len());
        let text = rest[..length].to_owned();
        self.pos += length;
        match number(&text) {
            Ok(kind) => self.push(kind, at),
            Err(what) => return Err(self.fail(format!("{what}: {text:?}"))),
        }
        Ok(())
    }
}

/// A number as Go's grammar has it: sign, base prefix, underscores, fraction, exponent.
fn number(text: &str) -> Result<Kind, &'static str> {
    const BAD: &str = "bad number syntax";
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let plain = digits.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let (base, body) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.bytes().all(|b| b.is_ascii_digit()) && lower.starts_with('0') => {
            (8, &lower[1..])
        }
        _ => (10, lower.as_str()),
    };
    if base == 10 && body.contains(['.', 'e']) {
        let value: f64 = body.parse().map_err(|_| BAD)?;
        return Ok(Kind::Float(if negative { -value } else { value }));
    }
    if body.is_empty() || !body.chars().all(|c| c.is_digit(base)) {
        return Err(BAD);
    }
    let value = i128::from_str_radix(body, base).map_err(|_| "integer overflow")?;
    let value = if negative { -value } else { value };
    if value < i128::from(i64::MIN) || value > i128::from(i64::MAX) {
        return Err("integer overflow");
    }
    Ok(Kind::Int(value))
}

/// The text behind Go's backslash escapes; `None` if there is one that Go doesn't have.
fn unescape(body: &str) -> Option<String> {
    let mut out = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()? {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            c @ ('\\' | '"' | '\'') => c,
            'x' => code(&mut chars, 2, 16)?,
            'u' => code(&mut chars, 4, 16)?,
            'U' => code(&mut chars, 8, 16)?,
            c @ '0'..='7' => {
                let mut octal = c.to_string();
                octal.extend(chars.by_ref().take(2));
                char::from_u32(u32::from_str_radix(&octal, 8).ok()?)?
            }
            _ => return None,
        });
    }
    Some(out)
}

fn code(chars: &mut std::str::Chars<'_>, digits: usize, base: u32) -> Option<char> {
    let text: String = chars.by_ref().take(digits).collect();
    if text.len() != digits {
        return None;
    }
    char::from_u32(u32::from_str_radix(&text, base).ok()?)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// A character as Go's `%#U` shows it.
fn named(c: char) -> String {
    format!("U+{:04X} '{}'", u32::from(c), c.escape_debug())
}
