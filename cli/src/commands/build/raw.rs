//! Progress as JSON: one status a line, as BuildKit's clients send it on.

use std::io::Write;

use super::watch::{Outcome, Show, Step};

/// Writes to the error stream.
#[derive(Debug)]
pub struct Raw;

impl Raw {
    fn vertex(step: &Step, error: Option<&str>) -> serde_json::Value {
        let now = jiff::Timestamp::now();
        let started =
            now.checked_sub(jiff::SignedDuration::try_from(step.began.elapsed()).unwrap_or_default());
        let mut vertex = serde_json::json!({
            "digest": digest(step),
            "name": step.name,
            "started": started.unwrap_or(now).to_string(),
        });
        if let Some(object) = vertex.as_object_mut() {
            if step.outcome != Outcome::Running {
                object.insert("completed".into(), now.to_string().into());
            }
            if step.outcome == Outcome::Cached {
                object.insert("cached".into(), true.into());
            }
            if let Some(error) = error {
                object.insert("error".into(), error.into());
            }
        }
        serde_json::json!({ "vertexes": [vertex] })
    }

    fn write(value: &serde_json::Value) {
        let _ = writeln!(std::io::stderr(), "{value}");
    }
}

/// A name for the step that nobody mistakes for another's.
fn digest(step: &Step) -> String {
    let text = format!("{}\n{}", step.vertex.0, step.name);
    onggi_engine::oci::Digest::sha256(text.as_bytes()).to_string()
}

/// Base64, as Go writes bytes in JSON.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            if place > three.len() {
                text.push('=');
            } else {
                let index = (bits >> (18 - 6 * place)) & 63;
                text.push(char::from(LETTERS[index as usize]));
            }
        }
    }
    text
}

impl Show for Raw {
    fn began(&mut self, step: &Step) {
        Self::write(&Self::vertex(step, None));
    }

    fn said(&mut self, step: &Step, bytes: &[u8]) {
        Self::write(&serde_json::json!({ "logs": [{
            "vertex": digest(step),
            "stream": 1,
            "data": base64(bytes),
            "timestamp": jiff::Timestamp::now().to_string(),
        }] }));
    }

    fn ended(&mut self, step: &Step, error: Option<&str>) {
        Self::write(&Self::vertex(step, error));
    }

    fn explained(&mut self, _: &Step) {}

    fn finish(&mut self, _: &[Step], _: usize) {}

    fn line(&mut self, text: &str) {
        Self::write(&serde_json::json!({ "warnings": [{ "short": base64(text.as_bytes()) }] }));
    }
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn bytes_are_written_as_go_writes_them() {
        for (bytes, text) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("abcd", "YWJjZA==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
