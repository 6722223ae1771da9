//! The list as an SPDX 2.3 document.

use onggi_oci::Digest;
use serde_json::{Value, json};

use super::Package;

/// What the list is of.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The image's name.
    pub name: &'a str,
    /// Its manifest.
    pub digest: &'a Digest,
    /// When it was made, RFC 3339.
    pub created: &'a str,
    /// Which program made the list, with its version: `onggi-1.0`.
    pub tool: &'a str,
}

/// The document. Of the same packages and subject it is the same.
pub fn document(subject: &Subject<'_>, packages: &[Package]) -> Value {
    let image = "SPDXRef-Image";
    let mut entries = vec![json!({
        "SPDXID": image,
        "name": subject.name,
        "versionInfo": subject.digest,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
    })];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", image)];
    for (number, package) in packages.iter().enumerate() {
        let id = format!("SPDXRef-Package-{}-{number}", package.kind);
        relationships.push(relationship(image, "CONTAINS", &id));
        let mut entry = json!({
            "SPDXID": id,
            "name": package.name,
            "versionInfo": package.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            // What a package says is not always an expression of SPDX.
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": package.url(),
            }],
        });
        if !package.licence.is_empty() {
            entry["licenseComments"] = json!(format!("declared by the package: {}", package.licence));
        }
        entries.push(entry);
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": format!("https://onggi.invalid/spdx/{}", subject.digest.hex()),
        "creationInfo": { "created": subject.created, "creators": [format!("Tool: {}", subject.tool)] },
        "packages": entries,
        "relationships": relationships,
    })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}
