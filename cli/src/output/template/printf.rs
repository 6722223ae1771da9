//! Go's `fmt`: the verbs of `printf`, and `%v` for everything that a template prints.

use std::fmt::Write;

use super::value::{Datum, Shape};

/// The widest field and the longest fraction; Go's own limit.
const MAX_WIDTH: i128 = 1_000_000;

/// The flags between `%` and the verb.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// A value as `%v` shows it.
pub(super) fn plain(value: &Datum<'_>) -> String {
    match value {
        Datum::Missing => "<no value>".to_owned(),
        _ => verb('v', value, Flags::default()),
    }
}

/// Go's `Sprintf`. Mistakes show in the output (`%!d(string=x)`), as in Go; nothing fails.
pub(super) fn sprintf(format: &str, args: &[Datum<'_>]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(&flag) = chars.peek() {
            match flag {
                '+' => flags.plus = true,
                '-' => flags.minus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                '0' => flags.zero = true,
                _ => break,
            }
            chars.next();
        }
        let mut size = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| -> Result<Option<i128>, ()> {
            if chars.peek() == Some(&'*') {
                chars.next();
                return match args.next() {
                    Some(Datum::Int(value)) if value.abs() <= MAX_WIDTH => Ok(Some(*value)),
                    _ => Err(()),
                };
            }
            let mut digits = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                digits = Some((digits.unwrap_or(0) * 10 + i128::from(digit)).min(MAX_WIDTH + 1));
                chars.next();
            }
            if digits > Some(MAX_WIDTH) { Err(()) } else { Ok(digits) }
        };
        match size(&mut chars) {
            Ok(width) => {
                flags.minus |= width.is_some_and(i128::is_negative);
                flags.width = width.and_then(|width| usize::try_from(width.abs()).ok());
            }
            Err(()) => out.push_str("%!(BADWIDTH)"),
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            match size(&mut chars) {
                Ok(precision) => flags.precision = usize::try_from(precision.unwrap_or(0)).ok(),
                Err(()) => out.push_str("%!(BADPREC)"),
            }
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(letter) => match args.next() {
                None => {
                    out.push_str("%!");
                    out.push(letter);
                    out.push_str("(MISSING)");
                }
                Some(value) => out.push_str(&verb(letter, value, flags)),
            },
        }
    }
    let extra: Vec<_> = args.map(|value| described(value)).collect();
    if !extra.is_empty() {
        out.push_str("%!(EXTRA ");
        out.push_str(&extra.join(", "));
        out.push(')');
    }
    out
}

