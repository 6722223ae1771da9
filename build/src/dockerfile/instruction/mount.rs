//! `RUN --mount` and `RUN --device`.

use crate::dockerfile::lint::boolean;
use crate::dockerfile::problem::{Diagnostic, Lines, Problem};
use crate::dockerfile::words::ExpandError;
use crate::graph::{Device, Sharing};

/// The keys that are known, for "did you mean".
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the types say it")]
pub enum MountType {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl MountType {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// A `--mount`, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountType,
    /// A stage, image or context.
    pub from: Option<String>,
    /// The path there.
    pub source: Option<String>,
    /// Where.
    pub target: Option<String>,
    /// Whether it can only be read.
    pub read_only: bool,
    /// The cache, secret or agent.
    pub id: Option<String>,
    /// What several users of a cache do.
    pub sharing: Option<Sharing>,
    /// Whether it must be there.
    pub required: bool,
    /// The limit of a tmpfs in bytes.
    pub size: Option<u64>,
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// The variable of a secret.
    pub env: Option<String>,
}

/// Fields of one line of comma separated values.
pub(crate) fn fields(text: &str, what: &'static str) -> Result<Vec<String>, Problem> {
    let bad = || Problem::Csv { what, text: text.to_owned() };
    let mut all = Vec::new();
    let mut rest = text;
    if rest.is_empty() || rest.contains(['\n', '\r']) {
        return Err(bad());
    }
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) =
                rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            if field.contains('"') {
                return Err(bad());
            }
            all.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(all),
            }
            continue;
        };
        let mut field = String::new();
        let mut remaining = quoted;
        loop {
            let (part, after) = remaining.split_once('"').ok_or_else(bad)?;
            field.push_str(part);
            remaining = after;
            match remaining.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    remaining = after;
                }
                None => break,
            }
        }
        all.push(field);
        if remaining.is_empty() {
            return Ok(all);
        }
        rest = remaining.strip_prefix(',').ok_or_else(bad)?;
    }
}

/// The stage or image that a mount is from. It is needed before variables have values.
pub(crate) fn from(text: &str) -> Option<String> {
    let fields = fields(text, "mounts").ok()?;
    let value = |key: &str| {
        fields.iter().rev().find_map(|field| {
            let (name, value) = field.split_once('=')?;
            name.eq_ignore_ascii_case(key).then(|| value.to_owned())
        })
    };
    if value("type").is_some_and(|kind| kind.eq_ignore_ascii_case("tmpfs")) {
        return None;
    }
    value("from").filter(|from| !from.is_empty())
}

/// Refuses a mount that can't be read, or whose `from` has a variable.
pub(super) fn check_from(text: &str) -> Result<(), Problem> {
    for field in fields(text, "mounts")? {
        let Some((key, value)) = field.split_once('=') else { continue };
        let variable = value.find('$').is_some_and(|at| at + 1 < value.len());
        if key.eq_ignore_ascii_case("from") && variable {
            return Err(Problem::FromVariable { key: "from" });
        }
    }
    Ok(())
}

impl Mount {
    /// Reads a mount, whose values are expanded first.
    pub(crate) fn read(
        text: &str,
        lines: Lines,
        mut expand: impl FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<Self, Diagnostic> {
        let mut mount = Self::default();
        let mut read_only = None;
        let fail = |problem: Problem, word: &str| Diagnostic::at(problem, lines).with_word(word);
        for field in fields(text, "mounts").map_err(|problem| fail(problem, text))? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            let Some(value) = value else {
                match key.as_str() {
                    "readonly" | "ro" => read_only = Some(true),
                    "readwrite" | "rw" => read_only = Some(false),
                    "required" => mount.require(true, &key).map_err(|problem| fail(problem, &field))?,
                    _ => return Err(fail(Problem::Field { field: field.clone() }, &field)),
                }
                continue;
            };
            let value = expand(value).map_err(|error| fail(error.into(), &field))?;
            let truth = |value: &str| {
                boolean(value).ok_or_else(|| Problem::Value { key: key.clone(), value: value.to_owned() })
            };
            let set = |mount: &mut Self, read_only: &mut Option<bool>| -> Result<(), Problem> {
                let some = |value: &str| (!value.is_empty()).then(|| value.to_owned());
                match key.as_str() {
                    "type" => {
                        let lower = value.to_lowercase();
                        mount.kind = MountType::ALL
                            .into_iter()
                            .find(|kind| kind.name() == lower)
                            .ok_or_else(|| Problem::MountType { kind: value.clone() })?;
                    }
                    "from" => mount.from = some(&value),
                    "source" | "src" => mount.source = some(&value),
                    "target" | "dst" | "destination" => mount.target = some(&value),
                    "readonly" | "ro" => *read_only = Some(truth(&value)?),
                    "readwrite" | "rw" => *read_only = Some(!truth(&value)?),
                    "required" => mount.require(truth(&value)?, &key)?,
                    "size" if mount.kind == MountType::Tmpfs => {
                        let size = size(&value)
                            .ok_or_else(|| Problem::Value { key: key.clone(), value: value.clone() })?;
                        mount.size = Some(size);
                    }
                    "size" => {
                        return Err(Problem::KeyOfType { key: key.clone(), kind: mount.kind.name() });
                    }
                    "id" => mount.id = some(&value),
                    "sharing" => {
                        mount.sharing = Some(match value.to_lowercase().as_str() {
                            "shared" => Sharing::Shared,
                            "private" => Sharing::Private,
                            "locked" => Sharing::Locked,
                            _ => return Err(Problem::Sharing { value: value.clone() }),
                        });
                    }
                    "mode" => mount.mode = Some(number("mode", &value, 8)?),
                    "uid" => mount.uid = Some(number("uid", &value, 10)?),
                    "gid" => mount.gid = Some(number("gid", &value, 10)?),
                    "env" => mount.env = some(&value),
                    _ => return Err(Problem::Key { key: key.clone(), field: field.clone() }),
                }
                Ok(())
            };
            set(&mut mount, &mut read_only).map_err(|problem| {
                let kinds = MountType::ALL.map(MountType::name);
                let found = fail(problem, &field);
                match &*found.problem {
                    Problem::MountType { .. } => found.suggest(&value, kinds, false),
                    Problem::Sharing { .. } => found.suggest(&value, ["shared", "private", "locked"], false),
                    Problem::Key { .. } => found.suggest(&key, KEYS, false),
                    _ => found,
                }
            })?;
        }
        mount.check(read_only).map_err(|problem| fail(problem, text))?;
        Ok(mount)
    }

