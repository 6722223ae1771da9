//! The values that templates compute with, and how Go prints them.
//!
//! Docker evaluates templates over Go structs, onggi over JSON. The difference shows where
//! something is absent: a struct without the field is an error, a map without the key is
//! `<no value>`; an absent list prints as `[]`, an absent map as `map[]`. The names of
//! Docker's fields tell which is which ([`Shape`]).

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

/// What a field of Docker's is when JSON alone doesn't say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Fixed fields; any other name is an error.
    Struct,
    /// Keys are data.
    Map,
    /// Only matters where the value is `null`.
    List,
}

impl Shape {
    /// The shape of the value of a field with this name.
    pub(super) fn of_field(name: &str) -> Self {
        match name {
            "Annotations" | "Attributes" | "BuildArgs" | "Containers" | "Data" | "DriverOpts"
            | "ExposedPorts" | "GraphDriverData" | "Labels" | "LogOpts" | "Networks" | "Options"
            | "PortBindings" | "Ports" | "StorageOpt" | "Sysctls" | "Tmpfs" | "Volumes" | "annotations"
            | "labels" => Self::Map,
            "Args" | "Binds" | "CapAdd" | "CapDrop" | "Cmd" | "Config" | "DeviceRequests" | "Devices"
            | "Dns" | "DnsOptions" | "DnsSearch" | "Entrypoint" | "Env" | "ExecIDs" | "ExtraHosts"
            | "GroupAdd" | "Layers" | "Links" | "MaskedPaths" | "Mounts" | "OnBuild" | "ReadonlyPaths"
            | "RepoDigests" | "RepoTags" | "SecurityOpt" | "Shell" | "Ulimits" | "VolumesFrom" => Self::List,
            _ => Self::Struct,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Datum<'a> {
    /// A key that a map doesn't have.
    Missing,
    /// `null`, or the constant `nil`.
    Nil(Shape),
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Cow<'a, str>),
    List(&'a [Value]),
    /// The result of `split`.
    Words(Vec<String>),
    Object(&'a Map<String, Value>, Shape),
}

impl<'a> Datum<'a> {
    pub(super) fn from_json(value: &'a Value, shape: Shape) -> Self {
        match value {
            Value::Null => Self::Nil(shape),
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Self::Int(int.into()),
                (_, Some(int)) => Self::Int(int.into()),
                _ => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Array(items) => Self::List(items),
            Value::Object(map) => Self::Object(map, if shape == Shape::Map { shape } else { Shape::Struct }),
        }
    }

    /// The name that Go's errors and `%T` give the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil(_) => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(items) if !items.is_empty() && items.iter().all(Value::is_string) => "[]string",
            Self::List(_) => "[]interface {}",
            Self::Words(_) => "[]string",
            Self::Object(_, Shape::Map) => "map[string]interface {}",
            Self::Object(..) => "object",
        }
    }

    /// What `if` and `with` go by: everything but zero, `false`, nothing and empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Missing | Self::Nil(_) => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Words(words) => !words.is_empty(),
            Self::Object(map, shape) => *shape == Shape::Struct || !map.is_empty(),
        }
    }

    pub(super) fn is_nil(&self) -> bool {
        matches!(self, Self::Missing | Self::Nil(_))
    }

    /// The items of a list; `None` for everything else.
    pub(super) fn items(&self) -> Option<Vec<Datum<'a>>> {
        match self {
            Self::List(items) => {
                Some(items.iter().map(|item| Datum::from_json(item, Shape::Struct)).collect())
            }
            Self::Words(words) => {
                Some(words.iter().map(|word| Datum::Text(Cow::Owned(word.clone()))).collect())
            }
            Self::Nil(Shape::List) => Some(Vec::new()),
            _ => None,
        }
    }

    /// The fields of an object with their values, in the order of its own (struct) or sorted (map).
    pub(super) fn fields(&self) -> Option<Vec<(&'a str, Datum<'a>)>> {
        let Self::Object(map, shape) = self else { return None };
        let mut fields: Vec<_> = map
            .iter()
            .map(|(key, value)| {
                let inner = if *shape == Shape::Map { Shape::Struct } else { Shape::of_field(key) };
                (key.as_str(), Datum::from_json(value, inner))
            })
            .collect();
        if *shape == Shape::Map {
            fields.sort_by_key(|(key, _)| *key);
        }
        Some(fields)
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Missing | Self::Nil(_) => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(int), _) => int.into(),
                (_, Ok(int)) => int.into(),
                _ => Value::Null,
            },
            Self::Float(value) => (*value).into(),
            Self::Text(text) => text.as_ref().into(),
            Self::List(items) => Value::Array(items.to_vec()),
            Self::Words(words) => words.clone().into(),
            Self::Object(map, _) => Value::Object((*map).clone()),
        }
    }
}

/// As Go prints a value: `%v`.
impl fmt::Display for Datum<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::printf::plain(self))
    }
}
