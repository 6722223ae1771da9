//! `--log-driver` and `--log-opt`: what is asked for, and what it means for one container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// In a file of Docker's default driver that nobody limited, there is no end: a chatty container fills the disk.
const DEFAULT_SIZE: u64 = 10_000_000;
const DEFAULT_FILES: u32 = 3;
/// More files than this have no use, and each rotation renames all of them.
const MAX_FILES: u32 = 1000;

/// Where a container's output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// Files in Docker's format.
    #[default]
    #[serde(rename = "json-file")]
    JsonFile,
    /// Files in a compact format of our own.
    #[serde(rename = "local")]
    Local,
    /// Nowhere.
    #[serde(rename = "none")]
    None,
}

impl Driver {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::None => "none",
        }
    }
}

/// What was asked for, as it was asked for: kept with the container and shown by `inspect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// Where to.
    pub driver: Driver,
    /// `--log-opt NAME=VALUE`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// What options can be about.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The container's ID.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The image's ID, with `sha256:`.
    pub image_id: &'a str,
    /// The image as it was named.
    pub image: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its environment, `NAME=value`.
    pub env: &'a [String],
}

/// What a writer needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Where to.
    pub driver: Driver,
    /// Bytes at which a file is rotated; `None` for never.
    pub max_size: Option<u64>,
    /// How many files there are at most, the one being written included.
    pub max_files: u32,
    /// Whether rotated files are compressed.
    pub compress: bool,
    /// What each entry carries.
    pub attributes: BTreeMap<String, String>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            driver: Driver::JsonFile,
            max_size: Some(DEFAULT_SIZE),
            max_files: DEFAULT_FILES,
            compress: false,
            attributes: BTreeMap::new(),
        }
    }
}

const JSON_OPTIONS: &[&str] =
    &["compress", "env", "env-regex", "labels", "labels-regex", "max-file", "max-size", "mode", "tag"];
const LOCAL_OPTIONS: &[&str] = &["compress", "max-file", "max-size", "mode"];

impl LogConfig {
    /// Checks driver and options.
    ///
    /// # Errors
    /// A driver or an option that does not exist, or a value that makes no sense, by its name.
    pub fn new(driver: &str, options: BTreeMap<String, String>) -> Result<Self> {
        let driver = match driver {
            "" | "json-file" => Driver::JsonFile,
            "local" => Driver::Local,
            "none" => Driver::None,
            other => {
                let flag = format!("--log-driver {other}");
                return Err(Error::flag_unsupported(flag, "the log drivers are json-file, local and none"));
            }
        };
        let known = match driver {
            Driver::JsonFile => JSON_OPTIONS,
            Driver::Local => LOCAL_OPTIONS,
            Driver::None => &[],
        };
        if let Some(name) = options.keys().find(|name| !known.contains(&name.as_str())) {
            let of = driver.name();
            let problem = match known {
                [] => format!("the log driver {of} has no options"),
                known => format!("the log driver {of} has no option {name:?} (it has {})", known.join(", ")),
            };
            return Err(Error::flag("--log-opt", problem));
        }
        let config = Self { driver, options };
        let nothing = BTreeMap::new();
        config.resolve(&Facts { id: "", name: "", image_id: "", image: "", labels: &nothing, env: &[] })?;
        Ok(config)
    }

    /// What it means for one container.
    pub fn resolve(&self, facts: &Facts<'_>) -> Result<LogOptions> {
        let of = |name: &str| self.options.get(name).map(String::as_str);
        if let Some(mode) = of("mode")
            && mode != "blocking"
        {
            let why = "output is written as it comes, and nothing of it is dropped";
            return Err(Error::flag_unsupported(format!("--log-opt mode={mode}"), why));
        }
        let expected = |name: &str, text: &str, what: &str| {
            Error::flag("--log-opt", format!("{name}={text}: expected {what}"))
        };
        let max_files = match of("max-file").map(|text| (text, text.parse())) {
            None => DEFAULT_FILES,
            Some((_, Ok(count @ 1..=MAX_FILES))) => count,
            Some((text, _)) => {
                return Err(expected("max-file", text, &format!("a number from 1 to {MAX_FILES}")));
            }
        };
        let max_size = match of("max-size") {
            None => Some(DEFAULT_SIZE),
            Some("-1") => None,
            Some(text) => {
                Some(size(text).ok_or_else(|| expected("max-size", text, "a size such as 10m, or -1"))?)
            }
        };
        let compress = match of("compress") {
            None => self.driver == Driver::Local && max_files > 1 && max_size.is_some(),
            Some(text) => boolean(text).ok_or_else(|| expected("compress", text, "true or false"))?,
        };
        if compress && (max_files < 2 || max_size.is_none()) {
            let problem = "compress=true needs a max-size and a max-file of at least 2";
            return Err(Error::flag("--log-opt", problem));
        }
        Ok(LogOptions {
            driver: self.driver,
            max_size,
            max_files,
            compress,
            attributes: self.attributes(facts)?,
        })
    }