    fn require(&mut self, required: bool, key: &str) -> Result<(), Problem> {
        if !matches!(self.kind, MountType::Secret | MountType::Ssh) {
            return Err(Problem::KeyOfType { key: key.to_owned(), kind: self.kind.name() });
        }
        self.required = required;
        Ok(())
    }

    /// What a mount of its type may say.
    fn check(&mut self, read_only: Option<bool>) -> Result<(), Problem> {
        let kind = self.kind.name();
        if matches!(self.kind, MountType::Bind | MountType::Tmpfs) {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
                return Err(Problem::NotAllowed { key, kind });
            }
        }
        if self.env.is_some() && self.kind != MountType::Secret {
            return Err(Problem::NotAllowed { key: "env", kind });
        }
        self.read_only = read_only.unwrap_or(!matches!(self.kind, MountType::Cache | MountType::Tmpfs));
        if self.kind == MountType::Secret {
            if self.from.is_some() {
                return Err(Problem::SecretFrom);
            }
            if self.sharing.is_some() {
                return Err(Problem::SecretSharing);
            }
            if self.source.is_none() && self.target.is_none() && self.id.is_none() {
                return Err(Problem::SecretNothing);
            }
            if self.source.is_some() && self.id.is_some() {
                return Err(Problem::SecretBoth);
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return Err(Problem::SharingOfType { kind });
        }
        Ok(())
    }
}

fn number(key: &'static str, value: &str, radix: u32) -> Result<u32, Problem> {
    // Rust takes a sign, Go doesn't.
    if value.starts_with('+') {
        return Err(Problem::Number { key, value: value.to_owned() });
    }
    u32::from_str_radix(value, radix).map_err(|_| Problem::Number { key, value: value.to_owned() })
}

/// Bytes as people write them: `64m`, `1.5GiB`, `100`.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.trim_start().trim_end_matches("ib").trim_end_matches('b');
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let (whole, fraction) = number.split_once('.')?;
    let digits = fraction.get(..fraction.len().min(9))?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let parts: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let part = (parts << shift) / 10_u128.pow(u32::try_from(digits.len()).ok()?);
    whole.checked_mul(1 << shift)?.checked_add(u64::try_from(part).ok()?)
}

/// Reads a device: `vendor/class=name,required`.
pub(super) fn device(text: &str, lines: Lines) -> Result<Device, Diagnostic> {
    let fail = |problem: Problem| Diagnostic::at(problem, lines).with_word(text);
    let mut name: Option<String> = None;
    let mut required = false;
    for field in fields(text, "devices").map_err(fail)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value, &name) {
            ("required", None, _) => required = true,
            ("required", Some(value), _) => {
                required = boolean(value)
                    .ok_or_else(|| fail(Problem::Value { key: key.clone(), value: value.to_owned() }))?;
            }
            ("name", Some(_), Some(first)) => return Err(fail(Problem::DeviceName { name: first.clone() })),
            ("name", Some(value), None) => name = Some(value.to_owned()),
            (_, _, None) => name = Some(field),
            (_, None, Some(_)) => return Err(fail(Problem::Field { field })),
            (_, Some(_), Some(_)) => {
                return Err(fail(Problem::Key { key: key.clone(), field }).suggest(
                    &key,
                    ["name", "required"],
                    false,
                ));
            }
        }
    }
    Ok(Device { name: name.unwrap_or_default(), optional: !required })
}
