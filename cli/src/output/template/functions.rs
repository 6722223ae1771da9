//! The functions of a template: Go's own, and those that Docker's CLI adds.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write;

use super::printf::{sprint, sprintf, sprintln};
use super::value::{Datum, Shape};

#[derive(Debug, Clone, Copy, PartialEq, core::cmp::Eq)]
pub(super) enum Function {
    // Go's.
    And,
    Call,
    Eq,
    Ge,
    Gt,
    Html,
    Index,
    Js,
    Le,
    Len,
    Lt,
    Ne,
    Not,
    Or,
    Print,
    Printf,
    Println,
    Slice,
    UrlQuery,
    // Docker's.
    Join,
    Json,
    Lower,
    Pad,
    Split,
    Title,
    Truncate,
    Upper,
}

use Function::{
    And, Call, Eq, Ge, Gt, Html, Index, Join, Js, Json, Le, Len, Lower, Lt, Ne, Not, Or, Pad, Print, Printf,
    Println, Slice, Split, Title, Truncate, Upper, UrlQuery,
};

/// Every function under its name in templates, with the least and the largest number of arguments.
const FUNCTIONS: &[(&str, Function, usize, usize)] = &[
    ("and", And, 1, usize::MAX),
    ("call", Call, 1, usize::MAX),
    ("eq", Eq, 1, usize::MAX),
    ("ge", Ge, 2, 2),
    ("gt", Gt, 2, 2),
    ("html", Html, 0, usize::MAX),
    ("index", Index, 1, usize::MAX),
    ("join", Join, 2, 2),
    ("js", Js, 0, usize::MAX),
    ("json", Json, 1, 1),
    ("le", Le, 2, 2),
    ("len", Len, 1, 1),
    ("lower", Lower, 1, 1),
    ("lt", Lt, 2, 2),
    ("ne", Ne, 2, 2),
    ("not", Not, 1, 1),
    ("or", Or, 1, usize::MAX),
    ("pad", Pad, 3, 3),
    ("print", Print, 0, usize::MAX),
    ("printf", Printf, 1, usize::MAX),
    ("println", Println, 0, usize::MAX),
    ("slice", Slice, 1, usize::MAX),
    ("split", Split, 2, 2),
    ("title", Title, 1, 1),
    ("truncate", Truncate, 2, 2),
    ("upper", Upper, 1, 1),
    ("urlquery", UrlQuery, 0, usize::MAX),
];

/// The most blanks that `pad` adds on a side.
const MAX_PAD: i128 = 1_000_000;

/// Why a call failed.
pub(super) enum Failure {
    /// This argument has the wrong type.
    Argument(usize, String),
    /// The function itself says no.
    Call(String),
}

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        FUNCTIONS.iter().find(|entry| entry.0 == name).map(|entry| entry.1)
    }

    pub(super) fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|entry| entry.1 == self).map_or("", |entry| entry.0)
    }

    /// The complaint about a wrong number of arguments, if it is wrong.
    pub(super) fn arity_error(self, got: usize) -> Option<String> {
        let &(name, _, least, most) = FUNCTIONS.iter().find(|entry| entry.1 == self)?;
        if (least..=most).contains(&got) {
            return None;
        }
        let want = if least == most { least.to_string() } else { format!("at least {least}") };
        Some(format!("wrong number of args for {name}: want {want} got {got}"))
    }

    /// Calls the function. `and` and `or` are the evaluator's: they leave arguments unevaluated.
    pub(super) fn call<'a>(self, args: &[Datum<'a>]) -> Result<Datum<'a>, Failure> {
        let text = |text: String| Ok(Datum::Text(Cow::Owned(text)));
        match self {
            And => {
                Ok(args.iter().find(|arg| !arg.is_true()).or(args.last()).cloned().unwrap_or(Datum::Missing))
            }
            Or => {
                Ok(args.iter().find(|arg| arg.is_true()).or(args.last()).cloned().unwrap_or(Datum::Missing))
            }
            Not => Ok(Datum::Bool(!args[0].is_true())),
            Call => Err(Failure::Call(format!("non-function {} of type {}", args[0], args[0].type_name()))),
            Eq => equal(args).map(Datum::Bool),
            Ne => equal(args).map(|equal| Datum::Bool(!equal)),
            Lt => order(args).map(|order| Datum::Bool(order.is_lt())),
            Le => order(args).map(|order| Datum::Bool(order.is_le())),
            Gt => order(args).map(|order| Datum::Bool(order.is_gt())),
            Ge => order(args).map(|order| Datum::Bool(order.is_ge())),
            Len => length(&args[0]),
            Index => args[1..].iter().try_fold(args[0].clone(), |item, key| index(&item, key)),
            Slice => slice(args),
            Print => text(sprint(args)),
            Println => text(sprintln(args)),
            Printf => text(sprintf(string(args, 0)?, &args[1..])),
            Html => text(escape_html(&joined(args))),
            Js => text(escape_js(&joined(args))),
            UrlQuery => text(escape_query(&joined(args))),
            Json => text(args[0].to_json().to_string()),
            Upper => text(string(args, 0)?.to_uppercase()),
            Lower => text(string(args, 0)?.to_lowercase()),
            Title => text(title(string(args, 0)?)),
            Split => {
                let (whole, separator) = (string(args, 0)?, string(args, 1)?);
                Ok(Datum::Words(if separator.is_empty() {
                    whole.chars().map(String::from).collect()
                } else {
                    whole.split(separator).map(str::to_owned).collect()
                }))
            }
            Join => {
                let items = args[0].items();
                let words: Option<Vec<String>> = items.and_then(|items| {
                    items
                        .iter()
                        .map(|item| match item {
                            Datum::Text(text) => Some(text.to_string()),
                            _ => None,
                        })
                        .collect()
                });
                let Some(words) = words else { return Err(mismatch(args, 0, "[]string")) };
                text(words.join(string(args, 1)?))
            }
            Pad => {
                let whole = string(args, 0)?;
                let (before, after) = (blanks(args, 1)?, blanks(args, 2)?);
                text(if whole.is_empty() { String::new() } else { format!("{before}{whole}{after}") })
            }
            Truncate => {
                let (whole, length) = (string(args, 0)?, int(args, 1)?);
                let Ok(length) = usize::try_from(length) else {
                    return Err(Failure::Call(format!("length out of range: {length}")));
                };
                text(whole.chars().take(length).collect())
            }
        }
    }
}

