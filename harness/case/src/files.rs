//! Reading of files: the bundled ones and a user's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use include_dir::{Dir, DirEntry, include_dir};

use crate::error::Source;
use crate::{CaseError, CaseErrors, Place};

static BUNDLED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../cases");

/// A YAML file below a directory of cases.
#[derive(Debug)]
pub(crate) struct Found {
    /// Path below the directory, with `/` and without the extension.
    pub(crate) stem: String,
    pub(crate) source: Source,
}

/// The files that are part of the binary.
pub(crate) fn bundled() -> Result<Vec<Found>, CaseErrors> {
    fn walk(dir: &Dir<'_>, found: &mut Vec<Found>, errors: &mut Vec<CaseError>) {
        for entry in dir.entries() {
            match entry {
                DirEntry::Dir(dir) => walk(dir, found, errors),
                DirEntry::File(file) => {
                    let Some(stem) = stem(file.path()) else {
                        continue;
                    };
                    let name = format!("cases/{stem}.yaml");
                    match file.contents_utf8() {
                        Some(text) => found.push(Found {
                            stem,
                            source: Source { file: name, text: Arc::from(text) },
                        }),
                        None => errors.push(unreadable(&name, "it is not UTF-8")),
                    }
                }
            }
        }
    }
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    walk(&BUNDLED, &mut found, &mut errors);
    if errors.is_empty() { Ok(found) } else { Err(CaseErrors(errors)) }
}

/// Every YAML file below a directory, in the order of names.
pub(crate) fn below(root: &Path) -> Result<Vec<Found>, CaseErrors> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<Found>, errors: &mut Vec<CaseError>) {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                errors.push(unreadable(&dir.display().to_string(), &error.to_string()));
                return;
            }
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(error) => {
                    errors.push(unreadable(&dir.display().to_string(), &error.to_string()));
                }
            }
        }
        paths.sort();
        for path in paths {
            if path.is_dir() {
                walk(root, &path, found, errors);
            } else if let Some(stem) = path.strip_prefix(root).ok().and_then(stem) {
                match read(&path) {
                    Ok(source) => found.push(Found { stem, source }),
                    Err(error) => errors.push(error),
                }
            }
        }
    }
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    walk(root, root, &mut found, &mut errors);
    if errors.is_empty() { Ok(found) } else { Err(CaseErrors(errors)) }
}

/// One file.
pub(crate) fn read(path: &Path) -> Result<Source, CaseError> {
    let file = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => Ok(Source { file, text: Arc::from(text) }),
        Err(error) => Err(unreadable(&file, &error.to_string())),
    }
}

/// `area/name` of a path below a directory of cases; none when it is no YAML file.
pub(crate) fn stem(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let stem = text.strip_suffix(".yaml").or_else(|| text.strip_suffix(".yml"))?;
    Some(stem.replace('\\', "/"))
}

fn unreadable(file: &str, why: &str) -> CaseError {
    let source = Source { file: file.to_owned(), text: Arc::from("") };
    CaseError::new(&source, Place::default(), format!("failed to read the file: {why}"))
}
