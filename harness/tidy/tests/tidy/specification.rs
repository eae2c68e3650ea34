//! The specification is finished: no drafts, and nothing binding without a case or a reason.

use touchstone_case::Library;
use touchstone_spec::Level;

use crate::project::{no_complaints, sources};

/// The word of a row that nobody has written yet.
const DRAFT: &str = concat!("DR", "AFT");

#[test]
fn no_behaviour_is_a_draft() {
    let all = sources();
    let files: Vec<_> = all
        .iter()
        .filter(|source| source.path.starts_with("cases/") && source.path.ends_with(".yaml"))
        .collect();
    assert!(files.iter().any(|source| source.path == "cases/behaviours.yaml"));
    let mut complaints = Vec::new();
    for file in files {
        for (at, line) in file.text.lines().enumerate() {
            if line.contains(DRAFT) {
                complaints.push(format!("{}:{}: {}", file.path, at + 1, line.trim()));
            }
        }
    }
    no_complaints("drafts", &complaints);
}

#[test]
fn whatever_binds_has_a_case_or_a_reason() {
    let library = Library::bundled().expect("the bundled cases are right");
    let all = library.specification(&[]).expect("all of it");
    let open: Vec<String> = all
        .iter()
        .filter(|one| match one.behaviour.level {
            Level::Must | Level::Should => true,
            Level::May | Level::Survey => false,
        })
        .filter(|one| one.cases.is_empty() && one.behaviour.uncovered.is_none())
        .map(|one| format!("{} ({})", one.id, one.behaviour.level))
        .collect();
    no_complaints("behaviours with neither a case nor `uncovered`", &open);
}
