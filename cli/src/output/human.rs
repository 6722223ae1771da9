//! Sizes, ages and foreign text for people's eyes, in Docker's words.

use std::borrow::Cow;
use std::time::Duration;

/// A number of bytes in decimal units and four digits, as Docker prints it: `1.234MB`, `78.1kB`, `0B`.
pub(crate) fn size(bytes: u64) -> String {
    size_with_digits(bytes, 4)
}

/// As [`size`], in three digits: what progress lines and sizes of containers show.
pub(crate) fn short_size(bytes: u64) -> String {
    size_with_digits(bytes, 3)
}

/// A number of bytes in binary units and four digits, as Docker prints memory: `1.5MiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(bytes, 4, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn size_with_digits(bytes: u64, digits: usize) -> String {
    scaled(bytes, digits, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

fn scaled(bytes: u64, digits: usize, base: f64, units: &[&str; 7]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// Go's `%.*g` for 0 ≤ value < 1000 (and 1000 itself, when rounding goes up to it).
fn significant(value: f64, digits: usize) -> String {
    let whole_digits = if value >= 1000.0 {
        4
    } else if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let mut text = format!("{value:.*}", digits.saturating_sub(whole_digits));
    // 9.9996 rounds to 10.000: one digit more than asked.
    if text.bytes().filter(u8::is_ascii_digit).count() > digits && text.contains('.') {
        text.pop();
    }
    if text.contains('.') {
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(kept);
    } else if text.len() > digits {
        return "1e+03".to_owned();
    }
    text
}

/// A span of time as Docker says it: `About a minute`, `2 hours`, `3 weeks`.
pub(crate) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a moment was: `2 hours ago`. A moment that is not known is `N/A`.
///
/// Both are seconds since 1970; a moment in the future counts as now.
pub(crate) fn ago(moment: Option<i64>, now: i64) -> String {
    match moment {
        None => "N/A".to_owned(),
        Some(moment) => {
            let span = u64::try_from(now.saturating_sub(moment)).unwrap_or(0);
            format!("{} ago", duration(Duration::from_secs(span)))
        }
    }
}

/// Seconds to one decimal, minutes where there are any: `0.4s`, `12.3s`, `2m05s`.
pub(crate) fn elapsed(span: Duration) -> String {
    let seconds = span.as_secs();
    if seconds < 60 {
        format!("{}.{}s", seconds, span.subsec_millis() / 100)
    } else {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    }
}

/// The same for text of several lines: their ends and tabs stay.
pub(crate) fn visible_lines(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(visible).collect::<Vec<_>>().join("\t");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Text from outside with every control character (and every mark that reorders lines) written as an escape.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hostile(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Cuts a text to a number of characters, with an ellipsis as its last: Docker's columns without `--no-trunc`.
pub(crate) fn ellipsis(text: &str, length: usize) -> Cow<'_, str> {
    if text.chars().count() <= length {
        return Cow::Borrowed(text);
    }
    let mut cut: String = text.chars().take(length.saturating_sub(1)).collect();
    cut.push('…');
    Cow::Owned(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits_and_decimal_units() {
        for (bytes, want) in [
            (0, "0B"),
            (1, "1B"),
            (999, "999B"),
            (1000, "1kB"),
            (1024, "1.024kB"),
            (78_123_456, "78.12MB"),
            (1_234_567, "1.235MB"),
            (999_949, "999.9kB"),
            (999_999, "1000kB"),
            (1_000_000, "1MB"),
            (10_000_000_000, "10GB"),
            (u64::MAX, "18.45EB"),
        ] {
            assert_eq!(size(bytes), want, "{bytes}");
        }
        assert_eq!(short_size(78_123_456), "78.1MB");
        assert_eq!(short_size(9_996_000), "10MB");
        assert_eq!((binary_size(1023), binary_size(1 << 20)), ("1023B".into(), "1MiB".into()));
        assert_eq!(
            (binary_size(1_600_000), binary_size(25_000_000_000)),
            ("1.526MiB".into(), "23.28GiB".into())
        );
    }

    #[test]
    fn durations_are_in_dockers_words() {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        const DAY: u64 = 24 * HOUR;
        for (seconds, want) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (180, "3 minutes"),
            (59 * MINUTE, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 29 * MINUTE, "About an hour"),
            (HOUR + 30 * MINUTE, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (3 * 365 * DAY, "3 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), want, "{seconds}");
        }
        assert_eq!(ago(Some(100), 100 + 7200), "2 hours ago");
        assert_eq!(ago(Some(200), 100), "Less than a second ago");
        assert_eq!(ago(None, 100), "N/A");
    }

    #[test]
    fn elapsed_time_is_short() {
        assert_eq!(elapsed(Duration::from_millis(449)), "0.4s");
        assert_eq!(elapsed(Duration::from_secs(125)), "2m05s");
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(visible("plain 옹기"), "plain 옹기");
        assert_eq!(visible("a\x1b]0;x\x07"), r"a\u{1b}]0;x\u{7}");
        assert_eq!(visible("x\u{202e}y"), r"x\u{202e}y");
    }

    #[test]
    fn long_text_ends_in_an_ellipsis() {
        assert_eq!(ellipsis("abcdef", 6), "abcdef");
        assert_eq!(ellipsis("abcdefg", 6), "abcde…");
    }
}
