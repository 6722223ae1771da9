//! `HEALTHCHECK`.

use onggi_oci::Healthcheck;

use super::flags::{Flags, Kind as Flag};
use crate::dockerfile::problem::{Diagnostic, Problem};
use crate::dockerfile::syntax::Node;

/// The shortest time that is not 0, in nanoseconds.
const MIN_DURATION: i64 = 1_000_000;

/// Reads a health check.
pub(super) fn check(node: &Node) -> Result<Healthcheck, Diagnostic> {
    let fail = |problem| Diagnostic::at(problem, node.lines).with_word(node.name.as_str());
    let Some((kind, command)) = node.arguments.split_first() else {
        return Err(fail(Problem::AtLeastOne { instruction: "HEALTHCHECK" }));
    };
    let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let kind = kind.to_uppercase();
    if kind == "NONE" && !command.is_empty() {
        return Err(fail(Problem::HealthcheckNone));
    }
    let flags = Flags::read(&node.flags, &names.map(|name| (name, Flag::Text)), node.lines)?;
    if kind == "NONE" {
        // Flags have no meaning then, and BuildKit lets them pass.
        return Ok(Healthcheck { test: vec![kind], ..Healthcheck::default() });
    }
    if kind != "CMD" {
        return Err(fail(Problem::HealthcheckType { kind: kind.clone() }).with_word(kind));
    }
    if command.is_empty() {
        return Err(fail(Problem::HealthcheckCommand));
    }
    let test = if node.json {
        [vec![kind], command.to_vec()].concat()
    } else {
        vec!["CMD-SHELL".to_owned(), command.join(" ")]
    };
    let time = |name: &'static str| -> Result<i64, Diagnostic> {
        let Some(text) = flags.text(name) else { return Ok(0) };
        let duration = duration(&text)
            .ok_or_else(|| fail(Problem::Duration { text: text.clone() }).with_word(text.as_str()))?;
        if duration != 0 && duration < MIN_DURATION {
            return Err(fail(Problem::ShortInterval { flag: name }).with_word(text));
        }
        Ok(duration)
    };
    let retries = match flags.text("retries") {
        None => 0,
        Some(text) => {
            let count: i32 = text
                .parse()
                .map_err(|_| fail(Problem::Retries { text: text.clone() }).with_word(text.as_str()))?;
            if count < 0 {
                return Err(fail(Problem::NegativeRetries { count: count.into() }).with_word(text));
            }
            count.into()
        }
    };
    Ok(Healthcheck {
        test,
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries,
    })
}

/// Nanoseconds of a duration as Go writes it: `1h30m`, `1.5s`, `-2ms`, `0`.
fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.into() };
        total += whole * scale;
        // Digits beyond the nanosecond do not count.
        let mut place = scale;
        for digit in fraction.bytes() {
            place /= 10;
            total += i128::from(digit - b'0') * place;
        }
        if total > i128::from(i64::MAX) {
            return None;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// A duration in nanoseconds as Go prints it: `1h30m0s`, `1.5s`, `100ms`, `0s`.
pub(crate) fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let decimal = |value: u64, scale: u64, digits: usize| {
        let fraction = format!("{:0digits$}", value % scale);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}", value / scale)
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(total, 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(total, 1_000_000, 6)),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = decimal(total % 60_000_000_000, 1_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, duration_text};

    #[test]
    fn durations_as_text() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (90_000_000_000, "1m30s"),
            (5_400_000_000_000, "1h30m0s"),
            (1_500_000_000, "1.5s"),
            (1_500_000, "1.5ms"),
            (-3, "-3ns"),
        ] {
            assert_eq!(duration_text(nanoseconds), text);
        }
    }

    #[test]
    fn durations() {
        for (text, nanoseconds) in [
            ("0", Some(0)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5ms", Some(500_000)),
            ("-2s", Some(-2_000_000_000)),
            ("3", None),
            ("", None),
            ("1.x", None),
            ("1d", None),
            ("99999999999h", None),
        ] {
            assert_eq!(duration(text), nanoseconds, "{text:?}");
        }
    }
}