    /// As Docker's: chosen labels, chosen variables, and the tag.
    fn attributes(&self, facts: &Facts<'_>) -> Result<BTreeMap<String, String>> {
        let mut attributes = BTreeMap::new();
        let list = |name: &str| -> Vec<&str> {
            let words = self.options.get(name).map(|text| text.split(',').collect::<Vec<_>>());
            words.unwrap_or_default().into_iter().map(str::trim).filter(|word| !word.is_empty()).collect()
        };
        let pattern = |name: &str| -> Result<Option<regex::Regex>> {
            let Some(text) = self.options.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
            let invalid = |error| Error::flag("--log-opt", format!("{name}={text}: {error}"));
            regex::Regex::new(text).map(Some).map_err(invalid)
        };
        let (labels, matching) = (list("labels"), pattern("labels-regex")?);
        for (key, value) in facts.labels {
            if labels.contains(&key.as_str()) || matching.as_ref().is_some_and(|p| p.is_match(key)) {
                attributes.insert(key.clone(), value.clone());
            }
        }
        let (variables, matching) = (list("env"), pattern("env-regex")?);
        for (key, value) in facts.env.iter().filter_map(|line| line.split_once('=')) {
            if variables.contains(&key) || matching.as_ref().is_some_and(|p| p.is_match(key)) {
                attributes.insert(key.into(), value.into());
            }
        }
        if let Some(tag) = self.options.get("tag").filter(|tag| !tag.is_empty()) {
            attributes.insert("tag".into(), expand(tag, facts)?);
        }
        Ok(attributes)
    }
}

/// The fields of Docker's log tags.
fn expand(tag: &str, facts: &Facts<'_>) -> Result<String> {
    let short = |id: &str| id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect::<String>();
    let (mut out, mut rest) = (String::new(), tag);
    while let Some((before, after)) = rest.split_once("{{") {
        let unknown = |field: &str| {
            let known = ".ID .FullID .Name .ImageID .ImageFullID .ImageName .DaemonName";
            Error::flag("--log-opt", format!("tag={tag}: {{{{{field}}}}} is none of the fields {known}"))
        };
        let Some((field, after)) = after.split_once("}}") else { return Err(unknown(after)) };
        out.push_str(before);
        out += &match field.trim() {
            ".ID" => short(facts.id),
            ".FullID" => facts.id.into(),
            ".Name" => facts.name.into(),
            ".ImageID" => short(facts.image_id),
            ".ImageFullID" => facts.image_id.into(),
            ".ImageName" => facts.image.into(),
            ".DaemonName" => "onggi".into(),
            field => return Err(unknown(field)),
        };
        rest = after;
    }
    Ok(out + rest)
}

/// As Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Docker's sizes of logs: decimal units.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit: u64 = match lower[digits.len()..].trim() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut bytes = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        bytes = bytes.checked_add(u64::from(digit.to_digit(10)?) * place)?;
    }
    (bytes > 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: &str, options: &[(&str, &str)]) -> Result<LogConfig> {
        LogConfig::new(driver, options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, want) in [
            ("10m", Some(10_000_000)),
            ("1.5k", Some(1_500)),
            ("2GB", Some(2_000_000_000)),
            ("7", Some(7)),
            ("-1", None),
            ("0", None),
            ("-2", None),
            ("m", None),
            ("99999999999g", None),
            ("1x", None),
        ] {
            assert_eq!(size(text), want, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (driver, options, word) in [
            ("syslog", &[][..], "syslog"),
            ("none", &[("max-size", "1m")], "none"),
            ("local", &[("tag", "x")], "tag"),
            ("json-file", &[("max-file", "0")], "max-file"),
            ("json-file", &[("max-size", "x")], "max-size"),
            ("json-file", &[("compress", "true"), ("max-file", "1")], "compress"),
            ("json-file", &[("mode", "non-blocking")], "non-blocking"),
            ("json-file", &[("tag", "{{.Nope}}")], ".Nope"),
            ("json-file", &[("labels-regex", "(")], "labels-regex"),
        ] {
            let error = config(driver, options).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn attributes_are_what_was_chosen() {
        let options =
            [("labels", "a, b"), ("env-regex", "^P"), ("tag", "{{.Name}}/{{ .ID }}-{{.ImageName}}")];
        let labels = [("a", "1"), ("c", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let env = ["PATH=/bin".to_owned(), "HOME=/".to_owned()];
        let id = "ab".repeat(32);
        let facts =
            Facts { id: &id, name: "web", image_id: "sha256:00", image: "app:1", labels: &labels, env: &env };
        let resolved = config("json-file", &options).unwrap().resolve(&facts).unwrap();
        let want = [("a", "1"), ("PATH", "/bin"), ("tag", "web/abababababab-app:1")];
        assert_eq!(resolved.attributes, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!((resolved.max_size, resolved.max_files), (Some(10_000_000), 3));
        assert!(config("local", &[]).unwrap().resolve(&facts).unwrap().compress);
    }
}