/// Go's `Sprint`: a blank between two operands neither of which is a string.
pub(super) fn sprint(args: &[Datum<'_>]) -> String {
    let mut out = String::new();
    for (index, value) in args.iter().enumerate() {
        let text = |value: &Datum<'_>| matches!(value, Datum::Text(_));
        if index > 0 && !text(value) && !text(&args[index - 1]) {
            out.push(' ');
        }
        out.push_str(&argument(value));
    }
    out
}

/// Go's `Sprintln`: a blank between all operands and a newline behind them.
pub(super) fn sprintln(args: &[Datum<'_>]) -> String {
    let words: Vec<_> = args.iter().map(argument).collect();
    words.join(" ") + "\n"
}

/// An absent value becomes `<nil>` once a function gets it.
fn argument(value: &Datum<'_>) -> String {
    match value {
        Datum::Missing => "<nil>".to_owned(),
        _ => plain(value),
    }
}

fn described(value: &Datum<'_>) -> String {
    if value.is_nil() { "<nil>".to_owned() } else { format!("{}={}", value.type_name(), plain(value)) }
}

fn verb(letter: char, value: &Datum<'_>, flags: Flags) -> String {
    if letter == 'T' {
        return padded(value.type_name().to_owned(), flags);
    }
    let wrong = || format!("%!{letter}({})", described(value));
    match value {
        Datum::Missing | Datum::Nil(Shape::Struct) => match letter {
            'v' => padded("<nil>".to_owned(), flags),
            _ => format!("%!{letter}(<nil>)"),
        },
        Datum::Nil(Shape::Map) => padded("map[]".to_owned(), flags),
        Datum::Nil(Shape::List) => padded("[]".to_owned(), flags),
        Datum::Bool(value) if matches!(letter, 'v' | 't') => padded(value.to_string(), flags),
        Datum::Bool(_) => wrong(),
        Datum::Int(value) => integer(letter, *value, flags).unwrap_or_else(wrong),
        Datum::Float(value) => float(letter, *value, flags).unwrap_or_else(wrong),
        Datum::Text(text) => string(letter, text, flags).unwrap_or_else(wrong),
        Datum::List(_) | Datum::Words(_) => {
            let items = value.items().unwrap_or_default();
            let items: Vec<_> = items.iter().map(|item| verb(letter, item, flags)).collect();
            format!("[{}]", items.join(" "))
        }
        Datum::Object(_, shape) => {
            let fields = value.fields().unwrap_or_default();
            let parts = fields.iter().map(|(key, value)| match shape {
                Shape::Map => format!("{key}:{}", verb(letter, value, flags)),
                _ => verb(letter, value, flags),
            });
            let parts = parts.collect::<Vec<_>>().join(" ");
            if *shape == Shape::Map { format!("map[{parts}]") } else { format!("{{{parts}}}") }
        }
    }
}

fn integer(letter: char, value: i128, flags: Flags) -> Option<String> {
    let magnitude = value.unsigned_abs();
    let digits = match letter {
        'v' | 'd' => magnitude.to_string(),
        'b' => format!("{magnitude:b}"),
        'o' | 'O' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        'c' | 'q' | 'U' => {
            let character = u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            let text = match letter {
                'c' => character.to_string(),
                'q' => format!("'{}'", character.escape_default()),
                _ => format!("U+{value:04X}"),
            };
            return Some(padded(text, flags));
        }
        _ => return None,
    };
    let prefix = match letter {
        'x' if flags.sharp => "0x",
        'X' if flags.sharp => "0X",
        'O' => "0o",
        'o' if flags.sharp => "0",
        'b' if flags.sharp => "0b",
        _ => "",
    };
    let digits = match flags.precision {
        Some(precision) => format!("{}{digits}", "0".repeat(precision.saturating_sub(digits.len()))),
        None => digits,
    };
    let zero = flags.zero && flags.precision.is_none();
    Some(signed(value < 0, prefix, &digits, Flags { zero, ..flags }))
}

fn float(letter: char, value: f64, flags: Flags) -> Option<String> {
    let magnitude = value.abs();
    let digits = match letter {
        'f' | 'F' => format!("{magnitude:.*}", flags.precision.unwrap_or(6)),
        'e' | 'E' => exponent(format!("{magnitude:.*e}", flags.precision.unwrap_or(6))),
        'v' | 'g' | 'G' => {
            let rounded = match flags.precision {
                Some(digits) => format!("{magnitude:.*e}", digits.max(1) - 1).parse().ok()?,
                None => magnitude,
            };
            // %v changes to an exponent at 21 digits, %g at the precision, which is 21 for the shortest form.
            let limit =
                10f64.powi(flags.precision.map_or(21, |digits| i32::try_from(digits.max(1)).unwrap_or(21)));
            if rounded != 0.0 && !(1e-4..limit).contains(&rounded) {
                exponent(format!("{rounded:e}"))
            } else {
                rounded.to_string()
            }
        }
        _ => return None,
    };
    let digits = if letter.is_uppercase() { digits.to_uppercase() } else { digits };
    Some(signed(value.is_sign_negative(), "", &digits, flags))
}

/// Rust writes `1.5e0`, Go `1.5e+00`.
fn exponent(text: String) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn signed(negative: bool, prefix: &str, digits: &str, flags: Flags) -> String {
    let sign = match (negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    let width = flags.width.unwrap_or(0);
    let zeros = if flags.zero && !flags.minus {
        width.saturating_sub(sign.len() + prefix.len() + digits.len())
    } else {
        0
    };
    padded(format!("{sign}{prefix}{}{digits}", "0".repeat(zeros)), flags)
}

fn string(letter: char, text: &str, flags: Flags) -> Option<String> {
    let cut: String = match flags.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    let hex = |upper: bool| {
        let digit = |byte: &u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
        cut.as_bytes().iter().map(digit).collect::<String>()
    };
    let text = match letter {
        'v' | 's' => cut,
        'q' => quoted(&cut),
        'x' => hex(false),
        'X' => hex(true),
        _ => return None,
    };
    Some(padded(text, flags))
}

/// Go's `strconv.Quote`.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\x7f' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn padded(text: String, flags: Flags) -> String {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if flags.minus { text + &" ".repeat(missing) } else { " ".repeat(missing) + &text }
}
