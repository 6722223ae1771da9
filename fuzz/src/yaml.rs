//! Build files in YAML: read or refused with a place that is in the file, and what is read is a Dockerfile.

use onggi_build::yaml::BuildFile;

/// One text; what is none is nothing here.
pub fn feed(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = BuildFile::read(text) {
        assert!(!error.problem.is_empty());
        // A carriage return alone ends a line of YAML too.
        assert!(
            error.line as usize <= text.split(['\n', '\r']).count() + 1,
            "line {} of {text:?}",
            error.line
        );
    }
}

/// The examples of the documentation, which are what people begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = include_str!("../../docs/build-file.md")
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(|text| text.as_bytes().to_vec())
        .collect();
    seeds.extend(crate::texts(&[
        "stages:\n  a:\n    from: &b alpine\n    steps:\n      - run: [x, y]\n      - run: |\n          a\n          b\n",
        "stages: {a: {from: scratch, steps: [{env: {A: ${B:-c}, D: $$}}, {copy: x, to: /, chmod: 0755}]}}\n",
    ]));
    seeds
}
