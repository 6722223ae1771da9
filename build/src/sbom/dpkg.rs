//! Debian's packages: paragraphs of `Key: value`.

use super::{MAX_DATABASE, Package, Tree};

pub(super) fn packages(tree: &Tree<'_>, distribution: &str) -> Vec<Package> {
    let mut texts: Vec<String> = tree.text("/var/lib/dpkg/status", MAX_DATABASE).into_iter().collect();
    // Images without dpkg keep one file a package.
    for (name, _) in tree.list("/var/lib/dpkg/status.d") {
        if !name.ends_with(".md5sums") {
            texts.extend(tree.text(&format!("/var/lib/dpkg/status.d/{name}"), MAX_DATABASE));
        }
    }
    texts
        .iter()
        .flat_map(|text| text.split("\n\n"))
        .filter_map(|paragraph| package(paragraph, distribution))
        .collect()
}

fn package(paragraph: &str, distribution: &str) -> Option<Package> {
    let field = |key: &str| {
        let line = paragraph.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    // Removed packages leave their configuration behind.
    if field("Status").is_some_and(|status| !status.ends_with(" installed")) {
        return None;
    }
    Some(Package {
        kind: "deb",
        namespace: if distribution.is_empty() { "debian".into() } else { distribution.to_owned() },
        name: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture").unwrap_or_default(),
        licence: String::new(),
    })
}
