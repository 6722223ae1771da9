//! What an `onggi.yaml` says, as it is written: names of fields are its keys.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_saphyr::{Error, Spanned, options};

use super::YamlError;

/// The whole file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// The names of the image of the last stage.
    #[serde(skip_serializing_if = "Many::is_empty")]
    pub image: Many,
    /// For what platforms it is built.
    #[serde(skip_serializing_if = "Many::is_empty")]
    pub platforms: Many,
    /// Arguments that `from` and `platform` of stages may use.
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    pub args: Pairs<Argument>,
    /// In the order in which they are written.
    pub stages: Pairs<Stage>,
    /// Several results in place of one.
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    pub targets: Pairs<Target>,
}

/// One filesystem.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Stage {
    /// For people; shown by `--call=targets`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// An image, another stage, or `scratch`.
    pub from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Arguments, before all steps.
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    pub args: Pairs<Argument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Spanned<Step>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Spanned<Config>>,
}

/// A named result.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Target {
    /// The stage of the same name if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    #[serde(skip_serializing_if = "Many::is_empty")]
    pub image: Many,
    #[serde(skip_serializing_if = "Many::is_empty")]
    pub platforms: Many,
}

/// One thing to do: exactly one of the first group, and what goes with it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Command>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<Many>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<Many>,
    /// A file whose content is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Pairs<Text>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Pairs<Argument>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Pairs<Text>>,

    /// Of copy and add: the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Of copy: a stage, an image or a named context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chown: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chmod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parents: Option<bool>,
    #[serde(skip_serializing_if = "Many::is_empty")]
    pub exclude: Many,
    /// Of add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_git_dir: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpack: Option<bool>,
    /// Of write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Of write: whether `${NAME}` in the content is expanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expand: Option<bool>,
    /// Of run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Spanned<Mount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<String>,
    #[serde(skip_serializing_if = "Many::is_empty")]
    pub devices: Many,
}

/// What a command sees while it runs.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mount {
    /// `bind`, `cache`, `tmpfs`, `secret` or `ssh`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readwrite: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

/// What a container of the image starts with.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Command>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Command>,
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    pub env: Pairs<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    #[serde(skip_serializing_if = "Many::is_empty")]
    pub ports: Many,
    #[serde(skip_serializing_if = "Many::is_empty")]
    pub volumes: Many,
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    pub labels: Pairs<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What is done in images built from this one, as lines of a Dockerfile.
    #[serde(skip_serializing_if = "Many::is_empty")]
    pub onbuild: Many,
}

/// How a container tells that it is well.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Health {
    /// `none` switches off what the base image has.
    pub cmd: Option<Command>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

/// An argument: its default, with or without words for people.
#[derive(Debug, Default)]
pub(super) struct Argument {
    pub default: Option<String>,
    pub description: Option<String>,
}

/// A text for the shell, or a program and its arguments.
#[derive(Debug)]
pub(super) enum Command {
    Shell(String),
    Exec(Vec<String>),
}

/// A text, also where YAML sees a number; as it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Text(pub String);

/// One text or several.
#[derive(Clone, Debug, Default)]
pub(super) struct Many(pub Vec<String>);

impl Many {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A mapping in its order, with the place of each key.
#[derive(Debug)]
pub(super) struct Pairs<V>(pub Vec<(Spanned<String>, V)>);

impl<V> Default for Pairs<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Pairs<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl File {
    /// Reads the file.
    pub(super) fn read(text: &str) -> Result<Self, YamlError> {
        let options = options! {
            // What looks like a Boolean or an octal number to one reader of YAML and not to another is a text.
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(&error))
    }
}

/// The error in one sentence, with what was probably meant.
fn explain(error: &Error) -> YamlError {
    let problem = match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => {
            let near = expected.iter().map(|known| (strsim::damerau_levenshtein(field, known), known)).min();
            match near {
                // Closer than a word of another meaning is.
                Some((distance, known)) if distance <= field.len() / 3 + 1 => {
                    format!("unknown key {field:?}: did you mean {known:?}?")
                }
                _ => format!("unknown key {field:?} (known: {})", expected.join(", ")),
            }
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} is there twice"),
        other => {
            let text = other.to_string();
            // The place is told apart.
            text.split(" at line ").next().unwrap_or_default().to_owned()
        }
    };
    let place = |of: fn(&serde_saphyr::Location) -> u64| {
        error.location().map_or(0, |location| u32::try_from(of(&location)).unwrap_or(u32::MAX))
    };
    YamlError {
        problem,
        line: place(serde_saphyr::Location::line),
        column: place(serde_saphyr::Location::column),
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asked for a string, the reader gives a plain scalar as it is written: 1.20 stays 1.20.
        String::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Reads a scalar or a list of them.
struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = (bool, Vec<String>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((false, vec![text.to_owned()]))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok((false, vec![number.to_string()]))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok((false, vec![number.to_string()]))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
        Err(E::custom(format!(
            "{number} is a number that can be written in several ways: put it into quotes"
        )))
    }

    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<Self::Value, E> {
        Err(E::custom(format!("{truth} is no text: put it into quotes if it is meant as one")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Text(one)) = list.next_element()? {
            all.push(one);
        }
        Ok((true, all))
    }
}

impl<'de> Deserialize<'de> for Many {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore).map(|(_, all)| Self(all))
    }
}

impl Serialize for Many {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore).map(|(list, mut all)| match all.pop() {
            Some(one) if !list => Self::Shell(one),
            last => Self::Exec(all.into_iter().chain(last).collect()),
        })
    }
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Shell(text) => text.serialize(serializer),
            Self::Exec(words) => words.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kinds;
        impl<'de> Visitor<'de> for Kinds {
            type Value = Argument;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a default, nothing, or a mapping with default and description")
            }

            fn visit_unit<E>(self) -> Result<Argument, E> {
                Ok(Argument::default())
            }

            fn visit_none<E>(self) -> Result<Argument, E> {
                Ok(Argument::default())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Argument, E> {
                Ok(Argument { default: Some(text.to_owned()), description: None })
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Argument, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Argument, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Argument, E> {
                OneOrMore.visit_f64(number).map(|_| Argument::default())
            }

            fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<Argument, E> {
                self.visit_str(if truth { "true" } else { "false" })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Argument, A::Error> {
                let mut argument = Argument::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "default" => argument.default = map.next_value::<Option<Text>>()?.map(|text| text.0),
                        "description" => argument.description = map.next_value()?,
                        other => return Err(A::Error::unknown_field(other, &["default", "description"])),
                    }
                }
                Ok(argument)
            }
        }
        deserializer.deserialize_any(Kinds)
    }
}

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Described<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            default: Option<&'a str>,
            description: &'a str,
        }
        match &self.description {
            None => self.default.serialize(serializer),
            Some(description) => {
                Described { default: self.default.as_deref(), description }.serialize(serializer)
            }
        }
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Pairs<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Pairs(all))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<V: Serialize> Serialize for Pairs<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (&key.value, value)))
    }
}
