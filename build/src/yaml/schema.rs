//! The JSON schema of `onggi.yaml`, for editors.

/// The schema, draft 2020-12.
pub fn schema() -> &'static str {
    include_str!("schema.json")
}
