//! JSON as Docker's `inspect` prints it: four blanks a level.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// The indented text of a value, with a newline at the end.
pub(crate) fn indented(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    ")))?;
    out.push(b'\n');
    // The serializer writes UTF-8 only.
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn levels_are_four_blanks() {
        let text = super::indented(&serde_json::json!([{"Id": "x", "Tags": []}])).expect("JSON");
        assert_eq!(text, "[\n    {\n        \"Id\": \"x\",\n        \"Tags\": []\n    }\n]\n");
    }
}
