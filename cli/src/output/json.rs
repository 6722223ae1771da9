//! JSON as Docker's `inspect` prints it: four blanks a level.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::template::Template;
use crate::failure::Failure;

/// The indented text of a value, with a newline at the end.
pub(crate) fn indented(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    ")))?;
    out.push(b'\n');
    // The serializer writes UTF-8 only.
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// What an `inspect` prints of these objects: all in one list, or one line each through `--format`.
pub(crate) fn objects(format: Option<&str>, values: &[Value]) -> Result<String, Failure> {
    match format.unwrap_or_default() {
        "" => indented(&values).map_err(|error| Failure::Input(error.to_string())),
        "json" => Ok(values.iter().map(|value| format!("{value}\n")).collect()),
        text => {
            let template = Template::parse(text).map_err(Failure::template)?;
            let line = |value| template.render(value).map(|line| line + "\n");
            values.iter().map(line).collect::<Result<String, _>>().map_err(Failure::template)
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn levels_are_four_blanks() {
        let text = super::indented(&serde_json::json!([{"Id": "x", "Tags": []}])).expect("JSON");
        assert_eq!(text, "[\n    {\n        \"Id\": \"x\",\n        \"Tags\": []\n    }\n]\n");
    }
}
