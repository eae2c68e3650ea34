//! Writing the reports of a run into its folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Report, junit, markdown, report_json, report_schema};

/// Trouble with making or writing a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A report cannot be written as JSON.
    #[error("failed to encode {what}")]
    Json {
        /// File name.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A report cannot be written as XML.
    #[error("failed to encode junit.xml")]
    Xml {
        /// Why.
        source: Box<quick_junit::SerializeError>,
    },
    /// A file or folder cannot be written.
    #[error("failed to write {path}{}", remedy(source))]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Names of the files that [`write_all`] writes.
pub const REPORT_FILES: [&str; 4] =
    ["report.json", "report.schema.json", "junit.xml", "summary.md"];

/// Writes `report.json`, `report.schema.json`, `junit.xml` and `summary.md` into a folder, which
/// is made where it is missing, and gives back their paths.
///
/// A reader sees the former file or the new one, never a part.
///
/// # Errors
/// When a report cannot be encoded, or a file cannot be written; files written before stay.
pub fn write_all(dir: &Path, report: &Report) -> Result<Vec<PathBuf>, ReportError> {
    let texts = [report_json(report)?, report_schema()?, junit(report)?, markdown(report)];
    fs::create_dir_all(dir)
        .map_err(|source| ReportError::Write { path: dir.to_owned(), source })?;
    let mut written = Vec::new();
    for (name, text) in REPORT_FILES.into_iter().zip(texts) {
        let path = dir.join(name);
        let draft = dir.join(format!(".{name}.{}", std::process::id()));
        let outcome = replace(&draft, &path, text.as_bytes());
        if let Err(source) = outcome {
            // The draft may not even exist; what matters is the first trouble.
            let _ = fs::remove_file(&draft);
            return Err(ReportError::Write { path, source });
        }
        written.push(path);
    }
    Ok(written)
}

/// Writes a draft and puts it in a file's place.
fn replace(draft: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(draft, path)
}

/// What a user can do about it, where that is known.
fn remedy(source: &io::Error) -> &'static str {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kind = source.kind();
    if [StorageFull, QuotaExceeded].contains(&kind) {
        "; free some space, then make the reports again from the run's log with \
         `touchstone report`"
    } else if [PermissionDenied, ReadOnlyFilesystem].contains(&kind) {
        "; name a folder that can be written with --out"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_the_remedy() {
        let full = ReportError::Write {
            path: "out/report.json".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        assert_eq!(
            full.to_string(),
            "failed to write out/report.json; free some space, then make the \
             reports again from the run's log with `touchstone report`"
        );
    }

    #[test]
    fn a_full_device_is_told_from_other_trouble() {
        let full = File::create("/dev/full").and_then(|mut file| file.write_all(b"x"));
        let source = full.expect_err("never has room");
        assert!(remedy(&source).contains("free some space"), "{source}");
    }
}
