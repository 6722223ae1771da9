//! The grammar of `--sbom`, `--provenance` and `--attest`, as buildx has it.

use onggi_engine::build::attest::{Attestations, Provenance, ProvenanceMode, ProvenanceVersion};

use super::values::{fields, truth};
use crate::failure::Failure;

/// All of them together; the last of a kind counts.
pub fn attestations(
    attest: &[String],
    sbom: Option<&str>,
    provenance: Option<&str>,
) -> Result<Attestations, Failure> {
    let mut all = Attestations::default();
    for text in attest {
        let bad = |why: String| Failure::Input(format!("invalid --attest {text:?}: {why}"));
        let fields = fields(text).map_err(bad)?;
        let kind = fields.iter().find(|(key, _)| key == "type").map(|(_, kind)| kind.clone());
        let rest = fields.into_iter().filter(|(key, _)| key != "type").collect();
        match kind.as_deref() {
            Some("sbom") => all.sbom = read_sbom(rest).map_err(bad)?,
            Some("provenance") => all.provenance = read_provenance(rest).map_err(bad)?,
            Some(other) => {
                return Err(bad(format!("the type {other} is unknown: known are sbom and provenance")));
            }
            None => return Err(bad("type is required".into())),
        }
    }
    if let Some(text) = sbom {
        let bad = |why: String| Failure::Input(format!("invalid --sbom={text}: {why}"));
        all.sbom = if text.contains('=') {
            read_sbom(fields(text).map_err(bad)?).map_err(bad)?
        } else {
            truth(text).map_err(bad)?
        };
    }
    if let Some(text) = provenance {
        let bad = |why: String| Failure::Input(format!("invalid --provenance={text}: {why}"));
        all.provenance = if text.contains('=') {
            read_provenance(fields(text).map_err(bad)?).map_err(bad)?
        } else {
            truth(text).map_err(bad)?.then(Provenance::default)
        };
    }
    Ok(all)
}

fn read_sbom(fields: Vec<(String, String)>) -> Result<bool, String> {
    let mut on = true;
    for (key, value) in fields {
        match key.as_str() {
            "disabled" => on = !truth(&value)?,
            "generator" => {
                return Err(
                    "generator is not supported: onggi reads the image's package databases itself".into()
                );
            }
            other => return Err(format!("the option {other} is not supported")),
        }
    }
    Ok(on)
}

fn read_provenance(fields: Vec<(String, String)>) -> Result<Option<Provenance>, String> {
    let (mut on, mut wish) = (true, Provenance::default());
    for (key, value) in fields {
        match (key.as_str(), value.as_str()) {
            ("disabled", text) => on = !truth(text)?,
            ("mode", "min") => wish.mode = ProvenanceMode::Min,
            ("mode", "max") => wish.mode = ProvenanceMode::Max,
            ("mode", other) => return Err(format!("the mode {other:?} is unknown: known are min and max")),
            ("version", "v0.2") => wish.version = ProvenanceVersion::V02,
            ("version", "v1") => wish.version = ProvenanceVersion::V1,
            ("version", other) => {
                return Err(format!("the version {other:?} is unknown: known are v0.2 and v1"));
            }
            ("builder-id", _) => wish.builder = value,
            (other, _) => return Err(format!("the option {other} is not supported")),
        }
    }
    Ok(on.then_some(wish))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_buildx_takes_is_taken() {
        let read = |attest: &[&str], sbom, provenance| {
            let attest: Vec<String> = attest.iter().map(|&text| text.to_owned()).collect();
            attestations(&attest, sbom, provenance).ok()
        };
        assert!(!read(&[], None, None).unwrap().any());
        assert!(read(&["type=sbom"], None, None).unwrap().sbom);
        assert!(!read(&["type=sbom"], Some("false"), None).unwrap().sbom);
        assert!(!read(&["type=provenance,disabled=true"], None, Some("false")).unwrap().any());
        let max =
            read(&[], None, Some("mode=max,version=v1,builder-id=https://b")).unwrap().provenance.unwrap();
        assert_eq!((max.mode, max.version), (ProvenanceMode::Max, ProvenanceVersion::V1));
        assert_eq!(max.builder, "https://b");
        for (sbom, provenance) in [
            (Some("generator=x"), None),
            (Some("maybe"), None),
            (None, Some("mode=most")),
            (None, Some("inline=x")),
        ] {
            assert_eq!(read(&[], sbom, provenance), None, "{sbom:?} {provenance:?}");
        }
        assert_eq!(read(&["type=vsa"], None, None), None);
    }
}
