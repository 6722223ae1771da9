//! What `ls` commands print: rows through `--format`, a table otherwise.
//!
//! ```text
//!   --format            output
//!   (none), table       the command's own table
//!   table {{.ID}}\t…    a table of these columns, with their headings
//!   json                one JSON object a line
//!   {{.ID}}: …          the template for each row
//! ```

use std::collections::BTreeMap;

use serde_json::Value;

use super::human;
use super::table;
use super::template::{Error, Template};

/// A column that a listing knows: its field in templates and its heading in tables.
pub(crate) type Column = (&'static str, &'static str);

/// How a kind of thing is listed.
pub(crate) struct Listing {
    /// All fields that a row has and that have a heading.
    pub(crate) columns: &'static [Column],
    /// The fields of the table that is printed without `--format`, tab-separated template.
    pub(crate) table: &'static str,
}

impl Listing {
    /// The text for these rows. A row is an object with Docker's field names.
    pub(crate) fn render(&self, format: Option<&str>, rows: &[Value]) -> Result<String, Error> {
        let format = format.unwrap_or("table");
        if format == "json" {
            return Ok(rows.iter().flat_map(|row| [row.to_string(), "\n".to_owned()]).collect());
        }
        let Some(columns) = format.strip_prefix("table") else {
            return Self::lines(&Template::parse(&unescaped(format))?, rows, Clone::clone);
        };
        let columns = match columns.trim_matches(' ') {
            "" => self.table,
            columns => columns,
        };
        let template = Template::parse(&unescaped(columns))?;
        let headings: BTreeMap<_, _> = self.columns.iter().copied().collect();
        let header = template.render_header(&headings)?;
        let body = Self::lines(&template, rows, visible)?;
        Ok(table::align(&format!("{header}\n{body}")))
    }

    fn lines(template: &Template, rows: &[Value], prepare: fn(&Value) -> Value) -> Result<String, Error> {
        let mut out = String::new();
        for row in rows {
            out.push_str(&template.render(&prepare(row))?);
            out.push('\n');
        }
        Ok(out)
    }
}

/// `\t` and `\n` in a format stand for the characters: a shell passes them on as written.
fn unescaped(format: &str) -> String {
    format.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n")
}

/// A row for a table: what comes from an image or a registry must not steer the terminal or break the columns.
fn visible(row: &Value) -> Value {
    match row {
        Value::String(text) => human::visible(text).into_owned().into(),
        Value::Array(items) => items.iter().map(visible).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), visible(value))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Listing;

    const LISTING: Listing = Listing {
        columns: &[("Name", "NAME"), ("DockerEndpoint", "DOCKER ENDPOINT"), ("Error", "ERROR")],
        table: "{{.Name}}\t{{.DockerEndpoint}}",
    };

    fn rows() -> Vec<Value> {
        vec![
            json!({"Name": "default", "DockerEndpoint": "unix:///var/run/docker.sock", "Current": true, "Error": ""}),
            json!({"Name": "foo", "DockerEndpoint": "tcp://h:1", "Current": false, "Error": ""}),
        ]
    }

    /// Expectations are what `docker context ls` printed for the same two contexts.
    #[test]
    fn formats_are_as_dockers() {
        let list = |format: &str| LISTING.render(Some(format), &rows()).map_err(|error| error.to_string());
        let table = "NAME      DOCKER ENDPOINT\ndefault   unix:///var/run/docker.sock\nfoo       tcp://h:1\n";
        assert_eq!(list(r"table {{.Name}}\t{{.DockerEndpoint}}").as_deref(), Ok(table));
        assert_eq!(list("table").as_deref(), Ok(table));
        assert_eq!(LISTING.render(None, &rows()).as_deref(), Ok(table));
        assert_eq!(list(r"{{.Name}}\t{{.Current}}").as_deref(), Ok("default\ttrue\nfoo\tfalse\n"));
        assert_eq!(list("table {{json .Name}}").as_deref(), Ok("NAME\n\"default\"\n\"foo\"\n"));
        assert_eq!(list("table {{.Name | upper}}").as_deref(), Ok("NAME\nDEFAULT\nFOO\n"));
        assert_eq!(list("table {{pad .Name 1 2}}").as_deref(), Ok(" NAME  \n default  \n foo  \n"));
        assert_eq!(list("table {{printf \"%s!\" .Name}}").as_deref(), Ok("NAME!\ndefault!\nfoo!\n"));
        assert_eq!(list("table {{.Name}} {{len .Name}}").as_deref(), Ok("NAME 4\ndefault 7\nfoo 3\n"));
        assert_eq!(
            list(r"table {{if .Current}}*{{end}}\t{{.Name}}").as_deref(),
            Ok("          NAME\n*         default\n          foo\n")
        );
        assert_eq!(list("  table {{.Name}}").as_deref(), Ok("table default\ntable foo\n"));
        assert_eq!(list("raw").as_deref(), Ok("raw\nraw\n"));
        assert_eq!(list("table {{truncate .Name 2}}|").as_deref(), Ok("NAME|\nde|\nfo|\n"));
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = LISTING.render(Some("json"), &rows()).expect("rows");
        let parsed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(parsed, rows());
    }

    #[test]
    fn an_unknown_field_is_an_error_with_rows_and_without() {
        let format = Some(r"table {{.Name}}\t{{.Nope}}");
        let error = LISTING.render(format, &rows()).expect_err("no such field");
        assert!(error.to_string().contains("can't evaluate field Nope"), "{error}");
        assert_eq!(LISTING.render(None, &[]).as_deref(), Ok("NAME      DOCKER ENDPOINT\n"));
    }

    #[test]
    fn a_name_cannot_steer_the_terminal_from_a_table() {
        let rows = [json!({"Name": "x\x1b[2J\ty", "DockerEndpoint": "e"})];
        let text = LISTING.render(None, &rows).expect("rows");
        assert_eq!(text.lines().nth(1), Some(r"x\u{1b}[2J\u{9}y   e"));
    }
}
