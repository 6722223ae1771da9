//! Packages of programming languages: lock files and what their installers leave, wherever in the tree.
//!
//! | file | of |
//! |---|---|
//! | `Cargo.lock`, `poetry.lock`, `uv.lock` | Rust, Python: TOML with `[[package]]` |
//! | `package-lock.json` | Node |
//! | `composer.lock` | PHP |
//! | `Gemfile.lock` | Ruby |
//! | `go.sum` | Go |
//! | `*.dist-info/METADATA` | Python, as installed |

use rustix::fs::FileType;
use serde::Deserialize;
use serde_json::Value;

use super::{MAX_LOCK, Package, Tree};

/// How deep below the root is looked.
const MAX_DEPTH: usize = 24;
/// How many directories are looked at: twice those of a large distribution.
const MAX_DIRECTORIES: usize = 200_000;
/// Trees of the kernel and of other machines' files.
const SKIPPED: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

pub(super) fn packages(tree: &Tree<'_>) -> Vec<Package> {
    let mut all = Vec::new();
    let mut waiting = vec![(String::new(), 0)];
    let mut seen = 0;
    while let Some((dir, depth)) = waiting.pop() {
        seen += 1;
        if seen > MAX_DIRECTORIES {
            break;
        }
        let listed = tree.list(if dir.is_empty() { "/" } else { &dir });
        for (name, kind) in listed {
            let path = format!("{dir}/{name}");
            match kind {
                FileType::Directory if depth < MAX_DEPTH && !SKIPPED.contains(&path.as_str()) => {
                    waiting.push((path, depth + 1));
                }
                FileType::RegularFile => {
                    if let Some(read) = reader(&dir, &name) {
                        all.extend(tree.text(&path, MAX_LOCK).map(|text| read(&text)).unwrap_or_default());
                    }
                }
                _ => {}
            }
        }
    }
    all
}

type Reader = fn(&str) -> Vec<Package>;

fn reader(dir: &str, name: &str) -> Option<Reader> {
    Some(match name {
        "Cargo.lock" => |text| toml_lock(text, "cargo"),
        "poetry.lock" | "uv.lock" => |text| toml_lock(text, "pypi"),
        "package-lock.json" => npm,
        "composer.lock" => composer,
        "Gemfile.lock" => gems,
        "go.sum" => go,
        "METADATA" if dir.ends_with(".dist-info") => python,
        _ => return None,
    })
}

fn package(kind: &'static str, name: &str, version: &str) -> Package {
    // `@scope/name` and `vendor/name`: what is before the last slash is the group.
    let (namespace, name) = name.rsplit_once('/').unwrap_or(("", name));
    Package {
        kind,
        namespace: namespace.into(),
        name: name.into(),
        version: version.into(),
        ..Package::default()
    }
}

fn toml_lock(text: &str, kind: &'static str) -> Vec<Package> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        name: String,
        version: Option<String>,
    }
    let lock: Option<Lock> = toml::from_str(text).ok();
    let entries = lock.map(|lock| lock.package).unwrap_or_default();
    entries.into_iter().filter_map(|entry| Some(package(kind, &entry.name, &entry.version?))).collect()
}

fn npm(text: &str) -> Vec<Package> {
    let Ok(lock) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    if let Some(packages) = lock["packages"].as_object() {
        let one = |(path, entry): (&String, &Value)| {
            let name =
                entry["name"].as_str().or_else(|| path.rsplit_once("node_modules/").map(|(_, name)| name));
            let mut found = package("npm", name.filter(|name| !name.is_empty())?, entry["version"].as_str()?);
            found.licence = entry["license"].as_str().unwrap_or_default().into();
            // The project itself is the first entry.
            (!path.is_empty()).then_some(found)
        };
        return packages.iter().filter_map(one).collect();
    }
    let of_old = lock["dependencies"].as_object();
    let of_old = of_old.into_iter().flatten();
    of_old.filter_map(|(name, entry)| Some(package("npm", name, entry["version"].as_str()?))).collect()
}

fn composer(text: &str) -> Vec<Package> {
    let Ok(lock) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let entries = ["packages", "packages-dev"].into_iter().filter_map(|key| lock[key].as_array()).flatten();
    entries
        .filter_map(|entry| Some(package("composer", entry["name"].as_str()?, entry["version"].as_str()?)))
        .collect()
}

/// `    name (version)` below `specs:`; what it depends on is indented further.
fn gems(text: &str) -> Vec<Package> {
    let specs =
        text.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with(' '));
    let gem = |line: &str| {
        let (name, version) = line.split_once(" (")?;
        Some(package("gem", name, version.strip_suffix(')')?))
    };
    specs.filter_map(gem).collect()
}

/// `module version hash`; of a module that is only asked for its own dependencies there is just the `go.mod`.
fn go(text: &str) -> Vec<Package> {
    let module = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        (!version.ends_with("/go.mod")).then(|| package("golang", name, version))
    };
    text.lines().filter_map(module).collect()
}

fn python(text: &str) -> Vec<Package> {
    let head = text.split("\n\n").next().unwrap_or_default();
    let field = |key: &str| head.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let (Some(name), Some(version)) = (field("Name:"), field("Version:")) else { return Vec::new() };
    let mut found = package("pypi", &name.to_lowercase().replace('_', "-"), version);
    found.licence = field("License-Expression:").or_else(|| field("License:")).unwrap_or_default().into();
    vec![found]
}
