//! JSON Schemas for editors.

use crate::CaseFile;

/// The JSON Schema of a case file.
#[must_use]
pub fn case_schema() -> serde_json::Value {
    schemars::schema_for!(CaseFile).to_value()
}
