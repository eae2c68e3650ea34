//! The files of a report.

use std::fs;
use std::path::Path;

use touchstone_report::{Report, ReportError, write_all};

use crate::snapshots::busy;

#[test]
fn files_are_written_and_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("new/out");
    let report = busy().report();
    for _ in 0..2 {
        let paths = write_all(&out, &report).expect("written");
        let names: Vec<_> = paths.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["report.json", "report.schema.json", "junit.xml", "summary.md"]);
        assert_eq!(fs::read_dir(&out).expect("the folder").count(), 4, "no drafts left");
    }
    let json = fs::read_to_string(out.join("report.json")).expect("a file");
    assert_eq!(serde_json::from_str::<Report>(&json).expect("a report"), report);
}

#[test]
fn trouble_names_the_path_and_leaves_no_draft() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("junit.xml")).expect("a folder in the way");
    let error = write_all(dir.path(), &busy().report()).expect_err("in the way");
    assert!(error.to_string().contains("junit.xml"), "{error}");
    let left = fs::read_dir(dir.path()).expect("the folder").count();
    assert_eq!(left, 3, "two reports and what was in the way");

    let file = dir.path().join("report.json");
    let error = write_all(&file, &busy().report()).expect_err("not a folder");
    assert!(matches!(&error, ReportError::Write { path, .. } if path == Path::new(&file)));
}
