//! What the documents say of the project is true.

use crate::project::{Source, members, no_complaints, root, sources_ending};

/// Lines outside code blocks, with their numbers.
fn prose(document: &Source) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (at, line) in document.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push((at + 1, line));
        }
    }
    lines
}

/// Targets of the links in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

/// Code spans in a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn relative_links_resolve() {
    let root = root();
    let mut complaints = Vec::new();
    for document in sources_ending(".md") {
        let at = root.join(&document.path);
        let folder = at.parent().expect("a file is in a folder");
        for (number, line) in prose(&document) {
            for link in links(line) {
                let path = link.split('#').next().unwrap_or_default();
                let elsewhere = link.contains("://") || link.starts_with("mailto:");
                if !elsewhere && !path.is_empty() && !folder.join(path).exists() {
                    complaints.push(format!("{}:{number}: {link}", document.path));
                }
            }
        }
    }
    no_complaints("links that lead nowhere", &complaints);
}

/// In ARCHITECTURE.md a line that begins so names tests: a file, then functions or titles in it.
const CHECKED_BY: &str = "Checked by";

#[test]
fn the_map_has_every_crate_and_its_tests_exist() {
    let documents = sources_ending("ARCHITECTURE.md");
    let map = documents.first().expect("there is a map");
    let mut complaints = Vec::new();
    for member in members().values() {
        if !map.text.contains(&format!("`{}`", member.folder)) {
            complaints.push(format!("harness/{} is not on it", member.folder));
        }
    }
    let mut promises = 0;
    for (number, line) in prose(map) {
        let Some(promise) = line.trim_start().strip_prefix(CHECKED_BY) else {
            continue;
        };
        promises += 1;
        let mut file = None;
        for span in spans(promise) {
            if span.ends_with(".rs") {
                let text = std::fs::read_to_string(root().join(span));
                file = text.map_err(|error| complaints.push(format!("{span}: {error}"))).ok();
            } else if file.as_ref().is_none_or(|text| !text.contains(span)) {
                complaints.push(format!("line {number}: no test {span} in the file before it"));
            }
        }
    }
    assert!(promises >= 8, "only {promises} lines begin with {CHECKED_BY}");
    assert!(map.text.lines().count() < 300, "the map has 300 lines or more");
    no_complaints("ARCHITECTURE.md", &complaints);
}
