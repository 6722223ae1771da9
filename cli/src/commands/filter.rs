//! `--filter`: what of a listing is shown.
//!
//! Filters of one key are alternatives, filters of different keys must all hold, as in Docker.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use onggi_engine::image::store::ImageSummary;
use onggi_engine::oci::Reference;

use crate::failure::Failure;

/// The filters of one call.
#[derive(Debug, Default)]
pub struct Filters {
    pairs: Vec<(String, String)>,
}

impl Filters {
    /// Reads `KEY=VALUE` words; `known` are the keys that the command has.
    pub fn parse(words: &[String], known: &[&str]) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                return Err(Failure::Input(format!("invalid filter {word:?}: expected KEY=VALUE")));
            };
            if !known.contains(&key) {
                return Err(Failure::Input(format!("invalid filter {key:?} (known: {})", known.join(", "))));
            }
            pairs.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self { pairs })
    }

    /// Whether this key was used.
    pub fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(k, _)| k == key)
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Whether labels and age are as the filters `label`, `label!` and `until` want them.
    pub fn match_labels_and_age(
        &self,
        labels: &BTreeMap<String, String>,
        created: Option<Timestamp>,
    ) -> Result<bool, Failure> {
        let has_label = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        if !self.values("label").all(has_label) || self.values("label!").any(has_label) {
            return Ok(false);
        }
        for value in self.values("until") {
            let limit = moment(value)?;
            if created.is_none_or(|created| created >= limit) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether one of the `reference` filters means this name.
    pub fn match_name(&self, name: &Reference) -> bool {
        !self.has("reference") || self.values("reference").any(|pattern| matches_reference(pattern, name))
    }

    /// Whether an image passes all filters that are about the image itself.
    pub fn match_image(&self, summary: &ImageSummary, all: &[ImageSummary]) -> Result<bool, Failure> {
        for value in self.values("dangling") {
            let wanted = match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => {
                    return Err(Failure::Input(format!(
                        "invalid filter dangling={value}: expected true or false"
                    )));
                }
            };
            if summary.is_dangling() != wanted {
                return Ok(false);
            }
        }
        let labels = &summary.image.config.config.labels;
        let has_label = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(wanted),
        };
        // Labels must all be there: Docker's one exception to the rule of alternatives.
        if !self.values("label").all(has_label) {
            return Ok(false);
        }
        let created = created(summary);
        for value in self.values("until") {
            let limit = moment(value)?;
            if created.is_none_or(|created| created >= limit) {
                return Ok(false);
            }
        }
        for (key, newer) in [("since", true), ("before", false)] {
            for value in self.values(key) {
                let Some(other) = all.iter().find(|image| means(value, image)) else {
                    return Err(Failure::Input(format!(
                        "No such image: {value} (in the filter {key}={value})"
                    )));
                };
                let (a, b) = (created, self::created(other));
                if if newer { a <= b } else { a >= b } {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

fn created(summary: &ImageSummary) -> Option<Timestamp> {
    summary.image.config.created.as_deref()?.parse().ok()
}

/// Whether the text is a name of the image or the beginning of its ID.
fn means(text: &str, summary: &ImageSummary) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let named = text.parse::<Reference>().map(Reference::with_default_tag);
    (hex.len() >= 4 && summary.image.id.hex().starts_with(hex))
        || named.is_ok_and(|n| summary.tags.contains(&n))
}

/// A moment as Docker's filters spell it: RFC 3339, seconds since 1970, or a span before now (`24h`).
pub fn moment(text: &str) -> Result<Timestamp, Failure> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    if let Ok(seconds) = text.parse() {
        return Timestamp::from_second(seconds)
            .map_err(|e| Failure::Input(format!("invalid time {text:?}: {e}")));
    }
    if let Ok(date) = text.parse::<jiff::civil::DateTime>()
        && let Ok(zoned) = date.to_zoned(jiff::tz::TimeZone::UTC)
    {
        return Ok(zoned.timestamp());
    }
    let span: SignedDuration = text.parse().map_err(|_| {
        Failure::Input(format!(
            "invalid time {text:?}: expected a date, seconds since 1970, or a span such as 24h"
        ))
    })?;
    Timestamp::now().checked_sub(span).map_err(|e| Failure::Input(format!("invalid time {text:?}: {e}")))
}

/// Docker's `reference` patterns: `*` and `?` within one component, `[…]` classes; against the
/// familiar name with and without tag, and the whole name.
pub fn matches_reference(pattern: &str, name: &Reference) -> bool {
    let mut candidates = vec![name.familiar(), name.familiar_name(), name.to_string(), name.name()];
    // As `path.Match`-based `FamiliarMatch` does, a pattern without a tag means any tag.
    candidates.dedup();
    candidates.iter().any(|text| glob(pattern.as_bytes(), text.as_bytes()))
}

/// Go's `path.Match`: `*` and `?` do not match `/`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((b'*', rest)), _) => {
            let end = text.iter().position(|&b| b == b'/').unwrap_or(text.len());
            (0..=end).any(|skip| glob(rest, &text[skip..]))
        }
        (Some((b'?', rest)), Some((&c, tail))) => c != b'/' && glob(rest, tail),
        (Some((b'[', rest)), Some((&c, tail))) => match class(rest, c) {
            Some((matched, rest)) => matched && glob(rest, tail),
            None => false,
        },
        (Some((b'\\', rest)), Some((c, tail))) => rest.first() == Some(c) && glob(&rest[1..], tail),
        (Some((p, rest)), Some((c, tail))) => p == c && glob(rest, tail),
        (Some(_), None) => false,
    }
}

/// Reads a class after its `[`; `None` if it does not end.
fn class(pattern: &[u8], c: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern.split_first()? {
        (b'^', rest) => (true, rest),
        _ => (false, pattern),
    };
    let mut matched = false;
    let mut first = true;
    loop {
        let (&low, after) = rest.split_first()?;
        if low == b']' && !first {
            return Some((matched != negated, after));
        }
        first = false;
        rest = after;
        let high = match rest {
            [b'-', high, after @ ..] if *high != b']' => {
                rest = after;
                *high
            }
            _ => low,
        };
        matched |= (low..=high).contains(&c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_as_dockers() {
        let name: Reference = "docker.io/me/app:1.2".parse().unwrap();
        for (pattern, expected) in [
            ("me/app", true),
            ("me/*", true),
            ("me/app:1.*", true),
            ("*", false),
            ("*/*", true),
            ("me/app:2", false),
            ("docker.io/me/app:1.2", true),
            ("me/a[o-q]p", true),
            ("me/a[^p]p", false),
            ("me/ap?", true),
            ("me/a[", false),
        ] {
            assert_eq!(matches_reference(pattern, &name), expected, "{pattern}");
        }
    }

    #[test]
    fn filters_that_make_no_sense_are_named() {
        assert!(Filters::parse(&["x".into()], &["label"]).is_err());
        assert!(Filters::parse(&["x=1".into()], &["label"]).is_err());
        assert!(moment("24h").is_ok() && moment("2024-01-02").is_ok() && moment("1700000000").is_ok());
        assert!(moment("2024-01-02T10:00:00Z").is_ok() && moment("soon").is_err());
    }
}
