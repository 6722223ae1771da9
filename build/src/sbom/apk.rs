//! Alpine's packages: paragraphs of `K:value`.

use super::{MAX_DATABASE, Package, Tree};

pub(super) fn packages(tree: &Tree<'_>, distribution: &str) -> Vec<Package> {
    let places = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
    let text = places.iter().find_map(|path| tree.text(path, MAX_DATABASE)).unwrap_or_default();
    text.split("\n\n").filter_map(|paragraph| package(paragraph, distribution)).collect()
}

fn package(paragraph: &str, distribution: &str) -> Option<Package> {
    let field = |key: &str| paragraph.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    Some(Package {
        kind: "apk",
        namespace: if distribution.is_empty() { "alpine".into() } else { distribution.to_owned() },
        name: field("P:")?,
        version: field("V:")?,
        architecture: field("A:").unwrap_or_default(),
        licence: field("L:").unwrap_or_default(),
    })
}
