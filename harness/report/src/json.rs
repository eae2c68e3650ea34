//! `report.json` and its schema.

use crate::{Report, ReportError};

/// The report as indented JSON, with a line feed at its end.
///
/// # Errors
/// When the report cannot be written as JSON.
pub fn report_json(report: &Report) -> Result<String, ReportError> {
    pretty(report, "report.json")
}

/// The JSON Schema of `report.json`, made from the types it is written from.
///
/// # Errors
/// When the schema cannot be written as JSON.
pub fn report_schema() -> Result<String, ReportError> {
    pretty(&schemars::schema_for!(Report), "report.schema.json")
}

fn pretty(value: &impl serde::Serialize, what: &'static str) -> Result<String, ReportError> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|source| ReportError::Json { what, source })?;
    text.push('\n');
    Ok(text)
}