fn mismatch(args: &[Datum<'_>], position: usize, want: &str) -> Failure {
    let message = match &args[position] {
        Datum::Missing | Datum::Nil(_) => format!("invalid value; expected {want}"),
        other => format!("wrong type for value; expected {want}; got {}", other.type_name()),
    };
    Failure::Argument(position, message)
}

fn string<'d>(args: &'d [Datum<'_>], position: usize) -> Result<&'d str, Failure> {
    match &args[position] {
        Datum::Text(text) => Ok(text),
        _ => Err(mismatch(args, position, "string")),
    }
}

fn int(args: &[Datum<'_>], position: usize) -> Result<i128, Failure> {
    match &args[position] {
        Datum::Int(value) => Ok(*value),
        _ => Err(mismatch(args, position, "int")),
    }
}

fn blanks(args: &[Datum<'_>], position: usize) -> Result<String, Failure> {
    let count = int(args, position)?;
    match usize::try_from(count) {
        Ok(blanks) if count <= MAX_PAD => Ok(" ".repeat(blanks)),
        _ => Err(Failure::Call(format!("count out of range: {count}"))),
    }
}

fn call_error<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Call(message.into()))
}

/// `eq a b c …`: whether the first equals any of the others.
fn equal(args: &[Datum<'_>]) -> Result<bool, Failure> {
    let [first, others @ ..] = args else { return call_error("missing argument for comparison") };
    if others.is_empty() {
        return call_error("missing argument for comparison");
    }
    for other in others {
        let same = match (first, other) {
            (Datum::Bool(a), Datum::Bool(b)) => a == b,
            (Datum::Int(a), Datum::Int(b)) => a == b,
            #[expect(clippy::float_cmp, reason = "the template asks for exactly this")]
            (Datum::Float(a), Datum::Float(b)) => a == b,
            (Datum::Text(a), Datum::Text(b)) => a == b,
            (a, b) if a.is_nil() || b.is_nil() => a.is_nil() && b.is_nil(),
            (a @ (Datum::List(_) | Datum::Words(_) | Datum::Object(..)), _) => {
                return call_error(format!("non-comparable type {a}: {}", a.type_name()));
            }
            _ => return call_error("incompatible types for comparison"),
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

fn order(args: &[Datum<'_>]) -> Result<Ordering, Failure> {
    match (&args[0], &args[1]) {
        (Datum::Int(a), Datum::Int(b)) => Ok(a.cmp(b)),
        (Datum::Float(a), Datum::Float(b)) => {
            a.partial_cmp(b).map_or_else(|| call_error("NaN has no order"), Ok)
        }
        (Datum::Text(a), Datum::Text(b)) => Ok(a.cmp(b)),
        (
            Datum::Int(_) | Datum::Float(_) | Datum::Text(_),
            Datum::Int(_) | Datum::Float(_) | Datum::Text(_),
        ) => call_error("incompatible types for comparison"),
        _ => call_error("invalid type for comparison"),
    }
}

fn length<'a>(value: &Datum<'a>) -> Result<Datum<'a>, Failure> {
    let length = match value {
        Datum::Text(text) => text.len(),
        Datum::List(items) => items.len(),
        Datum::Words(words) => words.len(),
        Datum::Object(map, Shape::Map) => map.len(),
        Datum::Nil(Shape::Map | Shape::List) => 0,
        Datum::Missing | Datum::Nil(_) => return call_error("len of nil pointer"),
        other => return call_error(format!("len of type {}", other.type_name())),
    };
    Ok(Datum::Int(length as i128))
}

fn position(key: &Datum<'_>, length: usize) -> Result<usize, Failure> {
    let Datum::Int(wanted) = key else {
        return match key {
            Datum::Missing | Datum::Nil(_) => call_error("cannot index slice/array with nil"),
            _ => call_error(format!("cannot index slice/array with type {}", key.type_name())),
        };
    };
    match usize::try_from(*wanted) {
        Ok(position) if position < length => Ok(position),
        _ => call_error(format!("index out of range: {wanted}")),
    }
}

fn index<'a>(item: &Datum<'a>, key: &Datum<'a>) -> Result<Datum<'a>, Failure> {
    match item {
        Datum::Text(text) => {
            let position = position(key, text.len())?;
            Ok(Datum::Int(text.as_bytes()[position].into()))
        }
        Datum::List(items) => Ok(Datum::from_json(&items[position(key, items.len())?], Shape::Struct)),
        Datum::Words(words) => Ok(Datum::Text(Cow::Owned(words[position(key, words.len())?].clone()))),
        Datum::Object(map, Shape::Map) => {
            let Datum::Text(key) = key else {
                return call_error(format!("value has type {}; should be string", key.type_name()));
            };
            Ok(match map.get(key.as_ref()) {
                Some(value) => Datum::from_json(value, Shape::Struct),
                // A map of strings yields its zero value, a map of anything `<no value>`.
                None if map.values().all(serde_json::Value::is_string) => Datum::Text("".into()),
                None => Datum::Missing,
            })
        }
        Datum::Nil(Shape::Map) => Ok(Datum::Text("".into())),
        Datum::Nil(Shape::List) => position(key, 0).map(|_| Datum::Missing),
        Datum::Missing | Datum::Nil(_) => call_error("index of untyped nil"),
        other => call_error(format!("can't index item of type {}", other.type_name())),
    }
}

fn slice<'a>(args: &[Datum<'a>]) -> Result<Datum<'a>, Failure> {
    let item = &args[0];
    let length = match item {
        Datum::Text(text) => text.len(),
        Datum::List(items) => items.len(),
        Datum::Words(words) => words.len(),
        Datum::Missing | Datum::Nil(_) => return call_error("slice of untyped nil"),
        other => return call_error(format!("can't slice item of type {}", other.type_name())),
    };
    if args.len() > 4 {
        return call_error(format!("too many slice indexes: {}", args.len() - 1));
    }
    if args.len() == 4 && matches!(item, Datum::Text(_)) {
        return call_error("cannot 3-index slice a string");
    }
    let mut bounds = [0, length, length];
    for (bound, key) in bounds.iter_mut().zip(&args[1..]) {
        *bound = position(key, length + 1)?;
    }
    let [from, to, cap] = bounds;
    for (low, high) in [(from, to), (to, cap)] {
        if low > high {
            return call_error(format!("invalid slice index: {low} > {high}"));
        }
    }
    Ok(match item {
        Datum::Text(text) => {
            Datum::Text(Cow::Owned(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()))
        }
        Datum::List(items) => Datum::List(&items[from..to]),
        Datum::Words(words) => Datum::Words(words[from..to].to_vec()),
        _ => Datum::Missing,
    })
}

/// The words of a text with their first letters in upper case; nothing else changes.
fn title(text: &str) -> String {
    let mut previous = ' ';
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if previous.is_alphanumeric() || matches!(previous, '_' | '\'') {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        previous = c;
    }
    out
}

fn joined(args: &[Datum<'_>]) -> String {
    match args {
        [Datum::Text(text)] => text.to_string(),
        _ => sprint(args),
    }
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b' ' => out.push('+'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

impl Function {
    /// Functions that change how a column looks, not what it is; a table's header passes through them unchanged.
    pub(super) fn shapes_a_column(self) -> bool {
        matches!(self, Json | Title | Lower | Upper | Truncate | Split | Join)
    }
}
